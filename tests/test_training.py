"""The progress report, and how memory is kept."""

import io
import os
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

import training


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _train(stream, steps=6):
    step = tf.train.get_or_create_global_step()
    loss = tf.cast(step, tf.float32) + 0.25
    settings = training.ProgressSettings(32, steps, "")
    hook = training.ProgressHook(loss, tf.constant(3e-4), settings, stream)
    with tf.control_dependencies([tf.identity(loss)]):
        update = tf.assign_add(step, 1)
    with tf.train.MonitoredTrainingSession(hooks=[hook]) as session:
        for _ in range(steps):
            session.run(update)
    return stream.getvalue()


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(training, "PLAIN_INTERVAL", 0.0)
    lines = _train(io.StringIO()).splitlines()
    assert len(lines) == 7
    assert lines[2].startswith("step 3 of 6: ")
    for part in (" examples/s", "loss 2.25", "learning rate 3.00e-04", " left"):
        assert part in lines[2]
    assert "\r" not in "".join(lines)
    assert lines[-1].startswith("step 6 of 6: ")
    assert lines[-1].endswith("0:00 left")


def test_plain_lines_come_at_intervals():
    assert len(_train(io.StringIO()).splitlines()) == 1


def test_a_bar_on_a_terminal():
    text = _train(_Terminal())
    assert "training" in text
    assert "6/6" in text
    assert "examples/s" in text
    assert "step 6 of 6" not in text


@pytest.mark.parametrize(
    "cores, batch_sizes, lanes",
    [(1, [8], 1), (2, [32, 8], 2), (2, [2], 2), (2, [32, 1], 1), (3, [32], 1)],
)
def test_lanes_are_used_where_they_pay(monkeypatch, cores, batch_sizes, lanes):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: set(range(cores)), raising=False
    )
    assert training.cpu_lanes(batch_sizes) == lanes
    config = training.session_config(lanes)
    # 0: all cores.
    assert config.intra_op_parallelism_threads == (1 if lanes > 1 else 0)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert training.cpu_lanes(batch_sizes) == 1


@pytest.mark.parametrize("keeps", [False, True])
def test_freed_memory_is_used_again(keeps):
    # In a process of its own, since the setting is the process's.
    program = """if True:
        import resource
        import numpy as np
        import training
        %s
        def touch():
            for megabytes in (20, 70, 40) * 5:
                np.ones(megabytes * 2**20, np.int8)
        touch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        touch()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """ % ("training.keep_freed_memory()" if keeps else "")
    here = os.path.dirname(os.path.abspath(training.__file__))
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=here, stdout=subprocess.PIPE, check=True
    )
    faults = int(result.stdout)
    # Of 650 MB those of 40 and 70 each: 140,800 pages, or 275 where pages are huge.
    assert faults < 50 if keeps else faults > 200
