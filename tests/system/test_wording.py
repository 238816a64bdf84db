"""Numbers as they stand in messages."""

from system import wording


def test_a_number_with_its_noun():
    assert wording.quantity(0, "row") == "0 rows"
    assert wording.quantity(1, "row") == "1 row"
    assert wording.quantity(1234, "row") == "1,234 rows"
    assert wording.quantity(2, "entry", "entries") == "2 entries"
    assert wording.thousands(10**60) == "10^60"
