"""A task as a row of a table, and the one reader of all tasks' files.

A row says where the files are, which columns count, what the labels are and how the
task is scored. `glue_data.GLUE_TASKS` holds those of GLUE, and `own_tasks` reads those
of users.
"""

import contextlib
import itertools
import math
import os
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import text_lines, text_rows
from inputs.features import InputExample
from system import console

Column = str | int

# More different values are those of a regression, or no labels.
MOST_LABELS = 1000

# Labels of a regression whose range is not given: their squared errors, and sums of
# many, are finite in float32.
LARGEST_NUMBER = 1e18


class Holdout(NamedTuple):
    """The rows of a file that one of two splits takes."""

    fraction: float  # of each label's rows that are held out, to be the dev set
    seed: int  # of the drawing
    is_held_out: bool  # whether this split takes these, or the rest


class Split(NamedTuple):
    """One file of a task.

    A column is given by its name in the header, or by its position (from 0).

    Attributes:
      name: "train", "dev", "test", "dev_matched", ...
      filename: the file's name in the task's folder.
      rows: number of data rows in the benchmark; 0: any.
      text_a: column of the first text.
      text_b: column of the second text; None for single texts.
      label: column of the label; None in test files.
      index: column that counts 0..n-1, in test files; None elsewhere.
      guid_set: the first part of the examples' guids.
      guid_column: column with the second part; None: the line number from 0.
      kind: what the file is, `text_rows.TSV`, `CSV` or `JSONL`.
      has_header: whether the first line of a table has the columns' names.
      num_fields: fields per line of a table; 0: as many as its first line.
      rows_exact: False where `rows` is from memory, so that another count is no error.
      skips_broken_lines: lines with a wrong number of fields are a known fault of the
        published file: they are left out and counted in a warning.
      holdout: the `Holdout` of the file's rows that are this split's; None: all.
      suffix: "", or what tells the second of two sets apart in names ("_mm").
      submission_file: the evaluation server's name for the predictions; "" if none.
    """

    name: str
    filename: str
    rows: int
    text_a: Column
    text_b: Column | None = None
    label: Column | None = None
    index: Column | None = None
    guid_set: str = ""
    guid_column: Column | None = None
    kind: str = text_rows.TSV
    has_header: bool = True
    num_fields: int = 0
    rows_exact: bool = True
    skips_broken_lines: bool = False
    holdout: Holdout | None = None
    suffix: str = ""
    submission_file: str = ""

    @property
    def has_labels(self):
        return self.label is not None

    @property
    def is_held_out(self):
        return self.holdout is not None and self.holdout.is_held_out


class Task(NamedTuple):
    """One task.

    Attributes:
      name: the lower-case value of `--task_name`.
      title: the spelling for people; of GLUE's also the name of the folder.
      labels: label strings in the order of their ids; () for regression, and as long
        as they are not known.
      metrics: names in `metrics.METRICS`; the first is the headline.
      train: a `Split`, or None for a set that is only predicted.
      dev: `Split`s; the first is the one that models are selected by.
      test: `Split`s.
      is_regression: whether the label is a number, not a class.
      label_range: lowest and highest number of a regression; None: any.
      sources: what to fetch, relative to the base address.
      assemble: how `sources` become the folder, see `glue_fetch`.
      note: what a reader of the scores has to know; "" if nothing.
      model_of: name of the task whose model predicts this one; "" if its own.
      config_file: the file that describes it, `--task_config`; "" for GLUE's.
      max_seq_length: what its file says of the longest input; None: nothing.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    train: Split | None
    dev: tuple[Split, ...]
    test: tuple[Split, ...]
    is_regression: bool = False
    label_range: tuple[float, float] | None = None
    sources: tuple[str, ...] = ()
    assemble: Callable | None = None
    note: str = ""
    model_of: str = ""
    config_file: str = ""
    max_seq_length: int | None = None

    @property
    def splits(self):
        """All its `Split`s: train, dev, test."""
        return (*((self.train,) if self.train else ()), *self.dev, *self.test)

    @property
    def text_columns(self):
        """Columns of the first and the second text in the first of its files."""
        return self.splits[0].text_a, self.splits[0].text_b


# --- lines ----------------------------------------------------------------------


def _line_error(path, number, message):
    return UserError("%s, line %d: %s" % (path, number, message))


def _path_of(task, data_dir, split):
    """The path of a split's file, which is there."""
    path = os.path.join(data_dir, split.filename)
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        expected = ", ".join(dict.fromkeys(each.filename for each in task.splits))
        if task.config_file:
            remedy = "correct %s, or give the files' folder, --data_dir"
            remedy %= task.config_file
        else:
            remedy = "python glue_data.py --tasks=%s fetches them" % task.title
        raise UserError(
            "%s is not there. --data_dir=%s must be the folder of %s with the files %s "
            "(%s)" % (path, data_dir, task.title, expected, remedy)
        )
    text_lines.check_plain_file(path, path)
    return path


# --- columns --------------------------------------------------------------------


