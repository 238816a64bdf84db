"""Tasks as data: files, columns, labels and scores; and the reader of their examples.

`glue_data.GLUE_TASKS` holds GLUE's tasks, `own_tasks` reads those of users.
"""

import itertools
import json
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import text_lines, text_rows
from inputs.features import InputExample
from system import console
from system.wording import list_names, pluralize
from tasks import task_type

Column = str | int


class Holdout(NamedTuple):
    """A random division of a file into a training and a dev set."""

    fraction: float  # of each label's examples that become the dev set
    seed: int
    is_held_out: bool  # whether the split is the dev set


class Split(NamedTuple):
    """One file of a task. A column is a name in its header, or a position from 0."""

    name: str  # "train", "dev", "test", "dev_matched", ...
    filename: str
    rows: int  # examples in the benchmark; 0: any number
    text_a: Column
    text_b: Column | None = None  # None: single texts
    label: Column | None = None  # None in test files
    index: Column | None = None  # counts 0..n-1, in test files
    guid_set: str = ""  # first part of the examples' guids; "": the name
    guid_column: Column | None = None  # second part; None: the line number from 0
    has_header: bool = True  # whether a table begins with its columns' names
    num_fields: int = 0  # of each line of a table; 0: as many as in the first
    rows_exact: bool = True  # False: another number than `rows` is only a warning
    skips_broken_lines: bool = False  # a wrong number of fields is a known fault
    holdout: Holdout | None = None  # None: the split is the whole file
    dialect: text_rows.Dialect = text_rows.STANDARD
    suffix: str = ""  # in names of result files, of the second of two sets ("_mm")
    submission_file: str = ""  # the evaluation server's name for the predictions

    @property
    def kind(self):
        return text_rows.find_kind(self.filename)

    @property
    def delimiter(self):
        return "\t" if self.kind == text_rows.TSV else self.dialect.delimiter

    @property
    def has_labels(self):
        return self.label is not None

    @property
    def is_held_out(self):
        return self.holdout is not None and self.holdout.is_held_out


class Task(NamedTuple):
    """One task."""

    name: str  # `task_name` in lower case
    title: str  # in messages; for GLUE also the name of the folder
    type: task_type.TaskType
    metrics: tuple[str, ...]  # names of the type's; the first is the primary one
    train: Split | None  # None: the task is only predicted
    dev: tuple[Split, ...]  # models are selected on the first
    test: tuple[Split, ...]
    sources: tuple[str, ...] = ()  # what to download, relative to the base address
    assemble: Callable | None = None  # makes the folder from them, see `glue_fetch`
    note: str = ""  # printed with the scores
    model_of: str = ""  # name of the task whose model predicts this one
    config_file: str = ""  # the task file, `task_config`; "" for GLUE's
    max_seq_length: int | None = None  # the task file's entry

    @property
    def splits(self):
        train = (self.train,) if self.train else ()
        # A dev set can be predicted too.
        return tuple(dict.fromkeys((*train, *self.dev, *self.test)))

    @property
    def text_columns(self):
        return self.splits[0].text_a, self.splits[0].text_b


def plain_name(name):
    """A task's name without case and dashes: "SST-2" is "sst2"."""
    return name.strip().lower().replace("-", "")


