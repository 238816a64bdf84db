"""Training that was interrupted ends with the bytes of one that was not."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

import optimization
from errors import UserError
from tests.places import ROOT
from training import estimators, progress
from weights import checkpoints, run_package, run_record


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """A training of 10 steps; batches of 7 rows that do not divide the 24."""
    folder = tmp_path_factory.mktemp("resuming")
    return {
        **small_run.write_model(folder / "bert"),
        **small_run.write_mrpc(folder / "MRPC"),
        "train_batch_size": 7,
        "num_train_epochs": 3.0,
        "learning_rate": 1e-2,
        "save_checkpoints_steps": 4,
        "do_train": True,
        "do_predict": True,
    }


def tensors(output_dir):
    """All of the last checkpoint, by name."""
    kept = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(output_dir)))
    return {name: kept.get_tensor(name) for name in kept.get_variable_to_shape_map()}


def result_bytes(output_dir):
    """Predictions, if there are any, and the files of the adapter package, by name."""
    package = run_package.folder_of(str(output_dir))
    paths = [os.path.join(package, name) for name in sorted(os.listdir(package))]
    paths += tf.io.gfile.glob(os.path.join(str(output_dir), "test_results.tsv"))
    found = {}
    for path in paths:
        with open(path, "rb") as reader:
            found[os.path.basename(path)] = reader.read()
    return found


def assert_identical(actual_dir, expected_dir):
    actual, expected = tensors(actual_dir), tensors(expected_dir)
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name].tobytes() == value.tobytes(), name
    actual, expected = result_bytes(actual_dir), result_bytes(expected_dir)
    assert sorted(actual) == sorted(expected)
    assert len(expected) >= 2
    for name, value in expected.items():
        assert actual[name] == value, name


# The program, forked for each of several commands, so that imports are paid for once.
# Each comes with the number of steps after which the process is killed, or null.
PROGRAM = """
import json, os, signal, sys
sys.path.insert(0, %r)
from system import startup
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
import run_classifier
from training import progress
from absl import app

def kill_after(steps):
    after_run = progress.ProgressHook.after_run
    def count(hook, *values):
        nonlocal steps
        after_run(hook, *values)
        steps -= 1
        if not steps:
            os.kill(os.getpid(), signal.SIGKILL)
    progress.ProgressHook.after_run = count

statuses = []
for arguments, steps in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        if steps:
            kill_after(steps)
        app.run(run_classifier.main, argv=["run_classifier.py", *arguments])
    statuses.append(os.waitpid(child, 0)[1])
print("statuses", json.dumps(statuses))
""" % str(ROOT)


def test_killed_processes_end_with_the_bytes_of_an_undisturbed_one(tmp_path, flags):
    def arguments(name):
        given = dict(flags, output_dir=str(tmp_path / name))
        return ["--%s=%s" % item for item in given.items()]

    # Killed past a checkpoint, before the next one, and right at one; then to the end.
    kills = [5, 2, 4, None]
    commands = [(arguments("killed"), steps) for steps in kills]
    commands.append((arguments("undisturbed"), None))
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = result.stdout[-3000:]
    statuses = [signal.SIGKILL if steps else 0 for steps in kills] + [0]
    assert "statuses %s" % json.dumps(statuses) in result.stdout, end
    assert result.stdout.count("from step 4\n") >= 2, end
    assert_identical(tmp_path / "killed", tmp_path / "undisturbed")
    assert "test_results.tsv" in result_bytes(tmp_path / "killed")


class Interrupted(Exception):
    """Ends a training as a kill would, but for the process."""


def interrupt_after(monkeypatch, steps):
    after_run = progress.ProgressHook.after_run
    left = iter(range(steps - 1, -1, -1))

    def count(hook, *values):
        after_run(hook, *values)
        if not next(left):
            raise Interrupted

    monkeypatch.setattr(progress.ProgressHook, "after_run", count)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float16", "dynamic_padding": False},
        {"train_batch_size": 8, "gradient_accumulation_steps": 2, "lanes": 2},
        {"train_policy": "top_k:1", "checkpoint_content": "trained"},
    ],
    ids=str,
)
def test_a_training_goes_on_in_the_same_process(tmp_path, monkeypatch, flags, changes):
    changes = dict(changes)
    lanes = changes.pop("lanes", 1)
    monkeypatch.setattr(estimators, "cpu_lanes", lambda batch_sizes: lanes)
    monkeypatch.setattr(optimization.LossScale, "DOUBLED_AFTER", 3)
    flags = {**flags, **changes, "do_predict": False}
    small_run.run(output_dir=str(tmp_path / "undisturbed"), **flags)
    resumed = str(tmp_path / "resumed")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 5)
        with pytest.raises(Interrupted):
            small_run.run(output_dir=resumed, **flags)
    assert tensors(resumed)["global_step"] == 4
    small_run.run(output_dir=resumed, **flags)
    assert_identical(resumed, tmp_path / "undisturbed")
    if "precision" in changes:
        # Of 10 steps, 4 of them before.
        scale, finite = optimization.LOSS_SCALE, optimization.FINITE_STEPS
        kept = tensors(resumed)
        assert kept[scale] == optimization.LossScale.INITIAL * 2**3
        assert kept[finite] == 1


def test_a_float16_checkpoint_without_the_loss_scale_is_refused(tmp_path):
    kept = {"bert/x": [1], "output_bias": [1]}
    values = {name: np.zeros(shape, np.float32) for name, shape in kept.items()}
    values["global_step"] = np.array(3, np.int64)

    def check(precision):
        checkpoints.write(str(tmp_path / "model.ckpt-3"), values)
        tf.train.update_checkpoint_state(str(tmp_path), str(tmp_path / "model.ckpt-3"))
        training_settings = precision and {
            "precision": precision,
            "adam_bias_correction": False,
        }
        return run_record.check(str(tmp_path), {}, training_settings, kept, [])

    assert check("float32") == check(None) == 3
    for name in ("loss_scale", "finite_steps"):
        with pytest.raises(UserError, match="float16 without %s, as earlier" % name):
            check("float16")
        values[name] = np.array(1.0, np.float32)
    assert check("float16") == 3
