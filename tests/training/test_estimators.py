"""The progress report, devices, and how memory is kept."""

import io
import math
import os
import subprocess
import sys
import threading
import types

import pytest
import tensorflow.compat.v1 as tf

import optimization
from system import console
from tests.places import ROOT
from training import estimators, progress, settings


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _train(steps=6, loss=0.25, slope=1.0, baseline_loss=math.inf, **skips):
    """Takes steps with a loss that begins with `loss` and grows by `slope`."""
    step = tf.train.get_or_create_global_step()
    value = slope * tf.cast(step, tf.float32) + loss
    run = settings.Run("", 32, 8, 8, 10, 1, num_train_steps=steps, num_warmup_steps=3)
    hook = progress.ProgressHook(run, baseline_loss, **skips)
    with tf.control_dependencies([tf.identity(value)]):
        update = tf.assign_add(step, 1)
    progress.report(
        value, optimization.TrainStep(update, tf.constant(3e-4), tf.sqrt(value))
    )
    with tf.train.MonitoredTrainingSession(hooks=[hook]) as session:
        for _ in range(steps):
            session.run(update)
    return hook


@pytest.fixture
def lines(capsys):
    console.start()
    return lambda: capsys.readouterr().err.splitlines()


def test_plain_lines_where_there_is_no_terminal(monkeypatch, lines):
    monkeypatch.setattr(progress, "SHORTEST_INTERVAL", 0.0)
    _train()
    found = lines()
    assert len(found) == 7
    assert found[2].startswith("  step 3 of 6: ")
    for part in (" examples/s", "loss 2.25", "learning rate 3.00e-04", " left"):
        assert part in found[2]
    assert found[5].startswith("  step 6 of 6: ")
    assert found[5].endswith("0:00 left")
    assert found[6].startswith("Trained steps 0 to 6: ")


def test_plain_lines_come_at_tenths_and_at_intervals(monkeypatch, lines):
    _train()
    assert len(lines()) == 1
    monkeypatch.setattr(progress, "SHORTEST_INTERVAL", 0.0)
    tf.reset_default_graph()
    hook = _train(steps=40)
    found = lines()
    assert [line.split()[1] for line in found[:-1]] == [
        str(4 * i) for i in range(1, 11)
    ]
    # Losses of the last tenth of the steps: 36.25 to 39.25.
    assert hook._mean_loss() == pytest.approx(37.75)
    monkeypatch.setattr(progress, "LONGEST_INTERVAL", 0.0)
    tf.reset_default_graph()
    _train(steps=40)
    assert len(lines()) == 41


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    _train()
    text = sys.stderr.getvalue()
    assert "training" in text
    assert "6/6" in text
    assert "examples/s" in text
    assert "step 6 of 6" not in text
    assert "steps/s" not in text  # tqdm's own rate


def test_a_loss_of_the_baseline_is_warned_of_and_taken_back(lines):
    def notices(**changes):
        tf.reset_default_graph()
        _train(**changes)
        return [line for line in lines() if "constant" in line or "now" in line]

    # The mean of the last 20 steps is 10.75 in step 103, 8.75 in step 123.
    warned, recovered = notices(steps=200, loss=20.0, slope=-0.1, baseline_loss=9.0)
    assert warned.startswith("warning: step 103: ")
    assert "10.7500" in warned and "9.0000" in warned
    assert recovered.startswith("  step 123: ")
    assert not notices(steps=200, baseline_loss=1000.0)
    # A short run is not judged while it runs.
    assert not notices(steps=60, baseline_loss=1.0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -1.0])
def test_what_is_not_finite_ends_the_training(loss):
    # The norm is the square root, which is NaN for -1.
    with pytest.raises(progress.estimator.NanLossDuringTrainingError):
        _train(loss=loss)
    tf.reset_default_graph()
    _train(loss=loss, skips_infinite=True)


def test_an_event_file_is_prepared_for_a_folder_many_times(tmp_path):
    for _ in range(2000):  # Python's stack is a thousand calls deep.
        estimators.prepare_summaries(str(tmp_path), write_graph=False)
    writer = tf.summary.FileWriterCache.get(str(tmp_path))
    writer.add_summary(tf.Summary(), 1)
    writer.flush()


