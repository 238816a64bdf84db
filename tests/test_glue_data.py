"""The table of tasks, the reader and the fetching, on made-up files of every layout."""

import os

import pytest
import tensorflow.compat.v1 as tf

import glue_data
from errors import UserError
from glue_data import GLUE_TASKS, get_task
from tasks import task_data
from tasks.task_data import read_examples
from tests.places import GLUE

# Rows of the made-up files, in the order of Task.splits.
FIXTURE_ROWS = {
    name: {"mnli": (6, 4, 5, 3, 4), "ax": (3,), "qqp": (8, 4, 3)}.get(name, (6, 4, 3))
    for name in GLUE_TASKS
}


def test_table():
    assert list(GLUE_TASKS) == [
        "cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli", "ax",
    ]  # fmt: skip
    names = []
    for name, task in GLUE_TASKS.items():
        assert name == task.name == task.title.lower()
        assert set(task.metrics) <= set(task.type.metrics)
        assert bool(task.model_of) == (task.train is None)
        for split in task.splits:
            assert split.has_labels == (split not in task.test)
            assert bool(split.submission_file) == (split in task.test)
            assert (split.index is not None) == (split in task.test)
        suffixes = [split.suffix for split in task.test]
        assert len(set(suffixes)) == len(suffixes)
        names += [split.submission_file for split in task.test]
    assert sorted(names) == [
        "AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "QNLI.tsv",
        "QQP.tsv", "RTE.tsv", "SST-2.tsv", "STS-B.tsv", "WNLI.tsv",
    ]  # fmt: skip


def test_label_orders_and_first_metrics():
    assert GLUE_TASKS["mnli"].type.labels == ("contradiction", "entailment", "neutral")
    assert GLUE_TASKS["ax"].type == GLUE_TASKS[GLUE_TASKS["ax"].model_of].type
    for name in ("qnli", "rte"):
        assert GLUE_TASKS[name].type.labels == ("entailment", "not_entailment")
    first = {name: task.metrics[0] for name, task in GLUE_TASKS.items()}
    assert first["cola"] == "matthews"
    assert first["sts-b"] == "spearman"
    assert first["mrpc"] == first["qqp"] == "f1"
    assert first["mnli"] == first["rte"] == "accuracy"
    assert "adversarial" in GLUE_TASKS["wnli"].note


def test_get_task():
    for spelling in ("sts-b", "STS-B", "stsb", " Sts-B"):
        assert get_task(spelling) is GLUE_TASKS["sts-b"]
    with pytest.raises(UserError, match=r"Task not found: boolq.*cola.*wnli"):
        get_task("boolq")


@pytest.mark.parametrize("name", list(GLUE_TASKS))
def test_every_layout_is_read(name):
    task = GLUE_TASKS[name]
    for split, rows in zip(task.splits, FIXTURE_ROWS[name]):
        path = GLUE / task.title / split.filename
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
        examples = read_examples(task, str(path.parent), split)
        assert len(examples) == rows - 2 * split.skips_broken_lines
        for example in examples:
            for text in (example.text_a, example.text_b or ""):
                assert text in lines[example.line - 1]
            assert example.text_a
            assert (example.text_b is not None) == (split.text_b is not None)
            assert "\t" not in example.text_a
        if split.has_labels and task.type.labels:
            assert {example.label for example in examples} == set(task.type.labels)
        assert len({example.guid for example in examples}) == len(examples)


def rows_of(task_name, split_number):
    task = GLUE_TASKS[task_name]
    split = task.splits[split_number]
    return [
        (example.guid, example.text_a, example.text_b, example.label)
        for example in read_examples(task, str(GLUE / task.title), split)
    ]


def test_quotes_and_line_separators_stay_in_the_text():
    assert rows_of("mrpc", 0)[:3] == [
        ("train-1", "The kettle sang before anyone woke.",
         "A kettle made noise early.", "1"),
        ("train-2", 'He said "maybe', 'He answered "no" twice', "0"),
        ("train-3", "A goat stood on the roof\u2028and stared.",
         "There was an animal up high.", "1"),
    ]  # fmt: skip


def test_guids_count_from_the_first_line_of_the_file():
    assert [row[0] for row in rows_of("cola", 0)] == ["train-%d" % i for i in range(6)]
    # CoLA's test file has a header, its other files have none.
    assert rows_of("cola", 2)[0] == (
        "test-1", "The kettle sang before anyone woke.", None, "0",
    )  # fmt: skip
    # Lines 4 and 5 of the file are broken; the numbers skip them.
    guids = [row[0] for row in rows_of("qqp", 0)]
    assert guids == ["train-%d" % i for i in (1, 2, 5, 6, 7, 8)]


def test_mnli_uses_gold_labels_and_its_own_ids():
    assert [row[3] for row in rows_of("mnli", 1)][:2] == ["neutral", "contradiction"]
    assert [rows_of("mnli", n)[0][0] for n in range(5)] == [
        "train-0", "dev_matched-0", "dev_mismatched-0", "test-0", "test_mismatched-0",
    ]  # fmt: skip
    assert rows_of("mnli", 3)[0][3] == "contradiction"
    assert rows_of("rte", 2)[0][3] == "entailment"


def test_regression_labels_stay_text():
    assert [row[3] for row in rows_of("sts-b", 0)][:3] == ["5.000", "3.8", "0.00"]
    assert {row[3] for row in rows_of("sts-b", 2)} == {None}


@pytest.fixture
def warnings(monkeypatch):
    logged = []
    monkeypatch.setattr(
        task_data.console, "warn", lambda text, *a: logged.append(text % a)
    )
    return logged


