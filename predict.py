"""Predicts rows of text with adapter packages that share one base model.

    python predict.py --adapters=output/mrpc/adapters --init_checkpoint=... \\
      --bert_config_file=... --vocab_file=... --input=pairs.csv --output=predictions.csv

Rows come from a TSV, CSV or JSONL file, or as lines from standard input. Predictions
are written in the order of the rows: the label and the probability of each label, the
score, or the answer. A row that cannot be read is reported with its line and skipped.

Exit status: 0: every row was predicted; 2: rows were skipped; 1: an error, no output
file is written.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import contextlib
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags
from tqdm import tqdm

import command_line
import glue_data
from errors import UserError
from inputs import text_lines, text_rows
from serving import predictor
from system import files, text_table, wording
from tasks import own_tasks
from weights import package_conversion

ROWS_SKIPPED = 2  # exit status

# Rows and their characters in memory at once; rows of similar length among them share a
# batch. A long context has many features.
CHUNK_ROWS = 4096
CHUNK_CHARACTERS = 1 << 20
# How long rows of standard input are collected, from the first one on.
STREAM_WAIT_SECONDS = 0.3
_STANDARD_INPUT = "standard input"
_REQUIRED = ("adapters", "init_checkpoint", "bert_config_file", "vocab_file")


# Columns of predictions; the others follow.
_FIRST_COLUMNS = "label", "answer", "start", "end", "probability", "score", "null_score"
_COLUMN_FLAGS = ("text_a_column", "text_b_column", "task_column")

_TEXTS = {
    "input": "File of rows: .tsv (without quoting) or .csv, with a header line, or "
    ".jsonl. By default lines of standard input, each a text, or two texts separated "
    "by a tab; with several --adapters preceded by the task and a tab.",
    "text_a_column": "Column of the text, or of the first text of a pair. By default "
    "that of the packages, or the first of these that exists: %s."
    % ", ".join(" and ".join(filter(None, pair)) for pair in text_rows.KNOWN_COLUMNS),
    "text_b_column": "Column of the second text; none by default. Needs "
    "--text_a_column.",
    "task_column": 'Column of the row\'s task: by default "task" with several '
    "--adapters, and none with one.",
    "delimiter": "Character between the fields of a .csv file.",
    "encoding": "Encoding of the input, such as latin-1.",
    "keep_columns": "Columns of --input, separated by commas, to repeat in the output; "
    "all: every one. A column with the name of one of predictions becomes "
    "input_NAME.",
    "strict": "End at the first row that cannot be read, before any is predicted.",
    "output": "File to write: .tsv, .csv or .jsonl; else TSV on standard output.",
    "overwrite": "Replace an --output that exists.",
    "batch_size": "Maximum number of rows in a batch.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, flag_values)
    return {
        "Required": command_line.define_package_flags(flag_values),
        "Tasks": (command_line.define_task_configs(flag_values),),
        "Input": (
            define(command_line.DEFINE_path, "input"),
            *(define(flags.DEFINE_string, name, None) for name in _COLUMN_FLAGS),
            *(
                define(flags.DEFINE_string, name, default)
                for name, default in text_rows.STANDARD._asdict().items()
            ),
            define(flags.DEFINE_bool, "strict", False),
        ),
        "Output": (
            define(command_line.DEFINE_path, "output"),
            define(flags.DEFINE_bool, "overwrite", False),
            define(flags.DEFINE_list, "keep_columns", []),
        ),
        "Speed": (define(flags.DEFINE_integer, "batch_size", predictor.BATCH_SIZE),),
    }


def _check_flags(values):
    """Checks the flags' values; raises a `UserError` that names the flag."""
    command_line.check_required(values, _REQUIRED)
    if values.text_b_column and not values.text_a_column:
        raise UserError(
            "--text_b_column=%s: name the first text's column too, --text_a_column"
            % values.text_b_column
        )
    for name, allowed in (
        ("delimiter", text_rows.DELIMITER),
        ("encoding", text_rows.ENCODING),
    ):
        value = values[name].value
        if not allowed.accepts(value):
            raise UserError("--%s=%s: give %s" % (name, value, allowed.allowed))
    is_csv = text_rows.find_kind(values.input or "") == text_rows.CSV
    if values.delimiter != text_rows.STANDARD.delimiter and not is_csv:
        raise UserError("--delimiter=%s is for an --input in .csv" % values.delimiter)
    if values.input:
        text_rows.check_kind(values.input, "input")
    else:
        for name in (*_COLUMN_FLAGS, "keep_columns"):
            if values[name].value:
                raise UserError(
                    "--%s names a column of a file, and lines from standard input "
                    "have none: give a file, --input" % name
                )
    if values.output:
        _check_output(values.output, values.overwrite)
    for stream, flag, name in (
        (sys.stdin, "input", "standard input"),
        (sys.stdout, "output", "standard output"),
    ):
        if stream is None and not values[flag].value:
            raise UserError("%s is closed: give a file, --%s" % (name, flag))