def test_a_programs_own_hook_hears_of_other_threads_alone(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(threading, "excepthook", lambda args: heard.append(args.thread))
    for name in ("a", "b"):
        estimators.prepare_summaries(str(tmp_path / name), write_graph=False)
    own, writers = (
        threading.Thread(target=lambda: 1 / 0, name=name)
        for name in ("own", "EventLoggerThread")
    )
    for thread in (own, writers):
        thread.start()
        thread.join()
    assert heard == [own]


@pytest.mark.parametrize(("step", "flag"), [(1, "`init_"), (2, "`learning_rate`")])
def test_the_remedy_for_a_run_that_diverged(step, flag):
    values = dict.fromkeys(("loss", "gradient_norm", "learning_rate"), float("inf"))
    watch = types.SimpleNamespace(steps_done=step, last_values=values)
    message = str(estimators._divergence_error("/nowhere", watch))
    assert "step %d: loss inf" % step in message and flag in message
    assert ("`learning_rate`" in message) == (step > 1)


@pytest.mark.parametrize(
    "cores, batch_sizes, shards",
    [
        (1, [8], 1),
        (2, [32, 4], 2),
        (2, [32, 3], 1),
        (3, [32, 8], 3),
        (4, [8], 4),
        (4, [32, 7], 1),
        (5, [32], 1),
    ],
)
def test_shards_are_used_where_they_pay(monkeypatch, cores, batch_sizes, shards):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: set(range(cores)), raising=False
    )
    assert estimators.cpu_shards(batch_sizes) == shards
    config = estimators.session_config(shards)
    # 0: all cores.
    assert config.intra_op_parallelism_threads == (1 if shards > 1 else 0)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert estimators.cpu_shards(batch_sizes) == 1


def test_each_shard_is_computed_by_one_core():
    # In a separate process, since tests have one thread.
    program = """if True:
        import system.startup
        import glob
        import tensorflow.compat.v1 as tf
        from training import estimators
        def processor_times():  # of each thread, in nanoseconds
            paths = glob.glob("/proc/self/task/*/schedstat")
            return {path: int(open(path).read().split()[0]) for path in paths}
        with tf.Graph().as_default():
            tf.function(lambda x: x + 1)(tf.ones([]))  # As a layer is traced.
            x = tf.random.normal([3000, 3000])
            product = tf.matmul(x, x).op
            with tf.Session(config=estimators.session_config(shards=2)) as session:
                session.run(product)
                before = processor_times()
                session.run(product)
                after = processor_times()
        used = [value - before.get(path, 0) for path, value in after.items()]
        print(max(used) / sum(used))
    """
    environment = {**os.environ}
    del environment["TF_OVERRIDE_GLOBAL_THREADPOOL"]
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, check=True, env=environment
    )
    assert float(result.stdout) > 0.8


def test_freed_memory_is_used_again():
    # In a separate process, since the setting holds for the whole process.
    program = """if True:
        import resource
        import numpy as np
        from training import estimators
        def touch():
            for megabytes in (20, 70, 40) * 5:
                np.ones(megabytes * 2**20, np.int8)
        def faults():
            touch()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            touch()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(faults())
        estimators.keep_freed_memory()
        print(faults())
    """
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    returned, kept = map(int, result.stdout.split())
    # The arrays of 40 and 70 MB, 550 MB in all: 140,800 pages, or 275 huge pages.
    assert returned > 200
    assert kept < 50


def test_losses_of_deleted_checkpoints_are_removed(tmp_path):
    # A name that is not UTF-8 is in nobody's way.
    other = os.path.join(os.fsencode(tmp_path), b"\xff.txt")
    with open(other, "wb"):
        pass
    for name in ("model.ckpt-1.losses", "model.ckpt-2.losses", "model.ckpt-2.index"):
        (tmp_path / name).write_text("x")
    progress.remove_stale_losses(str(tmp_path))
    left = {b"\xff.txt", b"model.ckpt-2.losses", b"model.ckpt-2.index"}
    assert set(os.listdir(os.fsencode(tmp_path))) == left
