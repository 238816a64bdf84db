"""Reads and writes rows of TSV, CSV, JSONL and plain text files.

Rows are read one at a time, so a file may be larger than memory. A row that cannot be
read is yielded with its problem.

TSV is GLUE's, without quoting; CSV follows RFC 4180; JSONL has one object per line.
Plain lines are TSV without a header. A `Dialect` has another delimiter of CSV, or
another encoding than UTF-8.
"""

import codecs
import collections
import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from errors import UserError
from system import files, schema, wording

TSV, CSV, JSONL, LINES = "TSV", "CSV", "JSONL", "plain lines"
KINDS = {".tsv": TSV, ".csv": CSV, ".jsonl": JSONL}

# Columns of the two texts, tried in this order; includes GLUE's.
KNOWN_COLUMNS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "context"),
    ("#1 String", "#2 String"),
    ("text_a", None),
    ("sentence", None),
    ("text", None),
)
_PLAIN_COLUMNS = (("text_a", "text_b"), ("text_a", None))

# A longer field is probably an unclosed quote; its lines are then read again.
MAX_CSV_FIELD = 1 << 20
csv.field_size_limit(MAX_CSV_FIELD)

BLANK = "a blank line"

# Delimiters to guess, with their names in messages.
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}

# `surrogateescape` decodes an invalid byte, from 0x80, as U+DC00 + byte. Two characters
# that csv.reader refuses are escaped likewise: NUL (before Python 3.11) and a carriage
# return inside a line.
_ESCAPE = 0xDC00
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_NOT_OF_CSV = re.compile(r"\0|\r(?!\n?\Z)")
_SURROGATE = re.compile(r"\\u[dD]")  # escaped in JSON
_UNESCAPE = {_ESCAPE + ord(char): char for char in "\0\r"}


def _is_encoding(value):
    """Whether a value is the name of an encoding of Python that contains ASCII."""
    # Encodings with escapes decode backslashes to other text.
    text = "".join(map(chr, range(128))).replace("\\", "\\x41\\u0041")
    try:
        name = codecs.lookup(value).name
        return text.encode("ascii").decode(name, "surrogateescape") == text
    except (LookupError, TypeError, ValueError):
        return False


DELIMITER = schema.Value(
    lambda value: (
        isinstance(value, str)
        and len(value) == 1
        and value != '"'
        and (value == "\t" or value.isprintable())
    ),
    "one character, but no quote",
)
ENCODING = schema.Value(
    _is_encoding, "an encoding of Python that contains ASCII, such as utf-8 or latin-1"
)


class Dialect(NamedTuple):
    """Delimiter and encoding of a file."""

    delimiter: str = ","  # of CSV, one character
    encoding: str = "utf-8"  # an encoding of Python that contains ASCII


STANDARD = Dialect()


class Columns(NamedTuple):
    """The columns of rows to predict, by name."""

    text_a: str | None = None  # None: the first matching pair of `layouts`
    text_b: str | None = None
    task: str | None = None  # None: a single task
    layouts: tuple = KNOWN_COLUMNS  # pairs of names of text columns
    # Whether a task takes sentence pairs, by name; missing or None: unknown.
    pairs: Mapping[str, bool | None] = {}


class Row(NamedTuple):
    """One row to predict."""

    line: int  # first line in the file, from 1
    problem: str = ""  # if not empty, the row has no texts
    task: str = ""
    text_a: str = ""
    text_b: str | None = None
    values: Mapping[str, Any] = {}  # by column; str except in JSONL


class Record(NamedTuple):
    """One parsed row: a list of fields, or for JSONL a dict from name to value."""

    line: int  # first line in the file, from 1
    fields: list[str] | dict[str, Any]
    problem: str = ""


def find_kind(path):
    """`TSV`, `CSV` or `JSONL` by the extension of a path; None for others."""
    return KINDS.get(os.path.splitext(path)[1].lower())


def check_kind(path, field):
    """Like `find_kind`; raises a `UserError` about a field for other extensions."""
    kind = find_kind(path)
    if kind is None:
        raise UserError(
            "`%s`=%s: the name of the file must end in one of %s"
            % (field, path, ", ".join(KINDS))
        )
    return kind


def is_blank(text):
    """Whether a text has no word pieces.

    It then consists of white space, control and format characters, U+FFFD and combining
    marks.
    """
    return all(
        char.isspace()
        or char == "\ufffd"
        or unicodedata.category(char) in ("Cc", "Cf", "Mn")
        for char in text
    )


def is_quoted(field):
    """Whether a field is quoted as by a spreadsheet, with doubled inner quotes.

    A sentence in quotes without doubled ones is not: GLUE has many.
    """
    inner = field[1:-1]
    has_doubled = '""' in inner and '"' not in inner.replace('""', "")
    return has_doubled and field[0] == field[-1] == '"'


def describe_quotes(path, count):
    """The warning about `count` rows with quoted fields in a TSV file."""
    return (
        "%s: %s with a text in quotes and doubled quotes in it, as spreadsheets write "
        "them. Nothing is quoted in .tsv: the quotes become text"
        % (path, wording.pluralize(count, "row"))
    )


