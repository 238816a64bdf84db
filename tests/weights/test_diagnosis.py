"""Degenerate runs are warned of, and healthy ones are not."""

import json
import math
import os

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

import manage_adapters
import predict
from system import console
from tasks.classification import Classification
from tasks.regression import Regression
from weights import diagnosis

CLASSES = Classification(("a", "b", "c", "d"))


def test_the_loss_of_constant_predictions():
    assert CLASSES.baseline_loss([0, 1, 1, 0]) == pytest.approx(math.log(2))
    three = -0.5 * math.log(0.5) - 2 * 0.25 * math.log(0.25)
    assert CLASSES.baseline_loss([0, 0, 3, 1]) == pytest.approx(three)
    assert CLASSES.baseline_loss([1, 1]) == 0
    weighted = CLASSES.weigh_classes([3.0, 1.0, 1.0, 1.0])
    # As often as 3 of 4 labels would be 0, and with 4 / 2 times the loss.
    expected = 2 * -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert weighted.baseline_loss([0, 1]) == pytest.approx(expected)
    assert Regression().baseline_loss([0.0, 1.0, 5.0]) == pytest.approx(14 / 3)
    (warning,) = diagnosis.check_loss(0.69, 20, math.log(2))
    assert "last 20 steps is 0.6900" in warning and "0.6931" in warning
    assert not diagnosis.check_loss(0.67, 20, math.log(2))


@pytest.mark.parametrize(
    ("predictions", "labels", "names", "part"),
    [
        ([1, 1, 1], [0, 1, 1], "ny", 'all 3 examples, "y"'),
        ([1, 0, 1], [0, 1, 1], "ny", ""),
        ([1, 1, 1], [1, 1, 1], "ny", ""),  # It may be right.
        ([2.009, 2.018, 2.045], [1.0, 2.0, 5.0], "", "2.0090 to 2.0450"),
        ([2.011, 2.022, 2.055], [1.0, 2.0, 5.0], "", ""),
    ],
)
def test_constant_predictions(predictions, labels, names, part):
    task_type = Classification(tuple(names)) if names else Regression()
    found = task_type.check_predictions(np.array(labels), np.array(predictions))
    assert bool(found) == bool(part) and part in found


def test_the_entry_of_files_is_read_back():
    for parts in ((), ([], None), (["a"], [])):
        diagnostics = diagnosis.Diagnostics(*parts)
        entry = json.loads(json.dumps(diagnostics.to_json()))
        assert diagnosis.from_json(entry) == diagnostics
    for entry in ([], "ok", {"training": "x"}, {"evaluation": [1]}):
        with pytest.raises(ValueError, match="health"):
            diagnosis.from_json(entry)


# Whole runs.


@pytest.fixture
def setting(tmp_path):
    """A task whose label is whether the first word is "cat"."""
    rows = tmp_path / "SST-2"
    rows.mkdir()
    random = np.random.RandomState(0)
    for name, count in (("train", 32), ("dev", 16), ("test", 3)):
        lines = ["index\tsentence" if name == "test" else "sentence\tlabel"]
        for i in range(count):
            text = " ".join(
                ["cat" if i % 2 else "mat", *random.choice(small_run.WORDS[5:], 4)]
            )
            lines.append(
                "%d\t%s" % (i, text) if name == "test" else text + "\t%d" % (i % 2)
            )
        (rows / (name + ".tsv")).write_text("\n".join(lines) + "\n")
    return {
        # Wide enough apart for a model of random weights to learn from.
        **small_run.write_model(tmp_path / "bert", initializer_range=0.3),
        "task_name": "SST-2",
        "data_dir": str(rows),
        "output_dir": str(tmp_path / "output"),
        "adapter_init_scale": 0.1,
        "adam_bias_correction": True,
        "seed": 1,
    }


def read(path):
    return json.loads(path.read_text())


def lines_on_screen(capsys):
    return capsys.readouterr().err.splitlines()


def info(capsys, package):
    capsys.readouterr()
    manage_adapters.main(["manage_adapters.py", "info", str(package)])
    lines = capsys.readouterr().out.splitlines()
    return next(line for line in lines if line.startswith("health"))


def test_a_healthy_run_is_called_healthy(setting, tmp_path, capsys):
    small_run.run(
        do_train=True,
        do_eval=True,
        do_predict=True,
        learning_rate=1e-2,
        num_train_epochs=30.0,
        **setting,
    )
    output = tmp_path / "output"
    results = read(output / "eval_results.json")
    assert results["sets"]["dev"]["scores"]["accuracy"] > 0.8
    healthy = {"ok": True, "training": [], "evaluation": []}
    assert results["health"] == read(output / "run.json")["health"] == healthy
    assert read(output / "adapters" / "adapter_config.json")["health"] == healthy
    lines = lines_on_screen(capsys)
    # The whole run in a page that a person reads.
    assert 15 < len(lines) < 35
    assert max(map(len, lines)) < 200
    text = "\n".join(lines)
    accuracy = results["sets"]["dev"]["scores"]["accuracy"]
    for part in (
        "%.4f    (baseline: 0.5000)" % accuracy,
        console.LOG_NAME,
        "SST-2.tsv",
    ):
        assert part in text, part
    for noise in ("tensorflow", "deprecated", "input_ids", "DEGENERATE"):
        assert noise not in text, noise
    log = (output / console.LOG_NAME).read_text()
    for part in ("Trained: adapters, bert/encoder", "input_ids", "Done calling"):
        assert part in log, part
    assert info(capsys, output / "adapters").split() == ["health", "ok"]