def _check_output(path, overwrite):
    text_rows.check_kind(path, "output")
    if tf.io.gfile.exists(path) and not overwrite:
        raise UserError(
            "--output=%s exists and is not overwritten; give another name, or "
            "--overwrite" % path
        )
    folder = os.path.dirname(path) or "."
    # A bucket has no folders.
    if "://" not in path and not tf.io.gfile.isdir(folder):
        raise UserError("--output=%s: there is no folder %s" % (path, folder))


class _RowReader:
    """Reads the rows to predict, and reports those that cannot be read.

    Attributes:
      is_stream: whether the rows can be read only once, and may come slowly.
      num_bad: number of the rows that were reported.
      kept: names of --keep_columns, by their names in the output; after `check`.
    """

    def __init__(self, values, model):
        """Opens --input, or standard input, for the tasks of a `Predictor`."""
        path = values.input
        self._name = path or _STANDARD_INPUT
        self._kind = text_rows.find_kind(path) if path else text_rows.LINES
        self._strict = values.strict
        self._dialect = text_rows.Dialect(values.delimiter, values.encoding)
        self._tasks, packages = model.tasks, model.packages
        columns = [each.text_columns for each in packages.values()]
        named = [tuple(c) for c in columns if c and isinstance(c[0], str)]
        self._columns = text_rows.Columns(
            values.text_a_column,
            values.text_b_column,
            values.task_column or ("task" if len(model.tasks) > 1 else None),
            (*dict.fromkeys(named), *text_rows.KNOWN_COLUMNS),
            {name: each.takes_pairs for name, each in packages.items()},
        )
        self.is_stream = not (path or values.strict)
        self.num_bad, self.kept = 0, {}
        if path:
            self._read_lines = lambda: text_lines.file_lines(path, "--input=" + path)
        else:
            self._read_lines = _open_standard_input(values.strict)

    def read(self, report=True):
        """Yields all `text_rows.Row`s that can be read.

        Unreadable rows are reported and counted if `report`; an error with --strict.
        """
        lines = self._read_lines()
        for row in text_rows.read_rows(
            lines, self._kind, self._columns, self._tasks, self._name, self._dialect
        ):
            if not row.problem:
                yield row
            elif report:
                message = "%s, line %d: %s" % (self._name, row.line, row.problem)
                if self._strict:
                    raise UserError(message + " (--strict: nothing is predicted)")
                tqdm.write("skipped: " + message, file=sys.stderr)
                self.num_bad += 1

    def check(self, keep, kind, taken):
        """Reports the rows that cannot be read; returns the number of readable rows.

        Args:
          keep: names of columns to keep, or ["all"].
          kind: the output's file format, which must be able to hold their values.
          taken: names of the output's other columns.
        """
        count, quoted, names = 0, 0, {}
        if keep and self._kind != text_rows.JSONL:
            lines = self._read_lines()
            records = text_rows.read_records(lines, self._kind, self._dialect)
            header = next(records, None)
            fields = header.fields if header else []
            names = dict.fromkeys(fields)
            for name in names if keep == ["all"] else keep:
                if fields.count(name) > 1:
                    raise UserError(
                        "--keep_columns=%s: the header of %s has the column %s twice; "
                        "rename one" % (",".join(keep), self._name, name)
                    )
        for row in self.read():
            count += 1
            quoted += any(map(text_rows.is_quoted, (row.text_a, row.text_b or "")))
            if keep:
                names.update(dict.fromkeys(row.values))
                self._check_kept(row, row.values if keep == ["all"] else keep, kind)
        self.check_count(count)
        missing = [name for name in keep if name not in names and keep != ["all"]]
        if missing and count:
            raise UserError(
                "--keep_columns=%s: there is no such column in %s, there are %s"
                % (missing[0], self._name, wording.list_names(names))
            )
        for name in names if keep == ["all"] else keep:
            output_name = name
            while output_name in (*taken, *self.kept):
                output_name = "input_" + output_name
            self.kept[output_name] = name
        if self._kind == text_rows.TSV and quoted:
            note = text_rows.describe_quotes(self._name, quoted)
            sys.stderr.write("note: %s. A .csv is read with its quotes\n" % note)
        return count

    def _check_kept(self, row, names, kind):
        try:
            values = [_as_text(row.values.get(name)) for name in names]
            text_rows.check_writable(kind, filter(None, values))
        except UserError as error:
            raise UserError("%s, line %d: %s" % (self._name, row.line, error)) from None

    def check_count(self, count):
        """Refuses an input whose rows all were reported: `count`, the others, is 0."""
        if self.num_bad and not count:
            raise UserError(
                "none of the %d rows of %s can be read: nothing is predicted"
                % (self.num_bad, self._name)
            )


