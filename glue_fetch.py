"""What fetching a GLUE task takes beyond `download.py`: archives' layout, MRPC, counts.

A task's row names its `sources` (addresses relative to a base) and one of the
`assemble_*` functions below, which turns the fetched files into the task's folder. All
of them have the signature

    assemble(downloads, staging, filenames) -> path of the finished folder

with `downloads` the local paths in the order of `sources`, `staging` an empty folder to
work in, and `filenames` the names that the finished folder must hold.
"""

import os
import shutil

import download
from errors import UserError

_DOWNLOADS = ".downloads"

MRPC_LABELLED_HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
MRPC_TEST_HEADER = ("index", "#1 ID", "#2 ID", "#1 String", "#2 String")


def assemble_archive(downloads, staging, filenames):
    """One zip: the finished folder is the one inside it that holds all the files."""
    (archive,) = downloads
    download.extract_zip(archive, staging)
    for folder, _, found in os.walk(staging):
        if set(filenames) <= set(found):
            return folder
    raise UserError("%s has no folder with all of %s" % (archive, ", ".join(filenames)))


def assemble_file(downloads, staging, filenames):
    """One plain file under its name in the task's folder."""
    (path,) = downloads
    (filename,) = filenames
    shutil.copyfile(path, os.path.join(staging, filename))
    return staging


def _read_table(path, num_fields):
    """Lines of a tab-separated file as (line number, list of fields)."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError as error:
        raise UserError("%s is not UTF-8: %s" % (path, error)) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line:
            continue
        # The corpus as published ends its lines with CR LF.
        fields = line.rstrip("\r").split("\t")
        if len(fields) != num_fields:
            raise UserError(
                "%s, line %d: %d fields, expected %d"
                % (path, number, len(fields), num_fields)
            )
        rows.append((number, fields))
    return rows


def _read_paraphrases(path):
    rows = _read_table(path, len(MRPC_LABELLED_HEADER))
    if not rows or tuple(rows[0][1]) != MRPC_LABELLED_HEADER:
        raise UserError(
            "%s, line 1: expected the header %s"
            % (path, " ".join(MRPC_LABELLED_HEADER))
        )
    return [fields for _, fields in rows[1:]]


def _write_table(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for fields in (header, *rows):
            file.write("\t".join(fields) + "\n")


def assemble_mrpc(downloads, staging, filenames):
    """MRPC's split from the two files of the paraphrase corpus and the dev pairs.

    The benchmark's dev set is the pairs of ids listed in the third file, taken out of
    the corpus's training file; order is kept. The test set loses its labels.
    """
    train_path, test_path, dev_ids_path = downloads
    train_name, dev_name, test_name = filenames
    dev_ids = {tuple(fields) for _, fields in _read_table(dev_ids_path, 2)}
    train, dev = [], []
    for fields in _read_paraphrases(train_path):
        (dev if (fields[1], fields[2]) in dev_ids else train).append(fields)
    absent = dev_ids - {(fields[1], fields[2]) for fields in dev}
    if absent:
        raise UserError(
            "%s lists %d pairs that %s does not have, for example %s"
            % (dev_ids_path, len(absent), train_path, " ".join(min(absent)))
        )
    test = [
        [str(index), *fields[1:]]
        for index, fields in enumerate(_read_paraphrases(test_path))
    ]
    _write_table(os.path.join(staging, train_name), MRPC_LABELLED_HEADER, train)
    _write_table(os.path.join(staging, dev_name), MRPC_LABELLED_HEADER, dev)
    _write_table(os.path.join(staging, test_name), MRPC_TEST_HEADER, test)
    return staging


def count_rows(path, has_header):
    """Number of data rows of a file, its last line with or without a newline."""
    with open(path, "rb") as file:
        data = file.read()
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    return lines - has_header


def check_folder(task, folder):
    """Compares a task's folder with the benchmark's row counts.

    Args:
      task: a row of the task table.
      folder: local path.

    Returns:
      (problems, warnings), two lists of text: missing files and wrong counts; counts
      that differ where the table's figure is itself unsure.
    """
    problems, warnings = [], []
    for split in task.splits:
        path = os.path.join(folder, split.filename)
        if not os.path.isfile(path):
            problems.append("%s is missing" % split.filename)
            continue
        rows = count_rows(path, split.has_header)
        if rows != split.rows:
            message = "%s has %d rows, expected %d" % (split.filename, rows, split.rows)
            (problems if split.rows_exact else warnings).append(message)
    return problems, warnings


def _warn(task, warnings):
    for warning in warnings:
        download.say("%s: warning: %s" % (task.title, warning))


def _assemble_and_place(task, downloads, final, base_url):
    filenames = tuple(split.filename for split in task.splits)
    with download.staging_folder(final) as staging:
        try:
            folder = task.assemble(downloads, staging, filenames)
            problems, warnings = check_folder(task, folder)
            if problems:
                raise UserError("; ".join(problems))
        except UserError as error:
            # Whole but wrong: keeping it would make every further run fail alike.
            for path in downloads:
                os.remove(path)
            raise UserError(
                "%s: what --base_url=%s serves is not the benchmark's data: %s. The "
                "download is deleted and nothing is put in place; run again, or give "
                "another --base_url" % (task.title, base_url, error)
            ) from error
        _warn(task, warnings)
        download.place_folder(folder, final)


def fetch_task(task, data_dir, base_url):
    """Makes the folder `data_dir/<title>` of one task, or finds it complete.

    The folder appears in one step when all its files are there with the benchmark's
    row counts. Broken downloads stay in `data_dir/.downloads` for the next call.

    Args:
      task: a row of the task table.
      data_dir: local folder of all tasks; made if needed.
      base_url: address that the row's `sources` are relative to.

    Returns:
      The path of the task's folder.

    Raises:
      UserError: the download failed, what came is not the task's data, or a folder is
        there already that is not complete.
    """
    final = os.path.join(data_dir, task.title)
    if os.path.lexists(final):
        problems, warnings = check_folder(task, final)
        if problems:
            raise UserError(
                "%s exists but is not the complete task (%s). Move it away, or give "
                "another --data_dir" % (final, "; ".join(problems))
            )
        _warn(task, warnings)
        download.say("%s: complete in %s, nothing to fetch" % (task.title, final))
        return final
    downloads_dir = os.path.join(data_dir, _DOWNLOADS)
    try:
        os.makedirs(downloads_dir, exist_ok=True)
        downloads = []
        for source in task.sources:
            url = "%s/%s" % (base_url.rstrip("/"), source)
            path = os.path.join(downloads_dir, os.path.basename(source))
            download.say("%s: fetching %s" % (task.title, url))
            try:
                download.fetch_file(url, path)
            except UserError as error:
                raise UserError(
                    "%s. The address comes from --base_url=%s" % (error, base_url)
                ) from error
            downloads.append(path)
        _assemble_and_place(task, downloads, final, base_url)
        for path in downloads:
            os.remove(path)
        if not os.listdir(downloads_dir):
            os.rmdir(downloads_dir)
    except OSError as error:
        raise UserError(
            "cannot write under --data_dir=%s: %s" % (data_dir, error)
        ) from error
    counts = []
    for split in task.splits:
        rows = count_rows(os.path.join(final, split.filename), split.has_header)
        counts.append("%s %d" % (split.name, rows))
    download.say("%s: ready in %s (rows: %s)" % (task.title, final, ", ".join(counts)))
    return final
