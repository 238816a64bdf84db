"""Rows of text from TSV, CSV and JSONL files and from plain lines, and rows out again.

Rows are read one by one, so a file may be larger than memory. What is wrong with a row
is said with the row, since it need not stop the others.

TSV is GLUE's: fields between tabs, nothing quoted. CSV is RFC 4180's: fields between
commas, quoted where they hold a comma, a quote or a line end. Both begin with a header.
JSONL has one object a line. Plain lines have no header: the texts, between tabs.
"""

import collections
import csv
import io
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from errors import UserError

TSV, CSV, JSONL, LINES = "TSV", "CSV", "JSONL", "plain lines"
KINDS = {".tsv": TSV, ".csv": CSV, ".jsonl": JSONL}

# Columns of the two texts, tried in this order: those of GLUE's files among them.
KNOWN_COLUMNS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("#1 String", "#2 String"),
    ("text_a", None),
    ("sentence", None),
    ("text", None),
)

# A longer field is hardly text: a quote is not closed, and all that it takes in is read
# again.
MAX_CSV_FIELD = 1 << 20
csv.field_size_limit(MAX_CSV_FIELD)

# What `surrogateescape` makes of bytes that are not UTF-8.
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_NOT_UTF8 = "not UTF-8"
BLANK = "a blank line"

# Stands for a carriage return within a line of CSV, where csv.reader takes none: no
# decoded text holds this half of a pair.
_CARRIAGE_RETURN = "\udc0d"
_LONE_CR = re.compile(r"\r(?!\n?\Z)")


class Columns(NamedTuple):
    """Where a row's parts are, by the columns' names."""

    text_a: str | None = None  # None: both texts by `layouts`
    text_b: str | None = None
    task: str | None = None  # None: all rows are of the one task
    layouts: tuple = KNOWN_COLUMNS  # pairs of names, the first that is there counts
    # Whether a task takes two texts, by its name; None or not there: not known.
    pairs: Mapping[str, bool | None] = {}


class Row(NamedTuple):
    """One row; one with a problem has no texts."""

    line: int  # the file's line that it begins on, counted from 1
    problem: str = ""  # what is wrong with it; "" if nothing
    task: str = ""
    text_a: str = ""
    text_b: str | None = None


class Fields(NamedTuple):
    """One row as it was read: of a table a list, of JSON a dict from name to value."""

    line: int  # the file's line that it begins on, counted from 1
    fields: list[str] | dict[str, Any]
    problem: str = ""


def kind_of(path, flag):
    """What a file is, by the ending of its name.

    Args:
      path: the file's path.
      flag: the flag that gave it, for the message.

    Returns:
      `TSV`, `CSV` or `JSONL`.

    Raises:
      UserError: another ending.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in KINDS:
        raise UserError(
            "--%s=%s: the ending says what a file is, allowed are %s"
            % (flag, path, ", ".join(KINDS))
        )
    return KINDS[ending]


# --- reading --------------------------------------------------------------------


def is_quoted(field):
    """Whether a field looks as a spreadsheet writes one that holds a quote.

    That is in quotes, with each quote of the text doubled. A sentence that merely
    stands in quotes does not count: GLUE has many, and none of the others.
    """
    inner = field[1:-1]
    return (
        field[:1] == field[-1:] == '"'
        and '""' in inner
        and '"' not in inner.replace('""', "")
    )


def quotes_note(path, count):
    """Says that `count` rows of a TSV file look quoted, see `is_quoted`."""
    return (
        "%s: %d rows have quotes around a text and doubled quotes in it, as a "
        "spreadsheet writes them. In .tsv nothing is quoted: they count as text"
        % (path, count)
    )


def read(lines, kind, columns, tasks, source):
    """Reads rows, one by one.

    Args:
      lines: iterable of the file's lines as bytes, line ends included.
      kind: `TSV`, `CSV`, `JSONL`, or `LINES`: there the fields are text_a, or text_a
        and text_b; before them comes the task if `columns.task` is not None.
      columns: a `Columns`.
      tasks: names of the tasks; one alone where `columns.task` is None.
      source: the file's name, for messages.

    Yields:
      A `Row` for each row of the file, also for one with a problem.

    Raises:
      UserError: the file has no header or the header lacks a column, so that no row can
        be read.
    """
    if kind == LINES:
        records = _line_records(lines, ["task"] if columns.task else [])
        task = columns.task and "task"
        columns = Columns("text_a", task=task, pairs=columns.pairs)
    elif kind == JSONL:
        records = json_rows(lines)
    else:
        records = _table_records(lines, kind, columns, source)
    for record in records:
        if record.problem:
            yield Row(record.line, record.problem)
        else:
            yield _row(record, _resolved(columns, record.fields, kind), columns, tasks)


def _resolved(columns, names, kind):
    """The columns of the two texts among `names`; None if they are not all there."""
    if kind == LINES:
        return "text_a", "text_b" if "text_b" in names else None
    layouts = [columns[:2]] if columns.text_a else columns.layouts
    for text_a, text_b in layouts:
        if text_a in names and (text_b is None or text_b in names):
            return text_a, text_b
    return None


def _row(record, layout, columns, tasks):
    """The `Row` of a record."""
    line, values = record.line, record.fields
    if layout is None:
        return Row(line, _missing(columns, values))
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
    if not text_a.strip():
        return Row(line, "%s is empty" % layout[0])
    pairs = columns.pairs.get(task)
    if pairs and not text_b:
        return Row(line, "no second text; the task %s takes pairs" % task)
    if pairs is False and text_b:
        return Row(line, "a second text; the task %s takes one" % task)
    return Row(line, "", task, text_a, text_b or None)


def _missing(columns, names):
    """Says that the texts' columns are not among `names`."""
    if columns.text_a:
        wanted = [name for name in columns[:2] if name and name not in names]
        wanted = "no column %s" % ", ".join(map(repr, wanted))
    else:
        wanted = "no column of a known name (%s)" % ", ".join(
            dict.fromkeys(name for pair in columns.layouts for name in pair if name)
        )
    return "%s, there are %s" % (wanted, list_names(names) or "none")


