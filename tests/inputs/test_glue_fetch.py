"""Fetching GLUE from a loopback server whose archives look like the published ones."""

import hashlib
import io
import os
import pathlib
import zipfile

import pooch
import pytest
from file_server import serve

from errors import UserError
from glue_data import GLUE_TASKS
from inputs import download, glue_fetch
from system import disk
from tasks.task_data import read_examples
from tests import programs, small_disk
from tests.places import GLUE

# Rows of the made-up files, in the order of `Task.splits`.
FIXTURE_ROWS = {
    name: {"mnli": (6, 4, 5, 3, 4), "ax": (3,), "qqp": (8, 4, 3)}.get(name, (6, 4, 3))
    for name in GLUE_TASKS
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(glue_fetch, "SHA256", {})  # The files here are made up.
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "*")


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def task_zip(title, **extra):
    """The made-up files of a task as its archive, with a folder beside them."""
    members = {"%s/" % title: b"", "%s/original/readme" % title: b"text"}
    for path in sorted((GLUE / title).iterdir()):
        members["%s/%s" % (title, path.name)] = path.read_bytes()
    return zip_of({**members, **extra})


def small(name):
    """A row whose counts are those of the made-up files."""
    task = GLUE_TASKS[name]
    counts = iter(FIXTURE_ROWS[name])

    def shrink(split):
        return split._replace(rows=next(counts))

    return task._replace(
        train=task.train and shrink(task.train),
        dev=tuple(map(shrink, task.dev)),
        test=tuple(map(shrink, task.test)),
    )


@pytest.fixture
def server():
    files = {"/glue/data/AX.tsv": (GLUE / "AX" / "diagnostic.tsv").read_bytes()}
    for title, name in (
        ("CoLA", "CoLA"), ("SST-2", "SST-2"), ("STS-B", "STS-B"), ("QQP", "QQP-clean"),
        ("MNLI", "MNLI"), ("QNLI", "QNLIv2"), ("RTE", "RTE"), ("WNLI", "WNLI"),
    ):  # fmt: skip
        files["/glue/data/%s.zip" % name] = task_zip(title)
    with serve(files) as running:
        yield running


@pytest.mark.parametrize("name", [name for name in GLUE_TASKS if name != "mrpc"])
def test_fetched_task_is_read(name, server, tmp_path):
    task = small(name)
    folder = glue_fetch.fetch_task(task, str(tmp_path / "new"), server.url + "/")
    assert folder == str(tmp_path / "new" / task.title)
    assert os.listdir(tmp_path / "new") == [task.title]
    for split in task.splits:
        assert read_examples(task, folder, split)


def test_second_run_fetches_nothing(server, tmp_path, capsys):
    glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    server.log.clear()
    glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    assert server.log == []
    assert "RTE: complete in" in capsys.readouterr().err


def test_incomplete_folder_is_left_alone(server, tmp_path):
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.tsv").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"not the complete task.*dev\.tsv is missing"):
        glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    assert (tmp_path / "RTE" / "train.tsv").read_bytes() == b"mine"
    assert server.log == []


def test_broken_transfer_leaves_nothing(server, tmp_path):
    server.breaks = [100] * (1 + download.RETRIES)
    with pytest.raises(UserError, match=r"`base_url`\) and .*run .* again"):
        glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    assert os.listdir(tmp_path) == []
    glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    assert os.listdir(tmp_path) == ["RTE"]


def test_a_full_disk_is_not_the_servers_fault(server, tmp_path, monkeypatch):
    with small_disk.files_end_at(200), pytest.raises(UserError) as caught:
        glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    assert "cannot be written (File too large)" in str(caught.value)
    assert "`base_url`" not in str(caught.value)
    monkeypatch.setattr(disk, "free_bytes", lambda path: 123)
    with pytest.raises(UserError, match="123 bytes are free") as caught:
        glue_fetch.fetch_task(small("rte"), str(tmp_path), server.url)
    assert "`base_url`" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_wrong_archive_leaves_nothing(server, tmp_path):
    short = (GLUE / "RTE" / "train.tsv").read_bytes().rsplit(b"\n", 2)[0]
    archive = task_zip("RTE", **{"RTE/train.tsv": short + b"\n"})
    message = r"train\.tsv has 5 rows, expected 6"
    good = server.files["/glue/data/RTE.zip"]
    server.files["/glue/data/RTE.zip"] = archive
    data_dir = tmp_path / "a" / "b"
    with pytest.raises(UserError, match=message) as caught:
        glue_fetch.fetch_task(small("rte"), str(data_dir), server.url)
    assert "`base_url`=" in str(caught.value)
    assert os.listdir(data_dir) == []
    server.files["/glue/data/RTE.zip"] = good
    glue_fetch.fetch_task(small("rte"), str(data_dir), server.url)


def test_files_are_known_by_their_digests(server, tmp_path, monkeypatch):
    task = small("rte")
    digests = {
        "RTE/" + path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (GLUE / "RTE").iterdir()
    }
    monkeypatch.setattr(glue_fetch, "SHA256", digests)
    folder = glue_fetch.fetch_task(task, str(tmp_path), server.url)
    path = pathlib.Path(folder) / "dev.tsv"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    message = r"not the complete task \(dev\.tsv .* but its SHA-256"
    with pytest.raises(UserError, match=message):
        glue_fetch.fetch_task(task, str(tmp_path), server.url)


