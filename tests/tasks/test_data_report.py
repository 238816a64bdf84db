"""What is reported of a task's examples, and what is suspicious about them."""

import pytest

from inputs import features
from tasks import data_report, task_data
from tasks.classification import Classification
from tasks.regression import Regression

CLEAN = [("a", "0"), ("b", "1"), ("c", "1"), ("d", "0")]


def make_task(labels=("0", "1"), test_labels=False):
    def split(name, label="label"):
        return task_data.Split(name, name + ".csv", 0, "text", None, label)

    test = split("test", "label" if test_labels else None)
    kind = Classification(labels) if labels else Regression()
    return task_data.Task(
        "t", "T", kind, ("accuracy",), split("train"), (split("dev"),), (test,)
    )


def make_examples(**rows):
    """Examples by split from rows of text, label and second text."""
    return {
        name: [
            features.InputExample("x", row[0], *row[2:], label=row[1], line=line)
            for line, row in enumerate(found, 2)
        ]
        for name, found in rows.items()
        if found
    }


def problems(train=(), dev=(), test=(), **settings):
    examples = make_examples(train=train, dev=dev, test=test)
    return list(data_report.find_problems(make_task(**settings), examples))


@pytest.mark.parametrize(
    ("unknown", "truncated", "level"), [(50, 2, "say"), (51, 2, "warn"), (0, 3, "warn")]
)
def test_counts_of_each_split(monkeypatch, unknown, truncated, level):
    logged = []
    for name in ("say", "warn"):
        monkeypatch.setattr(
            data_report.console,
            name,
            lambda *a, n=name: logged.append((n, a[0] % a[1:])),
        )
    examples = make_examples(train=CLEAN, dev=[("e", "0"), ("f", "1")], test=[("g", 0)])
    counts = features.TextCounts(40, 1000, unknown, 70, truncated)
    texts = dict.fromkeys(examples, counts)
    data_report.log_report(make_task(), examples, texts, 64)
    assert [text for _, text in logged[::2]] == [
        'Data, train: 4 examples, 2 of "0" (50.0 %), 2 of "1" (50.0 %)',
        'Data, dev: 2 examples, 1 of "0" (50.0 %), 1 of "1" (50.0 %)',
        "Data, test: 1 example",
    ]
    # Much lost text is a warning.
    for found, text in logged[1::2]:
        assert found == level
        for part in ("1000 word pieces", "70", "%d examples" % truncated, "64"):
            assert part in text


def test_empty_texts():
    rows = [(" ", "0", "b"), ("a", "1", "\u200b"), ("a", "1", ""), ("b", "0", "b")]
    assert problems(rows) == ["train: 3 examples with an empty text (lines 2, 3, 4)"]
    assert problems(CLEAN, [], [("", "0"), ("a b", "1")] * 6) == [
        "test: 6 examples with an empty text (lines 2, 4, 6, 8, 10, ...)"
    ]


def test_texts_that_are_numbers():
    (problem,) = problems([("7", "0"), ("8.5", "1"), ("9", "0"), ("a", "1")])
    assert "3 of 4 examples have a number for text_a" in problem


@pytest.mark.parametrize("name", ["dev", "test"])
def test_examples_of_train_in_other_sets(name):
    train = [("a", "0", "b"), ("c", "1", "d"), ("c", "0", None), ("e", "1", None)]
    rows = [("a", "1", "b"), ("b", "0", "a"), ("c", "1", "d"), ("a", "0", None)]
    assert problems(train, **{name: rows}) == [
        name + ": 2 examples with the texts of train examples (lines 2, 4)"
    ]
    assert problems(**{name: rows}) == []
    # Also those of dev in the test set.
    assert problems(CLEAN, [("e", "0"), ("f", "1")], [("f", "0")]) == [
        "test: 1 example with the texts of dev examples (line 2)"
    ]


def test_texts_with_two_labels():
    (problem,) = problems([("a", "0"), ("b", "1"), ("a", "1"), ("b", "0", "c")])
    assert problem.startswith("train: 2 examples") and "(lines 2, 4)" in problem
    rows = [("e", "0"), ("e", "1")]
    (problem,) = problems(CLEAN, [], rows, test_labels=True)
    assert problem.startswith("test: 2 examples")
    assert problems(CLEAN, [], rows) == problems(rows, labels=()) == []


def test_labels_with_few_examples():
    rows = [*CLEAN, ("e", "2"), ("f", "3")]
    labels = ("0", "1", "2", "3")
    assert problems(rows, [("g", "0"), ("h", "1")], labels=labels) == [
        "train: 2 labels with one example: '2', '3' (lines 6, 7)",
        "dev: 2 labels without an example: '2', '3'",
    ]
    assert problems(CLEAN, [("g", "1"), ("h", "1")]) == [
        "dev: all examples have the label '1'"
    ]
    (problem,) = problems(CLEAN, labels=tuple(map(str, range(1000))))
    assert "998 labels without an example" in problem and len(problem) < 200


def test_a_label_that_may_be_misspelled():
    rows = [("text %d" % i, "positive") for i in range(40)]
    rows += [("also %d" % i, "negative") for i in range(40)]
    labels = ("positive", "negative", "positve", "neutral")
    found = [("x", "positve"), ("y", "positve"), ("z", "neutral"), ("u", "neutral")]
    assert problems(rows + found, labels=labels) == [
        "train: is the label 'positve' (lines 82, 83) a misspelling of 'positive'?"
    ]
    # A label that is as frequent as others is none.
    assert problems(rows[:30] + found, labels=labels) == [
        "train: 1 label without an example: 'negative'"
    ]


def test_listed_labels_that_are_written_differently():
    rows = [("a", "x"), ("b", "X "), ("c", "x"), ("d", "X ")]
    similar, padded = problems(rows, labels=("x", "X "))
    assert similar.startswith("labels: 'x', 'X ' differ in case")
    assert padded.startswith("labels: 'X ' with white space")
