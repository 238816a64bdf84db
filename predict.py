"""Predicts rows of text with adapter packages that share one base.

    python predict.py --adapters=output/mrpc/adapters --init_checkpoint=... \\
      --bert_config_file=... --vocab_file=... --input=pairs.csv --output=answers.csv

Rows come from a TSV, CSV or JSONL file, or as lines from standard input, and are
answered in their order: label and probability of each label, or score. A row that
cannot be read is reported with its line and left out.

Exit status: 0, every row was predicted; 2, rows were left out; 1, an error, and no
output file is written.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import contextlib
import itertools
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags
from tqdm import tqdm

import command_line
import glue_data
from errors import UserError, reports_user_errors
from inputs import own_tasks, text_lines, text_rows
from serving import predictor
from system import console, files

ROWS_LEFT_OUT = 2  # exit status

# Rows in memory; those of similar length among them share a batch.
CHUNK_ROWS = 4096
# Rows of standard input are predicted so long after the first of them has come.
STREAM_WAIT_SECONDS = 0.3
_STANDARD_INPUT = "standard input"
_REQUIRED = ("adapters", "init_checkpoint", "bert_config_file", "vocab_file")
_COLUMN_FLAGS = ("text_a_column", "text_b_column", "task_column")


def define_flags(flag_values):
    """Defines this program's flags.

    Args:
      flag_values: an `absl.flags.FlagValues`.

    Returns:
      Dict from a group's title to its flags, for `command_line.help_text`.
    """
    to = {"flag_values": flag_values}
    return {
        "Required": command_line.define_package_flags(flag_values),
        "Tasks": (command_line.define_task_configs(flag_values),),
        "Input": _input_flags(to),
        "Output": (
            command_line.DEFINE_path(
                "output",
                "File to write, .tsv, .csv or .jsonl. Not given: TSV to standard "
                "output.",
                **to,
            ),
            flags.DEFINE_bool(
                "overwrite", False, "Replace an --output that exists.", **to
            ),
        ),
        "Speed": (
            flags.DEFINE_integer(
                "batch_size",
                predictor.BATCH_SIZE,
                "Most rows to compute at once.",
                **to,
            ),
        ),
    }


def _input_flags(to):
    known = ", ".join(
        " and ".join(name for name in pair if name) for pair in text_rows.KNOWN_COLUMNS
    )
    return (
        command_line.DEFINE_path(
            "input",
            "File of rows, with the columns' names on its first line: .tsv "
            "(nothing is quoted) or .csv; or .jsonl. Not given: lines from "
            "standard input, each a text, or two texts with a tab between them; "
            "with several --adapters the task and a tab stand before them.",
            **to,
        ),
        flags.DEFINE_string(
            "text_a_column",
            None,
            "Column of the text, or the first text of a pair. Not given: that of the "
            "packages, or the first of these that is there: %s." % known,
            **to,
        ),
        flags.DEFINE_string(
            "text_b_column",
            None,
            "Column of the second text, beside --text_a_column; none if not given.",
            **to,
        ),
        flags.DEFINE_string(
            "task_column",
            None,
            'Column of the row\'s task. Not given: "task" with several --adapters; '
            "with one all rows are of its task.",
            **to,
        ),
        flags.DEFINE_bool(
            "strict",
            False,
            "End at the first row that cannot be read, before any is predicted.",
            **to,
        ),
    )


def _check_flags(values):
    """Refuses values that nothing can be predicted with.

    Raises:
      UserError: naming the flag, its value and what is allowed.
    """
    command_line.check_required(values, _REQUIRED)
    if values.text_b_column and not values.text_a_column:
        raise UserError(
            "--text_b_column=%s: name the first text's column too, --text_a_column"
            % values.text_b_column
        )
    if values.input:
        text_rows.file_kind(values.input, "input")
    else:
        for name in _COLUMN_FLAGS:
            if values[name].value:
                raise UserError(
                    "--%s=%s names a column of a file, and lines from standard input "
                    "have none: give a file, --input" % (name, values[name].value)
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
    text_rows.file_kind(path, "output")
    if tf.io.gfile.exists(path) and not overwrite:
        raise UserError(
            "--output=%s exists and is not overwritten; give another name, or "
            "--overwrite" % path
        )
    folder = os.path.dirname(path) or "."
    # A bucket has no folders.
    if "://" not in path and not tf.io.gfile.isdir(folder):
        raise UserError("--output=%s: there is no folder %s" % (path, folder))


# --- input ----------------------------------------------------------------------


class _Source(NamedTuple):
    """Where the rows come from."""

    name: str
    kind: str  # one of `text_rows`
    read_lines: Callable  # returns an iterable of lines, bytes
    is_stream: bool  # whether it can be read once only, and may be slow


def _open_source(path, strict):
    """The `_Source` of --input."""
    if path:
        kind, name = text_rows.file_kind(path, "input"), "--input=" + path
        return _Source(path, kind, lambda: text_lines.file_lines(path, name), False)
    if sys.stdin.isatty():
        sys.stderr.write("Reading lines from standard input, up to Ctrl-D\n")
    # Not sys.stdin, which Python closes at its end: a thread may still wait in it.
    stream = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    if strict:
        # All rows are checked before the first is predicted.
        stream = _copy_to_file(stream)

    def read_lines():
        if strict:
            stream.seek(0)
        return text_lines.stream_lines(stream, _STANDARD_INPUT)

    return _Source(_STANDARD_INPUT, text_rows.LINES, read_lines, not strict)


def _copy_to_file(stream):
    """A copy of a stream in a temporary file without a name."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        shutil.copyfileobj(stream, kept)
        kept.flush()
    except OSError as error:
        raise UserError(
            "standard input cannot be kept in %s to check all rows first, as --strict "
            "does (%s): make space there, or name another folder in TMPDIR"
            % (tempfile.gettempdir(), error.strerror)
        ) from None
    return kept