def test_unsure_counts_are_a_warning(server, tmp_path, capsys):
    task = small("qnli")
    task = task._replace(train=task.train._replace(rows=7))
    glue_fetch.fetch_task(task, str(tmp_path), server.url)
    said = capsys.readouterr().err
    assert "QNLI: warning: train.tsv has 6 rows, expected 7" in said
    assert [s.rows_exact for s in GLUE_TASKS["qnli"].splits] == [False, True, True]


def paraphrases(count, first_id):
    lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    for i in range(count):
        lines.append('%d\t%d\t%d\tThe "cat %d\tA cat\u2028 %d'
                     % (i % 2, first_id + i, 9000 + i, i, i))  # fmt: skip
    return ("\r\n".join(lines) + "\r\n").encode()


def mrpc_files():
    # Every tenth pair up to 408 is a dev pair.
    ids = ["%d\t%d" % (1000 + i, 9000 + i) for i in range(0, 4076, 10)]
    assert len(ids) == 408
    return {
        "/senteval/senteval_data/msr_paraphrase_train.txt": paraphrases(4076, 1000),
        "/senteval/senteval_data/msr_paraphrase_test.txt": paraphrases(1725, 50000),
        "/glue/data/mrpc_dev_ids.tsv": ("\n".join(ids) + "\n").encode(),
    }


def test_mrpc_split_is_built(tmp_path):
    task = GLUE_TASKS["mrpc"]
    with serve(mrpc_files()) as server:
        folder = glue_fetch.fetch_task(task, str(tmp_path), server.url)
    train, dev, test = (read_examples(task, folder, split) for split in task.splits)
    assert (len(train), len(dev), len(test)) == (3668, 408, 1725)
    assert [e.text_a for e in dev[:3]] == [
        'The "cat 0', 'The "cat 10', 'The "cat 20',
    ]  # fmt: skip
    assert [e.text_a for e in train[:10]] == [
        'The "cat %d' % i for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11)
    ]
    assert [e.label for e in train[:3]] == ["1", "0", "1"]
    assert test[7].text_b == "A cat\u2028 7"
    lines = (tmp_path / "MRPC" / "test.tsv").read_bytes().split(b"\n")
    assert lines[0] == b"index\t#1 ID\t#2 ID\t#1 String\t#2 String"
    assert (
        lines[2]
        == 'index\t50001\t9001\tThe "cat 1\tA cat\u2028 1'.replace(
            "index", "1"
        ).encode()
    )
    header = (tmp_path / "MRPC" / "dev.tsv").read_bytes().split(b"\n")[0]
    assert header == b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    assert os.listdir(tmp_path) == ["MRPC"]


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        ("/glue/data/mrpc_dev_ids.tsv", b"1010\t9010", b"1010\t9011",
         "lists 1 pairs that .* does not have, for example 1010 9011"),
        ("/glue/data/mrpc_dev_ids.tsv", b"1010\t9010\n", b"",
         r"train\.tsv has 3669 rows, expected 3668; dev\.tsv has 407 rows"),
        ("/senteval/senteval_data/msr_paraphrase_test.txt", b"50003\t", b"50003 ",
         r"msr_paraphrase_test\.txt, line 5: 4 fields, expected 5"),
        ("/senteval/senteval_data/msr_paraphrase_train.txt", b"Quality", b"Label",
         "line 1: expected the header Quality #1 ID"),
    ],
)  # fmt: skip
def test_wrong_mrpc_sources(path, old, new, message, tmp_path):
    files = mrpc_files()
    files[path] = files[path].replace(old, new, 1)
    with serve(files) as server, pytest.raises(UserError, match=message):
        glue_fetch.fetch_task(GLUE_TASKS["mrpc"], str(tmp_path), server.url)
    assert os.listdir(tmp_path) == []


def full_wnli():
    """An archive with as many rows as the benchmark's."""
    text = "\tOne side.\tOther side."
    members = {"WNLI/test.tsv": "index\tsentence1\tsentence2\n"}
    members["WNLI/test.tsv"] += "".join("%d%s\n" % (i, text) for i in range(146))
    for part, rows in (("train", 635), ("dev", 71)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        lines += ["%d%s\t%d" % (i, text, i % 2) for i in range(rows)]
        members["WNLI/%s.tsv" % part] = "\n".join(lines)
    return zip_of(members)


def test_program(tmp_path):
    files = {**mrpc_files(), "/glue/data/WNLI.zip": full_wnli()}
    with serve(files) as server:
        done = programs.run(
            "glue_data.py",
            "--data_dir=%s" % tmp_path,
            "--tasks=wnli,MRPC,",
            "--base_url=" + server.url,
            environment={"no_proxy": "*"},
        )
    assert "(rows: train 635, dev 71, test 146)" in done.stderr
    # The made-up pairs are as many as the benchmark's, but others.
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error: MRPC: the content of --base_url=")
    assert "train.tsv has the right number of rows, but its SHA-256" in message
    assert sorted(os.listdir(tmp_path)) == ["WNLI"]
