"""Rows of TSV, CSV and JSONL files and of plain lines, read and written.

Rows are read one by one, so a file may be larger than memory. A row that cannot be
read carries its problem and does not end the reading.

TSV is GLUE's: fields between tabs, nothing quoted. CSV is that of RFC 4180: fields
between commas, quoted where they hold a comma, a quote or a line end. JSONL has one
object per line. Plain lines are TSV without a header: the texts, between tabs. A
`Dialect` names another delimiter of CSV, or another encoding than UTF-8.
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

# Columns of the two texts, tried in this order: those of GLUE's files among them.
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

# A longer field is hardly text: more likely a quote is not closed, and all lines that
# it takes in are read again.
MAX_CSV_FIELD = 1 << 20
csv.field_size_limit(MAX_CSV_FIELD)

BLANK = "a blank line"

# Delimiters that are guessed, with their names in messages.
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}

# `surrogateescape` decodes a byte that is not in the encoding as U+DC00 + byte, for
# bytes from 0x80. Below, the same is done with two characters that csv.reader does not
# take: NUL (before Python 3.11) and a carriage return inside a line.
_ESCAPE = 0xDC00
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_NOT_OF_CSV = re.compile(r"\0|\r(?!\n?\Z)")
_SURROGATE = re.compile(r"\\u[dD]")  # escaped in JSON; alone or in a pair
_UNESCAPE = {_ESCAPE + ord(char): char for char in "\0\r"}


def _is_encoding(value):
    """Whether Python has such an encoding, in which ASCII text is its own bytes."""
    # Encodings with escapes decode this to other text.
    text = "".join(map(chr, range(128))).replace("\\", "\\x41\\u0041")
    try:
        return text.encode("ascii").decode(codecs.lookup(value).name) == text
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
    """How a file is written, where that differs from its kind's standard."""

    delimiter: str = ","  # of CSV, one character
    encoding: str = "utf-8"  # an encoding of Python in which ASCII is one byte each


STANDARD = Dialect()


class Columns(NamedTuple):
    """The columns of rows to predict, by name."""

    text_a: str | None = None  # None: the first pair of `layouts` that is there
    text_b: str | None = None
    task: str | None = None  # None: all rows are of one task
    layouts: tuple = KNOWN_COLUMNS  # pairs of names of text columns
    # Whether a task takes two texts, by its name; missing or None: not known.
    pairs: Mapping[str, bool | None] = {}


class Row(NamedTuple):
    """One row to predict; one with a problem has no texts."""

    line: int  # its first line in the file, counted from 1
    problem: str = ""  # why it cannot be read
    task: str = ""
    text_a: str = ""
    text_b: str | None = None
    values: Mapping[str, Any] = {}  # by column, texts; of JSONL any


class Record(NamedTuple):
    """One row as read: a list of fields, or for JSONL a dict from name to value."""

    line: int  # its first line in the file, counted from 1
    fields: list[str] | dict[str, Any]
    problem: str = ""  # why it cannot be read


def find_kind(path):
    """The kind of a file by its ending: `TSV`, `CSV`, `JSONL`, or None for others."""
    return KINDS.get(os.path.splitext(path)[1].lower())


def check_kind(path, field):
    """`find_kind`, or a `UserError` about the field that has the path."""
    kind = find_kind(path)
    if kind is None:
        raise UserError(
            "`%s`=%s: the name of the file must end in one of %s"
            % (field, path, ", ".join(KINDS))
        )
    return kind


def is_blank(text):
    """Whether a text has nothing that becomes a word piece.

    Such as white space, control and format characters, U+FFFD and combining marks.
    """
    return all(
        char.isspace()
        or char == "\ufffd"
        or unicodedata.category(char) in ("Cc", "Cf", "Mn")
        for char in text
    )


def is_quoted(field):
    """Whether a field looks quoted by a spreadsheet, with its inner quotes doubled.

    A sentence in quotes without doubled ones does not count: GLUE has many.
    """
    inner = field[1:-1]
    has_doubled = '""' in inner and '"' not in inner.replace('""', "")
    return has_doubled and field[0] == field[-1] == '"'


def describe_quotes(path, count):
    """A warning that `count` rows of a TSV file are `is_quoted`."""
    return (
        "%s: %s with a text in quotes and doubled quotes in it, as spreadsheets write "
        "them. Nothing is quoted in .tsv: the quotes become text"
        % (path, wording.pluralize(count, "row"))
    )


def read_records(lines, kind, dialect=STANDARD):
    """Yields a `Record` for each row of `TSV`, `CSV` or `JSONL`, its header included.

    `lines` are the file's lines as bytes, line ends included.
    """
    return _READERS[kind](_decode(lines, dialect.encoding), dialect)