def read_records(lines, kind, dialect=STANDARD):
    """Yields a `Record` for each row of `TSV`, `CSV` or `JSONL`, header included.

    `lines` are bytes with line ends.
    """
    return _READERS[kind](_decode(lines, dialect.encoding), dialect)


def guess_delimiter(fields, delimiter, columns):
    """Guesses the delimiter of a table from its first row, split at `delimiter`.

    Returns the first other delimiter that gives all `columns`, names or positions from
    0; or "".
    """
    line = delimiter.join(fields)
    for other in DELIMITERS:
        names = [name.strip().strip('"') for name in line.split(other)]
        if other != delimiter and all(
            column < len(names) if isinstance(column, int) else column in names
            for column in columns
        ):
            return other
    return ""


def _decode(lines, encoding):
    """Decodes lines, without a byte order mark; see `_ESCAPE`."""
    for number, line in enumerate(lines):
        text = line.decode(encoding, "surrogateescape")
        yield text if number else text.removeprefix("\ufeff")


def _encoding_problem(text, encoding):
    match = _UNDECODABLE.search(text)
    if not match:
        return ""
    problem = "byte 0x%02x" % (ord(match[0]) - _ESCAPE)
    if encoding != STANDARD.encoding:
        return "not %s (%s)" % (encoding, problem)
    # The byte order mark is 0xff 0xfe, in either order.
    is_utf_16 = text.startswith(("\udcff\udcfe", "\udcfe\udcff"))
    likely = "UTF-16" if is_utf_16 else "Latin-1"
    return "not UTF-8 (%s), perhaps %s: save the file as UTF-8" % (problem, likely)


def _tsv_records(texts, dialect):
    for line, text in enumerate(texts, 1):
        text = text.removesuffix("\n").removesuffix("\r")
        problem = _encoding_problem(text, dialect.encoding) if text else BLANK
        yield Record(line, text.split("\t"), problem)


def _json_records(texts, dialect):
    for line, text in enumerate(texts, 1):
        values = {}
        problem = BLANK
        if text.strip():
            problem = _encoding_problem(text, dialect.encoding)
        if not problem:
            try:
                values = files.parse_json_object(text.strip())
            except ValueError as error:
                problem = str(error).replace("line 1 column", "column")
        if _SURROGATE.search(text):
            values = _replace_surrogates(values)
        yield Record(line, values, problem)


