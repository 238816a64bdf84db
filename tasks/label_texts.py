"""Label texts: which are numbers, and which are hard to tell apart."""

import contextlib
import math
import re
import unicodedata


def is_number(text):
    """Whether a text is a finite decimal number in ASCII digits."""
    # float() also takes digits of other scripts, and underscores.
    if re.fullmatch(r"[0-9.eE+-]+", text):
        with contextlib.suppress(ValueError):
            return math.isfinite(float(text))
    return False


def similar_labels(labels):
    """Groups labels that differ only in case, white space, Unicode or number format.

    Such as "good" and "Good "; or "1", "1.0" and "01". Takes distinct labels; returns a
    list of lists of at least two.
    """
    groups: dict[str | float, list[str]] = {}
    for label in labels:
        # casefold() does not preserve normalization.
        folded = unicodedata.normalize("NFC", label).casefold()
        key = " ".join(unicodedata.normalize("NFC", folded).split())
        groups.setdefault(float(key) if is_number(key) else key, []).append(label)
    return [group for group in groups.values() if len(group) > 1]