class _Columns(NamedTuple):
    """Where a row's parts are: positions in a table, names in JSON."""

    text_a: Column
    text_b: Column | None
    label: Column | None
    index: Column | None
    guid: Column | None


def _columns(split):
    return _Columns(
        split.text_a, split.text_b, split.label, split.index, split.guid_column
    )


def _positions(path, split, header, width):
    """The `_Columns` of a table of so many columns, by position."""
    names = [name for name in _columns(split) if isinstance(name, str)]
    missing = [name for name in names if name not in header]
    if missing:
        message = "the header has no column %s; it has %s" % (
            ", ".join(map(repr, missing)),
            text_rows.list_names(header),
        )
        raise _line_error(path, 1, message)
    doubled = [name for name in names if header.count(name) > 1]
    if doubled:
        message = "the header has the column %r twice: leave one" % doubled[0]
        raise _line_error(path, 1, message)
    beyond = [n for n in _columns(split) if isinstance(n, int) and n >= width]
    if beyond:
        message = "there is no column %d (counted from 0), but %d of them"
        raise _line_error(path, 1, message % (beyond[0], width))
    return _Columns(
        *(
            header.index(name) if isinstance(name, str) else name
            for name in _columns(split)
        )
    )


# --- labels ---------------------------------------------------------------------


def is_number(text):
    """Whether a text is a finite number as programs write one."""
    # Python's float takes digits of other scripts too, and underscores.
    if re.fullmatch(r"[0-9.eE+-]+", text):
        with contextlib.suppress(ValueError):
            return math.isfinite(float(text))
    return False


def format_labels(task):
    """The labels of a task as text, the first ones of many."""
    return ", ".join(map(repr, task.labels[:10])) + (
        ", ..." if task.labels[10:] else ""
    )


def find_label_problem(task, label):
    """Why a string is no label of a `Task`; "" if it is one."""
    if not task.is_regression:
        if label in task.labels or not task.labels:
            return ""
        return "%.80r is not one of %s" % (label, format_labels(task))
    low, high = task.label_range or (-LARGEST_NUMBER, LARGEST_NUMBER)
    if is_number(label) and low <= float(label) <= high:
        return ""
    return "%.80r is not a number from %g to %g" % (label, low, high)


