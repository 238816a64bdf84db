"""`run_classifier.py` with packages, and with checkpoints of the trained variables."""

import functools
import json
import os
import shutil

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf
from google.protobuf import text_format

import modeling
from model import activations
from tasks import task_type
from tasks.regression import Regression
from training import classifier, distribution
from weights import adapter_package, checkpoints, model_variables

TRAINING = {"num_train_epochs": 2.0, "learning_rate": 1e-2}
TODO = {"do_eval": True, "do_predict": True}


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("setting")
    return {
        **small_run.write_model(folder / "bert"),
        **small_run.write_mrpc(folder / "MRPC"),
    }


@pytest.fixture(scope="module")
def run_into(setting):
    """Runs into a folder of a name in another one; returns the folder."""

    def start(parent, name, **flags):
        output = parent / name
        small_run.run(**{**setting, "output_dir": str(output), **flags})
        return output

    return start


@pytest.fixture
def run(tmp_path, run_into):
    """Runs into a folder of the given name; returns the folder."""
    return functools.partial(run_into, tmp_path)


# Runs that many tests share; no test changes their folders.


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_into):
    """The output of a training run."""
    folder = tmp_path_factory.mktemp("trained")
    return run_into(folder, "output", do_train=True, seed=5, **TRAINING)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, run_into, trained):
    """The same after an evaluation and predictions."""
    folder = tmp_path_factory.mktemp("scored")
    shutil.copytree(str(trained), str(folder / "output"))
    return run_into(folder, "output", **TODO)


@pytest.fixture(scope="module")
def of_trained(tmp_path_factory, run_into):
    """As `trained` with an evaluation; checkpoints of the trained variables only."""
    return run_into(
        tmp_path_factory.mktemp("of_trained"),
        "output",
        do_train=True,
        do_eval=True,
        checkpoint_content="trained",
        recompute_activations=True,  # Its layers' variables are not global.
        save_checkpoints_steps=2,
        seed=5,
        **TRAINING,
    )


@pytest.fixture
def copied(tmp_path, trained):
    """A copy of `trained` for the test to change."""
    shutil.copytree(str(trained), str(tmp_path / "copied"))
    return tmp_path / "copied"


def kernel_dtypes(output):
    """Of the frozen kernels in the graph that a run wrote."""
    graph = text_format.Parse((output / "graph.pbtxt").read_text(), tf.GraphDef())
    return {
        tf.dtypes.as_dtype(node.attr["dtype"].type)
        for node in graph.node
        if node.op == "VarHandleOp" and node.name.endswith("/kernel")
    }


@pytest.fixture
def fails(run, capsys):
    """Runs what has to end with one message; returns the message."""

    def start(name, **flags):
        with pytest.raises(SystemExit) as ended:
            run(name, **flags)
        assert ended.value.code == 1
        return capsys.readouterr().err.splitlines()[-1]

    return start


def scores(output):
    report = json.loads((output / "eval_results.json").read_text())
    return report["sets"]["dev"]["scores"]


def predictions(output):
    return (output / "test_results.tsv").read_bytes()


def rewrite(package_dir, weights=None, **changes):
    """Writes a package anew with other weights and entries of its config."""
    package = adapter_package.read(str(package_dir))
    adapter_package._write(
        str(package_dir), {**package.config, **changes}, weights or package.weights
    )


def test_training_leaves_a_package_of_its_last_weights(trained, setting):
    package = adapter_package.read(str(trained / "adapters"))
    last = small_run.last_values(trained)
    frozen = {
        name
        for name in small_run.checkpoint_values(setting["init_checkpoint"])
        if "LayerNorm" not in name
    }
    assert set(package.weights) == {
        name
        for name in last
        if name not in frozen and "adam_" not in name and name != "global_step"
    }
    for name, value in package.weights.items():
        np.testing.assert_array_equal(value, last[name])
    config = package.config
    assert config["global_step"] == 6
    assert config["task"] == {
        "name": "mrpc",
        "labels": ["0", "1"],
        "type": "classification",
        "is_regression": False,
        "metrics": ["f1", "accuracy"],
        "text_columns": ["#1 String", "#2 String"],
    }
    assert config["settings"]["seed"] == 5
    assert config["settings"]["learning_rate"] == 1e-2
    assert config["max_seq_length"] == 32
    assert config["adapter"]["init_scale"] == 1e-3
    base = checkpoints.Checkpoint(setting["init_checkpoint"])
    assert config["base"] == base.base_fingerprint(frozen)


