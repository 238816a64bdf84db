"""Task files: the tasks that they describe, and messages about mistakes."""

import json
import shutil

import numpy as np
import pytest

from errors import UserError
from inputs import text_rows
from tasks import bad_rows, own_tasks, task_data
from tasks.regression import Regression
from tests.places import ROOT

VALID = {
    "name": "mail",
    "train": "train.csv",
    "dev": "dev.csv",
    "test": "test.csv",
    "text_a": "message",
    "label": "topic",
}
ROWS = 'id,message,topic\n1,"Where, please, is ""it""?",late\n2,"Two\nlines",bill\n'
PAIRS = '{"a": "One.", "b": "Two.", "y": 3}\n{"a": "é", "b": "ü", "y": true}\n'


@pytest.fixture
def write(tmp_path):
    """Writes a task's file, and the files of rows by name; gives the task's path."""

    def write(document, **rows):
        for name, content in rows.items():
            name, _, ending = name.rpartition("_")
            (tmp_path / ("%s.%s" % (name, ending))).write_text(content)
        path = tmp_path / "task.json"
        path.write_text(json.dumps(document))
        return str(path)

    return write


def load(*arguments):
    return own_tasks.load_task(*arguments)[0]


def examples(task, folder, split):
    rows = task_data.read_examples(task, str(folder), split)
    return [(row.text_a, row.text_b, row.label, row.line) for row in rows]


def test_labels_and_metrics_that_are_not_given(write, tmp_path):
    path = write(VALID, train_csv=ROWS)
    assert own_tasks.load_task(path)[1] == str(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "train.csv").rename(tmp_path / "rows" / "train.csv")
    tmp_path = tmp_path / "rows"
    task, folder = own_tasks.load_task(path, (), str(tmp_path))
    assert folder == str(tmp_path)
    assert task.type.labels == ("bill", "late")
    assert task.metrics == ("accuracy", "macro_f1")
    assert task.text_columns == ("message", None)
    assert examples(task, tmp_path, task.train) == [
        ('Where, please, is "it"?', None, "late", 2),
        ("Two\nlines", None, "bill", 3),
    ]
    assert [(split.filename, split.has_labels) for split in task.splits] == [
        ("train.csv", True), ("dev.csv", True), ("test.csv", False)
    ]  # fmt: skip


def test_another_delimiter_and_encoding(write, tmp_path):
    content = 'message;topic\n"Où; là, ""ici""";b\nGrüße;a\n'
    document = {**VALID, "delimiter": ";", "encoding": "cp1252"}
    path = write(document)
    (tmp_path / "train.csv").write_bytes(content.encode("cp1252"))
    task = load(path)
    assert examples(task, tmp_path, task.train) == [
        ('Où; là, "ici"', None, "b", 2),
        ("Grüße", None, "a", 3),
    ]
    entries = own_tasks.task_entries(task)
    assert (entries["delimiter"], entries["encoding"]) == (";", "cp1252")
    assert own_tasks.parse_task(entries, task.config_file) == task
    assert not {"delimiter", "encoding"} & set(own_tasks.task_entries(load(write(
        VALID, train_csv=ROWS
    ))))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("t.csv", b"message;topic\nx;a\n", ["semicolons: give", '"delimiter": ";" in']),
        ("t.csv", b"message\ttopic\nx\ta\n", ["tabs: give", r'"delimiter": "\t" in']),
        ("t.csv", b"id;message\nx;a\n", ["'topic'; it has 'id;message'"]),
        ("t.tsv", b"message,topic\nx,a\n", ["commas: name the file .csv, and give"]),
        ("t.csv", b"message,topic\ncaf\xe9,a\n", ["line 2", "Latin-1", '"encoding"']),
        ("t.csv", "message,topic\n".encode("utf-16"), ["line 1", "UTF-16"]),
    ],
)
def test_another_delimiter_or_encoding_is_recognized(
    write, tmp_path, name, content, parts
):
    path = write({**VALID, "train": name})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(path)
    assert all(part in str(caught.value) for part in (name, *parts))
    is_guess = "seem to be separated" in str(caught.value)
    assert is_guess == ("delimiter" in "".join(parts) or ".csv, and" in parts[0])


