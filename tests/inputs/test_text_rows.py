"""Rows of every kind of file, and messages about broken ones."""

import csv
import io
import itertools
import json

import pytest

import glue_data
from errors import UserError
from inputs import text_rows
from inputs.text_rows import CSV, JSONL, LINES, TSV, Columns, Row


def read(content, kind, columns=Columns(), tasks=("one",)):  # noqa: B008
    """All rows of a file's content, text or bytes; without the values of columns."""
    content = content.encode() if isinstance(content, str) else content
    rows = text_rows.read_rows(io.BytesIO(content), kind, columns, tasks, "rows")
    return [row._replace(values={}) for row in rows]


def row(line, text_a, text_b=None, task="one"):
    return Row(line, "", task, text_a, text_b)


def problems(rows):
    """Lines and problems of the rows that have one."""
    return [(r.line, r.problem) for r in rows if r.problem]


def test_csv_has_quotes_and_tsv_has_none():
    content = 'text\tid\nHe said "no\t1\n"What"\t2\n'
    assert read(content, TSV) == [row(2, 'He said "no'), row(3, '"What"')]
    content = 'id,text\n1,"no, ""never"""\n2,plain\n'
    assert read(content, CSV) == [row(2, 'no, "never"'), row(3, "plain")]


def test_a_row_of_csv_may_have_several_lines():
    content = 'text_a,text_b\n"one\ntwo\r\n",b\nc,d\n"e\n\nf",\nonly one\n'
    rows = read(content, CSV)
    assert rows[:3] == [row(2, "one\ntwo\r\n", "b"), row(5, "c", "d"), row(6, "e\n\nf")]
    assert problems(rows) == [(9, "1 field, expected 2 ('text_a', 'text_b')")]


def test_texts_without_word_pieces_are_empty():
    blank = ["", " \t", "\u200b\ufeff", "\0\x1b", "\ufffd", "\u2028", "\u0301"]
    for text in blank:
        content = json.dumps({"text_a": "a" + text, "text_b": text})
        assert read(content, JSONL) == [row(1, "a" + text)]
        assert problems(read(json.dumps({"text": text}), JSONL)) == [
            (1, "text is empty")
        ]
    assert not any(text_rows.is_blank(text + "\ue000") for text in blank)


def test_a_quote_that_is_not_closed_costs_one_row():
    content = 'text,n\na,1\n"b,2\nc,3\n"d, or e",4\nf,5\n"g,6\n'
    rows = read(content, CSV)
    assert [r for r in rows if not r.problem] == [
        row(2, "a"), row(4, "c"), row(5, "d, or e"), row(6, "f")
    ]  # fmt: skip
    (first, message), (second, _) = problems(rows)
    assert (first, second) == (3, 7)
    assert "not valid CSV" in message
    assert "on line 5; is a quote not closed" in message


def test_long_fields_of_csv(monkeypatch):
    # The csv module's own limit is 131072 characters.
    assert read("text\n%s\n" % ("a" * 150000), CSV) == [row(2, "a" * 150000)]
    monkeypatch.setattr(text_rows, "MAX_CSV_FIELD", 1000)
    before = csv.field_size_limit(1000)
    # A quote that is not closed does not take in the whole file.
    rows = read('text\n"a\n' + "b\n" * 2000, CSV)
    longer = read("text\n%s\nb\n" % ("a" * 1001), CSV)
    csv.field_size_limit(before)
    problem = "a field is longer than 1000 characters"
    assert problems(longer) == [(2, problem)]
    ((line, found),) = problems(rows)
    assert line == 2 and found.startswith(problem + ", on line 502")
    assert len(rows) == 2001 and rows[-1] == row(2002, "b")


@pytest.mark.parametrize("char", list("\r\0\x0b\x85\u2028"))
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (TSV, "text\n%s\r\n"),
        (CSV, "text\n%s\r\n"),
        (CSV, 'text,n\n"%s",1\n'),
        (CSV, 'n,text\n1,"%s"\n'),
        (LINES, "\n%s\r\n"),
    ],
)
def test_only_a_line_feed_ends_a_line(kind, content, char):
    text = "good%sbad" % char
    assert read(content % text, kind)[-1] == row(2, text)
    assert read(json.dumps({"text": text}), JSONL) == [row(1, text)]


def test_fields_quoted_by_a_spreadsheet():
    for field in ('"She said ""no"", and left."', '"""No."""'):
        assert text_rows.is_quoted(field)
    for field in ('"No," she said, "never."', '"A text."', 'He said ""no"".', '"', ""):
        assert not text_rows.is_quoted(field)


def test_jsonl():
    content = '{"text": "a"}\n{"text_a": "b", "text_b": "c", "n": 1}\n'
    content += '{"text_a": "d", "text_b": null}\n{"text_a": "\\u00e9"}'
    assert read(content, JSONL) == [
        row(1, "a"), row(2, "b", "c"), row(3, "d"), row(4, "é")
    ]  # fmt: skip


