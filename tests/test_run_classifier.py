"""The program as a user runs it, on small models and made-up rows."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf
from absl import flags
from small_run import checkpoint_values, run

import command_line
import glue_data
import modeling
import run_classifier
import tokenization
from system import files
from tasks import task_data
from tests.places import DATA
from training import settings, task_run

ORIGINAL = os.path.join(DATA, "original_run")
VOCAB = os.path.join(DATA, "vocab_uncased.txt")
FLAGS = flags.FLAGS


def read_results(folder):
    with open(os.path.join(folder, "eval_results.txt")) as reader:
        return dict(line.rstrip("\n").split(" = ") for line in reader)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small BERT: its flags, with a checkpoint without adapters and head."""
    config = small_run.small_config(
        30522, max_position_embeddings=64, initializer_range=0.2
    )
    folder = tmp_path_factory.mktemp("bert")
    (folder / "bert_config.json").write_text(config.to_json_string())

    def build():
        modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32), adapter_fn=None)

    small_run.write_checkpoint(folder / "bert_model.ckpt", build)
    return {
        "vocab_file": VOCAB,
        "bert_config_file": str(folder / "bert_config.json"),
        "init_checkpoint": str(folder / "bert_model.ckpt"),
        "max_seq_length": 32,
        "train_batch_size": 4,
    }


@pytest.fixture
def model(base, tmp_path):
    """The same, with a folder for what a run writes."""
    return {**base, "output_dir": str(tmp_path / "output")}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return small_run.write_mrpc(tmp_path_factory.mktemp("rows") / "MRPC")


def run_of_all(base, pairs, seed, output, **changes):
    """Trains, evaluates and predicts."""
    settings = {
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "num_train_epochs": 2.0,
        "learning_rate": 1e-2,
        "adapter_init_scale": 0.1,
        "save_checkpoints_steps": 5,
        **changes,
    }
    run(output_dir=str(output), seed=seed, **base, **pairs, **settings)


@pytest.fixture(scope="module")
def whole(base, pairs, tmp_path_factory):
    """The folder of such a run, which no test changes."""
    output = tmp_path_factory.mktemp("whole") / "output"
    run_of_all(base, pairs, 5, output)
    return output


@pytest.fixture
def scored(tmp_path):
    return small_run.write_sts_b(tmp_path / "STS-B")


def test_checkpoint_of_the_original_gives_its_scores_and_predictions(tmp_path):
    output = tmp_path / "output"
    run(
        task_name="MRPC",
        do_eval=True,
        do_predict=True,
        data_dir=os.path.join(ORIGINAL, "data"),
        vocab_file=VOCAB,
        bert_config_file=os.path.join(ORIGINAL, "bert_config.json"),
        init_checkpoint=os.path.join(ORIGINAL, "model.ckpt-360"),
        max_seq_length=64,
        output_dir=str(output),
    )
    expected, results = read_results(ORIGINAL), read_results(output)
    assert set(results) == set(expected) | {"accuracy", "f1"}
    for key in ("eval_accuracy", "eval_loss", "loss"):
        assert float(results[key]) == pytest.approx(float(expected[key]), rel=1e-5)
    np.testing.assert_allclose(
        np.loadtxt(str(output / "test_results.tsv")),
        np.loadtxt(os.path.join(ORIGINAL, "test_results.tsv")),
        rtol=1e-5,
    )


def test_only_the_trained_variables_change(base, whole):
    first = checkpoint_values(whole / "model.ckpt-0")
    last = checkpoint_values(tf.train.latest_checkpoint(str(whole)))
    before = checkpoint_values(base["init_checkpoint"])
    assert last["global_step"] == 12
    changed = {name for name in last if not np.array_equal(first[name], last[name])}
    model_names = {name for name in last if "adam_" not in name}
    trained = {
        name
        for name in model_names
        if "/adapters/" in name or "LayerNorm" in name or name.startswith("output_")
    }
    assert len(trained) == 12 * 2 + 4
    assert changed & model_names == trained | {"global_step"}
    slots = {name for name in last if "adam_" in name}
    assert slots == {n + s for n in trained for s in ("/adam_m", "/adam_v")}
    frozen = set(before) - trained
    assert len(frozen) == 29
    for name in frozen:
        np.testing.assert_array_equal(last[name], before[name], name)


def test_the_same_seed_gives_the_same_results_byte_for_byte(
    base, pairs, whole, tmp_path
):
    run_of_all(base, pairs, 5, tmp_path / "again")
    for name in ("eval_results.txt", "eval_results.json", "test_results.tsv"):
        again = (tmp_path / "again" / name).read_bytes()
        assert (whole / name).read_bytes() == again
    run_of_all(base, pairs, 6, tmp_path / "other", do_predict=False)
    assert read_results(tmp_path / "other") != read_results(whole)


