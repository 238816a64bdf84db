"""Numbers as they stand in messages."""

_LONGEST = 40  # characters


def thousands(number):
    """A whole number with commas between its thousands; a huge one as "10^99"."""
    text = "{:,}".format(number)
    return text if len(text) <= _LONGEST else "10^%d" % (len(str(number)) - 1)


def pluralize(count, noun):
    """A count with its noun: "1 row", "2 rows"."""
    return "%d %s%s" % (count, noun, "" if count == 1 else "s")