def test_base_and_package_score_and_predict_as_the_run_did(run, trained, scored):
    config = (trained / "adapters" / "adapter_config.json").read_bytes()
    again = run("again", adapters=str(trained / "adapters"), seed=99, **TODO)
    for name in ("test_results.tsv", "MRPC.tsv"):
        assert (again / name).read_bytes() == (scored / name).read_bytes()
    assert scores(again) == scores(scored)
    # And it is the package that does it.
    untrained = np.loadtxt(str(run("x", do_predict=True) / "test_results.tsv"))
    results = np.loadtxt(str(scored / "test_results.tsv"))
    assert np.abs(untrained - results).min() > 0.005
    assert "holds variables" not in (again / "log.txt").read_text()
    # The package that was given stays; the run's own gets the scores.
    assert not (again / "adapters").exists()
    assert (trained / "adapters" / "adapter_config.json").read_bytes() == config
    assert json.loads(config)["dev_scores"] is None
    package = adapter_package.read(str(scored / "adapters"))
    assert package.config["dev_scores"] == {"dev": scores(scored)}


def test_training_starts_from_a_package(run, setting, trained):
    package_dir = trained / "adapters"
    # Its layer norms and head take precedence over those of a base model.
    base = dict(small_run.checkpoint_values(setting["init_checkpoint"]))
    base["output_bias"] = np.full([2], 7.0, np.float32)
    other_base = os.path.join(os.path.dirname(setting["init_checkpoint"]), "with_head")
    checkpoints.write(other_base, base)
    flags = {
        "do_train": True,
        "adapters": str(package_dir),
        "init_checkpoint": other_base,
        **TRAINING,
    }
    output = run("output", **flags)
    package = adapter_package.read(str(package_dir))
    first = small_run.checkpoint_values(output / "model.ckpt-0")
    for name, value in package.weights.items():
        np.testing.assert_array_equal(first[name], value)
    for name in model_variables.frozen_shapes(package.bert_config):
        np.testing.assert_array_equal(first[name], base[name])
    # Training starts at step 0, with newly initialized slots.
    assert first["global_step"] == 0
    assert not first["output_weights/adam_m"].any()
    ours = adapter_package.read(str(output / "adapters"))
    assert not np.array_equal(
        ours.weights["output_weights"], package.weights["output_weights"]
    )
    # An evaluation keeps the record of what the weights depend on.
    record = json.loads((output / "run.json").read_text())
    run("output", do_eval=True, init_checkpoint=None)
    kept = json.loads((output / "run.json").read_text())
    for entry in ("identity", "base_model", "training"):
        assert kept[entry] == record[entry], entry
    assert record["identity"]["adapters"] and record["base_model"]
    # A second start takes what training left, not the package.
    before = small_run.last_values(output)
    after = small_run.last_values(run("output", **flags))
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_a_package_keeps_its_activation(run, fails, copied, monkeypatch):
    package_dir = copied / "adapters"
    adapter = adapter_package.read(str(package_dir)).config["adapter"]
    rewrite(package_dir, adapter={**adapter, "activation": "relu"})
    asked = []
    monkeypatch.setitem(
        activations.ADAPTER_ACTIVATIONS,
        "relu",
        lambda x: asked.append(x) or tf.nn.relu(x),
    )
    output = run("output", do_train=True, adapters=str(package_dir), **TRAINING)
    assert asked
    assert adapter_package.read(str(output / "adapters")).method.activation == "relu"
    message = fails("output", do_eval=True)
    assert 'activation: "relu" there, "gelu" now' in message
    assert "--adapter_activation" in message


def test_a_finished_run_without_its_package_gets_it(run, copied):
    expected = adapter_package.read(str(copied / "adapters"))
    shutil.rmtree(str(copied / "adapters"))
    run("copied", do_train=True, seed=5, **TRAINING)
    assert adapter_package.read(str(copied / "adapters")).config == expected.config


def test_regression_from_a_package(run, tmp_path):
    rows = small_run.write_sts_b(tmp_path / "STS-B")
    output = run("output", do_train=True, do_predict=True, **rows, **TRAINING)
    package = adapter_package.read(str(output / "adapters"))
    assert package.task_type == Regression()
    assert package.labels == []
    again = run("again", do_predict=True, adapters=str(package.path), **rows)
    assert predictions(again) == predictions(output)


# --- checkpoints that hold what is trained -----------------------------------------


