"""Downloads GLUE tasks and checks their files.

A task has `sources`, URLs relative to a base URL: a zip archive of its files, or files
for an `assemble_*` function of this module:

    assemble(downloads, folder, filenames)

`downloads` are local paths in the order of `sources`, `filenames` the files to write to
the empty folder.
"""

import os
import shutil
import sys

from errors import UserError
from inputs import download, text_lines, text_rows
from system import disk, files

# In the format of sha256sum. Other files are checked by their number of rows.
_SHA256_OF_FILES = """\
8c013e21dc39957cac37378d87bebe225b694a0d5fe13eded66c2856628833fd  CoLA/dev.tsv
3b4df85f7a9a0633574b38d181e18090ac961a24b18fb6bcd74999ddea8ad0b8  CoLA/test.tsv
cb368ebeb9f27d7ad03720d27ddc95687a311bdb100781a2fe59a5f5b1bc0624  CoLA/train.tsv
54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0  SST-2/dev.tsv
69a938605609b3e6663b4487918fe1565eb293734e6e520d0366d1d412fd2a13  SST-2/test.tsv
48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1  SST-2/train.tsv
9e8f284788040f7c9ecde2e1b3c07237c756f926bd9ef8548ef5d34b56f69f17  MRPC/dev.tsv
aee460ceda833926b8ab2ad952d399f5cf8bc9335cff19afcac03dc449558622  MRPC/test.tsv
69abcedee3cf738c6ce58d772e43e1b7cdf5b4edee4aceda459c0d9f4e5599f3  MRPC/train.tsv
fe7dc0632a5033562f3cadff991f6e8d9b9b6311861660e78c3c82eb7db67f59  STS-B/dev.tsv
16b4223d7d44a644fbc10f1b449472cfe81e1715fb07cf44023b0aa88ce856eb  STS-B/test.tsv
41c4d978b6162abdcada7e49a982211954cca5459c228db478af333124b257a2  STS-B/train.tsv
80230dfa1347282e7b532b06a1004a76a710087541189bf874223ddf0e3819fb  RTE/dev.tsv
6e33f09b5c2bfd5fd5fde217070f3dd49e484e33b9752b5864cf36fc421a213f  RTE/test.tsv
41e3a9b063433392343fad9e962cf2f58b681c78d8f71592f4186f0837246c5c  RTE/train.tsv
"""
SHA256 = {
    name: digest for digest, name in map(str.split, _SHA256_OF_FILES.splitlines())
}

MRPC_LABELLED_HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
MRPC_TEST_HEADER = ("index", "#1 ID", "#2 ID", "#1 String", "#2 String")


def assemble_file(downloads, folder, filenames):
    """Copies one plain file."""
    (path,) = downloads
    (filename,) = filenames
    shutil.copyfile(path, os.path.join(folder, filename))


def _read_table(path, num_fields):
    """Reads the rows of a tab-separated file, lists of fields."""
    rows = []
    lines = text_lines.file_lines(path, path)
    for line, fields, problem in text_rows.read_records(lines, text_rows.TSV):
        if not problem and len(fields) != num_fields:
            problem = "%d fields, expected %d" % (len(fields), num_fields)
        if problem:
            raise UserError("%s, line %d: %s" % (path, line, problem))
        rows.append(fields)
    return rows


def _read_paraphrases(path):
    header, *rows = _read_table(path, len(MRPC_LABELLED_HEADER)) or [()]
    if tuple(header) != MRPC_LABELLED_HEADER:
        raise UserError(
            "%s, line 1: expected the header %s"
            % (path, " ".join(MRPC_LABELLED_HEADER))
        )
    return rows