def test_rows_that_cannot_be_used_are_collected(write, tmp_path):
    rows = "message,topic\na,x\n\nb,\nc,y,z\n" + "d,\n" * 30 + 'e,y\n"f,x\n'
    path, found = write(VALID, train_csv=rows, dev_csv="message,topic\nx,z\nx\n"), None
    with pytest.raises(UserError, match="line 3: a blank line"):
        load(path)
    found = bad_rows.BadRows()
    task, folder = own_tasks.load_task(path, bad_rows=found)
    assert task.type.labels == ("x", "y")
    train = task_data.read_examples(task, folder, task.train, found)
    assert [(each.text_a, each.line) for each in train] == [("a", 2), ("e", 36)]
    train_path = str(tmp_path / "train.csv")
    assert found.counts() == {train_path: 1 + 31 + 1 + 1}
    lines = list(found.describe())
    assert [line for line in lines if line[0] != " "] == [
        train_path + ": 1 bad row (blank line)",
        train_path + ": 31 bad rows (label), the first 20",
        train_path + ": 1 bad row (number of fields)",
        train_path + ": 1 bad row (unreadable)",
    ]
    assert lines.count("  line 4: label, field 2: '' is not one of 'x', 'y'") == 1
    assert len(lines) == 4 + 1 + 20 + 1 + 1
    for skips, message in ((True, "its 1 row can"), (False, "its 2 rows can")):
        split = task.dev[0]._replace(skips_broken_lines=skips)
        with pytest.raises(UserError, match=r"dev\.csv: none of " + message) as caught:
            task_data.read_examples(task, folder, split, found)
        assert "line 2: label, field 2: 'z' is not one of 'x', 'y'" in str(caught.value)


def test_two_files_of_one_name(write, tmp_path):
    path = write(VALID, train_csv=ROWS)
    other = shutil.copy(path, tmp_path / "other.json")
    with pytest.raises(UserError, match=r"other.json: name is .mail."):
        own_tasks.load_tasks([path, str(other)])


def test_labels_that_are_numbers_are_sorted_as_such(write):
    rows = "".join("x,%s\n" % label for label in ("100", "10", "9", "100"))
    task = load(write(VALID, train_csv="message,topic\n" + rows))
    assert task.type.labels == ("9", "10", "100")


def test_pairs_of_jsonl(write, tmp_path):
    document = {"name": "p", "train": "t.jsonl", "text_a": "a", "text_b": "b"}
    task = load(write({**document, "label": "y"}, t_jsonl=PAIRS))
    assert task.type.labels == ("3", "true")
    assert examples(task, tmp_path, task.train) == [
        ("One.", "Two.", "3", 1),
        ("é", "ü", "true", 2),
    ]


def test_numbers_in_a_table_without_header(write, tmp_path):
    document = {
        "name": "n", "dev": "d.tsv", "header": False, "regression": True,
        "text_a": 1, "text_b": 2, "label": 0, "metrics": ["pearson"],
    }  # fmt: skip
    task = load(write(document, d_tsv="-1.5\ta\tb\n7e2\tc\td\n"))
    assert task.type == Regression() and task.metrics == ("pearson",)
    assert examples(task, tmp_path, task.dev[0]) == [
        ("a", "b", "-1.5", 1),
        ("c", "d", "7e2", 2),
    ]