def test_broken_qqp_lines_are_skipped_with_a_warning(warnings):
    rows_of("qqp", 0)
    (message,) = warnings
    assert "skipped 2 broken lines of 8" in message
    assert message.endswith("line 4, 5")
    assert os.path.join("QQP", "train.tsv") in message
    rows_of("qqp", 1)
    assert len(warnings) == 1


def changed(tmp_path, task_name, split_number, change):
    """Reads a copy of a made-up file after `change(bytes) -> bytes`."""
    task = GLUE_TASKS[task_name]
    split = task.splits[split_number]
    data = (GLUE / task.title / split.filename).read_bytes()
    (tmp_path / split.filename).write_bytes(change(data))
    return read_examples(task, str(tmp_path), split)


def line(number, new):
    """A change of one line, counted from 1."""

    def change(data):
        lines = data.split(b"\n")
        lines[number - 1] = new
        return b"\n".join(lines)

    return change


def swap(old, new):
    def change(data):
        assert old in data
        return data.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("task", "split", "change", "message"),
    [
        ("cola", 0, line(3, b"zz01\t2\t\tText."),
         r"train\.tsv, line 3: label, field 2: '2' is not one of '0', '1'$"),
        ("cola", 0, line(2, b"zz01\t1\tText."),
         r"line 2: 3 tab-separated fields, expected 4"),
        ("cola", 0, lambda data: data + b"\n", r"line 7: .*blank line"),
        ("cola", 0, lambda _: b"", r"train\.tsv is empty"),
        ("rte", 0, lambda data: data.split(b"\n")[0], r"train\.tsv has no data rows"),
        ("rte", 0, swap(b"not_entailment", b"neutral"), r"line 2: .* 4: 'neutral' is"),
        ("rte", 0, swap(b"sentence2\tlabel", b"hypothesis\tgold"),
         r"line 1: .*no column 'sentence2', 'label'; it has 'index', 'sentence1', 'h"),
        ("rte", 2, line(3, b"2\ta\tb"), r"line 3: index, field 1: '2', expected 1"),
        ("qqp", 1, line(2, b"0\ta"), r"dev\.tsv, line 2: 2 tab-separated fields"),
        ("qqp", 0, line(2, b"1\t2\t3\ta\tb\tyes"), r"line 2: label, field 6: 'yes'"),
        ("mnli", 1, lambda data: data.replace(b"\tneutral\n", b"\t-\n"),
         r"line 2: label, field 16: '-' is not one of 'contradiction', 'ent"),
        ("sts-b", 0, swap(b"5.000", b"5.1"), r"'5\.1' is not a number from 0 to 5"),
        ("sts-b", 0, swap(b"5.000", b"nan"), r"'nan' is not a number from 0 to 5"),
        ("sts-b", 0, swap(b"5.000", "\u0663".encode()), r"field 10: '\u0663' is not"),
        ("sts-b", 0, swap(b"5.000", b"1_0e-1"), r"field 10: '1_0e-1' is not a number"),
        ("rte", 0, swap(b"index\t", b"sentence1\t"),
         r"line 1: the header has the column 'sentence1' twice"),
        ("rte", 0, line(1, b"\t".join(b"c%d" % i for i in range(10**5))),
         r"line 1: .*it has 'c0', .*\(100000 in all\)$"),
        ("rte", 0, line(2, b"0\ta\tb\t" + b"x" * 10**5), r"field 4: 'x{70,80} is not"),
        ("sst-2", 0, swap(b"rain", b"r\xe4in"),
         r"train\.tsv, line 5: not UTF-8 .*0xe4"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, task, split, change, message):
    with pytest.raises(UserError, match=message) as caught:
        changed(tmp_path, task, split, change)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_file_without_the_right_to_read_it(monkeypatch):
    def refuse(path, mode):
        raise tf.errors.PermissionDeniedError(None, None, path + "; denied")

    task = GLUE_TASKS["rte"]
    monkeypatch.setattr(tf.io.gfile, "GFile", refuse)
    with pytest.raises(UserError, match=r"train\.tsv cannot be read .*denied"):
        read_examples(task, str(GLUE / "RTE"), task.train)


def test_a_file_that_a_spreadsheet_quoted_is_read_with_a_warning(tmp_path, warnings):
    changed(tmp_path, "rte", 0, line(2, b'0\t"a ""b"""\t"c"\tentailment'))
    (message,) = warnings
    assert "train.tsv: 1 row with " in message


def test_columns_are_found_by_name(tmp_path):
    data = b"label\textra\tsentence\n1\tx\tGood.\n0\ty\tBad.\n"
    examples = changed(tmp_path, "sst-2", 0, lambda _: data)
    assert [(e.text_a, e.label) for e in examples] == [("Good.", "1"), ("Bad.", "0")]


def test_missing_file(tmp_path):
    task = GLUE_TASKS["mnli"]
    with pytest.raises(UserError) as caught:
        read_examples(task, str(tmp_path), task.dev[1])
    message = str(caught.value)
    assert os.path.join(str(tmp_path), "dev_mismatched.tsv") in message
    assert "`data_dir`=%s" % tmp_path in message
    assert "train.tsv, dev_matched.tsv, dev_mismatched.tsv, test_matched.tsv" in message


def test_processors():
    cases = ((glue_data.ColaProcessor(), "cola"), (glue_data.MrpcProcessor(), "mrpc"),
             (glue_data.MnliProcessor(), "mnli"))  # fmt: skip
    for processor, name in cases:
        folder = str(GLUE / GLUE_TASKS[name].title)
        assert processor.get_labels() == list(GLUE_TASKS[name].type.labels)
        assert len(processor.get_train_examples(folder)) == 6
        assert len(processor.get_dev_examples(folder)) == 4
        assert len(processor.get_test_examples(folder)) == 3
