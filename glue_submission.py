"""Collects the evaluation server's files of all tasks into the zip that it takes.

    python glue_submission.py --output_dirs=out/cola,out/mnli,... --zip=submission.zip

`submission_file` says what a file holds.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import io
import os
import re
import zipfile

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
from errors import UserError, reports_user_errors
from glue_data import GLUE_TASKS
from inputs import submission_file
from inputs.tasks import find_label_problem
from system import files

# QQP's test set is the largest, with 391,000 rows of ten bytes.
_MOST_BYTES = 1 << 25
# Zip members carry a date; a fixed one makes equal files an equal zip.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def _value_problem(task, value):
    if task.is_regression and not re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        return "%.80r is not a number from %g to %g" % (value, *task.label_range)
    return find_label_problem(task, value)


def _problem(task, split, data):
    """The first thing that the server would not take in a file, or ""."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        return "not UTF-8: %s" % error
    if b"\r" in data:
        return "line ends must be LF alone; it has CR characters"
    if lines[0] != submission_file.HEADER:
        return "line 1: the header is %.80r, expected %r" % (
            lines[0],
            submission_file.HEADER,
        )
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
                members[name] = files.read(
                    paths[0], _MOST_BYTES, "it is no file for the server"
                )
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
    files.write_whole(zip_path, buffer.getvalue())
    return sorted(members)


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    return {
        "Files": (
            command_line.DEFINE_path_list(
                "output_dirs",
                "Folders, separated by commas, that hold the submission files.",
                **to,
            ),
            command_line.DEFINE_path("zip", "The zip file to write.", **to),
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
    command_line.run_program(
        main, command_line.flags_parser(__doc__, groups, flags.FLAGS)
    )
