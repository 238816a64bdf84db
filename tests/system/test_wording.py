"""Numbers as they stand in messages."""

from system import wording


def test_a_number_with_its_noun():
    assert wording.pluralize(0, "row") == "0 rows"
    assert wording.pluralize(1, "row") == "1 row"
    assert wording.thousands(1234) == "1,234"
    assert wording.thousands(10**60) == "10^60"