def test_dynamic_padding_changes_no_result(model, pairs, tmp_path):
    results = {}
    for dynamic in (True, False):
        output = str(tmp_path / str(dynamic))
        settings = {**model, **pairs, "output_dir": output}
        run(do_predict=True, dynamic_padding=dynamic, **settings)
        results[dynamic] = np.loadtxt(os.path.join(output, "test_results.tsv"))
    assert np.ptp(results[True][:, 0]) > 0
    np.testing.assert_allclose(results[True], results[False], rtol=1e-5)


def test_features_on_tpu_fill_batches_of_evaluation_and_prediction(pairs, tmp_path):
    task = glue_data.get_task("mrpc")
    (dev,) = task.dev
    examples = {dev.name: task_data.read_examples(task, pairs["data_dir"], dev)}
    run_settings = settings.Run(
        str(tmp_path), 8, 4, 6, 10, 1, devices=settings.Devices(use_tpu=True)
    )
    inputs = task_run.TaskInputs(
        task,
        examples,
        tokenization.FullTokenizer(VOCAB),
        settings.Data(pairs["data_dir"], VOCAB, True, 32, True),
        run_settings,
    )
    assert len(examples[dev.name]) == 10
    # Features are those of the file that was read.
    data_file = os.path.join(pairs["data_dir"], dev.filename)
    digest = files.digest(data_file)
    with open(data_file, "a") as writer:
        writer.write("\n")
    file = inputs.write_features(dev, "eval")
    assert digest in (tmp_path / "eval.tf_record.key").read_text()
    assert file.counts.features == 10
    records = list(tf.python_io.tf_record_iterator(file.path))
    assert len(records) == 12  # of 4 and of 6
    padding = tf.train.Example.FromString(records[-1]).features.feature
    assert padding["is_real_example"].int64_list.value == [0]


