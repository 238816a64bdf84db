"""Numbers as they stand in messages."""

_LONGEST = 40  # characters


def thousands(number):
    """A whole number with commas between its thousands; a huge one as "10^99"."""
    text = "{:,}".format(number)
    return text if len(text) <= _LONGEST else "10^%d" % (len(str(number)) - 1)


def quantity(number, noun, plural=None):
    """A number with its noun, such as "1 row" or "1,234 rows".

    Args:
      number: a whole number.
      noun: the noun in the singular.
      plural: its plural; None: with an s.
    """
    return "%s %s" % (thousands(number), noun if number == 1 else plural or noun + "s")