class _Problems:
    """Reports rows that cannot be read, and counts them."""

    def __init__(self, source, strict):
        self._source = source
        self._strict = strict
        self.count = 0

    def report(self, row):
        """Reports a row; or raises a `UserError` that does, with --strict."""
        message = "%s, line %d: %s" % (self._source, row.line, row.problem)
        if self._strict:
            raise UserError(message + " (--strict: nothing is predicted)")
        tqdm.write("left out: " + message, file=sys.stderr)
        self.count += 1

    def check_any_left(self, count):
        """Refuses an input of whose rows none can be read.

        Args:
          count: number of the rows that can be read.

        Raises:
          UserError: there are rows, and none of these.
        """
        if self.count and not count:
            raise UserError(
                "none of the %d rows of %s can be read: nothing is predicted"
                % (self.count, self._source)
            )


# --- output ---------------------------------------------------------------------


@contextlib.contextmanager
def _open_output(path, overwrite):
    """Gives a function that writes bytes; a file appears whole or not at all.

    Args:
      path: the file; None or "" for standard output.
      overwrite: whether the file may be there.
    """
    if not path:
        # `errors` reports what goes wrong there.
        yield _write_to_standard_output
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
    """Names of the output's columns; label columns are those of all tasks."""
    labels = [label for task in model.tasks for label in model.labels(task)]
    is_classified = ["label", "probability"] if labels else []
    has_scores = not all(model.labels(task) for task in model.tasks)
    return [
        "line",
        "task",
        *is_classified,
        *(["score"] if has_scores else []),
        *dict.fromkeys(map(_label_column, labels)),
    ]


def _label_column(label):
    return "probability_" + label


def _output_values(row, prediction):
    """Dict from a column's name to its value, for those that a prediction has."""
    values = {"line": row.line, "task": row.task}
    if prediction.score is not None:
        return dict(values, score=_brief(prediction.score))
    values.update(label=prediction.label, probability=_brief(prediction.probability))
    for label, probability in prediction.probabilities.items():
        values[_label_column(label)] = _brief(probability)
    return values


def _brief(number):
    """The number with the digits that a float32 has."""
    return float(str(np.float32(number)))


# --- the program ----------------------------------------------------------------


