"""The evaluation server's files: writing one, and collecting all into the zip it takes.

    python glue_submission.py --output_dirs=out/cola,out/mnli,... --zip=submission.zip

A file is UTF-8 text with LF line ends and without quotes: the header
`index<TAB>prediction`, then one line for each test row with its index, from 0 in every
file, and the label as the task's files spell it. STS-B has three decimals, clipped to
[0, 5].
"""

import system.startup  # noqa: F401  (before TensorFlow)

import contextlib
import io
import os
import re
import zipfile

import numpy as np
import tensorflow.compat.v1 as tf
from absl import app, flags

import command_line
from errors import UserError, reports_user_errors
from glue_data import GLUE_TASKS
from inputs import text_lines

_HEADER = "index\tprediction"
_MAX_SCORE = 5.0
# Zip members carry a date; a fixed one makes equal files an equal zip.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def _write_whole(path, data):
    """Writes bytes under a temporary name, then renames; a `UserError` if it cannot."""
    temporary = path + ".tmp"
    try:
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(data)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(temporary)
        raise UserError("cannot write %s: %s" % (path, error.message)) from None


def _values(task, split, predictions):
    """The second column, a list of strings."""
    if task.is_regression:
        bad = np.flatnonzero(~np.isfinite(predictions))
        if bad.size:
            raise UserError(
                "the prediction for row %d of %s is %s: the model diverged. Train with "
                "a lower --learning_rate"
                % (bad[0], split.filename, predictions[bad[0]])
            )
        # Adding zero turns -0.0, which would print with its sign, into 0.0.
        scores = np.clip(predictions, 0.0, _MAX_SCORE) + 0.0
        return ["%.3f" % score for score in scores]
    if not np.issubdtype(predictions.dtype, np.integer):
        raise ValueError("class ids must be integers, got %s" % predictions.dtype)
    if predictions.size and not (
        predictions.min() >= 0 and predictions.max() < len(task.labels)
    ):
        raise ValueError("class ids must be in [0, %d)" % len(task.labels))
    return [task.labels[class_id] for class_id in predictions]


def write_submission(task, split, predictions, path):
    """Writes the evaluation server's file for one test set, whole or not at all.

    Args:
      task: a row of `glue_data.GLUE_TASKS`.
      split: one of its test splits; `split.submission_file` is the name that the
        server expects.
      predictions: 1-D array in the order of the test file: class ids (int) in the
        order of `task.labels`, or scores (float) for a regression.
      path: where to write, local or `gs://`; a file that is there is replaced.

    Raises:
      UserError: a score is not a finite number, or the file cannot be written.
      ValueError: not 1-D, not integers, or not class ids of the task.
    """
    predictions = np.asarray(predictions)
    if predictions.ndim != 1:
        raise ValueError("predictions must be 1-D, got shape %s" % (predictions.shape,))
    lines = [_HEADER]
    for index, value in enumerate(_values(task, split, predictions)):
        lines.append("%d\t%s" % (index, value))
    _write_whole(path, ("\n".join(lines) + "\n").encode("utf-8"))


def _value_problem(task, value):
    if not task.is_regression:
        if value in task.labels:
            return ""
        return "%.80r is not one of %s" % (value, ", ".join(task.labels))
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII) and float(value) <= _MAX_SCORE:
        return ""
    return "%.80r is not a number from 0 to %g" % (value, _MAX_SCORE)


def _problem(task, split, data):
    """The first thing that the server would not take in a file, or ""."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        return "not UTF-8: %s" % error
    if b"\r" in data:
        return "line ends must be LF alone; it has CR characters"
    if lines[0] != _HEADER:
        return "line 1: the header is %.80r, expected %r" % (lines[0], _HEADER)
    if lines.pop():
        return "the last line has no line end; the file may be cut off"
    for row, line in enumerate(lines[1:]):
        fields = line.split("\t")
        if len(fields) != 2:
            problem = "%d tab-separated fields, expected 2" % len(fields)
        elif fields[0] != str(row):
            problem = "index %.80r, expected %d" % (fields[0], row)
        else:
            problem = _value_problem(task, fields[1])
        if problem:
            return "line %d: %s" % (row + 2, problem)
    rows = len(lines) - 1
    if rows != split.rows:
        return "%d rows, expected %d" % (rows, split.rows)
    return ""


def _find(output_dirs, name):
    """The paths of all files of this name in the folders."""
    paths = [os.path.join(folder, name) for folder in output_dirs]
    return [path for path in paths if tf.io.gfile.exists(path)]


def _collect(output_dirs):
    """Reads and checks all files.

    Returns:
      (members, problems): a dict from file name to bytes, and a list of text.
    """
    members, problems = {}, []
    for task in GLUE_TASKS.values():
        for split in task.test:
            name = split.submission_file
            paths = _find(output_dirs, name)
            if not paths:
                problems.append("%s: missing" % name)
            elif len(paths) > 1:
                problems.append("%s: more than one: %s" % (name, ", ".join(paths)))
            else:
                text_lines.check_plain_file(paths[0], paths[0])
                with tf.io.gfile.GFile(paths[0], "rb") as file:
                    members[name] = file.read()
                problem = _problem(task, split, members[name])
                if problem:
                    problems.append("%s: %s" % (paths[0], problem))
    return members, problems


def build_zip(output_dirs, zip_path):
    """Collects the submission files of several folders into the server's zip.

    The server takes the files of all tasks, AX among them, at the top level.

    Args:
      output_dirs: folders, local or `gs://`, that hold each file exactly once.
      zip_path: the zip to write; refused if it exists.

    Returns:
      The names of the files in the zip.

    Raises:
      UserError: a folder is missing, the zip exists, or files are missing, found twice
        or not what the server takes: all of them in one message.
    """
    for folder in output_dirs:
        if not tf.io.gfile.isdir(folder):
            raise UserError("--output_dirs: %s is not a folder" % folder)
    if tf.io.gfile.exists(zip_path):
        raise UserError(
            "--zip=%s exists and is not overwritten; delete it or give another name"
            % zip_path
        )
    members, problems = _collect(output_dirs)
    if problems:
        raise UserError(
            "no zip is written; in the folders of --output_dirs=%s:"
            % ",".join(output_dirs),
            *problems,
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            # Readable by all once unpacked; the default would be no rights at all.
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    _write_whole(zip_path, buffer.getvalue())
    return sorted(members)


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    return {
        "Files": (
            flags.DEFINE_list(
                "output_dirs",
                None,
                "Folders, separated by commas, that hold the submission files.",
                **to,
            ),
            flags.DEFINE_string("zip", None, "The zip file to write.", **to),
        )
    }


@reports_user_errors
def main(argv):
    command_line.refuse_words(argv, "--zip=submission.zip")
    command_line.check_required(flags.FLAGS, ["output_dirs", "zip"])
    names = build_zip(flags.FLAGS.output_dirs, flags.FLAGS.zip)
    print("%s holds %d files: %s" % (flags.FLAGS.zip, len(names), ", ".join(names)))


if __name__ == "__main__":
    groups = define_flags(flags.FLAGS)
    app.run(main, flags_parser=command_line.flags_parser(__doc__, groups, flags.FLAGS))