def test_entries_of_a_task_are_parsed_to_the_same_task(write):
    for document, rows in (
        (VALID, {"train_csv": ROWS}),
        ({**VALID, "dev": None, "dev_share": 0.5, "seed": 3}, {"train_csv": ROWS}),
        ({**VALID, "test_labels": True, "max_seq_length": 9}, {"train_csv": ROWS}),
    ):
        task = load(write(document, **rows))
        entries = json.loads(json.dumps(own_tasks.task_entries(task)))
        assert own_tasks.parse_task(entries, task.config_file) == task


def test_a_dev_set_held_out_of_the_training_set(write, tmp_path):
    labels = ["rare" if n % 5 == 0 else "common" for n in range(200)] + ["single"]
    lines = ["text %d,%s\n" % item for item in enumerate(labels)]
    document = {**VALID, "dev": None, "dev_share": 0.25}
    found = {}
    for seed in (1, 1, 2):
        path = write(
            {**document, "seed": seed}, train_csv="".join(["message,topic\n", *lines])
        )
        task = load(path)
        train, dev = (examples(task, tmp_path, task.splits[n]) for n in (0, 1))
        # Each example once and in order, stratified by label.
        assert sorted(train + dev, key=lambda row: row[3]) == [
            ("text %d" % n, None, label, n + 2) for n, label in enumerate(labels)
        ]
        assert train == sorted(train, key=lambda row: row[3])
        counts = [[row[2] for row in dev].count(label) for label in task.type.labels]
        assert dict(zip(task.type.labels, counts)) == {
            "common": 40,
            "rare": 10,
            "single": 0,
        }
        assert found.setdefault(seed, dev) == dev
    assert found[1] != found[2]


# Entries of a task file that replace those of `VALID`, and what the message must name.
MISTAKES = [
    ({"name": None}, "name"),
    ({"name": "a=b"}, "name", "a=b"),
    ({"name": "mrpc"}, "name", "mrpc", "GLUE"),
    ({"name": "STSB"}, "name", "STSB", "GLUE"),
    ({"text_a": None}, "text_a"),
    ({"text_a": -1}, "text_a", "-1"),
    ({"text_a": "message\n(en)"}, "text_a", r"message\n"),
    ({"text_a": "topic"}, "text_a", "topic", "label"),
    ({"text_b": "topic"}, "text_b", "topic", "label"),
    ({"text_a": 0, "label": 0}, "text_a is 0", "label"),
    ({"label": None}, "label"),
    ({"label": 1.5}, "label", "1.5"),
    ({"columns": ["a"]}, "columns", "text_a", "dev_share"),
    ({"train": "train.txt"}, "train", "train.txt", ".csv"),
    ({"train": None, "dev": None, "test": None}, "train", "dev", "test"),
    ({"header": False}, "text_a", "message", "header"),
    ({"metrics": ["accuracy", "pearson"]}, "metrics", "pearson", "macro_f1"),
    ({"labels": ["a", "b", "c"], "metrics": ["f1"]}, "metrics", "f1"),
    ({"labels": ["a"]}, "labels", "2", "1000"),
    ({"labels": ["a", "a"]}, "labels", "twice"),
    ({"labels": ["a", "b"], "regression": True}, "labels", "regression"),
    ({"max_seq_length": 2}, "max_seq_length", "2", "3"),
    ({"lable": "topic"}, '"lable" is not known (did you mean label?)'),
    ({"metrics": ["acuracy"]}, "metrics", "did you mean accuracy"),
    ({"delimiter": ";;"}, "delimiter", "one character"),
    ({"delimiter": '"'}, "delimiter", "no quote"),
    ({"delimiter": ";", **dict.fromkeys(("train", "dev", "test"), "a.tsv")}, ".csv"),
    ({"encoding": "utf-16"}, "encoding", "contains ASCII"),
    ({"encoding": "idna"}, "encoding", "contains ASCII"),
    ({"encoding": "hex"}, "encoding", "contains ASCII"),
    ({"encoding": "unicode_escape"}, "encoding", "contains ASCII"),
    ({"encoding": "latin-7000"}, "encoding", "contains ASCII"),
    ({"dev_share": 0.2}, "dev_share", "dev"),
    ({"dev": None, "dev_share": 0.9}, "dev_share", "0.9", "0.5"),
    ({"train": None, "dev": None, "dev_share": 0.1}, "dev_share", "train"),
    ({"train": None}, "train", "labels"),
    ({"train": "gone.csv"}, "gone.csv"),
    ({"train": "t.jsonl", "text_a": 0}, "text_a", "t.jsonl"),
    ({"label": "text"}, "train.csv, line 1", "'text'", "'id', 'message'"),
    ({"label": 7}, "train.csv, line 1", "7"),
    ({"label": "id", "labels": ["9", "8"]}, "train.csv, line 2", "field 1", "'9'"),
    ({"regression": True}, "train.csv, line 2", "field 3", "'late'"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(write, tmp_path, mistake):
    change, *parts = mistake
    document = {k: v for k, v in {**VALID, **change}.items() if v is not None}
    with pytest.raises(UserError) as caught:
        task = load(write(document, train_csv=ROWS), ("mrpc", "sts-b"))
        task_data.read_examples(task, str(tmp_path), task.train)
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("message,topic\nx,\ny,a\n", "line 2: label.*: '' is not a printable text"),
        ("message,topic\nx,a\ny,a\n", "train.csv: .* has 1 different"),
        ("message,topic\n" + "x,%d\n" * 1001 % (*range(1001),), "has 1001 "),
        ("message,topic\nx,a,b\n", "line 2: 3 comma-separated fields, expected 2"),
        ("message,topic\n", "has no data rows"),
    ],
    ids=range(5),
)
def test_training_sets_that_are_refused(write, rows, message):
    with pytest.raises(UserError, match=message):
        load(write(VALID, train_csv=rows))