def assemble_mrpc(downloads, folder, filenames):
    """Splits the paraphrase corpus into MRPC's training, dev and test set.

    The third download lists the pairs of ids of the dev set, which is part of the
    corpus's training file. The test set has no labels.
    """
    train_path, test_path, dev_ids_path = downloads
    dev_ids = set(map(tuple, _read_table(dev_ids_path, 2)))
    train, dev = [], []
    for fields in _read_paraphrases(train_path):
        (dev if tuple(fields[1:3]) in dev_ids else train).append(fields)
    missing = dev_ids - {tuple(fields[1:3]) for fields in dev}
    if missing:
        raise UserError(
            "%s lists %d pairs that %s does not have, for example %s"
            % (dev_ids_path, len(missing), train_path, " ".join(min(missing)))
        )
    test = [
        [str(index), *fields[1:]]
        for index, fields in enumerate(_read_paraphrases(test_path))
    ]
    headers = (MRPC_LABELLED_HEADER, MRPC_LABELLED_HEADER, MRPC_TEST_HEADER)
    for filename, header, rows in zip(filenames, headers, (train, dev, test)):
        with open(os.path.join(folder, filename), "w", encoding="utf-8") as file:
            file.writelines("\t".join(fields) + "\n" for fields in (header, *rows))


def count_rows(path, has_header):
    """Counts the data rows of a file; the last line may lack a newline."""
    with open(path, "rb") as file:
        return sum(1 for _ in file) - has_header


def _find_problems(task, folder):
    """Missing files, wrong row counts and wrong digests in a task's folder, as text.

    A wrong count is a warning if the split's count is uncertain.
    """
    problems = []
    for split in task.splits:
        path = os.path.join(folder, split.filename)
        name = "%s/%s" % (task.title, split.filename)
        if not os.path.isfile(path):
            problems.append("%s is missing" % split.filename)
        elif (rows := count_rows(path, split.has_header)) != split.rows:
            message = "%s has %d rows, expected %d" % (split.filename, rows, split.rows)
            if split.rows_exact:
                problems.append(message)
            else:
                _log(task, "warning: " + message)
        elif name in SHA256 and files.digest(path) != SHA256[name]:
            problems.append(
                "%s has the right number of rows, but its SHA-256 differs from the "
                "benchmark's file" % split.filename
            )
    return "; ".join(problems)


def _log(task, message):
    print("%s: %s" % (task.title, message), file=sys.stderr, flush=True)


def _fetch_sources(task, folder, base_url):
    """Downloads the sources of a task; returns their paths."""
    paths = []
    for source in task.sources:
        url = "%s/%s" % (base_url.rstrip("/"), source)
        path = os.path.join(folder, os.path.basename(source))
        _log(task, "fetching " + url)
        download.fetch_file(url, path, "base_url")
        paths.append(path)
    return paths


def fetch_task(task, data_dir, base_url):
    """Downloads a task to `data_dir/<title>`, unless it exists; returns the path.

    The folder appears when row counts and known digests have been verified.

    Raises:
      UserError: the download failed or has other content, or the folder is incomplete.
    """
    final = os.path.join(data_dir, task.title)
    if os.path.lexists(final):
        if problems := _find_problems(task, final):
            raise UserError(
                "%s exists but is not the complete task (%s). Move it away, or give "
                "another `data_dir`" % (final, problems)
            )
        _log(task, "complete in %s, nothing to fetch" % final)
        return final
    filenames = tuple(split.filename for split in task.splits)
    with files.working_folder(final) as working_folder:
        folder = os.path.join(working_folder, task.title)
        os.mkdir(folder)
        downloads = _fetch_sources(task, os.path.join(working_folder, "d"), base_url)
        try:
            if task.assemble:
                task.assemble(downloads, folder, filenames)
            else:
                download.extract_files(*downloads, filenames, folder)
            if problems := _find_problems(task, folder):
                raise UserError(problems)
        except disk.WriteError:
            raise
        except UserError as error:
            raise UserError(
                "%s: the content of `base_url`=%s is not the benchmark's data: %s. "
                "Nothing is kept; run again, or give another `base_url`"
                % (task.title, base_url, error)
            ) from error
        os.rename(folder, final)
    counts = []
    for split in task.splits:
        rows = count_rows(os.path.join(final, split.filename), split.has_header)
        counts.append("%s %d" % (split.name, rows))
    _log(task, "ready in %s (rows: %s)" % (final, ", ".join(counts)))
    return final
