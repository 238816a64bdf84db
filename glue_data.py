"""GLUE as a table of rows, and one reader for all; as a program it fetches the data.

    python glue_data.py --data_dir=glue --tasks=MRPC,CoLA

A task is a row of `GLUE_TASKS`: where its files are, which columns count, what the
labels are, how it is scored, what the server wants. Nothing else knows a task by name.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import contextlib
import os
import re
from typing import Callable, NamedTuple, Optional, Union

import tensorflow.compat.v1 as tf
from absl import app, flags

import command_line
from errors import UserError, reports_user_errors
from inputs import glue_fetch, text_lines, text_rows
from inputs.features import InputExample
from system import console

Column = Union[str, int]

_STS_B_MAX_SCORE = 5.0


class Split(NamedTuple):
    """One file of a task.

    A column is given by its name in the header, or by its position (from 0) in a file
    that has none.

    Attributes:
      name: "train", "dev", "test", "dev_matched", ...
      filename: the file's name in the task's folder.
      rows: number of data rows in the benchmark.
      text_a: column of the first text.
      text_b: column of the second text; None for single sentences.
      label: column of the label; None in test files.
      index: column that counts 0..n-1, in test files; None elsewhere.
      guid_set: the first part of the examples' guids.
      guid_column: column with the second part; None: the line number from 0.
      num_fields: fields per line in a file without header; 0: as many as its header.
      rows_exact: False where `rows` is from memory, so that another count is no error.
      skips_broken_lines: lines with a wrong number of fields are a known fault of the
        published file: they are left out and counted in a warning.
      suffix: "", or what tells the second of two sets apart in names ("_mm").
      submission_file: the evaluation server's name for the predictions; "" if none.
    """

    name: str
    filename: str
    rows: int
    text_a: Column
    text_b: Optional[Column] = None
    label: Optional[Column] = None
    index: Optional[Column] = None
    guid_set: str = ""
    guid_column: Optional[Column] = None
    num_fields: int = 0
    rows_exact: bool = True
    skips_broken_lines: bool = False
    suffix: str = ""
    submission_file: str = ""

    @property
    def has_header(self):
        return not self.num_fields

    @property
    def has_labels(self):
        return self.label is not None


class GlueTask(NamedTuple):
    """One task.

    Attributes:
      name: the lower-case value of `--task_name`.
      title: the benchmark's spelling, also the name of its folder.
      labels: label strings in the order of their ids; () for regression.
      metrics: names in `metrics.METRICS`; the first is the one that the paper reports.
      train: a `Split`, or None for a set that is only predicted.
      dev: `Split`s; the first is the one that models are selected by.
      test: `Split`s.
      sources: what to fetch, relative to the base address.
      assemble: how `sources` become the folder, one of `glue_fetch.assemble_*`.
      is_regression: whether the label is a number in [0, 5], not a class.
      note: what a reader of the scores has to know; "" if nothing.
      model_of: name of the task whose model predicts this one; "" if its own.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: Optional[Split]
    dev: tuple[Split, ...]
    test: tuple[Split, ...]
    sources: tuple[str, ...]
    assemble: Callable = glue_fetch.assemble_archive
    is_regression: bool = False
    note: str = ""
    model_of: str = ""

    @property
    def splits(self):
        """All its `Split`s: train, dev, test."""
        return (*((self.train,) if self.train else ()), *self.dev, *self.test)


def _split(name, rows, *columns, **rest):
    """A split in `<name>.tsv`; `columns` are text_a, text_b, label in this order."""
    rest.setdefault("guid_set", name)
    return Split(name, name + ".tsv", rows, *columns, **rest)


def _test(title, rows, *texts, **rest):
    """A test split; `title` as in the name of its submission file."""
    rest.setdefault("index", "index")
    return _split(
        rest.pop("name", "test"), rows, *texts, submission_file=title + ".tsv", **rest
    )


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
# BERT's order, which published MNLI checkpoints of its line share.
_NLI = ("contradiction", "entailment", "neutral")
_SENTENCES = ("sentence1", "sentence2")
_QUESTION = ("question", "sentence")
_QUESTIONS = ("question1", "question2")
_STRINGS = ("#1 String", "#2 String")
_DATA = "glue/data/"
_MNLI_ID = {"guid_column": "index"}
_MISMATCHED = {"suffix": "_mm", **_MNLI_ID}