def test_a_run_that_learned_nothing_is_warned_of_everywhere(setting, tmp_path, capsys):
    settings = dict(setting, learning_rate=1e-9, adam_bias_correction=False)
    small_run.run(do_train=True, do_eval=True, num_train_epochs=8.0, **settings)
    output = tmp_path / "output"
    results = read(output / "eval_results.json")
    diagnostics = results["health"]
    assert not diagnostics["ok"]
    assert "a constant prediction gives 0.6931" in diagnostics["training"][0]
    for part in ("single class", "all 16", "accuracy 0.5000 (baseline: 0.5000)"):
        assert part in diagnostics["evaluation"][0]
    assert read(output / "run.json")["health"] == diagnostics
    assert read(output / "adapters" / "adapter_config.json")["health"] == diagnostics
    lines = lines_on_screen(capsys)
    assert "DEGENERATE" in lines[-4]
    assert lines[-3] == "warning:   " + diagnostics["training"][0]
    for text in (diagnostics["training"][0], "single class", "never predicted"):
        assert sum(text in line for line in lines) == (text != "never predicted")
    assert lines[-2] == "warning:   " + diagnostics["evaluation"][0]
    for part in ("learning_rate (it was 1e-09)", "num_train_epochs (it was 8)"):
        assert part in lines[-1]
    assert "DEGENERATE" in info(capsys, output / "adapters")

    # Evaluated again, from the same folder and from the package.
    small_run.run(do_eval=True, **settings)
    assert read(output / "eval_results.json")["health"] == diagnostics
    other = dict(settings, output_dir=str(tmp_path / "other"))
    capsys.readouterr()
    small_run.run(do_predict=True, adapters=str(output / "adapters"), **other)
    assert diagnostics["training"][0] in lines_on_screen(capsys)[-3]
    assert read(tmp_path / "other" / "run.json").get("health") is None

    # And when the package is loaded for prediction.
    package = str(output / "adapters")
    console.start()
    predict.predictor.Predictor(
        setting["init_checkpoint"], setting["bert_config_file"], setting["vocab_file"]
    ).add(package)
    text = capsys.readouterr().err
    assert "DEGENERATE" in text
    assert "%s: %s" % (package, diagnostics["training"][0]) in text


def test_a_training_that_diverges_ends_before_anything_bad_is_written(
    setting, tmp_path, capsys
):
    setting.update(learning_rate=1e38, save_checkpoints_steps=1)
    with pytest.raises(SystemExit) as ended:
        small_run.run(do_train=True, do_eval=True, num_train_epochs=8.0, **setting)
    assert ended.value.code == 1
    output = tmp_path / "output"
    last = tf.train.latest_checkpoint(str(output))
    step = tf.train.load_variable(last, "global_step")
    message = lines_on_screen(capsys)[-1]
    assert message.startswith("error: training diverged in step %d: " % (step + 1))
    for part in ("gradient norm", last, "--learning_rate", "--adam_bias_correction"):
        assert part in message
    for name, _ in tf.train.list_variables(last):
        assert np.isfinite(tf.train.load_variable(last, name)).all(), name
    assert not (output / "adapters").exists()
    assert not (output / "eval_results.txt").exists()


def test_predictions_that_are_no_numbers_are_an_error(tmp_path, capsys):
    # Finite weights whose sums are not.
    model = small_run.write_model(tmp_path / "bert", initializer_range=1e38)
    rows = small_run.write_mrpc(tmp_path / "MRPC")
    output = tmp_path / "output"
    for wanted in ("do_eval", "do_predict"):
        with pytest.raises(SystemExit) as ended:
            small_run.run(output_dir=str(output), **{wanted: True}, **model, **rows)
        assert ended.value.code == 1
        last = lines_on_screen(capsys)[-1]
        assert last.startswith("error: ")
        for part in ("predictions for", "are not finite", "--init_checkpoint"):
            assert part in last
    results = ("eval_results.txt", "eval_results.json", "test_results.tsv", "MRPC.tsv")
    assert not set(results) & set(os.listdir(output))


def test_an_untrained_head_is_the_last_thing_said(setting, tmp_path, capsys):
    small_run.run(do_eval=True, **setting)
    diagnostics = read(tmp_path / "output" / "eval_results.json")["health"]
    assert not diagnostics["ok"]
    assert "output_weights, which no checkpoint" in diagnostics["training"][0]
    lines = lines_on_screen(capsys)
    assert "DEGENERATE" in "\n".join(lines[-3:])
    assert "never trained" in "\n".join(lines[-3:])
