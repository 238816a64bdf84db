"""Schemas that document and validate JSON files:

SCHEMA = schema.Object(
    {"name": schema.LINE, "labels": schema.List(schema.LINE, unique=True)},
    optional={"seed": schema.integer(0, 2**31 - 1)},
)
entries = files.read_json(path, remedy, schema=SCHEMA)
"""

import json
import math
import sys
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from system import wording

_MAX_SHOWN = 80  # characters of a value in a message


class SchemaError(ValueError):
    """An entry violates the schema."""

    def __init__(self, entry, value, allowed):
        """`entry` is a path such as "task.labels[2]"."""
        values = (entry or "the content", json_text(value), allowed)
        super().__init__("%s is %s, it must be %s" % values)


def json_text(value):
    """The start of a value as JSON, for messages."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def describe_difference(one, other):
    """Two values as JSON, see `json_text`; of objects the entries that differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        one, other = ({key: each.get(key) for key in keys} for each in (one, other))
    return json_text(one), json_text(other)


class Value(NamedTuple):
    """A scalar value."""

    accepts: Callable[[Any], bool]
    allowed: str  # for messages, after "it must be"

    def check(self, value, entry=""):
        """Checks a value; raises a `SchemaError` that names the entry."""
        if not self.accepts(value):
            raise SchemaError(entry, value, self.allowed)


class List(NamedTuple):
    """A list with one schema for all items."""

    items: Any
    min_items: int = 0  # given with `max_items`
    max_items: float = math.inf
    unique: bool = False

    def check(self, value, entry=""):
        """See `Value.check`."""
        sizes = (self.min_items, self.max_items)
        if not isinstance(value, list) or not sizes[0] <= len(value) <= sizes[1]:
            is_bounded = self.max_items < math.inf
            allowed = "a list" + (" of %d to %d items" % sizes if is_bounded else "")
            raise SchemaError(entry, value, allowed)
        for number, item in enumerate(value):
            self.items.check(item, "%s[%d]" % (entry, number))
        if self.unique and len(set(value)) < len(value):
            twice = next(item for item in value if value.count(item) > 1)
            raise ValueError("%s has %s twice" % (entry, json_text(twice)))


class Object(NamedTuple):
    """An object: schemas of its entries by name."""

    required: dict[str, Any]
    optional: Mapping[str, Any] = MappingProxyType({})  # entries can be null
    others: Any = None  # schema of additional entries; None: not allowed

    def check(self, value, entry=""):
        """See `Value.check`."""
        if not isinstance(value, dict):
            raise SchemaError(entry, value, "an object")
        prefix = entry + "." if entry else ""
        for name in self.required:
            if name not in value:
                raise ValueError("%s%s is missing" % (prefix, name))
        known = {**self.required, **self.optional}
        for name, item in value.items():
            schema = known.get(name, self.others)
            if schema is None:
                text = "the entry %s%s is not known%s; there are %s"
                suggestion = wording.suggest(name, known)
                names = (prefix, json_text(name), suggestion, ", ".join(known))
                raise ValueError(text % names)
            if item is not None or name not in self.optional:
                schema.check(item, prefix + name)


def is_number(value):
    """Whether a value is an integer or float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_line(value):
    # JSON can hold halves of characters too.
    return isinstance(value, str) and not any(
        unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value if c != "\t"
    )


def _is_printable(value):
    # A character that this Python does not know may be of a later version of Unicode.
    return (
        isinstance(value, str)
        and value != ""
        and all(c.isprintable() or unicodedata.category(c) == "Cn" for c in value)
    )


ANY = Value(lambda value: True, "anything")
NUMBER = Value(is_number, "a number")  # NaN and infinities included
BOOLEAN = Value(lambda value: isinstance(value, bool), "true or false")
TEXT = Value(lambda value: isinstance(value, str), "a text")
LINE = Value(_is_line, "a text of one line without control characters")
PRINTABLE = Value(_is_printable, "a text of printable characters")


def integer(minimum=0, maximum=2**63 - 1):
    """A whole number from `minimum` to `maximum`."""
    allowed = "a whole number of at least %d" % minimum
    if maximum < 2**63 - 1:
        allowed = "a whole number from %d to %d" % (minimum, maximum)
    return Value(
        lambda value: type(value) is int and minimum <= value <= maximum, allowed
    )


def number(minimum=-math.inf, maximum=math.inf, above=-math.inf, below=math.inf):
    """A finite number in [`minimum`, `maximum`] and in (`above`, `below`)."""
    names = {"at least": minimum, "above": above, "at most": maximum, "below": below}
    texts = ["%s %g" % each for each in names.items() if abs(each[1]) < math.inf]
    return Value(
        lambda value: (
            is_number(value)
            and abs(value) <= sys.float_info.max
            and minimum <= value <= maximum
            and above < value < below
        ),
        ("a finite number " + " and ".join(texts)).rstrip(),
    )


def one_of(*values):
    """One of the given values, all texts or all numbers."""
    return Value(
        lambda value: any(type(value) is type(v) and value == v for v in values),
        "one of %s" % ", ".join(map(json_text, values)),
    )


def pattern(regex, allowed):
    """A text that a compiled regular expression matches as a whole."""
    return Value(
        lambda value: isinstance(value, str) and bool(regex.fullmatch(value)), allowed
    )


def any_of(*schemas):
    """A value that one of the `Value`s accepts."""
    return Value(
        lambda value: any(schema.accepts(value) for schema in schemas),
        " or ".join(schema.allowed for schema in schemas),
    )


def nullable(schema):
    """null, or a value that `schema` accepts."""
    return any_of(schema, Value(lambda value: value is None, "null"))