def list_names(names):
    """Names of a file's columns for a message: printable, and not without end."""
    names = list(names)
    shown = ", ".join("%.80r" % name for name in names[:20])
    return shown + ", ... (%d in all)" % len(names) if len(names) > 20 else shown


def _texts(lines):
    """Lines as text without a byte order mark; see `_UNDECODABLE`."""
    for number, line in enumerate(lines):
        text = line.decode("utf-8", "surrogateescape")
        yield text if number else text.removeprefix("\ufeff")


def _without_end(text):
    return text.removesuffix("\n").removesuffix("\r")


def _line_records(lines, before):
    names = [*before, "text_a", "text_b"]
    for line, text in enumerate(_texts(lines), 1):
        text = _without_end(text)
        fields = text.split("\t")
        if _UNDECODABLE.search(text):
            yield Fields(line, {}, _NOT_UTF8)
        elif not text:
            yield Fields(line, {}, BLANK)
        elif not len(names) - 1 <= len(fields) <= len(names):
            problem = "%d tab-separated fields, expected %s, or these and text_b" % (
                len(fields),
                " and ".join(names[:-1]),
            )
            yield Fields(line, {}, problem)
        else:
            yield Fields(line, dict(zip(names, fields)))


def json_rows(lines):
    """The rows of JSONL, each a `Fields`; `lines` are bytes."""
    for line, text in enumerate(_texts(lines), 1):
        if _UNDECODABLE.search(text):
            yield Fields(line, {}, _NOT_UTF8)
        elif not text.strip():
            yield Fields(line, {}, BLANK)
        else:
            yield _json_record(line, text)


