"""One training run at a time writes into a folder."""

import errno
import json
import os
import signal
import subprocess
import sys

import filelock
import pytest
import small_run
import tensorflow.compat.v1 as tf

from errors import UserError
from training import evaluation, run_lock, trainer

# The program imports no module of this project, since importing TensorFlow takes long.
_HOLD = """
import filelock, os, sys, time
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
os.write(1, b"taken\\n")
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def release(tmp_path):
    yield
    run_lock.release(str(tmp_path))


@pytest.fixture
def lock(tmp_path):
    return tmp_path / run_lock.FILE_NAME


@pytest.fixture
def other(lock):
    """A process of this host that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, lock], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"taken\n"
    lock.write_text(record(process.pid))
    yield process
    process.kill()
    process.communicate()


def record(process, host=None):
    return json.dumps(
        {
            "host": host or os.uname().nodename,
            "process": process,
            "since": "2026-01-31 12:00:00 UTC",
        }
    )


def test_a_folder_is_taken_and_released(tmp_path, lock):
    run_lock.take(str(tmp_path))
    holder = run_lock.read_holder(str(lock))
    assert (holder.host, holder.process) == (os.uname().nodename, os.getpid())
    run_lock.take("file://%s" % tmp_path)  # Again by the same process.
    run_lock.release(str(tmp_path))
    assert not lock.exists()
    run_lock.release(str(tmp_path))


def test_a_running_process_keeps_it_and_a_dead_one_loses_it(tmp_path, lock, other):
    with pytest.raises(UserError) as refused:
        run_lock.take(str(tmp_path))
    assert "`output_dir`=%s" % tmp_path in str(refused.value)
    holder = "process %d on host %s since 2026" % (other.pid, os.uname().nodename)
    assert holder in str(refused.value)
    run_lock.release(str(tmp_path))
    assert lock.read_text() == record(other.pid)
    # Dead, though its parent has not asked for its status.
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    run_lock.take(str(tmp_path))
    assert run_lock.read_holder(str(lock)).process == os.getpid()


def test_a_record_of_another_host_is_respected(tmp_path, lock):
    lock.write_text(record(1, "far"))
    with pytest.raises(UserError, match="on host far .*delete %s" % lock):
        run_lock.take(str(tmp_path))
    assert lock.read_text() == record(1, "far")


@pytest.mark.parametrize(
    "text",
    ["", "junk", "[" * 20000, "[1]", '{"host": "a", "process": -1, "since": "b"}'],
    ids=["empty", "junk", "deep", "list", "number"],
)
def test_another_file_is_no_record(tmp_path, lock, text):
    lock.write_text(text)
    run_lock.take(str(tmp_path))
    assert run_lock.read_holder(str(lock)).process == os.getpid()


def test_a_lock_that_is_a_pipe_does_not_wait(tmp_path, lock):
    os.mkfifo(lock)
    with pytest.raises(
        UserError, match=r"training\.lock cannot be read .*not a plain file"
    ):
        run_lock.take(str(tmp_path))
    run_lock.release(str(tmp_path))
    assert lock.exists()


def test_without_locks_of_the_system_the_record_counts(tmp_path, lock, monkeypatch):
    def acquire(self):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    lock.write_text(record(os.getppid()))
    with pytest.raises(UserError, match="delete %s" % lock):
        run_lock.take(str(tmp_path))
    lock.write_text(record(2**31 - 1))  # No process has this number.
    run_lock.take(str(tmp_path))
    assert run_lock.read_holder(str(lock)).process == os.getpid()
    run_lock.release(str(tmp_path))
    assert not lock.exists()


def test_an_object_store():
    path = "ram://a/b/" + run_lock.FILE_NAME
    tf.io.gfile.makedirs("ram://a")
    run_lock.take("ram://a/b")
    assert run_lock.read_holder(path).process == os.getpid()
    tf.io.gfile.remove(path)  # Writing would add to it there.
    with tf.io.gfile.GFile(path, "w") as writer:
        writer.write(record(1, "far"))
    with pytest.raises(UserError, match="on host far"):
        run_lock.take("ram://a/b")


def test_training_runs_exclude_each_other_and_nothing_else(tmp_path, monkeypatch):
    output = tmp_path / "output"
    settings = {
        **small_run.write_model(tmp_path / "bert"),
        **small_run.write_mrpc(tmp_path / "MRPC"),
        "output_dir": str(output),
    }
    held = []

    def train(*_):
        held.append(run_lock.read_holder(str(output / run_lock.FILE_NAME)))
        raise RuntimeError

    monkeypatch.setattr(trainer, "train", train)
    with pytest.raises(RuntimeError):
        small_run.run(do_train=True, **settings)
    assert held[0].process == os.getpid()
    assert "training.lock" not in os.listdir(output)
    (output / run_lock.FILE_NAME).write_text(record(1, "far"))
    run_record = (output / "run.json").read_text()
    with pytest.raises(SystemExit):
        small_run.run(do_train=True, num_train_epochs=5.0, **settings)
    assert len(held) == 1
    assert (output / "run.json").read_text() == run_record
    monkeypatch.setattr(
        evaluation, "predict_test_sets", lambda *_: held.append(None) or {}
    )
    small_run.run(do_predict=True, **settings)
    assert len(held) == 2
