"""What is said of a task's rows before training."""

import pytest

import glue_data
from inputs import data_report, features, tasks
from tests.places import GLUE

CLEAN = [("a", None, "0"), ("b", None, "1"), ("c", None, "1")]


def examples(rows, first=2):
    return [
        features.InputExample("x", *row, line=line)
        for line, row in enumerate(rows, first)
    ]


def examine(train, dev=(), test=(), labels=("0", "1")):
    """Reports on rows; only splits that have any are there."""
    parts = ({"train": train}, {"dev": dev}, {"test": test})
    return data_report.examine(
        *({name: examples(r) for name, r in part.items() if r} for part in parts),
        labels,
    )


def doubts(*arguments, **rest):
    return [str(doubt) for doubt in examine(*arguments, **rest).doubts]


def test_rows_and_labels_of_each_split():
    report = examine(CLEAN, [("d", None, "0"), ("e", None, "1")], [("f", None, "0")])
    assert report.splits == (
        data_report.SplitReport("train", 3, {"0": 1, "1": 2}),
        data_report.SplitReport("dev", 2, {"0": 1, "1": 1}),
        data_report.SplitReport("test", 1, {}),
    )
    assert report.doubts == ()
    assert [data_report.describe_split(split) for split in report.splits] == [
        'train: 3 rows, 1 of "0" (33.3 %), 2 of "1" (66.7 %)',
        'dev: 2 rows, 1 of "0" (50.0 %), 1 of "1" (50.0 %)',
        "test: 1 rows",
    ]


def test_empty_texts():
    rows = [(" ", "b", "0"), ("a", "\t\u00a0", "1"), ("a", "", "1"), ("a", "b", "1")]
    (doubt,) = examine(rows).doubts
    assert doubt == data_report.Doubt(
        "train", "3 rows have an empty text", 3, (2, 3, 4)
    )
    assert str(doubt) == "train: 3 rows have an empty text (line 2, 3, 4)"
    many = [("", None, "0"), ("a", None, "1")] * 6
    assert doubts(CLEAN, [], many) == [
        "test: 6 rows have an empty text (line 2, 4, 6, 8, 10, ...)"
    ]


def test_rows_of_dev_in_train():
    train = [("a", "b", "0"), ("c", "d", "1"), ("c", None, "0")]
    dev = [("a", "b", "1"), ("b", "a", "0"), ("c", "d", "1"), ("a", None, "0")]
    assert doubts(train, dev) == [
        "dev: 2 rows have the texts of a row of train (line 2, 4)"
    ]
    assert doubts([], dev) == []


def test_one_label_alone():
    assert doubts(CLEAN, [("d", None, "1"), ("e", None, "1")]) == [
        "dev: all rows have the label '1'"
    ]
    assert doubts([("a", None, "1"), ("b", None, "1")], [("c", None, "0")]) == [
        "train: all rows have the label '1'",
        "dev: all rows have the label '0'",
        "train: no row has the label '0'; dev has 1",
    ]


def test_labels_that_train_lacks():
    labels = ("0", "1", "2", "3")
    dev = [("d", None, "2"), ("e", None, "1"), ("f", None, "2")]
    assert doubts(CLEAN, dev, labels=labels) == [
        "train: no row has the label '2'; dev has 2",
        "train: no row has the label '3'; dev has 0",
    ]
    assert doubts(CLEAN, labels=labels) == [
        "train: no row has the label '2'",
        "train: no row has the label '3'",
    ]


def test_regression_has_no_labels():
    rows = [("a", "b", "2.5"), ("c", "", "2.5")]
    report = examine(rows, [("d", "e", "2.5")], labels=())
    assert [split.labels for split in report.splits] == [{}, {}]
    assert [str(doubt) for doubt in report.doubts] == [
        "train: 1 rows have an empty text (line 3)"
    ]


@pytest.mark.parametrize("name", glue_data.GLUE_TASKS)
def test_the_lines_are_those_of_the_files(name):
    task = glue_data.GLUE_TASKS[name]
    for split in task.splits:
        path = GLUE / task.title / split.filename
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
        found = tasks.read_examples(task, str(path.parent), split)
        assert found
        for example in found:
            assert example.text_a in lines[example.line - 1]
            assert (example.text_b or "") in lines[example.line - 1]


def test_texts_of_a_split():
    counts = features.TextCounts(
        examples=40, pieces=1000, unknown=50, longest=70, cut=2
    )
    assert data_report.describe_texts(counts, 64) == (
        "1000 word pieces, 5.00 % of them [UNK]; the longest row has 70; 2 rows "
        "(5.0 %) are cut at --max_seq_length=64"
    )
    assert not data_report.are_doubtful(counts)
    assert data_report.are_doubtful(counts._replace(unknown=51))
    assert data_report.are_doubtful(counts._replace(cut=3))