_ROWS = (
    GlueTask(
        "cola", "CoLA", _BINARY, ("matthews",),
        train=_split("train", 8551, 3, None, 1, num_fields=4),
        dev=(_split("dev", 1043, 3, None, 1, num_fields=4),),
        test=(_test("CoLA", 1063, "sentence"),),
        sources=(_DATA + "CoLA.zip",),
    ),
    GlueTask(
        "sst-2", "SST-2", _BINARY, ("accuracy",),
        train=_split("train", 67349, "sentence", None, "label"),
        dev=(_split("dev", 872, "sentence", None, "label"),),
        test=(_test("SST-2", 1821, "sentence"),),
        sources=(_DATA + "SST-2.zip",),
    ),
    GlueTask(
        "mrpc", "MRPC", _BINARY, ("f1", "accuracy"),
        train=_split("train", 3668, *_STRINGS, "Quality"),
        dev=(_split("dev", 408, *_STRINGS, "Quality"),),
        test=(_test("MRPC", 1725, *_STRINGS),),
        sources=(
            "senteval/senteval_data/msr_paraphrase_train.txt",
            "senteval/senteval_data/msr_paraphrase_test.txt",
            _DATA + "mrpc_dev_ids.tsv",
        ),
        assemble=glue_fetch.assemble_mrpc,
    ),
    GlueTask(
        "sts-b", "STS-B", (), ("spearman", "pearson"),
        train=_split("train", 5749, *_SENTENCES, "score"),
        dev=(_split("dev", 1500, *_SENTENCES, "score"),),
        test=(_test("STS-B", 1379, *_SENTENCES),),
        sources=(_DATA + "STS-B.zip",),
        is_regression=True,
    ),
    GlueTask(
        "qqp", "QQP", _BINARY, ("f1", "accuracy"),
        train=_split(
            "train", 363846, *_QUESTIONS, "is_duplicate",
            rows_exact=False, skips_broken_lines=True,
        ),
        dev=(_split("dev", 40430, *_QUESTIONS, "is_duplicate"),),
        test=(_test("QQP", 390965, *_QUESTIONS, index="id"),),
        sources=(_DATA + "QQP-clean.zip",),
    ),
    GlueTask(
        "mnli", "MNLI", _NLI, ("accuracy",),
        train=_split("train", 392702, *_SENTENCES, "gold_label", **_MNLI_ID),
        dev=(
            _split("dev_matched", 9815, *_SENTENCES, "gold_label", **_MNLI_ID),
            _split("dev_mismatched", 9832, *_SENTENCES, "gold_label", **_MISMATCHED),
        ),
        test=(
            # The original calls the matched test set just "test" in its guids.
            _test(
                "MNLI-m", 9796, *_SENTENCES,
                name="test_matched", guid_set="test", **_MNLI_ID,
            ),
            _test("MNLI-mm", 9847, *_SENTENCES, name="test_mismatched", **_MISMATCHED),
        ),
        sources=(_DATA + "MNLI.zip",),
    ),
    GlueTask(
        "qnli", "QNLI", _ENTAILMENT, ("accuracy",),
        train=_split("train", 104743, *_QUESTION, "label", rows_exact=False),
        dev=(_split("dev", 5463, *_QUESTION, "label"),),
        test=(_test("QNLI", 5463, *_QUESTION),),
        sources=(_DATA + "QNLIv2.zip",),
    ),
    GlueTask(
        "rte", "RTE", _ENTAILMENT, ("accuracy",),
        train=_split("train", 2490, *_SENTENCES, "label"),
        dev=(_split("dev", 277, *_SENTENCES, "label"),),
        test=(_test("RTE", 3000, *_SENTENCES),),
        sources=(_DATA + "RTE.zip",),
    ),
    GlueTask(
        "wnli", "WNLI", _BINARY, ("accuracy",),
        train=_split("train", 635, *_SENTENCES, "label"),
        dev=(_split("dev", 71, *_SENTENCES, "label"),),
        test=(_test("WNLI", 146, *_SENTENCES),),
        sources=(_DATA + "WNLI.zip",),
        note=(
            "WNLI's dev set is adversarial: most of its first sentences occur in "
            "train, with the opposite label. Dev accuracy below the majority class "
            "is normal and says nothing about the test set."
        ),
    ),
    GlueTask(
        "ax", "AX", _NLI, ("matthews",),
        train=None,
        dev=(),
        test=(_test("AX", 1104, *_SENTENCES, name="diagnostic"),),
        sources=(_DATA + "AX.tsv",),
        assemble=glue_fetch.assemble_file,
        model_of="mnli",
    ),
)  # fmt: skip