def _load_model(values):
    model = predictor.Predictor(
        values.init_checkpoint,
        values.bert_config_file,
        values.vocab_file,
        values.batch_size,
    )
    described = own_tasks.load_tasks(values.task_config, glue_data.GLUE_TASKS)
    for package in values.adapters:
        model.add(package, described)
    return model


def _row_reader(values, source, model):
    """A function that gives the sound rows, from the first on.

    Args:
      values: the flags.
      source: a `_Source`.
      model: the `predictor.Predictor`.

    Returns:
      A function of what is to be called with each row that cannot be read.
    """
    tasks = model.tasks
    task_column = values.task_column or ("task" if len(tasks) > 1 else None)
    columns = text_rows.Columns(
        values.text_a_column,
        values.text_b_column,
        task_column,
        (*model.column_names(), *text_rows.KNOWN_COLUMNS),
        {name: model.takes_pairs(name) for name in tasks},
    )

    def rows(report):
        found = text_rows.read_rows(
            source.read_lines(), source.kind, columns, tasks, source.name
        )
        for row in found:
            if row.problem:
                report(row)
            else:
                yield row

    return rows


def _check_rows(rows, source, problems):
    """Reports the rows that cannot be read, before the first prediction.

    Returns:
      The number of the others.

    Raises:
      UserError: there are rows, but none can be read.
    """
    total, quoted = 0, 0
    for row in rows(problems.report):
        total += 1
        quoted += any(map(text_rows.is_quoted, (row.text_a, row.text_b or "")))
    problems.check_any_left(total)
    if source.kind == text_rows.TSV and quoted:
        note = text_rows.describe_quotes(source.name, quoted)
        sys.stderr.write("note: %s. A .csv is read with its quotes\n" % note)
    return total


def _chunk_stream(rows):
    """Groups rows of a stream, which a thread reads.

    Args:
      rows: iterator that may wait for its next row.

    Yields:
      Lists of the rows that came within `STREAM_WAIT_SECONDS`, up to `CHUNK_ROWS`.
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


def _chunk_file(rows):
    """Lists of up to `CHUNK_ROWS` rows of an iterator."""
    return iter(lambda: list(itertools.islice(rows, CHUNK_ROWS)), [])


def run(values):
    """Does what the flags say.

    Args:
      values: an `absl.flags.FlagValues` with the flags of `define_flags`, parsed.

    Returns:
      The exit status.

    Raises:
      UserError: something is wrong for all rows, or with --strict for one.
    """
    _check_flags(values)
    kind = text_rows.TSV
    if values.output:
        kind = text_rows.file_kind(values.output, "output")
    model = _load_model(values)
    names = _output_columns(model)
    text_rows.check_writable(kind, [*model.tasks, *names])
    source = _open_source(values.input, values.strict)
    problems = _Problems(source.name, values.strict)
    rows = _row_reader(values, source, model)
    if source.is_stream:
        total, chunks = None, _chunk_stream(rows(problems.report))
    else:
        total = _check_rows(rows, source, problems)
        chunks = _chunk_file(rows(lambda row: None))  # They have been reported.
    count = 0
    # On a terminal it would stand among the predictions.
    hidden = True if not values.output and sys.stdout.isatty() else None
    with (
        _open_output(values.output, values.overwrite) as write,
        tqdm(total=total, desc="predicting", unit=" rows", disable=hidden) as bar,
    ):
        write(text_rows.format_header(kind, names))
        for chunk in chunks:
            texts = ((row.task, row.text_a, row.text_b) for row in chunk)
            predictions = model.predict_mixed(texts, bar.update)
            lines = (
                text_rows.format_row(kind, names, _output_values(row, prediction))
                for row, prediction in zip(chunk, predictions)
            )
            write(b"".join(lines))
            count += len(chunk)
        problems.check_any_left(count)
    sys.stderr.write("%d rows predicted, %d left out\n" % (count, problems.count))
    return ROWS_LEFT_OUT if problems.count else 0


@reports_user_errors
def main(argv):
    console.start(flags.FLAGS.verbosity)
    return run(flags.FLAGS)


if __name__ == "__main__":
    groups = define_flags(flags.FLAGS)
    command_line.run_program(main, __doc__.rstrip(), groups, flags.FLAGS)