def _unique(pairs):
    """The dict of a JSON object; Python's own would keep the last of equal names."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in values if names.count(name) > 1)
        raise ValueError("%.80r is there twice" % doubled)
    return values


def _json_record(line, text):
    try:
        values = json.loads(_without_end(text), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        problem = "not valid JSON (%s, column %d)" % (error.msg, error.colno)
        return Fields(line, {}, problem)
    except (ValueError, RecursionError) as error:  # A number or nesting without end.
        return Fields(line, {}, "not valid JSON (%s)" % error)
    return Fields(line, values, "" if isinstance(values, dict) else "no JSON object")


def _table_records(lines, kind, columns, source):
    rows = csv_rows(lines) if kind == CSV else _tsv_rows(lines)
    header = next(rows, None)
    if header is None:
        raise UserError("%s is empty: a header, the columns' names, is needed" % source)
    problem = header.problem
    names = header.fields
    layout = None if problem else _resolved(columns, names, kind)
    if not problem and layout is None:
        problem = "the header has %s; name them, --text_a_column and --text_b_column"
        problem %= _missing(columns, names)
    elif not problem and columns.task is not None and columns.task not in names:
        problem = (
            "the header has no column %r for the task, there are %s; name it, "
            "--task_column" % (columns.task, list_names(names))
        )
    elif not problem:
        doubled = [n for n in (*layout, columns.task) if names.count(n) > 1]
        problem = doubled and "the header has the column %r twice" % doubled[0]
    if problem:
        raise UserError("%s, line %d: %s" % (source, header.line, problem))
    for row in rows:
        problem = row.problem
        if not problem and len(row.fields) != len(names):
            problem = "%d fields, the header has %d" % (len(row.fields), len(names))
        yield Fields(row.line, {} if problem else dict(zip(names, row.fields)), problem)


def _tsv_rows(lines):
    for line, text in enumerate(_texts(lines), 1):
        text = _without_end(text)
        problem = _NOT_UTF8 if _UNDECODABLE.search(text) else "" if text else BLANK
        yield Fields(line, text.split("\t"), problem)


class _RepeatableLines:
    """An iterator of lines that can go back to just after a row's first line.

    A quote that is never closed would take all that follows into one row.
    """

    def __init__(self, lines):
        self._texts = _texts(lines)
        self._waiting = collections.deque()
        self._taken = []
        self.number = 0  # lines taken so far

    def __iter__(self):
        return self

    def __next__(self):
        text = self._waiting.popleft() if self._waiting else next(self._texts)
        self._taken.append(text)
        self.number += 1
        return _LONE_CR.sub(_CARRIAGE_RETURN, text) if "\r" in text else text

    def begin_row(self):
        self._taken = []

    def go_back(self):
        self._waiting.extendleft(reversed(self._taken[1:]))
        self.number -= len(self._taken) - 1


def csv_rows(lines):
    """The rows of CSV, the header among them, each a `Fields`; `lines` are bytes."""
    source = _RepeatableLines(lines)
    rows = csv.reader(source, strict=True)
    while True:
        source.begin_row()
        line = source.number + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Fields(line, [], _csv_problem(str(error), line, source.number))
            source.go_back()
            continue
        if any(map(_UNDECODABLE.search, fields)):
            yield Fields(line, [], _NOT_UTF8)
        else:
            fields = [field.replace(_CARRIAGE_RETURN, "\r") for field in fields]
            yield Fields(line, fields, "" if fields else BLANK)


def _csv_problem(error, first, last):
    """What is wrong with a row from its first line to that on which it was given up."""
    if error.startswith("field larger"):
        problem = "a field is longer than %d characters" % MAX_CSV_FIELD
    else:
        problem = "not valid CSV (%s)" % error
    if last > first:
        problem += ", on line %d; is a quote not closed?" % last
    return problem


# --- writing --------------------------------------------------------------------


def check_writable(kind, names):
    """Refuses names that this kind of file cannot hold.

    Raises:
      UserError: naming the first.
    """
    for name in names:
        if kind == TSV and re.search(r"[\t\r\n]", name):
            raise UserError(
                "%r holds a tab or a line end, which TSV cannot: give an --output that "
                "ends in .csv or .jsonl" % name
            )


def format_header(kind, names):
    """The line or lines before the rows, as bytes.

    Args:
      kind: `TSV`, `CSV` or `JSONL`.
      names: names of the columns.
    """
    return b"" if kind == JSONL else _format_fields(kind, names)


def format_row(kind, names, values):
    """One row, as bytes.

    Args:
      kind: `TSV`, `CSV` or `JSONL`.
      names: names of the columns.
      values: dict from a column's name to a string or a number. What is not there is
        left empty in a table and left out in JSON.
    """
    if kind == JSONL:
        text = json.dumps(
            {name: values[name] for name in names if name in values},
            ensure_ascii=False,
        )
        return (text + "\n").encode("utf-8")
    return _format_fields(kind, [str(values.get(name, "")) for name in names])


def _format_fields(kind, fields):
    if kind == TSV:
        return ("\t".join(fields) + "\n").encode("utf-8")
    text = io.StringIO()
    # With this line end a field with either of its characters is quoted.
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return (text.getvalue().removesuffix("\r\n") + "\n").encode("utf-8")
