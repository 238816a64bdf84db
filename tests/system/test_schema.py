"""JSON values against a schema: what is refused, and which entry is named."""

import math
import re

import pytest

from system import schema

SCHEMA = schema.Object(
    {
        "name": schema.LINE,
        "size": schema.integer(1, 8),
        "scale": schema.nullable(schema.number(above=0)),
        "columns": schema.List(
            schema.nullable(schema.any_of(schema.LINE, schema.integer())), 2, 2
        ),
        "sets": schema.Object({}, others=schema.Object({"score": schema.number()})),
    },
    optional={
        "labels": schema.List(schema.PRINTABLE, 2, 9, unique=True),
        "kind": schema.one_of("a", "b", 1),
        "digest": schema.pattern(re.compile("[0-9a-f]{4}"), "4 hexadecimal digits"),
        "last": schema.BOOLEAN,
        "settings": schema.ANY,
    },
)
ENTRIES = {
    "name": "a\tb",
    "size": 8,
    "scale": None,
    "columns": ["text", None],
    "sets": {"dev": {"score": 0.5}},
}


def test_what_fits_is_accepted():
    SCHEMA.check(ENTRIES)
    more = {"labels": ["a", "ö"], "kind": 1, "digest": "00ff", "last": True}
    SCHEMA.check({**ENTRIES, **more, "settings": [None]})
    SCHEMA.check({**ENTRIES, **dict.fromkeys(more), "scale": 1})


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ([], ["content is []", "an object"]),
        ({"size": "8"}, ["size", '"8"', "from 1 to 8"]),
        ({"size": True}, ["size", "true"]),
        ({"size": 1.0}, ["size", "1.0"]),
        ({"size": 9}, ["size", "9"]),
        ({"size": None}, ["size", "null"]),
        ({"scale": 0}, ["scale", "above 0"]),
        ({"scale": math.nan}, ["scale", "NaN"]),
        ({"scale": math.inf}, ["scale", "Infinity"]),
        ({"name": "a\nb"}, ["name", "one line"]),
        ({"name": "\u2028"}, ["name"]),
        ({"name": "\ud800"}, ["name"]),
        ({"columns": ["text"]}, ["columns", "2 to 2"]),
        ({"columns": "text"}, ["columns", '"text"']),
        ({"columns": ["text", -1]}, ["columns[1]", "-1"]),
        ({"sets": {"dev": {"score": "x"}}}, ["sets.dev.score", '"x"']),
        ({"sets": {"dev": {}}}, ["sets.dev.score is missing"]),
        ({"sets": {"dev": None}}, ["sets.dev", "null"]),
        ({"sets": {"dev": {"score": 1, "more": 1}}}, ['sets.dev."more"', "not known"]),
        ({"labels": ["a", "b", "a"]}, ["labels", '"a" twice']),
        ({"labels": ["a", ""]}, ["labels[1]", '""']),
        ({"kind": "c"}, ["kind", '"c"', '"a", "b", 1']),
        ({"kind": True}, ["kind", "true"]),
        ({"digest": "00FF"}, ["digest", "4 hexadecimal digits"]),
        ({"name": "a" * 999 + "\n"}, ["name", "aaa..."]),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(entries, parts):
    value = {**ENTRIES, **entries} if isinstance(entries, dict) else entries
    with pytest.raises(ValueError, match=re.escape(parts[0])) as error:
        SCHEMA.check(value)
    assert len(str(error.value)) < 300
    for part in parts:
        assert part in str(error.value)


def test_required_entries():
    for name in ENTRIES:
        with pytest.raises(ValueError, match="%s is missing" % name):
            SCHEMA.check({key: ENTRIES[key] for key in ENTRIES if key != name})


def test_what_is_printable_does_not_depend_on_the_version_of_unicode():
    for text in ("a b", "雨", "\u0378"):  # U+0378 is not assigned.
        assert schema.PRINTABLE.accepts(text)
    for text in ("", "a\nb", "\x1b", "\u200b", "\ud800", "\u00a0"):
        assert not schema.PRINTABLE.accepts(text)
