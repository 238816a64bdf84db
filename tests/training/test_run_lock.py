"""One training at a time writes into a folder."""

import json
import os
import signal
import subprocess
import sys

import pytest
import small_run
import tensorflow.compat.v1 as tf

from errors import UserError
from training import run_lock, task_runs


@pytest.fixture
def lock(tmp_path):
    return tmp_path / run_lock.FILE_NAME


@pytest.fixture
def other():
    """A process of this host, asleep."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def holder(process):
    return {
        "host": os.uname().nodename,
        "process": process,
        "started": run_lock._started(process),
        "since": "2026-01-31 12:00:00 UTC",
    }


def test_a_lock_that_is_a_pipe_does_not_wait(tmp_path, lock):
    os.mkfifo(lock)
    with pytest.raises(UserError, match=r"training\.lock is no plain file"):
        run_lock.take(str(tmp_path))
    run_lock.release(str(tmp_path))
    assert lock.exists()


def test_a_folder_is_taken_and_given_free(tmp_path, lock):
    run_lock.take(str(tmp_path))
    written = json.loads(lock.read_text())
    assert {**holder(os.getpid()), "since": written["since"]} == written
    # Again by the same process, as after a failed start.
    run_lock.take(str(tmp_path))
    assert lock.read_text().count("\n") == 1
    run_lock.release(str(tmp_path))
    assert not lock.exists()
    run_lock.release(str(tmp_path))


def test_a_living_process_keeps_it(tmp_path, lock, other):
    text = json.dumps(holder(other.pid))
    lock.write_text(text)
    with pytest.raises(UserError) as refused:
        run_lock.take(str(tmp_path))
    for part in (
        "--output_dir=%s" % tmp_path,
        "process %d on host %s" % (other.pid, os.uname().nodename),
        "since 2026-01-31 12:00:00 UTC",
    ):
        assert part in str(refused.value)
    run_lock.release(str(tmp_path))
    assert lock.read_text() == text


def test_a_dead_process_loses_it(tmp_path, lock, other):
    lock.write_text(json.dumps(holder(other.pid)))
    # Dead, though its parent has not asked for its status.
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    run_lock.take(str(tmp_path))
    assert json.loads(lock.read_text())["process"] == os.getpid()


def test_another_process_of_the_same_number_does_not_keep_it(tmp_path, lock, other):
    lock.write_text(json.dumps({**holder(other.pid), "started": "boot 1"}))
    run_lock.take(str(tmp_path))
    assert json.loads(lock.read_text())["process"] == os.getpid()


def test_of_another_host_nothing_is_known(tmp_path, lock):
    lock.write_text(json.dumps({**holder(1), "host": "far"}))
    with pytest.raises(UserError, match="on host far .*delete %s" % lock):
        run_lock.take(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "junk", "[" * 20000, "[1]", '{"host": "a", "process": -1, "since": "b"}'],
    ids=["empty", "junk", "deep", "list", "number"],
)
def test_what_is_no_lock_holds_nothing(tmp_path, lock, text):
    lock.write_text(text)
    run_lock.take(str(tmp_path))
    assert json.loads(lock.read_text())["process"] == os.getpid()


def test_an_object_store():
    tf.io.gfile.makedirs("ram://a")
    run_lock.take("ram://a/b")
    assert json.loads(run_lock._read("ram://a/b/training.lock"))
    tf.io.gfile.remove("ram://a/b/training.lock")  # Writing would add to it there.
    with tf.io.gfile.GFile("ram://a/b/training.lock", "w") as writer:
        writer.write(json.dumps({**holder(1), "host": "far"}))
    with pytest.raises(UserError, match="on host far"):
        run_lock.take("ram://a/b")


def test_trainings_exclude_each_other_and_nothing_else(tmp_path, monkeypatch, other):
    settings = {
        **small_run.write_model(tmp_path / "bert"),
        **small_run.write_mrpc(tmp_path / "MRPC"),
        "output_dir": str(tmp_path / "output"),
    }
    held = []

    def train(*_):
        held.append(run_lock._parse((tmp_path / "output/training.lock").read_bytes()))
        raise RuntimeError

    monkeypatch.setattr(task_runs, "train", train)
    with pytest.raises(RuntimeError):
        small_run.run(do_train=True, **settings)
    assert held[0]["process"] == os.getpid()
    assert "training.lock" not in os.listdir(tmp_path / "output")
    lock = tmp_path / "output" / run_lock.FILE_NAME
    lock.write_text(json.dumps(holder(other.pid)))
    record = (tmp_path / "output" / "run.json").read_text()
    with pytest.raises(SystemExit):
        small_run.run(do_train=True, num_train_epochs=5.0, **settings)
    assert len(held) == 1
    assert (tmp_path / "output" / "run.json").read_text() == record
    monkeypatch.setattr(task_runs, "write_predictions", lambda *_: held.append(None))
    small_run.run(do_predict=True, **settings)
    assert len(held) == 2
