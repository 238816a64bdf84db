"""Evaluations during training: they do not change it, and keep the best checkpoint."""

import json
import os
import shutil
import types

import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from tests import small_run
from tests.places import ROOT
from training import classifier, periodic_evaluation, scoring
from training import settings as run_settings
from weights import adapter_package, checkpoints, run_package


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("periodic_evaluation")
    return {
        **small_run.write_model(folder / "bert", initializer_range=0.3),
        **small_run.write_mrpc(folder / "MRPC"),
        "learning_rate": 1e-2,
        "do_train": True,
    }


STEPS = {"eval_steps": 4, "keep_best": "accuracy", "num_train_epochs": 10 / 3}


@pytest.fixture(scope="module")
def output(model, tmp_path_factory):
    """The folder of a run of 10 steps with evaluations after 4, 8 and 10."""
    folder = tmp_path_factory.mktemp("periodic_evaluation") / "out"
    small_run.run(output_dir=str(folder), **model, **STEPS)
    return folder


def history(folder):
    lines = (folder / periodic_evaluation.HISTORY_NAME).read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights(prefix):
    shapes = checkpoints.Checkpoint(prefix).shapes
    return {
        name: value.tobytes()
        for name, value in checkpoints.Checkpoint(prefix).iterate_values(sorted(shapes))
    }


def test_where_training_on_tpu_stops():
    assert periodic_evaluation.stop_steps(3, 0, 7) == [3, 6, 7]
    assert periodic_evaluation.stop_steps(3, 3, 7) == [6, 7]
    assert periodic_evaluation.stop_steps(3, 4, 6) == [6]
    assert periodic_evaluation.stop_steps(9, 0, 7) == [7]


def test_other_lines_of_the_history_are_ignored(tmp_path):
    lines = ['{"global_step": 5, "sets": 3}', "[1]", '{"global_step": 4, "sets": {}}']
    (tmp_path / periodic_evaluation.HISTORY_NAME).write_text("\n".join(lines))
    found = periodic_evaluation._read_history(str(tmp_path))
    assert found == [json.loads(lines[-1])]


def test_the_training_is_the_same_as_without(model, output, tmp_path):
    plain = dict(model, num_train_epochs=STEPS["num_train_epochs"])
    small_run.run(output_dir=str(tmp_path), **plain)
    assert not os.path.exists(tmp_path / periodic_evaluation.HISTORY_NAME)
    assert not os.path.exists(tmp_path / "best")
    last = weights(str(tmp_path / "model.ckpt-10"))
    assert len(last) > 40
    assert weights(str(output / "model.ckpt-10")) == last
    packages = [adapter_package.read(str(f / "adapters")) for f in (tmp_path, output)]
    assert packages[0].config["weights"] == packages[1].config["weights"]
    assert packages[1].config["selection"] is None


def test_one_model_evaluates_all_dev_sets(tmp_path, model, monkeypatch, capsys):
    built, create_model = [], classifier.create_model

    def count(*args, **kwargs):
        built.append("train" if args[1] else "eval")
        return create_model(*args, **kwargs)

    given = {
        **model,
        "task_name": "MNLI",
        "data_dir": os.path.join(ROOT, "tests", "data", "glue", "MNLI"),
        "train_batch_size": 2,
        "eval_batch_size": 3,
        "num_train_epochs": 1.0,
        "output_dir": str(tmp_path),
        "do_eval": True,
    }
    with monkeypatch.context() as patched:
        patched.setattr(classifier, "create_model", count)
        small_run.run(eval_steps=1, plots=True, **given)
    assert built == ["train", "eval"]
    assert capsys.readouterr().err.count("Trained steps 0 to 3") == 1
    assert [entry["global_step"] for entry in history(tmp_path)] == [1, 2, 3]
    assert len(list(tmp_path.glob("confusion_matrix_*.png"))) == 2
    # The checkpoint is evaluated again, while another process writes the next one.
    results = (tmp_path / "eval_results.txt").read_bytes()
    (tmp_path / "eval_results.txt").unlink()
    decode, (last, following) = scoring.decode, (str(tmp_path / "model.ckpt-3"), "4")

    def go_on(*args):
        values = small_run.checkpoint_values(last)
        values.update({name: value + 1 for name, value in values.items()})
        checkpoints.write(last[:-1] + following, values)
        tf.train.update_checkpoint_state(str(tmp_path), last[:-1] + following)
        return decode(*args)

    monkeypatch.setattr(scoring, "decode", go_on)
    small_run.run(**{**given, "do_train": False})
    assert (tmp_path / "eval_results.txt").read_bytes() == results


