"""Counts of a task's examples, and the warnings about them."""

import pytest

import glue_data
from inputs import data_report, features, tasks
from inputs.data_report import DataWarning
from tests.places import GLUE

CLEAN = [("a", "0"), ("b", "1"), ("c", "1"), ("d", "0")]


def example(line, text, label="0", text_b=None):
    return features.InputExample("x", text, text_b, label, line)


def examine(train=(), dev=(), test=(), labels=("0", "1"), test_labels=False):
    """Reports on rows of (text, label, second text); empty splits are not read."""

    def split(name, label="label"):
        return tasks.Split(name, name + ".csv", 0, "text", None, label)

    task = tasks.Task(
        "t", "T", labels, ("accuracy",), split("train"), (split("dev"),),
        (split("test", "label" if test_labels else None),),
        is_regression=not labels,
    )  # fmt: skip
    rows = {"train": train, "dev": dev, "test": test}
    examples = {
        name: [example(line, *row) for line, row in enumerate(found, 2)]
        for name, found in rows.items()
        if found
    }
    return data_report.examine(task, examples)


def test_counts_of_each_split():
    report = examine(CLEAN, [("e", "0"), ("f", "1")], [("g", "0")])
    assert report.splits == (
        data_report.SplitReport("train", 4, {"0": 2, "1": 2}),
        data_report.SplitReport("dev", 2, {"0": 1, "1": 1}),
        data_report.SplitReport("test", 1, {}),
    )
    assert report.warnings == ()
    assert [data_report.describe_split(split) for split in report.splits] == [
        'train: 4 examples, 2 of "0" (50.0 %), 2 of "1" (50.0 %)',
        'dev: 2 examples, 1 of "0" (50.0 %), 1 of "1" (50.0 %)',
        "test: 1 example",
    ]


def test_empty_texts():
    rows = [(" ", "0", "b"), ("a", "1", "\u200b"), ("a", "1", ""), ("b", "0", "b")]
    (warning,) = examine(rows).warnings
    assert warning == DataWarning("train", "3 examples with an empty text", (2, 3, 4))
    assert str(warning).endswith(" (lines 2, 3, 4)")
    (warning,) = examine(CLEAN, [], [("", "0"), ("a b", "1")] * 6).warnings
    assert str(warning).endswith(" (lines 2, 4, 6, 8, 10, ...)")


def test_texts_that_are_numbers():
    (warning,) = examine([("7", "0"), ("8.5", "1"), ("9", "0"), ("a", "1")]).warnings
    assert "3 of 4 examples have a number for text_a" in str(warning)


@pytest.mark.parametrize("name", ["dev", "test"])
def test_examples_of_train_in_other_sets(name):
    train = [("a", "0", "b"), ("c", "1", "d"), ("c", "0", None), ("e", "1", None)]
    rows = [("a", "1", "b"), ("b", "0", "a"), ("c", "1", "d"), ("a", "0", None)]
    (warning,) = examine(train, **{name: rows}).warnings
    assert warning == DataWarning(
        name, "2 examples with the texts of train examples", (2, 4)
    )
    assert examine(**{name: rows}).warnings == ()


def test_examples_of_dev_in_the_test_set():
    (warning,) = examine(CLEAN, [("e", "0"), ("f", "1")], [("f", "0")]).warnings
    assert warning == DataWarning(
        "test", "1 example with the texts of dev examples", (2,)
    )
    assert str(warning).endswith(" (line 2)")


def test_texts_with_two_labels():
    rows = [("a", "0"), ("b", "1"), ("a", "1"), ("b", "0", "c"), ("a", "1")]
    (warning,) = examine(rows).warnings
    assert warning.text.startswith("3 examples") and warning.lines == (2, 4, 6)
    report = examine(CLEAN, [], [("e", "0"), ("e", "1")], test_labels=True)
    assert [(w.source, w.lines) for w in report.warnings] == [("test", (2, 3))]
    assert examine(CLEAN, [], [("e", "0"), ("e", "1")]).warnings == ()
    assert examine([("a", "0"), ("a", "1")], labels=()).warnings == ()


def test_labels_with_few_examples():
    rows = [*CLEAN, ("e", "2"), ("f", "3")]
    report = examine(rows, [("g", "0"), ("h", "1")], labels=("0", "1", "2", "3"))
    assert report.warnings == (
        DataWarning("train", "2 labels with a single example: '2', '3'", (6, 7)),
        DataWarning("dev", "2 labels without an example: '2', '3'"),
    )
    (warning,) = examine(CLEAN, [("g", "1"), ("h", "1")]).warnings
    assert str(warning) == "dev: all examples have the label '1'"
    many = tuple(map(str, range(1000)))
    (warning,) = examine(CLEAN, labels=many).warnings
    assert "998 labels without an example" in str(warning)
    assert len(str(warning)) < 200


def test_listed_labels_that_are_written_differently():
    rows = [("a", "x"), ("b", "X "), ("c", "x"), ("d", "X ")]
    similar, padded = map(str, examine(rows, labels=("x", "X ")).warnings)
    assert similar.startswith("labels: 'x', 'X ' differ in case")
    assert padded.startswith("labels: 'X ' with white space")


@pytest.mark.parametrize("name", glue_data.GLUE_TASKS)
def test_the_lines_are_those_of_the_files(name):
    task = glue_data.GLUE_TASKS[name]
    for split in task.splits:
        path = GLUE / task.title / split.filename
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
        found = tasks.read_examples(task, str(path.parent), split)
        assert found
        for each in found:
            assert each.text_a in lines[each.line - 1]
            assert (each.text_b or "") in lines[each.line - 1]


@pytest.mark.parametrize(
    ("unknown", "truncated", "level"), [(50, 2, "say"), (51, 2, "warn"), (0, 3, "warn")]
)
def test_lost_text_is_a_warning(monkeypatch, unknown, truncated, level):
    logged = []
    for name in ("say", "warn"):
        monkeypatch.setattr(
            data_report.console, name, lambda *a, n=name: logged.append((n, a[-1]))
        )
    counts = features.TextCounts(40, 1000, unknown, 70, truncated)
    data_report.log_report(examine(CLEAN), {"train": counts}, 64)
    (_, (found, text)) = logged
    assert found == level
    for part in ("1000 word pieces", "70", "%d examples" % truncated, "64"):
        assert part in text