GLUE_TASKS = {row.name: row for row in _ROWS}


def get_task(name):
    """Finds a row of `GLUE_TASKS`; case and dashes do not matter ("sst2" is "SST-2").

    Raises:
      UserError: there is no such task.
    """
    wanted = name.strip().lower().replace("-", "")
    for task in GLUE_TASKS.values():
        if task.name.replace("-", "") == wanted:
            return task
    raise UserError(
        "Task not found: %s. The tasks are %s" % (name, ", ".join(sorted(GLUE_TASKS)))
    )


def _line_error(path, number, message):
    return UserError("%s, line %d: %s" % (path, number, message))


def _read_lines(task, data_dir, split):
    """A file's path and its lines without their ends; a byte order mark is dropped."""
    path = os.path.join(data_dir, split.filename)
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        expected = ", ".join(each.filename for each in task.splits)
        raise UserError(
            "%s is not there. --data_dir=%s must be the folder of %s with the files %s "
            "(python glue_data.py --tasks=%s fetches them)"
            % (path, data_dir, task.title, expected, task.title)
        )
    text_lines.check_plain_file(path, path)
    with tf.io.gfile.GFile(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        message = "not UTF-8: %s (byte 0x%02x). Save the file as UTF-8" % (
            error.reason,
            error.object[error.start],
        )
        raise _line_error(path, number, message) from error
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 and others that
    # may stand inside of a sentence.
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError("%s is empty" % path)
    return path, [line[:-1] if line.endswith("\r") else line for line in lines]


class _Positions(NamedTuple):
    """Columns by position, and the fields that each line must have."""

    text_a: int
    text_b: Optional[int]
    label: Optional[int]
    index: Optional[int]
    guid: Optional[int]
    num_fields: int


def _positions(path, split, first_line):
    columns = (split.text_a, split.text_b, split.label, split.index, split.guid_column)
    if not split.has_header:
        return _Positions(*columns, split.num_fields)
    header = first_line.split("\t")
    missing = [name for name in columns if name is not None and name not in header]
    if missing:
        message = "the header has no column %s; it has %s" % (
            ", ".join(map(repr, missing)),
            text_rows.list_names(header),
        )
        raise _line_error(path, 1, message)
    doubled = [name for name in columns if header.count(name) > 1]
    if doubled:
        message = "the header has the column %r twice: leave one" % doubled[0]
        raise _line_error(path, 1, message)
    found = (None if name is None else header.index(name) for name in columns)
    return _Positions(*found, len(header))


def _label_problem(task, label):
    """What is wrong with a label, or "" """
    if not task.is_regression:
        if label in task.labels:
            return ""
        return "%.80r is not one of %s" % (label, ", ".join(task.labels))
    # Python's float takes digits of other scripts too, and underscores.
    if re.fullmatch(r"[0-9.eE+-]+", label):
        with contextlib.suppress(ValueError):
            if 0 <= float(label) <= _STS_B_MAX_SCORE:
                return ""
    return "%.80r is not a number from 0 to %g" % (label, _STS_B_MAX_SCORE)


def _check_line(task, split, positions, fields, row):
    """Checks one line; `row` counts data rows from 0. Returns the problem or ""."""
    if len(fields) != positions.num_fields:
        blank = " (a blank line)" if fields == [""] else ""
        return "%d tab-separated fields%s, expected %d" % (
            len(fields), blank, positions.num_fields,
        )  # fmt: skip
    if split.has_labels:
        problem = _label_problem(task, fields[positions.label])
        return problem and "label, field %d: %s" % (positions.label + 1, problem)
    if split.index is not None and fields[positions.index] != str(row):
        # Predictions are written under row numbers, so they must agree with the file.
        return "%s, field %d: %.80r, expected %d (test rows are numbered from 0)" % (
            split.index, positions.index + 1, fields[positions.index], row,
        )  # fmt: skip
    return ""


def read_examples(task, data_dir, split):
    """Reads one file of a task.

    Fields are separated by tabs and nothing is quoted. Guids are as in the original
    program: "<set>-<line number from 0, header included>", or the row's own id for
    MNLI. Examples of a file without labels get the first label ("0" in a regression),
    which nothing may look at.

    Args:
      task: a row of `GLUE_TASKS`.
      data_dir: the task's own folder, local or `gs://`.
      split: one of the row's splits.

    Returns:
      A list of `InputExample`, in the order of the file.

    Raises:
      UserError: the file is missing or empty, is not UTF-8, lacks a column, or has a
        line that does not parse; with file, line (from 1) and field (from 1).
    """
    path, lines = _read_lines(task, data_dir, split)
    positions = _positions(path, split, lines[0])
    first = int(split.has_header)
    dummy = task.labels[0] if task.labels else "0"
    examples, broken = [], []
    for i, line in enumerate(lines[first:], first):
        fields = line.split("\t")
        if split.skips_broken_lines and len(fields) != positions.num_fields:
            broken.append(i + 1)
            continue
        problem = _check_line(task, split, positions, fields, i - first)
        if problem:
            raise _line_error(path, i + 1, problem)
        number = i if positions.guid is None else fields[positions.guid]
        examples.append(
            InputExample(
                guid="%s-%s" % (split.guid_set, number),
                text_a=fields[positions.text_a],
                text_b=None if positions.text_b is None else fields[positions.text_b],
                label=fields[positions.label] if split.has_labels else dummy,
                line=i + 1,
            )
        )
    if broken:
        console.warn(
            "%s: left out %d broken lines of %d (wrong number of fields; a known fault "
            "of the published file). The first: line %s",
            path, len(broken), len(lines) - first, ", ".join(map(str, broken[:10])),
        )  # fmt: skip
    if not examples:
        raise UserError("%s has no data rows" % path)
    quoted = sum(
        text_rows.is_quoted(example.text_a) or text_rows.is_quoted(example.text_b or "")
        for example in examples
    )
    if quoted:
        console.warn("%s", text_rows.quotes_note(path, quoted))
    return examples


class DataProcessor:
    """The original program's view of a task; each method reads through its row."""

    task = None

    def get_train_examples(self, data_dir):
        """The training examples, a list of `InputExample`."""
        return read_examples(self.task, data_dir, self.task.train)

    def get_dev_examples(self, data_dir):
        """The examples of the first dev set."""
        return read_examples(self.task, data_dir, self.task.dev[0])

    def get_test_examples(self, data_dir):
        """The examples of the first test set."""
        return read_examples(self.task, data_dir, self.task.test[0])

    def get_labels(self):
        """The label strings, a list in the order of their ids."""
        return list(self.task.labels)


class ColaProcessor(DataProcessor):
    task = GLUE_TASKS["cola"]


class MnliProcessor(DataProcessor):
    task = GLUE_TASKS["mnli"]


class MrpcProcessor(DataProcessor):
    task = GLUE_TASKS["mrpc"]


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    return {
        "GLUE": (
            flags.DEFINE_string(
                "data_dir", None, "Local folder to put the tasks' folders in.", **to
            ),
            flags.DEFINE_list(
                "tasks",
                ["all"],
                "Tasks to fetch, separated by commas, such as MRPC,CoLA.",
                **to,
            ),
            flags.DEFINE_string(
                "base_url",
                "https://dl.fbaipublicfiles.com",
                "Address of a server that has the benchmark's files under their usual "
                "paths.",
                **to,
            ),
        )
    }


@reports_user_errors
def main(argv):
    command_line.refuse_words(argv, "--tasks=MRPC,CoLA")
    command_line.check_required(flags.FLAGS, ["data_dir"])
    data_dir = flags.FLAGS.data_dir
    if "://" in data_dir:
        raise UserError(
            "--data_dir=%s: the data is fetched to a local folder; copy it from there"
            % data_dir
        )
    names = flags.FLAGS.tasks
    if not any(names):
        raise UserError("--tasks is empty; give names, or leave it out for all tasks")
    # All names are checked before the first download.
    tasks = GLUE_TASKS.values() if names == ["all"] else [get_task(n) for n in names]
    for task in tasks:
        glue_fetch.fetch_task(task, data_dir, flags.FLAGS.base_url)


if __name__ == "__main__":
    # Not at import: `run_classifier.py` imports this module and has a --data_dir.
    groups = define_flags(flags.FLAGS)
    app.run(main, flags_parser=command_line.flags_parser(__doc__, groups, flags.FLAGS))