def _replace_surrogates(values):
    """Replaces unpaired surrogates, which cannot be encoded, by U+FFFD."""
    text = json.dumps(values, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(text.decode("utf-16", "replace"))


def _csv_records(texts, dialect):
    pending, line, delimiter = collections.deque(), 1, dialect.delimiter
    while True:
        consumed: list[str] = []
        reader = csv.reader(
            _consume_lines(pending, texts, consumed), strict=True, delimiter=delimiter
        )
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _csv_problem(str(error), line, line + len(consumed) - 1)
            # The lines after an unclosed quote are read again.
            pending.extendleft(reversed(consumed[1:]))
            del consumed[1:]
            fields = []
        else:
            text = "".join(consumed)
            problem = _encoding_problem(text, dialect.encoding) if fields else BLANK
            fields = [field.translate(_UNESCAPE) for field in fields]
        yield Record(line, fields, problem)
        line += len(consumed)


def _consume_lines(pending, texts, consumed):
    """Yields lines for csv.reader, pending ones first; adds them to `consumed`."""
    while pending or (text := next(texts, None)) is not None:
        text = pending.popleft() if pending else text
        consumed.append(text)
        yield _NOT_OF_CSV.sub(lambda match: chr(_ESCAPE + ord(match[0])), text)


def _csv_problem(error, first, last):
    """Describes an error of csv.reader in the row of lines `first` to `last`."""
    if error.startswith("field larger"):
        problem = "a field is longer than %d characters" % MAX_CSV_FIELD
    else:
        problem = "not valid CSV (%s)" % error
    if last > first:
        problem += ", on line %d; is a quote not closed?" % last
    return problem


_READERS = {TSV: _tsv_records, CSV: _csv_records, JSONL: _json_records}


def read_rows(lines, kind, columns, tasks, source, dialect=STANDARD):
    """Yields a `Row` for each row to predict.

    Args:
      lines: iterable of bytes with line ends.
      kind: `TSV`, `CSV`, `JSONL` or `LINES`. Fields of `LINES`: the task if
        `columns.task` is set, text_a, optionally text_b.
      columns: a `Columns`.
      tasks: names of the tasks; a single one if `columns.task` is None.
      source: the file's name, for messages.
      dialect: a `Dialect`.

    Raises:
      UserError: the header is missing, or lacks a column.
    """
    records = read_records(lines, TSV if kind == LINES else kind, dialect)
    if kind == LINES:
        names = [*(["task"] if columns.task else []), "text_a", "text_b"]
        columns = columns._replace(task=columns.task and "task", layouts=_PLAIN_COLUMNS)
    elif columns.text_a:
        columns = columns._replace(layouts=((columns.text_a, columns.text_b),))
    if kind in (TSV, CSV):
        names = _read_header(records, columns, source)
    for line, fields, problem in records:
        if not problem and kind != JSONL:
            problem = _find_width_problem(fields, names, kind)
            fields = dict(zip(names, fields))
        yield Row(line, problem) if problem else _make_row(line, fields, columns, tasks)


def _read_header(records, columns, source):
    """Reads the column names from a table's first row."""
    header = next(records, None)
    if header is None:
        raise UserError("%s is empty: a header, the columns' names, is needed" % source)
    problem = header.problem or _find_header_problem(columns, header.fields)
    if problem:
        raise UserError("%s, line %d: %s" % (source, header.line, problem))
    return header.fields


def _find_header_problem(columns, names):
    layout = _find_layout(columns, names)
    if layout is None:
        problem = "the header has %s; name them, `text_a_column` and `text_b_column`"
        problem %= _describe_missing(columns, names)
        return problem + _advise_on_delimiter(columns, names)
    if columns.task is not None and columns.task not in names:
        problem = "the header has no column %r for the task, there are %s; name it, "
        return problem % (columns.task, wording.list_names(names)) + "`task_column`"
    duplicates = [name for name in (*layout, columns.task) if names.count(name) > 1]
    return "the header has the column %r twice" % duplicates[0] if duplicates else ""


def _advise_on_delimiter(columns, names):
    """Advice on a header of one field; "" if no delimiter gives the columns."""
    for layout in columns.layouts if len(names) == 1 else ():
        if other := guess_delimiter(names, "", [name for name in layout if name]):
            text = ". The fields seem to be separated by %ss: for .csv give `delimiter`"
            return text % DELIMITERS[other]
    return ""


def _find_width_problem(fields, names, kind):
    expected = [len(names) - 1, len(names)] if kind == LINES else [len(names)]
    if len(fields) in expected:
        return ""
    actual = wording.pluralize(len(fields), "field")
    counts = " or ".join(map(str, expected))
    return "%s, expected %s (%s)" % (actual, counts, wording.list_names(names))


def _find_layout(columns, names):
    """The text columns, a pair, among `names`; None if they are missing."""
    for text_a, text_b in columns.layouts:
        if text_a in names and (text_b is None or text_b in names):
            return text_a, text_b
    return None


def _make_row(line, values, columns, tasks):
    """Makes a `Row` from a dict of values by column."""
    layout = _find_layout(columns, values)
    if layout is None:
        return Row(line, _describe_missing(columns, values))
    if columns.task is not None and columns.task not in values:
        return Row(line, "no %s" % columns.task)
    task = tasks[0] if columns.task is None else values[columns.task]
    text_a = values[layout[0]]
    text_b = None if layout[1] is None else values[layout[1]]
    for name, value in ((layout[0], text_a), (layout[1], text_b)):
        if not isinstance(value, str) and not (value is None and name == layout[1]):
            return Row(line, "%s is %.80r, not a text" % (name, value))
    # In JSON, a task name may be of an unhashable type.
    if not isinstance(task, str) or task not in tasks:
        return Row(line, "unknown task %.80r, there are %s" % (task, ", ".join(tasks)))
    if is_blank(text_a):
        return Row(line, "%s is empty" % layout[0])
    text_b = None if is_blank(text_b or "") else text_b
    pairs = columns.pairs.get(task)
    if pairs and text_b is None:
        return Row(line, "no second text; the task %s takes pairs" % task)
    if pairs is False and text_b is not None:
        return Row(line, "a second text; the task %s takes one" % task)
    return Row(line, "", task, text_a, text_b, values)


def _describe_missing(columns, names):
    """The message about text columns of the first layout that `names` lacks."""
    missing = [name for name in columns.layouts[0] if name and name not in names]
    existing = wording.list_names(names) or "none"
    return "no column %s, there are %s" % (", ".join(map(repr, missing)), existing)


def check_writable(kind, names):
    """Raises a `UserError` for column names that a kind of file cannot hold."""
    for name in names:
        if kind == TSV and re.search(r"[\t\r\n]", name):
            raise UserError(
                "%r holds a tab or a line end, which TSV cannot: give an `output` that "
                "ends in .csv or .jsonl" % name
            )


def format_header(kind, names):
    """Formats the header of a file as bytes; empty for JSONL."""
    return b"" if kind == JSONL else format_fields(kind, names)


def format_row(kind, names, values):
    """Formats a row of `TSV`, `CSV` or `JSONL` as bytes.

    `values` is a dict from column to str or number; missing values are empty, or left
    out in JSON.
    """
    if kind == JSONL:
        record = {name: values[name] for name in names if name in values}
        return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
    return format_fields(kind, [str(values.get(name, "")) for name in names])


def format_fields(kind, fields):
    """Formats a row of `TSV` or `CSV`, a list of strings, as bytes."""
    if kind == TSV:
        return ("\t".join(fields) + "\n").encode("utf-8")
    text = io.StringIO()
    # With this line end, fields with CR or LF are quoted.
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8")
