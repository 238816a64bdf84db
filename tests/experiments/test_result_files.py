"""`result.json`: what is written is read, and a damaged file is named."""

import json
import os

import pytest

from errors import UserError
from experiments import results
from experiments.grid import Job
from tests.made_up_results import result

JOB = Job("mrpc", "full", "1e-4", 3, 1)


def test_a_result_is_read_as_it_was_written(tmp_path):
    written = result(0.5, test_scores={"f1": 0.4}, inputs={"train.tsv": "ab"})
    results.write(str(tmp_path), JOB, written)
    assert results.read_all(str(tmp_path), [JOB]) == {JOB: written}
    path = os.path.join(results.job_folder(str(tmp_path), JOB), results.FILE_NAME)
    with open(path) as reader:
        record = json.load(reader)
    assert (record["job"]["task"], record["status"]) == ("mrpc", "ok")
    del record["inputs"]  # As earlier versions wrote it.
    with open(path, "w") as writer:
        json.dump(record, writer)
    assert results.read(str(tmp_path), JOB) == written._replace(inputs={})


def test_an_archive_is_read_where_no_jobs_have_run(tmp_path):
    other = JOB._replace(seed=2)
    known = {JOB: result(0.5, test_scores={"f1": 0.4}), other: result(0.6)}
    (tmp_path / "size").mkdir()
    results.write_archive(str(tmp_path / "size"), known)
    assert results.read_all(str(tmp_path), [other], "size") == {other: known[other]}
    archive = tmp_path / "size" / results.ARCHIVE
    archive.write_text(archive.read_text().replace('"f1":0.6', '"f1":"x"'))
    with pytest.raises(UserError, match=r"results\.jsonl, line 2: sets.*f1"):
        results.read_all(str(tmp_path), [other], "size")
    results.write(str(tmp_path), JOB, result(0.7))
    found = results.read_all(str(tmp_path), [JOB, other], "size")
    assert found == {JOB: result(0.7)}


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_damaged_archive_is_to_be_restored_and_not_deleted(content, tmp_path):
    archive = tmp_path / results.ARCHIVE
    archive.write_text(content) if content else archive.mkdir()
    with pytest.raises(UserError, match=r"results\.jsonl.*restore") as refused:
        results.read_archive(str(tmp_path))
    assert "delete" not in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("status", lambda r: r.update(status="fine")),
        ("reason", lambda r: r.update(reason=None)),
        ("seconds", lambda r: r.update(seconds="long")),
        ("flags", lambda r: r.update(flags=[])),
        ("flags", lambda r: r.pop("flags")),
        ("", lambda r: r.clear()),
        ("parameters", lambda r: r.update(parameters=None)),
        ("accuracy", lambda r: r.update(metric="accuracy")),
        ("set", lambda r: r.update(sets=[])),
        (r"sets\[0\]\[0\]", lambda r: r["sets"][0].__setitem__(0, [])),
        ("baseline", lambda r: r["sets"][0][1].pop("baseline")),
        (r"scores\.f1", lambda r: r["sets"][0][1]["scores"].update(f1="x")),
        (r"test_scores\.f1", lambda r: r.update(test_scores={"f1": [1]})),
    ],
)
def test_a_damaged_result_is_named(entry, change, tmp_path):
    results.write(str(tmp_path), JOB, result(0.5))
    path = os.path.join(results.job_folder(str(tmp_path), JOB), results.FILE_NAME)
    with open(path) as reader:
        record = json.load(reader)
    change(record)
    with open(path, "w") as writer:
        json.dump(record, writer)
    with pytest.raises(UserError, match=r"result\.json is damaged.*%s" % entry):
        results.read(str(tmp_path), JOB)
