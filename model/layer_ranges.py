"""Layer ranges: layers of a model as text such as "0,2-3", counted from 0."""

import re

from errors import UserError


def parse_layers(field, text, num_layers):
    """Parses `text`, the value of a field, such as "8-11" or "0,2-3".

    Returns:
      Tuple of ints, ascending.

    Raises:
      UserError: the format is wrong, or a layer is not below `num_layers`.
    """
    layers = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        first, last = (int(n or match[1]) for n in match.groups()) if match else (1, 0)
        if not first <= last < num_layers:
            raise UserError(
                "`%s`=%.80s: %r is not a layer or range of layers of this model; "
                "allowed are 0 to %d, such as %s"
                % (field, text, part[:80], num_layers - 1, "0,2-%d" % (num_layers - 1))
            )
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def format_layers(layers):
    """Formats ascending layers for `parse_layers`."""
    parts = []
    for layer in layers:
        if parts and parts[-1][1] == layer - 1:
            parts[-1][1] = layer
        else:
            parts.append([layer, layer])
    return ",".join("%d-%d" % (a, b) if a < b else "%d" % a for a, b in parts)