def _open_standard_input(strict):
    """Returns a function that reads the lines of standard input; strict: repeatedly."""
    if sys.stdin.isatty():
        sys.stderr.write("Reading lines from standard input, up to Ctrl-D\n")
    # Python closes sys.stdin when it ends, and a thread may still wait for lines then.
    stream = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    if not strict:
        return lambda: text_lines.stream_lines(stream, _STANDARD_INPUT)
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        shutil.copyfileobj(stream, copy)
        copy.flush()
    except OSError as error:
        raise UserError(
            "standard input cannot be kept in %s to check all rows first, as --strict "
            "does (%s): make space there, or name another folder in TMPDIR"
            % (tempfile.gettempdir(), error.strerror)
        ) from None

    def read_lines():
        copy.seek(0)
        return text_lines.stream_lines(copy, _STANDARD_INPUT)

    return read_lines


def _chunk_stream(rows):
    """Lists of up to `CHUNK_ROWS` rows that came within `STREAM_WAIT_SECONDS`.

    A thread reads the rows, so that slow ones do not hold up others.
    """
    arrived = queue.Queue(CHUNK_ROWS)

    def read():
        try:
            for row in rows:
                arrived.put(row)
            arrived.put(StopIteration())
        except Exception as error:
            arrived.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        chunk = [arrived.get()]
        deadline = time.monotonic() + STREAM_WAIT_SECONDS
        with contextlib.suppress(queue.Empty):
            while len(chunk) < CHUNK_ROWS and isinstance(chunk[-1], text_rows.Row):
                chunk.append(arrived.get(timeout=max(0, deadline - time.monotonic())))
        error = None if isinstance(chunk[-1], text_rows.Row) else chunk.pop()
        if chunk:
            yield chunk
        if isinstance(error, StopIteration):
            return
        if error:
            raise error


def _chunk_rows(rows):
    """Lists of up to `CHUNK_ROWS` rows, which end with `CHUNK_CHARACTERS`."""
    chunk, room = [], CHUNK_CHARACTERS
    for row in rows:
        chunk.append(row)
        room -= len(row.text_a) + len(row.text_b or "")
        if len(chunk) == CHUNK_ROWS or room <= 0:
            yield chunk
            chunk, room = [], CHUNK_CHARACTERS
    if chunk:
        yield chunk


@contextlib.contextmanager
def _open_output(path, overwrite):
    """Yields a function that writes bytes; a file appears when it is complete.

    Without a path they are written to standard output.
    """
    if not path:
        yield _write_to_standard_output  # `errors` reports its errors.
        return
    with (
        files.atomic_file(path, overwrite=overwrite) as partial,
        tf.io.gfile.GFile(partial, "wb") as writer,
    ):
        yield writer.write


