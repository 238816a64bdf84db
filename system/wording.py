"""Numbers and names as they stand in messages."""

_LONGEST = 40  # characters


def thousands(number):
    """A whole number with commas between its thousands; a huge one as "10^99"."""
    text = "{:,}".format(number)
    return text if len(text) <= _LONGEST else "10^%d" % (len(str(number)) - 1)


def pluralize(count, noun):
    """A count with its noun: "1 row", "2 rows"."""
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")


def list_names(names):
    """The first twenty of some names, printable."""
    names = list(names)
    shown = ", ".join("%.80r" % name for name in names[:20])
    return shown + ", ... (%d in all)" % len(names) if len(names) > 20 else shown