def test_half_of_a_surrogate_pair_in_jsonl():
    content = '{"text": "a \\uD83D\\ude00 \\ud83d\\ud83d b \\ude00"}'
    assert read(content, JSONL) == [row(1, "a \U0001f600 \ufffd\ufffd b \ufffd")]


def test_plain_lines():
    assert read("a b\nc\td\r\n\"e\"\t", LINES) == [
        row(1, "a b"), row(2, "c", "d"), row(3, '"e"')
    ]  # fmt: skip
    columns = Columns(task="task")
    rows = read("y\ta\nx\tb\tc\na b\n", LINES, columns, ("x", "y"))
    assert rows[:2] == [row(1, "a", None, "y"), row(2, "b", "c", "x")]
    assert problems(rows) == [
        (3, "1 field, expected 2 or 3 ('task', 'text_a', 'text_b')")
    ]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "gb18030"])
def test_bytes_that_are_not_in_the_encoding(encoding):
    dialect = text_rows.Dialect(encoding=encoding)
    for bad in (b"\x81", b"a\x81", b"\x81\x20b", b"\xff", b"\x81\xff\xfe", b"\xe0"):
        for kind in (CSV, TSV, JSONL):
            rows = text_rows.read_records([b"a\n", bad + b"\n"], kind, dialect)
            problem = list(rows)[1].problem
            assert problem if kind == JSONL else problem in ("",) or encoding in problem


GOOD = {
    TSV: b"text_a\ttext_b\na\tb\n",
    CSV: b"text_a,text_b\na,b\n",
    JSONL: b'{"text": "a"}\n',
    LINES: b"a\n",
}


@pytest.mark.parametrize("kind", GOOD)
def test_byte_order_mark_and_line_ends_of_windows(kind):
    content = b"\xef\xbb\xbf" + GOOD[kind].replace(b"\n", b"\r\n")
    assert read(content, kind) == read(GOOD[kind], kind)


@pytest.mark.parametrize(
    ("kind", "bad", "problem"),
    [
        (TSV, b"a\n", "1 field, expected 2"),
        (TSV, b"\n", "a blank line"),
        (TSV, b"  \tb\n", "text_a is empty"),
        (TSV, b"a\xff\tb\n", "not UTF-8 (byte 0xff)"),
        (CSV, b"a\n", "1 field, expected 2"),
        (CSV, b"\n", "a blank line"),
        (CSV, b"a,\xc3\n", "not UTF-8 (byte 0xc3)"),
        (CSV, b'"a" b,c\n', "not valid CSV"),
        (JSONL, b"\n", "a blank line"),
        (JSONL, b'{"text"\n', "column 8"),
        (JSONL, b"9" * 5000 + b"\n", "5000 digits"),
        (JSONL, b"[" * 100000 + b"\n", "JSON"),
        (JSONL, b'"text"\n', "not a JSON object"),
        (JSONL, b'{"text": "a", "text": "b"}\n', "'text' twice"),
        (JSONL, b'{"txt": "a"}\n', "no column 'text_a', 'text_b', there"),
        (JSONL, b'{"text": 3}\n', "text is 3, not a text"),
        (JSONL, b'{"text": null}\n', "text is None, not a text"),
        (JSONL, b'{"text": "\xe9"}\n', "not UTF-8"),
        (LINES, b"a\tb\tc\n", "3 fields, expected 1 or 2"),
    ],
)
def test_a_broken_row_is_reported_and_the_next_one_read(kind, bad, problem):
    good = GOOD[kind]
    last = good.splitlines(keepends=True)[-1]
    rows = read(good + bad + last, kind)
    assert [bool(r.problem) for r in rows] == [False, True, False]
    line = good.count(b"\n") + 1
    assert [r.line for r in rows] == [line - 1, line, line + 1]
    assert problem in rows[1].problem
    assert rows[0][1:] == rows[2][1:]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (TSV, "task\ttext\nx\ta\nz\tb\ny\tc\n"),
        (CSV, "task,text\nx,a\nz,b\ny,c\n"),
        (LINES, "\nx\ta\nz\tb\ny\tc\n"),
        (
            JSONL,
            '{"text": "a"}\n{"task": "x", "text": "a"}\n{"task": ["x"], "text": "b"}\n'
            '{"task": "y", "text": "c"}\n',
        ),
    ],
)
def test_the_task_of_a_row(kind, content):
    *first, _, _, _ = rows = read(content, kind, Columns(task="task"), ("x", "y"))
    if kind == JSONL:
        assert problems(first) == [(1, "no task")]
    rows = rows[-3:]
    assert rows[0] == row(2, "a", None, "x")
    assert rows[1].line == 3
    assert rows[1].problem.startswith("unknown task ")
    assert rows[1].problem.endswith("there are x, y")
    assert rows[2] == row(4, "c", None, "y")