def test_every_evaluation_is_written_down(output):
    entries = history(output)
    assert [entry["global_step"] for entry in entries] == [4, 8, 10]
    for entry in entries:
        found = entry["sets"]["dev"]
        assert {"f1", "accuracy", "eval_loss", "eval_accuracy"} <= set(found)
        assert found["accuracy"] == pytest.approx(found["eval_accuracy"])
    (events,) = (output / "eval").glob("events*")
    points = [
        (value.tag, event.step, value.simple_value)
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    # The curve of the dev loss has the name of the training's.
    expected = [
        (tag, entry["global_step"], pytest.approx(entry["sets"]["dev"][name]))
        for entry in entries
        for tag, name in (("loss", "eval_loss"), ("f1", "f1"), ("accuracy", "accuracy"))
    ]
    assert sorted(points) == sorted(expected, key=lambda point: point[:2])


def test_the_best_is_kept_whole(output):
    entries = history(output)
    score = max(entry["sets"]["dev"]["accuracy"] for entry in entries)
    # The first of equal ones.
    step = next(
        entry["global_step"]
        for entry in entries
        if entry["sets"]["dev"]["accuracy"] == score
    )
    best = periodic_evaluation.read_best(str(output))
    assert (best["global_step"], best["score"]) == (step, score)
    package = adapter_package.read(str(output / "best" / "adapters"))
    assert package.config["global_step"] == step
    assert package.config["dev_scores"]["dev"]["accuracy"] == score
    assert package.config["selection"].startswith("best by accuracy on dev")
    kept = checkpoints.latest(str(output / "best"))
    assert kept == str(output / "best" / ("model.ckpt-%d" % step))
    values = dict(checkpoints.Checkpoint(kept).iterate_values(package.weights))
    assert all((values[n] == package.weights[n]).all() for n in package.weights)
    assert (output / "best" / "run.json").exists()
    assert sorted(os.listdir(output / "best")) == sorted(
        {"adapters", "best.json", "checkpoint", "run.json"}
        | {os.path.basename(path) for path in tf.io.gfile.glob(kept + "*")}
    )


def test_only_a_better_one_takes_the_place(output, tmp_path, monkeypatch):
    shutil.copytree(output, tmp_path, dirs_exist_ok=True)
    before = periodic_evaluation.read_best(str(tmp_path))
    # A killed program leaves this state.
    os.rename(tmp_path / "best", tmp_path / "best.replaced")
    assert periodic_evaluation.read_best(str(tmp_path)) == before
    # It is left to a training that may be replacing it.
    assert (tmp_path / "best.replaced" / "best.json").exists()
    monkeypatch.setattr(periodic_evaluation.run_package, "write", lambda *_: None)
    run = types.SimpleNamespace(
        settings=types.SimpleNamespace(output_dir=str(tmp_path)),
        dev_evaluation=run_settings.DevEvaluation(4, "accuracy"),
        task=types.SimpleNamespace(
            dev=[types.SimpleNamespace(name="dev")], metrics=("accuracy",)
        ),
        package=run_package.PackageSettings({"train_policy": None}, None),
    )

    def keep(score):
        entry = {"global_step": 12, "sets": {"dev": {"accuracy": score}}}
        periodic_evaluation._keep_if_best(run, entry, None)
        return periodic_evaluation.read_best(str(tmp_path))

    assert keep(before["score"]) == keep(float("nan")) == before
    found = keep(before["score"] + 0.1)
    assert (found["score"], found["global_step"]) == (before["score"] + 0.1, 12)
    assert not (tmp_path / "best.replaced").exists()


def test_training_ends_when_scores_no_longer_improve(model, tmp_path, capsys):
    # With this rate no score changes.
    flags = {"early_stopping": 2, "learning_rate": 1e-12, "do_eval": True}
    given = {**model, **STEPS, "eval_steps": 1, **flags, "output_dir": str(tmp_path)}
    small_run.run(**given)
    text = capsys.readouterr().err
    assert "Stopped early, after step 3 of 10" in text and "since step 1" in text
    assert [entry["global_step"] for entry in history(tmp_path)] == [1, 2, 3]
    assert checkpoints.latest(str(tmp_path)).endswith("model.ckpt-3")
    assert adapter_package.read(str(tmp_path / "adapters")).config["global_step"] == 3
    results = (tmp_path / "eval_results.txt").read_bytes()
    assert b"global_step = 3" in results
    # The same command trains no further; with more patience it does.
    small_run.run(**given)
    assert "nothing to train" in capsys.readouterr().err
    assert (tmp_path / "eval_results.txt").read_bytes() == results
    small_run.run(**{**given, "early_stopping": 3})
    assert checkpoints.latest(str(tmp_path)).endswith("model.ckpt-4")
    with pytest.raises(SystemExit):
        small_run.run(**{**given, "eval_steps": 0, "keep_best": None})
    assert "--early_stopping=2 needs" in capsys.readouterr().err


def test_the_best_of_another_metric_is_refused(output):
    with pytest.raises(UserError, match=r"best keeps the best by accuracy; give that"):
        periodic_evaluation.check(str(output), "f1")
    periodic_evaluation.check(str(output), "accuracy")
    periodic_evaluation.check(str(output), None)


NAMES = ["best", "adapters", "adapters/notes.txt", "best/notes.txt"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_others_are_refused_before_training(
    model, output, tmp_path, capsys, name
):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if path.parent.name == "best":
        shutil.copy(output / "best" / "best.json", path.parent)
    path.write_text("notes")
    with pytest.raises(SystemExit):
        small_run.run(output_dir=str(tmp_path), **model, **STEPS)
    assert str(tmp_path / name.partition("/")[0]) in capsys.readouterr().err
    assert path.read_text() == "notes"
    assert not list(tmp_path.glob("model.ckpt*"))


def test_the_last_step_is_no_early_stop(tmp_path):
    entries = [
        {"global_step": step, "sets": {"dev": {"accuracy": 0.5}}} for step in (1, 2, 3)
    ]
    lines = [json.dumps(entry) + "\n" for entry in entries]
    (tmp_path / "eval_steps.jsonl").write_text("".join(lines))

    def stops_early(num_train_steps):
        run = types.SimpleNamespace(
            settings=types.SimpleNamespace(
                output_dir=str(tmp_path), num_train_steps=num_train_steps
            ),
            dev_evaluation=run_settings.DevEvaluation(1, "accuracy", 2),
            task=types.SimpleNamespace(dev=[types.SimpleNamespace(name="dev")]),
        )
        return periodic_evaluation.stops_early(run, 3)

    assert stops_early(4)
    assert not stops_early(3)