SIMILAR = [
    *(("good", "good "), ("good", "Good"), ("very good", "very  good")),
    *(("gr\u00f6\u00dfe", "gro\u0308\u00dfe"), ("1", "1.0", "01")),
]


@pytest.mark.parametrize("labels", SIMILAR)
def test_labels_that_are_written_differently(write, labels):
    rows = "message,topic\n" + "".join("x,%s\n" % each for each in ("bad", *labels))
    with pytest.raises(UserError) as caught:
        load(write(VALID, train_csv=rows))
    for line, label in enumerate(labels, 3):
        quoted = ascii(label) if not label.isascii() else repr(label)
        assert "%s (1, first on line %d)" % (quoted, line) in str(caught.value)
    assert "bad" not in str(caught.value)
    # Where bad rows are collected, those of the rarer forms are some.
    found = bad_rows.BadRows()
    task, folder = own_tasks.load_task(
        write(VALID, train_csv=rows + "x,%s\n" % labels[1]), bad_rows=found
    )
    assert set(task.type.labels) == {"bad", labels[1]}
    assert len(task_data.read_examples(task, folder, task.train, found)) == 3
    assert sum(found.counts().values()) == len(labels) - 1
    # Whoever means different classes says so.
    listed = {**VALID, "labels": ["bad", *labels]}
    assert load(write(listed, train_csv=rows)).type.labels == ("bad", *labels)


@pytest.fixture
def warnings(monkeypatch):
    logged = []
    monkeypatch.setattr(
        task_data.console, "warn", lambda text, *a: logged.append(text % a)
    )
    return logged


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize("regression", [False, True])
def test_an_example_taken_for_the_header(write, tmp_path, warnings, share, regression):
    document = {"name": "n", "train": "t.csv", "text_a": 0, "label": 1}
    document.update(dev_share=share, regression=regression)
    task = load(write(document, t_csv="a,1\nb,2\nc,1\nd,2\ne,1\n"))
    for split in task.splits:
        examples(task, tmp_path, split)
    (warning,) = warnings
    assert "t.csv, line 1" in warning and '"header": false' in warning


