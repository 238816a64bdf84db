"""Formatting of numbers and names in messages."""

import difflib
import re

_MAX_LENGTH = 40  # characters


def thousands(number):
    """A whole number with thousands separators; a huge one as "10^99"."""
    text = "{:,}".format(number)
    return text if len(text) <= _MAX_LENGTH else "10^%d" % (len(str(number)) - 1)


def pluralize(count, noun):
    """A count with its noun: "1 row", "2 rows"."""
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")


def list_names(names):
    """The first twenty names, printable."""
    names = list(names)
    shown = ", ".join("%.80r" % name for name in names[:20])
    return shown + ", ... (%d in all)" % len(names) if len(names) > 20 else shown


def suggest(name, names):
    """ " (did you mean NAME?)", preferably with a completion of `name`; or ""."""
    by_key, key = {_key(each): each for each in names}, _key(name)
    similar = [each for each in by_key if key and each.startswith(key)]
    similar = similar or difflib.get_close_matches(key, by_key, 1)
    return " (did you mean %s?)" % by_key[similar[0]] if similar else ""


def _key(name):
    return re.sub(r"[\W_]", "", name.lower())