def test_the_columns_of_every_glue_task_are_known():
    for task in glue_data.GLUE_TASKS.values():
        split = task.test[0]
        names = [split.text_a, split.text_b or "other", "index"]
        content = "\t".join(reversed(names)) + "\n0\tb\ta\n"
        expected = row(2, "a", "b" if split.text_b else None)
        assert read(content, TSV) == [expected], task.name


def test_columns_by_name():
    content = "text,premise,claim\nx,a,b\n"
    assert read(content, CSV, Columns("premise", "claim")) == [row(2, "a", "b")]
    assert read(content, CSV, Columns("claim")) == [row(2, "b")]
    rows = read('{"premise": "a"}', JSONL, Columns("premise", "claim"))
    assert problems(rows) == [(1, "no column 'claim', there are 'premise'")]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", Columns(), "rows is empty: a header"),
        ("id,title\n", Columns(), "rows, line 1: .* no column .* there "
         "are 'id', 'title'; name them, `text_a_column`"),
        ("text,title\n", Columns("text", "titel"), "no column 'titel', there are"),
        ("text,title\n", Columns(task="task"), "no column 'task' for the task, .*; "
         "name it, `task_column`"),
        ("text,text\n", Columns(), "the column 'text' twice"),
        ("id;text\n", Columns(), "separated by semicolons: for .csv give `delim"),
        ("id\ttext\n", Columns(), "separated by tabs: for .csv give `delim"),
        (b"text,caf\xe9\n", Columns(), "rows, line 1: not UTF-8"),
        ('"text\n', Columns(), "rows, line 1: not valid CSV"),
    ],
)  # fmt: skip
def test_unusable_headers(content, columns, message):
    with pytest.raises(UserError, match=message):
        read(content, CSV, columns)


@pytest.mark.parametrize("kind", [TSV, CSV])
def test_a_long_header_is_shortened_in_messages(kind):
    tab = "\t" if kind == TSV else ","
    for names in (["c%d" % i for i in range(100000)], ["n" * 100000] * 2):
        with pytest.raises(UserError) as caught:
            read(tab.join(names) + "\n", kind)
        assert len(str(caught.value)) < 1000
    assert "there are 'nnn" in str(caught.value)


def test_rows_are_read_one_by_one():
    """From a file without end."""
    for kind, header, line in (
        (TSV, [b"text\n"], b"a\n"),
        (CSV, [b"text\n"], b'"a"\n'),
        (JSONL, [], b'{"text": "a"}\n'),
        (LINES, [], b"a\n"),
    ):
        lines = itertools.chain(header, itertools.repeat(line))
        rows = text_rows.read_rows(lines, kind, Columns(), ["one"], "rows")
        assert [r.text_a for r in itertools.islice(rows, 3)] == ["a"] * 3


def test_kinds_of_files():
    assert text_rows.check_kind("a/b.TSV", "input") == TSV
    assert text_rows.check_kind("b.csv", "input") == CSV
    assert text_rows.check_kind("gs://a/b.jsonl", "input") == JSONL
    with pytest.raises(UserError, match=r"`output`=a.txt: .* \.tsv, \.csv, \.jsonl"):
        text_rows.check_kind("a.txt", "output")


def test_writing():
    names = ["line", "label", "score"]
    values = [{"line": 1, "label": 'é, "b"'}, {"line": 2, "score": 0.25}]

    def written(kind):
        rows = [text_rows.format_row(kind, names, each) for each in values]
        return (text_rows.format_header(kind, names) + b"".join(rows)).decode()

    assert written(TSV) == 'line\tlabel\tscore\n1\té, "b"\t\n2\t\t0.25\n'
    assert list(csv.reader(io.StringIO(written(CSV)))) == [
        names, ["1", 'é, "b"', ""], ["2", "", "0.25"]
    ]  # fmt: skip
    assert [json.loads(line) for line in written(JSONL).splitlines()] == values
    for text in ("a\rb", "a\nb", "\r", "a\r\nb", "a,b\r"):
        content = text_rows.format_header(CSV, ["text", "n"])
        content += text_rows.format_row(CSV, ["text", "n"], {"text": text + "c"})
        assert read(content, CSV) == [row(2, text + "c")]
        # Others take the same from it.
        rows = csv.reader(io.StringIO(content.decode(), newline=""))
        assert list(rows) == [["text", "n"], [text + "c", ""]]
    text_rows.check_writable(CSV, ["a\tb"])
    with pytest.raises(UserError, match=r"'a\\tb' holds a tab"):
        text_rows.check_writable(TSV, ["a", "a\tb"])