def guess_delimiter(fields, delimiter, columns):
    """The delimiter that a table's first row seems to have instead of `delimiter`.

    It gives the row all `columns`, names or positions from 0. "" if none does.
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
    """Lines as text without a byte order mark; see `_ESCAPE`."""
    for number, line in enumerate(lines):
        text = line.decode(encoding, "surrogateescape")
        yield text if number else text.removeprefix("\ufeff")


def _encoding_problem(text, encoding):
    found = _UNDECODABLE.search(text)
    if not found:
        return ""
    problem = "byte 0x%02x" % (ord(found[0]) - _ESCAPE)
    if encoding != STANDARD.encoding:
        return "not %s (%s)" % (encoding, problem)
    # A byte order mark is the bytes 0xff 0xfe, in either order.
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
    """Half of a surrogate pair, which no output file could hold, becomes U+FFFD."""
    text = json.dumps(values, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(text.decode("utf-16", "replace"))


def _csv_records(texts, dialect):
    again, line, delimiter = collections.deque(), 1, dialect.delimiter
    while True:
        taken: list[str] = []
        reader = csv.reader(
            _take_lines(again, texts, taken), strict=True, delimiter=delimiter
        )
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = _csv_problem(str(error), line, line + len(taken) - 1)
            # A quote that is not closed takes in what follows.
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
            fields = []
        else:
            text = "".join(taken)
            problem = _encoding_problem(text, dialect.encoding) if fields else BLANK
            fields = [field.translate(_UNESCAPE) for field in fields]
        yield Record(line, fields, problem)
        line += len(taken)


def _take_lines(again, texts, taken):
    """Yields lines for csv.reader, first those of `again`, and adds them to `taken`."""
    while again or (text := next(texts, None)) is not None:
        text = again.popleft() if again else text
        taken.append(text)
        yield _NOT_OF_CSV.sub(lambda match: chr(_ESCAPE + ord(match[0])), text)


def _csv_problem(error, first, last):
    """Describes an error of csv.reader in a row that begins on line `first`."""
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
      lines: iterable of the file's lines as bytes, line ends included.
      kind: `TSV`, `CSV`, `JSONL`, or `LINES`, whose fields are text_a and optionally
        text_b; after the task if `columns.task` is not None.
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
    """The names of a table's columns, from its first row."""
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
    doubled = [name for name in (*layout, columns.task) if names.count(name) > 1]
    return "the header has the column %r twice" % doubled[0] if doubled else ""


def _advise_on_delimiter(columns, names):
    """Advice on a header that is one field; "" if no delimiter gives the columns."""
    for layout in columns.layouts if len(names) == 1 else ():
        if other := guess_delimiter(names, "", [name for name in layout if name]):
            text = ". The fields seem to be separated by %ss: for .csv give `delimiter`"
            return text % DELIMITERS[other]
    return ""


def _find_width_problem(fields, names, kind):
    expected = [len(names) - 1, len(names)] if kind == LINES else [len(names)]
    if len(fields) in expected:
        return ""
    found = wording.pluralize(len(fields), "field")
    counts = " or ".join(map(str, expected))
    return "%s, expected %s (%s)" % (found, counts, wording.list_names(names))


def _find_layout(columns, names):
    """The columns of the two texts among `names`; None if they are missing."""
    for text_a, text_b in columns.layouts:
        if text_a in names and (text_b is None or text_b in names):
            return text_a, text_b
    return None


def _make_row(line, values, columns, tasks):
    """The `Row` of a row's values, a dict from the columns' names."""
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
    # A task name from JSON may be anything, also what cannot be looked up.
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
    """A message that the texts' columns, the first layout, are not among `names`."""
    missing = [name for name in columns.layouts[0] if name and name not in names]
    there = wording.list_names(names) or "none"
    return "no column %s, there are %s" % (", ".join(map(repr, missing)), there)


def check_writable(kind, names):
    """Refuses names that a kind of file cannot hold, by a `UserError`."""
    for name in names:
        if kind == TSV and re.search(r"[\t\r\n]", name):
            raise UserError(
                "%r holds a tab or a line end, which TSV cannot: give an `output` that "
                "ends in .csv or .jsonl" % name
            )


def format_header(kind, names):
    """The header of a file with these columns, as bytes; empty for JSONL."""
    return b"" if kind == JSONL else _format_fields(kind, names)


def format_row(kind, names, values):
    """One row of `TSV`, `CSV` or `JSONL`, as bytes.

    `values` maps names of columns to strings or numbers; missing ones are empty, or
    omitted in JSON.
    """
    if kind == JSONL:
        found = {name: values[name] for name in names if name in values}
        return (json.dumps(found, ensure_ascii=False) + "\n").encode("utf-8")
    return _format_fields(kind, [str(values.get(name, "")) for name in names])


def _format_fields(kind, fields):
    if kind == TSV:
        return ("\t".join(fields) + "\n").encode("utf-8")
    text = io.StringIO()
    # With this line end, fields with CR or LF are quoted.
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8")