def similar_labels(labels):
    """Groups of labels that differ in how they are written alone.

    That is in case, white space, Unicode normalization form or number format: "good",
    "Good " and "good"; "1", "1.0" and "01".

    Args:
      labels: distinct label strings.

    Returns:
      List of lists of at least two labels.
    """
    groups: dict[str | float, list[str]] = {}
    for label in labels:
        # Folding the case of a normalized text can undo its normalization.
        folded = unicodedata.normalize("NFC", label).casefold()
        key = " ".join(unicodedata.normalize("NFC", folded).split())
        groups.setdefault(float(key) if is_number(key) else key, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _label_text(value):
    """A label as text; JSON has other kinds of values too."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


# --- rows -----------------------------------------------------------------------


def _row_problem(task, split, columns, row, width, number):
    """What is wrong with a row; `number` counts data rows from 0. "" if nothing."""
    shown = {}
    problem = row.problem
    if not problem and split.kind == text_rows.JSONL:
        problem = _json_problem(split, row.fields)
    elif not problem:
        shown = {at: ", field %d" % (at + 1) for at in columns if at is not None}
        if len(row.fields) != width:
            separator = "tab" if split.kind == text_rows.TSV else "comma"
            problem = "%d %s-separated fields, expected %d"
            problem %= (len(row.fields), separator, width)
    if problem:
        return problem
    if split.has_labels:
        problem = find_label_problem(task, _label_text(row.fields[columns.label]))
        return problem and "label%s: %s" % (shown.get(columns.label, ""), problem)
    if split.index is not None and row.fields[columns.index] != str(number):
        # Predictions are written under row numbers, so they must agree with the file.
        return "%s%s: %.80r, expected %d (test rows are numbered from 0)" % (
            split.index,
            shown[columns.index],
            row.fields[columns.index],
            number,
        )
    return ""


def _json_problem(split, values):
    """What a JSON object lacks; "" if nothing."""
    for name in (split.text_a, split.text_b, split.label):
        if name is None:
            continue
        if name not in values:
            return "no %r, there are %s" % (name, text_rows.list_names(values))
        value = values[name]
        kind = "label" if name == split.label else "text"
        # NaN, which is no JSON, is what pandas and Python write for a missing value.
        if not isinstance(value, str) and not (
            kind == "label"
            and isinstance(value, (bool, int, float))
            and math.isfinite(value)
        ):
            return "%r is %.80r, not a %s" % (name, value, kind)
    return ""


def _valid_rows(task, path, split):
    """The rows of a file; the first with a problem is an error, see `read_examples`.

    Yields:
      Pairs of `text_rows.Record` and `_Columns`.
    """
    rows = text_rows.read_records(text_lines.file_lines(path, path), split.kind)
    columns, width, broken = _columns(split), 0, []
    if split.kind != text_rows.JSONL:
        first = next(rows, None)
        if first is None:
            raise UserError("%s is empty" % path)
        if first.problem:
            raise _line_error(path, first.line, first.problem)
        width = split.num_fields or len(first.fields)
        columns = _positions(path, split, first.fields, width)
        if split.has_header:
            _warn_of_example_as_header(path, task, split, columns, first.fields)
        else:
            rows = itertools.chain([first], rows)
    number = -1
    for number, row in enumerate(rows):
        is_broken = row.problem in ("", text_rows.BLANK) and len(row.fields) != width
        if split.skips_broken_lines and is_broken:
            broken.append(row.line)
            continue
        problem = _row_problem(task, split, columns, row, width, number)
        if problem:
            raise _line_error(path, row.line, problem)
        yield row, columns
    if broken:
        console.warn(
            "%s: left out %d broken lines of %d (wrong number of fields; a known fault "
            "of the published file). The first: line %s",
            path, len(broken), number + 1, ", ".join(map(str, broken[:10])),
        )  # fmt: skip


def iterate_examples(task, data_dir, split):
    """Yields all examples of a file, of any `holdout`; see `read_examples`."""
    path = _path_of(task, data_dir, split)
    row = None
    for row, columns in _valid_rows(task, path, split):
        fields = row.fields
        label = task.labels[0] if task.labels else "0"
        if split.has_labels:
            label = _label_text(fields[columns.label])
        number = row.line - 1 if columns.guid is None else fields[columns.guid]
        yield InputExample(
            guid="%s-%s" % (split.guid_set, number),
            text_a=fields[columns.text_a],
            text_b=None if columns.text_b is None else fields[columns.text_b],
            label=label,
            line=row.line,
        )
    if row is None:
        raise UserError("%s has no data rows" % path)


def read_examples(task, data_dir, split):
    """Reads the examples of a split.

    In TSV fields are separated by tabs and nothing is quoted; CSV and JSONL are as
    `text_rows` says. Guids are as in the original program: "<set>-<line number from 0,
    header included>", or the row's own id for MNLI. Examples of a file without labels
    get the first label ("0" in a regression), which must not be used.

    Args:
      task: a `Task`.
      data_dir: the task's own folder, local or `gs://`.
      split: one of the task's splits.

    Returns:
      A list of `InputExample`, in the order of the file.

    Raises:
      UserError: the file is missing or empty, is not UTF-8, lacks a column, or has a
        row that does not parse, with file, line (from 1) and field (from 1); or no
        example is held out.
    """
    examples = list(iterate_examples(task, data_dir, split))
    path = os.path.join(data_dir, split.filename)
    if not split.is_held_out:
        _warn_of_quotes(path, split, examples)
        _warn_of_header_as_example(path, task, split, examples)
    if split.holdout is None:
        return examples
    taken = select_holdout(examples, split.holdout)
    if not taken:
        raise UserError(
            '%s: "dev_share" of %g holds out none of the %d examples of %s: give a '
            'larger one, or a file, "dev"'
            % (task.config_file, split.holdout.fraction, len(examples), path)
        )
    return taken


def _warn_of_quotes(path, split, examples):
    quoted = sum(
        text_rows.is_quoted(example.text_a) or text_rows.is_quoted(example.text_b or "")
        for example in examples
    )
    if quoted and split.kind == text_rows.TSV:
        console.warn("%s", text_rows.describe_quotes(path, quoted))


def _warn_of_header_as_example(path, task, split, examples):
    if split.has_header or split.kind == text_rows.JSONL or not split.has_labels:
        return
    label = examples[0].label
    is_single = sum(example.label == label for example in examples) == 1
    if is_single and not task.is_regression:
        console.warn(
            "%s, line 1: no other line has the label %.80r. If this is the header: "
            '"header": true',
            path,
            label,
        )


def _warn_of_example_as_header(path, task, split, columns, header):
    has_names = any(isinstance(column, str) for column in _columns(split))
    has_known_labels = task.labels or task.is_regression
    if has_names or not (split.has_labels and has_known_labels) or split.is_held_out:
        return
    label = header[columns.label]
    if not find_label_problem(task, label):
        console.warn(
            "%s, line 1: taken for the header, but its field %d, %.80r, is a label. If "
            'the file has no header: "header": false',
            path,
            columns.label + 1,
            label,
        )


def select_holdout(examples, holdout):
    """The examples that a `Holdout` takes, in their order.

    Of each label's n examples round(share * n) are held out, drawn by the seed; so
    labels keep their shares, and a label of few rows may stay in training alone. The
    numbers of a regression are drawn from as one label's.
    """
    by_label: dict[str, list[int]] = {}
    labels = {example.label for example in examples}
    is_many = len(labels) > MOST_LABELS
    for at, example in enumerate(examples):
        by_label.setdefault("" if is_many else example.label, []).append(at)
    random = np.random.RandomState(holdout.seed)
    held_out: set[int] = set()
    for _, places in sorted(by_label.items()):
        count = round(holdout.fraction * len(places))
        held_out.update(random.permutation(places)[:count].tolist())
    return [
        e for at, e in enumerate(examples) if (at in held_out) == holdout.is_held_out
    ]