def test_files_of_a_run(whole):
    files = set(os.listdir(whole))
    assert {"checkpoint", "eval_results.json", "run.json", "train.tf_record"} <= files
    assert {"eval.tf_record", "predict.tf_record"} <= files
    assert not [name for name in files if name.endswith((".partial", ".meta"))]
    assert "graph.pbtxt" not in files
    results = read_results(whole)
    keys = ["accuracy", "eval_accuracy", "eval_loss", "f1", "global_step", "loss"]
    assert list(results) == keys
    assert float(results["accuracy"]) == pytest.approx(float(results["eval_accuracy"]))
    rows = np.loadtxt(whole / "test_results.tsv")
    assert rows.shape == (7, 2)
    np.testing.assert_allclose(np.sum(rows, axis=1), 1.0, rtol=1e-5)
    lines = (whole / "MRPC.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    predictions = [line.split("\t")[1] for line in lines[1:]]
    assert predictions == [str(np.argmax(row)) for row in rows]
    dev = json.loads((whole / "eval_results.json").read_text())["sets"]["dev"]
    assert dev["baseline"]["accuracy"] == 0.5
    assert dev["scores"]["f1"] == pytest.approx(float(results["f1"]))


def test_scalars_for_tensorboard(whole):
    (events,) = whole.glob("events.out.*")
    for path in (events, *(whole / "eval").glob("events.out.*")):
        assert path.stat().st_size < 10000, "it holds a graph"
    tags = {
        value.tag
        for event in tf.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert {"loss", "learning_rate", "gradient_norm"} <= tags


def test_regression(model, scored):
    run(
        do_train=True,
        do_eval=True,
        do_predict=True,
        num_train_epochs=30.0,
        learning_rate=3e-2,
        adapter_init_scale=0.1,
        **model,
        **scored,
    )
    results = read_results(model["output_dir"])
    assert set(results) == {"eval_loss", "global_step", "loss", "pearson", "spearman"}
    scores = np.loadtxt(os.path.join(model["output_dir"], "test_results.tsv"))
    assert scores.shape == (7,)
    rows = task_data.read_examples(
        task := glue_data.get_task("sts-b"), scored["data_dir"], task.train
    )
    mean = np.mean([float(row.label) for row in rows])
    first = checkpoint_values(os.path.join(model["output_dir"], "model.ckpt-0"))
    np.testing.assert_allclose(first["output_bias"], [mean], rtol=1e-6)
    with open(os.path.join(model["output_dir"], "STS-B.tsv")) as reader:
        lines = reader.read().splitlines()
    clipped = np.clip(scores, 0, 5)
    assert lines[1:] == ["%d\t%.3f" % pair for pair in enumerate(clipped)]
    with open(os.path.join(model["output_dir"], "dev_predictions.csv")) as reader:
        rows = list(csv.DictReader(reader))
    assert list(rows[0]) == ["line", "text_a", "text_b", "gold", "score"]
    dev = task_data.read_examples(task, scored["data_dir"], task.dev[0])
    assert [row["gold"] for row in rows] == [example.label for example in dev]
    assert np.ptp([float(row["score"]) for row in rows]) < 5


def test_both_sets_of_mnli_in_one_run_and_ax_with_its_model(model, tmp_path):
    folder = tmp_path / "MNLI"
    shutil.copytree(os.path.join(DATA, "glue", "MNLI"), str(folder))
    settings = {**model, "task_name": "mnli", "data_dir": str(folder)}
    run(do_train=True, do_eval=True, do_predict=True, **settings)
    results = read_results(model["output_dir"])
    for key in ("accuracy", "eval_accuracy", "eval_loss", "loss"):
        assert key in results
        assert key + "_mm" in results
    files = set(os.listdir(model["output_dir"]))
    assert {"test_results.tsv", "test_results_mm.tsv"} <= files
    assert {"MNLI-m.tsv", "MNLI-mm.tsv"} <= files
    matched = os.path.join(model["output_dir"], "test_results.tsv")
    with open(matched) as reader:
        before = reader.read()
    settings["task_name"] = "ax"
    settings["data_dir"] = os.path.join(DATA, "glue", "AX")
    run(do_predict=True, **settings)
    assert {"AX.tsv", "test_results_ax.tsv"} <= {*os.listdir(model["output_dir"])}
    with open(matched) as reader:
        assert reader.read() == before


def test_adapter_size_and_scale_reach_the_model(model, pairs):
    size, scale = 20, 0.2
    run(do_train=True, adapter_size=size, adapter_init_scale=scale, **model, **pairs)
    first = checkpoint_values(os.path.join(model["output_dir"], "model.ckpt-0"))
    weights = [first[name] for name in first if name.endswith("adapters/weights1")]
    assert len(weights) == 4
    assert all(w.shape == (16, size) for w in weights)
    # A normal truncated at two standard deviations keeps 0.88 of its deviation.
    assert np.std(weights) == pytest.approx(0.88 * scale, rel=0.2)


def test_names_of_the_original_are_reachable():
    for name in (
        "InputExample",
        "InputFeatures",
        "DataProcessor",
        "convert_single_example",
        "file_based_input_fn_builder",
        "create_model",
        "model_fn_builder",
        "ColaProcessor",
        "MnliProcessor",
        "MrpcProcessor",
    ):
        assert callable(getattr(run_classifier, name))


def test_flags_of_the_original_keep_their_defaults():
    defaults = {
        "data_dir": None,
        "bert_config_file": None,
        "task_name": None,
        "vocab_file": None,
        "output_dir": None,
        "init_checkpoint": None,
        "do_lower_case": True,
        "max_seq_length": 128,
        "do_train": False,
        "do_eval": False,
        "do_predict": False,
        "train_batch_size": 32,
        "eval_batch_size": 8,
        "predict_batch_size": 8,
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "warmup_proportion": 0.1,
        "save_checkpoints_steps": 1000,
        "iterations_per_loop": 1000,
        "use_tpu": False,
        "tpu_name": None,
        "tpu_zone": None,
        "gcp_project": None,
        "master": None,
        "num_tpu_cores": 8,
        "adapter_size": 64,
        "adapter_init_scale": None,  # 1e-3 for the original's adapters
    }
    assert {name: FLAGS[name].default for name in defaults} == defaults


def test_help_shows_every_flag_once_with_its_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    parse = command_line.make_parser("About.", run_classifier.FLAG_GROUPS, FLAGS)
    with pytest.raises(SystemExit) as ended:
        parse(["run_classifier.py", "--do_train=true", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    shown = [line.split() for line in text.splitlines() if line.startswith("  --")]
    defined = FLAGS.flags_by_module_dict()["run_classifier"]
    assert sorted(words[0] for words in shown) == sorted(
        "--" + flag.name for flag in defined
    )
    assert ["--train_batch_size", "(default:", "32)"] in shown
    assert ["--task_name"] in shown
    assert text.startswith("About.\n\nRequired\n  --data_dir\n")
    assert max(len(line) for line in text.splitlines()) <= 60