def test_a_header_taken_for_an_example(write, tmp_path, warnings):
    document = {"name": "n", "train": "t.csv", "text_a": 0, "label": 1, "header": False}
    task = load(write(document, t_csv="text,label\na,1\nb,2\nc,1\nd,2\n"))
    examples(task, tmp_path, task.train)
    (warning,) = warnings
    assert "line 1" in warning and "'label'" in warning and '"header": true' in warning


def test_a_dev_set_of_a_regression(write, tmp_path):
    rows = "message,topic\n" + "".join("x,%d\n" % n for n in range(40))
    document = {**VALID, "dev": None, "dev_share": 0.25, "regression": True}
    task = load(write(document, train_csv=rows))
    train, dev = (examples(task, tmp_path, task.splits[n]) for n in (0, 1))
    # Labels are not stratified.
    assert (len(train), len(dev)) == (30, 10) and not set(train) & set(dev)
    task = load(write({**document, "dev_share": 0.01}))
    with pytest.raises(UserError, match=r"dev_share.* 40 examples"):
        examples(task, tmp_path, task.dev[0])


def test_predictions_of_a_regression_have_no_bounds(write, tmp_path):
    task = load(write({**VALID, "regression": True}))
    scores = [np.array([score], np.float32) for score in (-1e9, -0.0, 7.25)]
    results, submission = tmp_path / "results.tsv", tmp_path / "submission.tsv"
    written = task.type.write_predictions(scores, (str(results), str(submission)))
    assert list(written) == scores
    assert submission.read_text().splitlines()[1:] == [
        *("0\t-1000000000.000", "1\t0.000", "2\t7.250")
    ]


def test_a_number_whose_square_is_infinite(write, tmp_path):
    document = {**VALID, "regression": True}
    for number in ("1e39", "-1e20"):
        task = load(write(document, train_csv="message,topic\nx,1\ny,%s\n" % number))
        with pytest.raises(UserError, match="train.csv, line 3: .*" + number):
            examples(task, tmp_path, task.train)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"a": "x", "b": "z", "y": NaN}\n', "line 1: 'y' is nan, not a label"),
        ('{"a": "x", "y": 1}\n', "line 1: no 'b', there are 'a', 'y'"),
        ('{"a": "x", "b": null, "y": 1}\n', "line 1: 'b' is None, not a text"),
        ('{"a": "x", "b": "z", "y": [1]}\n', "'y' is \\[1\\], not a label"),
    ],
)
def test_rows_of_jsonl_that_are_refused(write, rows, message):
    document = {"name": "p", "train": "t.jsonl", "text_a": "a", "text_b": "b"}
    with pytest.raises(UserError, match=message):
        load(write({**document, "label": "y"}, t_jsonl=rows))


def test_a_file_that_is_no_description(tmp_path):
    for content in ("[]", "{", '{"name": "a", "name": "b"}'):
        (tmp_path / "task.json").write_text(content)
        with pytest.raises(UserError, match="`task_config` wants a JSON file"):
            own_tasks.load_task(str(tmp_path / "task.json"))
    with pytest.raises(UserError, match="gone"):
        own_tasks.load_task(str(tmp_path / "gone.json"))


def test_the_example_of_this_project():
    folder = ROOT / "sample_data" / "messages"
    task = load(str(folder / "messages.json"))
    assert task.type.labels == ("delivery", "payment", "product")
    train, dev, test = (examples(task, folder, split) for split in task.splits)
    assert (len(train), len(dev), len(test)) == (72, 24, 30)
    for rows in (train, dev, test):
        counts = [[row[2] for row in rows].count(label) for label in task.type.labels]
        assert len(set(counts)) == 1
    assert len({row[0] for row in train + dev + test}) == 126
    assert any('"' in row[0] and "," in row[0] for row in train)
    assert task.train.kind == text_rows.CSV
