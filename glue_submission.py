"""Collects the submission files of all tasks into a zip for the evaluation server.

    python glue_submission.py --output_dirs=out/cola,out/mnli,... --zip=submission.zip

`tasks/submission_file.py` describes the files.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import io
import os
import zipfile

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
from errors import UserError
from glue_data import GLUE_TASKS
from system import files
from system.wording import pluralize
from tasks import submission_file

_MAX_BYTES = 1 << 25  # QQP's test set is the largest: 391,000 rows of ten bytes.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # A fixed date makes equal files an equal zip.


def _find_problem(task, split, data):
    """The first error in a submission file, or ""."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        return "not UTF-8: %s" % error
    if b"\r" in data:
        return "line ends must be LF alone; it has CR characters"
    expected = submission_file.HEADER
    if lines[0] != expected:
        return "line 1: the header is %.80r, expected %r" % (lines[0], expected)
    if lines.pop():
        return "the last line has no line end; the file may be truncated"
    for row, line in enumerate(lines[1:]):
        fields = line.split("\t")
        if len(fields) != 2:
            problem = "%s, expected 2" % pluralize(len(fields), "tab-separated field")
        elif fields[0] != str(row):
            problem = "index %.80r, expected %d" % (fields[0], row)
        else:
            problem = task.type.find_label_problem(fields[1])
        if problem:
            return "line %d: %s" % (row + 2, problem)
    rows = len(lines) - 1
    return "" if rows == split.rows else "%d rows, expected %d" % (rows, split.rows)


def _collect_files(output_dirs):
    """Reads and checks all files; returns a dict from name to bytes, and problems."""
    members, problems = {}, []
    tests = [(task, split) for task in GLUE_TASKS.values() for split in task.test]
    for task, split in tests:
        name = split.submission_file
        paths = [os.path.join(folder, name) for folder in output_dirs]
        paths = [path for path in paths if tf.io.gfile.exists(path)]
        if not paths:
            problems.append("%s: missing" % name)
        elif len(paths) > 1:
            problems.append("%s: more than one: %s" % (name, ", ".join(paths)))
        else:
            remedy = "give the folder that it was written to"
            members[name] = files.read(paths[0], _MAX_BYTES, remedy)
            if problem := _find_problem(task, split, members[name]):
                problems.append("%s: %s" % (paths[0], problem))
    return members, problems


def build_zip(output_dirs, zip_path):
    """Collects the submission files of several folders, local or `gs://`, into a zip.

    Returns the names of the files, at the top level of the zip.

    Raises:
      UserError: a folder is missing, the zip exists, or files are missing, duplicate or
        invalid; the message lists all problems.
    """
    for folder in output_dirs:
        if not tf.io.gfile.isdir(folder):
            raise UserError("--output_dirs: %s is not a folder" % folder)
    if tf.io.gfile.exists(zip_path):
        raise UserError(
            "--zip=%s exists and is not overwritten; delete it or give another name"
            % zip_path
        )
    members, problems = _collect_files(output_dirs)
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
            info.external_attr = 0o644 << 16  # The default permits no reading.
            archive.writestr(info, members[name])
    files.write_whole(zip_path, buffer.getvalue())
    return sorted(members)


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    about = "Folders, separated by commas, that hold the submission files."
    output_dirs = command_line.DEFINE_path_list("output_dirs", about, flag_values)
    path = command_line.DEFINE_path("zip", "The zip file to write.", flag_values)
    return {"Files": (output_dirs, path)}


def main(argv):
    command_line.check_required(flags.FLAGS, ["output_dirs", "zip"])
    names = build_zip(flags.FLAGS.output_dirs, flags.FLAGS.zip)
    print("%s holds %d files: %s" % (flags.FLAGS.zip, len(names), ", ".join(names)))


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(flags.FLAGS), flags.FLAGS)