def test_checkpoints_of_trained_variables_alone(of_trained, scored):
    package = adapter_package.read(str(of_trained / "adapters"))
    kept, expected = small_run.last_values(of_trained), small_run.last_values(scored)
    slots = {n + s for n in package.weights for s in ("/adam_m", "/adam_v")}
    assert set(kept) == set(package.weights) | slots | {"global_step"}
    for name, value in kept.items():
        np.testing.assert_array_equal(value, expected[name])
    for name in ("eval_results.txt", "eval_results.json"):
        assert (of_trained / name).read_bytes() == (scored / name).read_bytes()
    assert (
        package.config["base"]
        == adapter_package.read(str(scored / "adapters")).config["base"]
    )
    assert package.config["dev_scores"] == {"dev": scores(of_trained)}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_frozen_kernels_beside_trained_variables_are_kept_as_multiplied(run, precision):
    flags = {"do_predict": True, "precision": precision}
    kept = run(
        "kept",
        do_train=True,
        checkpoint_content="trained",
        write_graph=True,
        **flags,
        **TRAINING,
    )
    cast = run("cast", adapters=str(kept / "adapters"), **flags)
    assert kernel_dtypes(kept) == {classifier.PRECISIONS[precision]}
    assert predictions(kept) == predictions(cast)


# Of the lower precisions, only float16 has more state: its loss scale.
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 1e-4)]
)
def test_two_devices_with_trained_variables_alone(
    tmp_path, run, monkeypatch, precision, tolerance
):
    monkeypatch.setattr(distribution, "local_devices", lambda: ["/cpu:0", "/cpu:1"])
    monkeypatch.setattr(task_type, "HEAD_DROPOUT", 0.0)
    flags = {
        **small_run.write_model(tmp_path / "still", dropout=0.0),
        "precision": precision,
        "do_train": True,
        "checkpoint_content": "trained",
        **TRAINING,
        "learning_rate": 1e-3,
    }
    one = small_run.last_values(run("one", **flags))
    two = small_run.last_values(run("two", distribution_strategy="mirrored", **flags))
    for name, value in two.items():
        np.testing.assert_allclose(value, one[name], rtol=0, atol=tolerance)


# --- what does not fit --------------------------------------------------------------


@pytest.fixture
def package_dir(copied):
    return copied / "adapters"


def test_what_does_not_fit_a_package_is_refused(fails, package_dir, tmp_path):
    def refused(*parts, **flags):
        message = fails("refused", do_eval=True, adapters=str(package_dir), **flags)
        for part in parts:
            assert part in message
        assert not (tmp_path / "refused").exists()

    config = adapter_package.read(str(package_dir)).config
    frozen = model_variables.frozen_shapes(
        modeling.BertConfig.from_dict(config["bert_config"])
    )
    other = small_run.write_model(tmp_path / "other", seed=8)["init_checkpoint"]
    digests = (config["base"], checkpoints.Checkpoint(other).base_fingerprint(frozen))
    digests = [base["sha256"] for base in digests]
    refused("--init_checkpoint", *digests, init_checkpoint=other)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(w + "\n" for w in reversed(small_run.VOCABULARY)))
    refused("--vocab_file", vocab_file=str(vocabulary))
    refused("--do_lower_case", "true", "false", do_lower_case=False)
    refused("--adapter_size", "64", "32", adapter_size=32)
    refused("--adapters needs", "--init_checkpoint", init_checkpoint=None)
    rows = small_run.write_sts_b(tmp_path / "STS-B")
    refused("--task_name", '["0", "1"]', "[]", **rows)
    weights = package_dir / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(str(weights), "damaged")


def test_another_use_of_a_folder_is_refused(fails, package_dir):
    used = package_dir.parent.name
    message = fails(used, do_eval=True, adapters=str(package_dir))
    assert "--adapters" in message and "new --output_dir" in message
    message = fails(used, do_eval=True, checkpoint_content="trained")
    assert '"all" there, "trained" now' in message


@pytest.mark.parametrize("flags", [{"init_checkpoint": None}, {}], ids=str)
def test_trained_variables_alone_need_a_base(fails, flags):
    flags = {"allow_random_base": True, "checkpoint_content": "trained", **flags}
    message = fails("x", do_train=True, **flags)
    assert "checkpoint_content=trained needs the base" in message


def test_weights_that_diverged_in_the_last_step_make_no_package(
    fails, copied, monkeypatch
):
    shutil.rmtree(str(copied / "adapters"))
    real = checkpoints.Checkpoint.read_value

    def read_value(checkpoint, name):
        return real(checkpoint, name) * (np.nan if name == "output_bias" else 1)

    monkeypatch.setattr(checkpoints.Checkpoint, "read_value", read_value)
    message = fails("copied", do_train=True, seed=5, **TRAINING)
    assert "not finite" in message
    assert "--learning_rate" in message
    assert not (copied / "adapters").exists()
