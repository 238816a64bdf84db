"""Training that was interrupted ends with the bytes of one that was not."""

import json
import os
import signal

import pytest
import small_run
import tensorflow.compat.v1 as tf

import optimization
from tests import programs
from training import batch_gradients, estimators, periodic_evaluation, progress
from weights import run_package, run_record


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


def result_bytes(output_dir):
    """Predictions, if there are any, and the files of the adapter package, by name."""
    package = run_package.package_folder(str(output_dir))
    paths = [os.path.join(package, name) for name in sorted(os.listdir(package))]
    paths += tf.io.gfile.glob(os.path.join(str(output_dir), "test_results.tsv"))
    found = {}
    for path in paths:
        with open(path, "rb") as reader:
            found[os.path.basename(path)] = reader.read()
    return found


def assert_identical(actual_dir, expected_dir):
    actual = small_run.last_values(actual_dir)
    expected = small_run.last_values(expected_dir)
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name].tobytes() == value.tobytes(), name
    actual, expected = result_bytes(actual_dir), result_bytes(expected_dir)
    assert sorted(actual) == sorted(expected)
    assert len(expected) >= 2
    for name, value in expected.items():
        assert actual[name] == value, name


def test_killed_processes_end_with_the_bytes_of_an_undisturbed_one(tmp_path, flags):
    def run(name, **others):
        given = dict(flags, output_dir=str(tmp_path / name))
        arguments = ["--%s=%s" % item for item in given.items()]
        return programs.run("run_classifier.py", *arguments, **others)

    # Killed past a checkpoint, before the next one, and right at one; then to the end.
    for steps, resumes in ((5, False), (2, True), (4, True)):
        ended = run("killed", signal_number=signal.SIGKILL, after_steps=steps)
        assert ended.returncode == -signal.SIGKILL, ended.stderr[-3000:]
        assert ("from step 4\n" in ended.stderr) == resumes
    for name in ("killed", "undisturbed"):
        ended = run(name)
        assert ended.returncode == 0, ended.stderr[-3000:]
    assert_identical(tmp_path / "killed", tmp_path / "undisturbed")
    assert "test_results.tsv" in result_bytes(tmp_path / "killed")


class Interrupted(Exception):
    """Ends a training run as a kill would, but leaves the process running."""


def raise_at_call(monkeypatch, module, name, number):
    """Ends the run before a call of a function, counted from 1."""
    function, left = getattr(module, name), iter(range(number - 1, -1, -1))

    def count(*args, **kwargs):
        if not next(left, 1):
            raise Interrupted
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, count)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float16", "dynamic_padding": False, "train_policy": "lora:2"},
        {"train_batch_size": 8, "gradient_accumulation_steps": 2, "shards": 2,
         "adapter_placement": "pfeiffer"},
        {"train_policy": "top_k:1", "checkpoint_content": "trained"},
        {"adapter_placement": "parallel", "checkpoint_content": "trained"},
        {"train_policy": "bitfit"},
    ],
    ids=str,
)  # fmt: skip
def test_a_run_resumes_in_the_same_process(tmp_path, monkeypatch, flags, changes):
    changes = dict(changes)
    shards = changes.pop("shards", 1)
    monkeypatch.setattr(estimators, "cpu_shards", lambda batch_sizes: shards)
    monkeypatch.setattr(batch_gradients.LossScale, "DOUBLED_AFTER", 3)
    flags = {**flags, **changes, "do_predict": False}
    small_run.run(output_dir=str(tmp_path / "undisturbed"), **flags)
    resumed = str(tmp_path / "resumed")
    with monkeypatch.context() as patched:
        raise_at_call(patched, progress.ProgressHook, "after_run", 6)
        with pytest.raises(Interrupted):
            small_run.run(output_dir=resumed, **flags)
    assert small_run.last_values(resumed)["global_step"] == 4
    small_run.run(output_dir=resumed, **flags)
    assert_identical(resumed, tmp_path / "undisturbed")
    if "precision" in changes:
        # 10 steps, of which 4 are before the interruption.
        scale, finite = optimization.LOSS_SCALE, optimization.FINITE_STEPS
        kept = small_run.last_values(resumed)
        assert kept[scale] == batch_gradients.LossScale.INITIAL * 2**3
        assert kept[finite] == 1


def test_the_diagnostics_of_a_run_survive_interruptions(tmp_path, monkeypatch, flags):
    flags = {
        **flags,
        "learning_rate": 1e-9,
        "do_predict": False,
        "num_train_epochs": 1.2,  # 4 steps
        "do_eval": True,
        "eval_steps": 2,
        "keep_best": "accuracy",
    }
    small_run.run(output_dir=str(tmp_path / "undisturbed"), **flags)
    resumed = str(tmp_path / "resumed")
    for module, name, number in (
        (run_package, "write", 1),  # best/ after step 2
        (periodic_evaluation, "_keep_if_best", 2),  # the evaluation after the last step
        (run_record, "write_diagnostics", 1),
    ):
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            raise_at_call(patched, module, name, number)
            small_run.run(output_dir=resumed, **flags)
    small_run.run(output_dir=resumed, **flags)
    names = ("run.json", "eval_results.json", periodic_evaluation.HISTORY_NAME)
    names += ("best/best.json", "best/run.json")
    names += ("adapters/adapter_config.json", "best/adapters/adapter_config.json")
    for name in names:
        expected = (tmp_path / "undisturbed" / name).read_bytes()
        assert (tmp_path / "resumed" / name).read_bytes() == expected, name
    health = json.loads((tmp_path / "resumed" / "run.json").read_text())["health"]
    assert not health["ok"]
    assert "last 1 step" in health["training"][0]


def test_a_run_killed_in_its_first_checkpoint_starts_again(tmp_path, flags):
    flags = {**flags, "num_train_epochs": 1.0, "do_predict": False}
    small_run.run(output_dir=str(tmp_path / "undisturbed"), **flags)
    killed = tmp_path / "killed"
    killed.mkdir()
    record = (tmp_path / "undisturbed" / "run.json").read_bytes()
    (killed / "run.json").write_bytes(record)
    (killed / "model.ckpt-0.index").touch()
    small_run.run(output_dir=str(killed), **flags)
    assert_identical(killed, tmp_path / "undisturbed")