def _write_to_standard_output(data):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _output_columns(model):
    """Names of the output's columns, of all tasks."""
    types = [package.task_type for package in model.packages.values()]
    found = [name for each in types for name in each.prediction_columns()]
    found.sort(key=lambda name: (*_FIRST_COLUMNS, name).index(name))
    return ["line", "task", *dict.fromkeys(found)]


def _output_values(row, prediction, kept, kind):
    """The values of a row of the output: dict from column name to value."""
    values = {"line": row.line, **prediction._asdict()}
    for label, probability in (values.pop("probabilities") or {}).items():
        values["probability_" + label] = probability
    values = {name: _shorten(value) for name, value in values.items()}
    for name, column in kept.items():
        value = row.values.get(column)
        values[name] = value if kind == text_rows.JSONL else _as_text(value)
    return {name: value for name, value in values.items() if value is not None}


def _as_text(value):
    """A value of a column as text; one of JSONL can be anything. None stays None."""
    is_text = value is None or isinstance(value, str)
    return value if is_text else json.dumps(value, ensure_ascii=False)


def _shorten(value):
    """A value; a number with the digits of a float32."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _load_model(values):
    base = (values.init_checkpoint, values.bert_config_file, values.vocab_file)
    model = predictor.Predictor(*base, values.batch_size)
    tasks = own_tasks.load_tasks(values.task_config, glue_data.GLUE_TASKS)
    for package in values.adapters:
        try:
            model.add(package, tasks)
        except UserError as error:
            raise UserError("--adapters=%s: %s" % (package, error)) from None
    return model


def run(values):
    """Predicts the rows of the input, with the parsed flags of `define_flags`.

    Returns:
      The exit status.

    Raises:
      UserError: nothing can be predicted, or with --strict one row cannot be read.
    """
    values["adapters"].value = package_conversion.find_packages(
        values.adapters, values.init_checkpoint
    )
    _check_flags(values)
    output = values.output
    kind = text_rows.find_kind(output) if output else text_rows.TSV
    model = _load_model(values)
    names = _output_columns(model)
    reader = _RowReader(values, model)
    if reader.is_stream:
        arrived = _chunk_stream(reader.read())
        total, chunks = None, (part for chunk in arrived for part in _chunk_rows(chunk))
    else:
        total = reader.check(values.keep_columns, kind, names)
        chunks = _chunk_rows(reader.read(report=False))
    names = [names[0], *reader.kept, *names[1:]]
    text_rows.check_writable(kind, [*model.tasks, *names])
    table = None
    if not output and sys.stdout.isatty():
        table = text_table.TextTable(names)
    count = 0
    with (
        _open_output(output, values.overwrite) as write,
        # A progress bar would mix with predictions on a terminal.
        tqdm(
            total=total, desc="predicting", unit=" rows", disable=bool(table) or None
        ) as bar,
    ):
        if not table:
            write(text_rows.format_header(kind, names))
        for chunk in chunks:
            texts = ((row.task, row.text_a, row.text_b) for row in chunk)
            predictions = model.predict_mixed(texts, bar.update)
            rows = [
                _output_values(row, prediction, reader.kept, kind)
                for row, prediction in zip(chunk, predictions)
            ]
            if table:
                write(table.format(rows).encode())
            else:
                write(b"".join(text_rows.format_row(kind, names, row) for row in rows))
            count += len(chunk)
        reader.check_count(count)
    if table and table.num_hidden:
        sys.stderr.write(
            "note: the terminal has no room for %s; give a file, --output\n"
            % wording.pluralize(table.num_hidden, "column")
        )
    rows = wording.pluralize(count, "row")
    sys.stderr.write("%s predicted, %d skipped\n" % (rows, reader.num_bad))
    return ROWS_SKIPPED if reader.num_bad else 0


def main(argv):
    return run(flags.FLAGS)


if __name__ == "__main__":
    groups = define_flags(flags.FLAGS)
    command_line.run_program(main, __doc__.rstrip(), groups, flags.FLAGS)
