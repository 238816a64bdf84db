"""Numbers as they stand in messages."""

import pytest

from system import wording


def test_a_number_with_its_noun():
    assert wording.pluralize(0, "row") == "0 rows"
    assert wording.pluralize(1, "row") == "1 row"
    assert wording.thousands(1234) == "1,234"
    assert wording.thousands(10**60) == "10^60"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("macro-F1", " (did you mean macro_f1?)"),
        ("acuracy", " (did you mean accuracy?)"),
        ("macro", " (did you mean macro_f1?)"),
        ("bleu", ""),
        ("", ""),
    ],
)
def test_the_most_similar_name(name, expected):
    assert wording.suggest(name, ["accuracy", "f1", "macro_f1"]) == expected
