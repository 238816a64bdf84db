"""The evaluation server's files: their bytes, and what the collector refuses."""

import os
import zipfile

import numpy as np
import pytest

import glue_submission
from errors import UserError
from glue_data import GLUE_TASKS
from glue_submission import build_zip
from tasks.submission_file import write_submission
from tests import programs


def written(tmp_path, name, predictions, split=0):
    task = GLUE_TASKS[name]
    path = tmp_path / task.test[split].submission_file
    write_submission(map(task.type.prediction_text, predictions), str(path))
    assert os.listdir(tmp_path) == [path.name]
    return path.read_bytes()


def test_labels_of_classes(tmp_path):
    got = written(tmp_path, "mnli", np.eye(3)[[2, 0, 1]], split=1)
    assert got == b"index\tprediction\n0\tneutral\n1\tcontradiction\n2\tentailment\n"
    # An older file is replaced.
    got = written(tmp_path, "mnli", np.eye(3)[[2]], split=1)
    assert got == b"index\tprediction\n0\tneutral\n"


# With float16, np.clip alone keeps the sign of -0.0.
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_are_clipped(tmp_path, dtype):
    scores = np.array([[-0.25], [5.3], [2.71875], [-0.0], [4.9999]], dtype)
    assert written(tmp_path, "sts-b", scores) == (
        b"index\tprediction\n0\t0.000\n1\t5.000\n2\t2.719\n3\t0.000\n4\t5.000\n"
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """One folder per task with all its files; test sets have seven examples."""
    small = {}
    for name, task in GLUE_TASKS.items():
        splits = tuple(split._replace(rows=7) for split in task.test)
        small[name] = task._replace(test=splits)
        (tmp_path / "out" / name).mkdir(parents=True)
        for split in splits:
            labels = task.type.labels or ("0.500", "1.250")
            texts = [labels[i % 2] for i in range(split.rows)]
            path = tmp_path / "out" / name / split.submission_file
            write_submission(texts, str(path))
    monkeypatch.setattr(glue_submission, "GLUE_TASKS", small)
    return [str(path) for path in sorted((tmp_path / "out").iterdir())]


def test_complete_zip(folders, tmp_path):
    target = tmp_path / "submission.zip"
    names = build_zip(folders, str(target))
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == names == [
            "AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "QNLI.tsv",
            "QQP.tsv", "RTE.tsv", "SST-2.tsv", "STS-B.tsv", "WNLI.tsv",
        ]  # fmt: skip
        rte = (tmp_path / "out" / "rte" / "RTE.tsv").read_bytes()
        assert archive.read("RTE.tsv") == rte
    with pytest.raises(UserError, match="exists and is not overwritten"):
        build_zip(folders, str(target))


def edit(data, number, new):
    """Replaces a line, counted from 1; None takes it out."""
    lines = data.split(b"\n")
    lines[number - 1 : number] = [] if new is None else [new]
    return b"\n".join(lines)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("rte/RTE.tsv", lambda d: edit(d, 8, None), "RTE.tsv: 6 rows, expected 7"),
        ("rte/RTE.tsv", lambda d: d + b"7\tentailment\n", "8 rows, expected 7"),
        ("rte/RTE.tsv", lambda d: edit(d, 5, b"2\tentailment"),
         "line 5: index '2', expected 3"),
        ("rte/RTE.tsv", lambda d: edit(d, 5, b"3\t1"), "line 5: '1' is not one of"),
        ("rte/RTE.tsv", lambda d: edit(d, 5, b"3,entailment"), "line 5: 1 tab-sep"),
        ("rte/RTE.tsv", lambda d: edit(d, 1, None), "line 1: the header is '0"),
        ("rte/RTE.tsv", lambda d: d.replace(b"\n", b"\r\n"), "LF alone"),
        ("rte/RTE.tsv", lambda d: d[:-3], "no line end"),
        ("rte/RTE.tsv", lambda d: d.replace(b"entail", b"\xff", 1), "not UTF-8"),
        ("rte/RTE.tsv", lambda _: b"", "line 1: the header is ''"),
        ("sts-b/STS-B.tsv", lambda d: edit(d, 2, b"0\tnan"), "'nan' is not"),
        ("sts-b/STS-B.tsv", lambda d: edit(d, 2, b"0\t5.001"), "'5.001' is not"),
    ],
)  # fmt: skip
def test_malformed_file_is_refused(folders, tmp_path, file, change, message):
    path = tmp_path / "out" / file
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(change(data))
    with pytest.raises(UserError) as caught:
        build_zip(folders, str(tmp_path / "x.zip"))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert not (tmp_path / "x.zip").exists()


def test_missing_and_doubled_files_are_all_named(folders, tmp_path):
    root = tmp_path / "out"
    (root / "ax" / "AX.tsv").unlink()
    (root / "mnli" / "MNLI-m.tsv").unlink()
    (root / "cola" / "RTE.tsv").symlink_to(root / "rte" / "RTE.tsv")
    with pytest.raises(UserError) as caught:
        build_zip(folders, str(tmp_path / "x.zip"))
    message = str(caught.value)
    assert "\n  AX.tsv: missing" in message
    assert "\n  MNLI-m.tsv: missing" in message
    assert "RTE.tsv: more than one: %s, %s" % (
        root / "cola" / "RTE.tsv", root / "rte" / "RTE.tsv",
    ) in message  # fmt: skip
    assert len(message.splitlines()) == 4


def test_a_named_pipe_is_refused(folders, tmp_path):
    os.remove(os.path.join(folders[0], "AX.tsv"))
    os.mkfifo(os.path.join(folders[0], "AX.tsv"))
    with pytest.raises(UserError, match=r"AX\.tsv .*it is a pipe or device"):
        build_zip(folders, str(tmp_path / "x.zip"))


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--output_dirs: .*none is not a folder"):
        build_zip([str(tmp_path / "none")], str(tmp_path / "x.zip"))


def test_program(tmp_path):
    flags = ("--output_dirs=%s" % tmp_path, "--zip=%s" % (tmp_path / "s.zip"))
    refused = programs.run("glue_submission.py", *flags)
    assert refused.returncode == 1
    assert refused.stderr.count("missing") == 11
    assert "Traceback" not in refused.stderr and not os.listdir(tmp_path)