def _label_text(value):
    """A label as text; in JSON it can be a number or boolean."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_COLUMNS = ("text_a", "text_b", "label", "index", "guid_column")  # of a `Split`


def _line_error(path, number, message):
    return UserError("%s, line %d: %s" % (path, number, message))


def _find_file(task, data_dir, split):
    path = os.path.join(data_dir, split.filename)
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        expected = ", ".join(dict.fromkeys(each.filename for each in task.splits))
        remedy = "python glue_data.py --data_dir=FOLDER --tasks=%s fetches FOLDER/%s"
        remedy %= (task.title, task.title)
        if task.config_file:
            remedy = "correct %s, or give `data_dir`" % task.config_file
        raise UserError(
            "%s does not exist. `data_dir`=%s must be the folder of %s with the files "
            "%s (%s)" % (path, data_dir, task.title, expected, remedy)
        )
    return path


def _resolve_columns(path, task, split, header, width):
    """The split of a table of so many columns, with positions in place of names."""
    columns = {name: getattr(split, name) for name in _COLUMNS}
    names = [column for column in columns.values() if isinstance(column, str)]
    missing = [repr(name) for name in names if name not in header]
    hint = _guess_delimiter(task, split, header, columns.values())
    if missing:
        problem = "the header has no column %s; it has %s"
        problem %= (", ".join(missing), list_names(header))
        if task.config_file:
            problem += "; correct it, or the columns in %s" % task.config_file
        raise _line_error(path, 1, problem + hint)
    for name, column in columns.items():
        if isinstance(column, str):
            columns[name] = header.index(column)
            if header.count(column) > 1:
                problem = "the header has the column %r twice: leave one" % column
                raise _line_error(path, 1, problem)
        elif column is not None and column >= width:
            problem = "there is no column %d (counted from 0), but %d of them"
            raise _line_error(path, 1, problem % (column, width) + hint)
    return split._replace(**columns)


def _guess_delimiter(task, split, header, columns):
    """Advice on the delimiter of a table without its columns; "" if it is right."""
    columns = [column for column in columns if column is not None]
    other = text_rows.guess_delimiter(header, split.delimiter, columns)
    if not other or not task.config_file:
        return ""
    text = '. The fields seem to be separated by %ss: %sgive "delimiter": %s in %s'
    rename = "" if split.kind == text_rows.CSV else "name the file .csv, and "
    name = text_rows.DELIMITERS[other]
    return text % (name, rename, json.dumps(other), task.config_file)


def _find_row_problem(task, split, row, width, number):
    """The problem of a row, kind and text, or None; `number` counts from 0."""
    if row.problem:
        return _explain_unreadable(task, row.problem)
    if split.kind == text_rows.JSONL:
        if problem := _find_json_problem(split, row.fields):
            return "entries", problem
    elif len(row.fields) != width:
        name = text_rows.DELIMITERS.get(split.delimiter, repr(split.delimiter))
        found = pluralize(len(row.fields), name + "-separated field")
        return "number of fields", "%s, expected %d" % (found, width)
    if split.has_labels:
        problem = task.type.find_label_problem(_label_text(row.fields[split.label]))
        is_number = isinstance(split.label, int)
        field = ", field %d" % (split.label + 1) if is_number else ""
        return ("label", "label%s: %s" % (field, problem)) if problem else None
    if split.index is not None and row.fields[split.index] != str(number):
        # Predictions are written under row numbers, so they must agree with the file.
        problem = "index, field %d: %.80r, expected %d (test rows are numbered from 0)"
        return "index", problem % (split.index + 1, row.fields[split.index], number)
    return None


def _explain_unreadable(task, problem):
    """Kind and text of a `text_rows.Record`'s problem."""
    if problem == text_rows.BLANK:
        return "blank line", problem
    if problem.startswith("not UTF-8") and task.config_file:
        problem += ', or name its encoding in %s, "encoding"' % task.config_file
    return "unreadable", problem


def _find_json_problem(split, values):
    for name in (split.text_a, split.text_b, split.label):
        if name is None:
            continue
        if name not in values:
            return "no %r, there are %s" % (name, list_names(values))
        value = values[name]
        is_valid = isinstance(value, str)
        # pandas and Python write a missing value as NaN, which is not JSON.
        if name == split.label and isinstance(value, (bool, int, float)):
            is_valid = math.isfinite(value)
        if not is_valid:
            kind = "label" if name == split.label else "text"
            return "%r is %.80r, not a %s" % (name, value, kind)
    return ""


def _read_valid_rows(task, path, split, bad_rows):
    """Yields a file's rows, `text_rows.Record`s, with the split's resolved columns.

    Raises as `read_examples`.
    """
    lines = text_lines.file_lines(path, path)
    rows = text_rows.read_records(lines, split.kind, split.dialect)
    columns, width, broken, left_out = split, 0, [], 0
    if bad_rows is not None:
        bad_rows.start_file(path)
    if split.kind != text_rows.JSONL:
        first = next(rows, None)
        if first is None:
            raise UserError("%s is empty: give a file with examples" % path)
        if first.problem:
            problem = _explain_unreadable(task, first.problem)[1]
            raise _line_error(path, first.line, problem)
        width = split.num_fields or len(first.fields)
        columns = _resolve_columns(path, task, split, first.fields, width)
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
        if found := _find_row_problem(task, columns, row, width, number):
            kind, problem = found
            if bad_rows is None:
                raise _line_error(path, row.line, problem)
            bad_rows.add(path, kind, row.line, problem)
            left_out += 1
            continue
        yield row, columns
    if left_out and left_out + len(broken) > number:
        text = "%s: none of its %s can be used"
        rows = pluralize(left_out, "row")
        raise UserError(text % (path, rows), *bad_rows.describe())
    if number < len(broken):
        raise UserError("%s has no data rows: give a file with examples" % path)
    if broken:
        text = "%s: skipped %d broken lines of %d (a known fault of the file): line %s"
        first = ", ".join(map(str, broken[:10]))
        console.warn(text, path, len(broken), number + 1, first)


def iterate_examples(task, data_dir, split, bad_rows=None):
    """Yields all examples of a file, also of both sides of a `Holdout`."""
    path = _find_file(task, data_dir, split)
    for row, columns in _read_valid_rows(task, path, split, bad_rows):
        fields = row.fields
        label = task.type.labels[0] if task.type.labels else None
        if split.has_labels:
            label = _label_text(fields[columns.label])
        number = row.line - 1
        if columns.guid_column is not None:
            number = fields[columns.guid_column]
        yield InputExample(
            guid="%s-%s" % (split.guid_set or split.name, number),
            text_a=fields[columns.text_a],
            text_b=None if columns.text_b is None else fields[columns.text_b],
            label=label,
            line=row.line,
        )


def read_examples(task, data_dir, split, bad_rows=None):
    """Reads the examples of a split.

    `text_rows` describes the formats. Guids are as in the original program:
    "<set>-<line number from 0, header included>", or the row's own id for MNLI.
    Examples without labels get the first of the type's labels, as in the original
    program, or None.

    `data_dir` is the task's own folder. Rows that cannot be used are added to a
    `bad_rows.BadRows`, and left out. Returns a list of `InputExample`, in the order of
    the file.

    Raises:
      UserError: the file is missing or empty, or lacks a column; or has, without
        `bad_rows`, a row that cannot be used, with file, line (from 1) and field (from
        1); or no example is held out.
    """
    examples = list(iterate_examples(task, data_dir, split, bad_rows))
    path = os.path.join(data_dir, split.filename)
    if not split.is_held_out:
        _warn_of_quotes(path, split, examples)
        _warn_of_header_as_example(path, task, split, examples)
    if split.holdout is None:
        return examples
    selected = _select_examples(examples, split.holdout, bool(task.type.labels))
    if not selected:
        raise UserError(
            '%s: "dev_share" of %g holds out none of the %d examples of %s: give a '
            'larger one, or a file, "dev"'
            % (task.config_file, split.holdout.fraction, len(examples), path)
        )
    return selected


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
    if is_single and task.type.labels:
        text = "%s, line 1: no other line has the label %.80r. If it is a header, give "
        console.warn(text + '"header": true in %s', path, label, task.config_file)


def _warn_of_example_as_header(path, task, split, columns, header):
    has_names = any(isinstance(getattr(split, name), str) for name in _COLUMNS)
    is_checked = split.has_labels and not task.type.needs_labels
    if has_names or not is_checked or split.is_held_out:
        return
    label = header[columns.label]
    if not task.type.find_label_problem(label):
        text = "%s, line 1: skipped as a header, but %.80r is a label. If it is none, "
        console.warn(text + 'give "header": false in %s', path, label, task.config_file)


def _select_examples(examples, holdout, is_stratified):
    """The examples of one side of a `Holdout`, in their order.

    round(fraction * n) of each label's n examples are held out, so labels keep their
    frequencies, and a rare label may stay in training alone.
    """
    by_label: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        by_label.setdefault(example.label if is_stratified else "", []).append(number)
    random = np.random.RandomState(holdout.seed)
    held_out: set[int] = set()
    for _, numbers in sorted(by_label.items()):
        count = round(holdout.fraction * len(numbers))
        held_out.update(random.permutation(numbers)[:count].tolist())
    return [
        example
        for number, example in enumerate(examples)
        if (number in held_out) == holdout.is_held_out
    ]
