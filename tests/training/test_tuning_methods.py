"""Tuning methods: their variables are trained and no others."""

import functools
import json
import os
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import optimization
from errors import UserError
from model import layer_ranges
from system import console
from tasks import task_type
from tasks.classification import Classification
from tests import graph_variables, small_packages, small_run, training_graph
from tests.training_graph import CLASSES
from training import classifier
from tuning import adapters, lora, registry
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    model_variables,
    package_conversion,
)

LAYERS = 3
PLAIN = classifier.PLAIN
HEAD = "output_(weights|bias)"
NORM = "LayerNorm/(beta|gamma)"

# --train_policy with --adapter_placement, --adapter_layers, the trained variables as a
# pattern, and the lowest layer that the backward pass has to reach; -1: the embeddings.
POLICIES = (
    ("adapters", None, "bert/.*/(adapters/.*|%s)|%s" % (NORM, HEAD), -1),
    ("full", None, ".*", -1),
    ("top_k:1", None, "bert/(encoder/layer_2|pooler)/.*|%s" % HEAD, 2),
    ("top_k:3", None, "bert/(encoder/layer_.|pooler)/.*|%s" % HEAD, 0),
    ("layer_norm", None, "bert/.*/%s|%s" % (NORM, HEAD), -1),
    ("head", None, HEAD, 3),
    ("bitfit", None, "bert/.*/(bias|beta)|%s" % HEAD, -1),
    ("adapters", "1", "bert/encoder/layer_1/.*/adapters/.*|"
     "bert/encoder/layer_[12]/.*/%s|%s" % (NORM, HEAD), 1),
    ("adapters", "0,2", "bert/encoder/layer_[02]/.*/adapters/.*|bert/.*/%s|%s"
     % (NORM, HEAD), -1),
    ("lora:2", None, "bert/.*/(query|value)/lora_[AB]|%s" % HEAD, 0),
    ("adapters pfeiffer", None,
     "bert/encoder/layer_./output/adapters_pfeiffer/.*|%s" % HEAD, 0),
    ("adapters parallel", "1,2",
     "bert/encoder/layer_[12]/output/adapters_parallel/.*|%s" % HEAD, 1),
)  # fmt: skip
each_policy = pytest.mark.parametrize(
    ("text", "layers", "pattern", "lowest"), POLICIES, ids=lambda value: str(value)[:9]
)


CONFIG = training_graph.make_config(LAYERS)


def parse(text, layers, num_layers=LAYERS, size=8):
    """The method of --train_policy with --adapter_placement, and --adapter_layers."""
    policy, _, placement = text.partition(" ")
    settings = {"adapter_layers": layers, "adapter_placement": placement or None}
    if policy == "adapters":
        settings["adapter_size"] = size
        settings["adapter_init_scale"] = None if placement == "parallel" else 0.3
    return registry.parse(policy, settings, num_layers)


def make_run(text, layers, computation=PLAIN, base=None, **training):
    method = parse(text, layers)
    return training_graph.TrainingGraph(
        CONFIG, computation, base, training, method=method
    )


@functools.cache
def plain_run(text, layers):
    """A graph that two tests look at."""
    return make_run(text, layers)


def trained_names(run, pattern):
    return {v.op.name for v in run.model if re.fullmatch(pattern, v.op.name)}


@pytest.fixture(autouse=True)
def no_head_dropout(monkeypatch):
    monkeypatch.setattr(task_type, "HEAD_DROPOUT", 0.0)


@each_policy
def test_only_the_selected_variables_are_trained(text, layers, pattern, lowest):
    run = plain_run(text, layers)
    expected = trained_names(run, pattern)
    before = run.values()
    assert np.isfinite(run.steps(2)).all()
    after = run.values()
    moved = {name for name in before if np.any(before[name] != after[name])}
    slots = {n + end for n in expected for end in ("/adam_m", "/adam_v")}
    assert moved == {*expected, *slots, "global_step"}
    assert {name for name in before if "/adam_" in name} == slots
    has_adapters = any("/adapters" in name for name in before)
    assert has_adapters == text.startswith("adapters")


@each_policy
def test_the_backward_pass_ends_at_the_lowest_trained_layer(
    text, layers, pattern, lowest
):
    again = PLAIN._replace(recompute_activations=True)
    for run in (plain_run(text, layers), make_run(text, layers, again)):
        backward = [
            op.name
            for op in graph_variables.ancestors(run.spec.train_op)
            if op.name.startswith("gradients")
        ]
        found = {int(n) for name in backward for n in re.findall(r"layer_(\d)/", name)}
        assert found == set(range(max(lowest, 0), LAYERS))
        reaches_embeddings = any("/embeddings/" in name for name in backward)
        assert reaches_embeddings == (lowest == -1)


@pytest.mark.parametrize(
    ("text", "layers"), [("full", None), ("top_k:1", None), ("adapters", "1")]
)
def test_parts_shards_and_recomputation_give_the_same(text, layers):
    run = make_run(
        text,
        layers,
        classifier.Computation(
            recompute_activations=True, gradient_accumulation_steps=2, shards=2
        ),
    )
    plain = make_run(text, layers)
    np.testing.assert_allclose(run.steps(3), plain.steps(3), rtol=1e-4)
    expected = plain.values()
    for name, value in run.values().items():
        np.testing.assert_allclose(value, expected[name], atol=2e-4, err_msg=name)


def test_xla_gives_the_same_where_tables_are_trained():
    run, plain = (
        make_run("full", None, PLAIN._replace(xla="true")),
        make_run("full", None),
    )
    np.testing.assert_allclose(run.steps(3), plain.steps(3), rtol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_what_trains_is_float32(tmp_path, precision):
    def build():
        ids = tf.zeros([1, 2], tf.int32)
        modeling.BertModel(CONFIG, False, ids, adapter_fn=None)

    base = str(tmp_path / "bert.ckpt")
    small_run.write_checkpoint(base, build)
    computation = PLAIN._replace(precision=precision)
    content = {"checkpoint_content": checkpoints.TRAINED}
    run = make_run("top_k:1", None, computation, base, **content)
    assert np.isfinite(run.steps(2)).all()
    pattern = POLICIES[2][2]
    trained = trained_names(run, pattern)
    # Frozen kernels are kept as they are multiplied.
    assert {v.dtype.base_dtype.name for v in run.model} == {"float32", precision}
    for variable in run.model:
        if variable.op.name in trained or not variable.op.name.endswith("/kernel"):
            assert variable.dtype.base_dtype == tf.float32
    with run.graph.as_default():
        kept = {v.op.name for v in tf.global_variables()}
    assert {n for n in kept if "/adam_" not in n} - trained <= {
        "global_step",
        optimization.LOSS_SCALE,
        optimization.FINITE_STEPS,
    }
    assert trained <= kept


# --- counts -------------------------------------------------------------------------

# Hidden size and layers of MiniLM, BERT-base and BERT-large, and the parameters
# trained with two labels and adapters of 64; "upper": adapters in the upper half.
SIZES = ((384, 6), (768, 12), (1024, 24))
COUNTS = {
    "adapters": (605_954, 2_419_202, 6_446_082),
    "upper": (302_978, 1_209_602, 3_223_042),
    "full": (22_713_986, 109_483_778, 335_143_938),
    "top_k:1": (1_923_074, 7_680_002, 13_647_874),
    "top_k:3": (5_472_002, 21_855_746, 38_840_322),
    "layer_norm": (10_754, 39_938, 102_402),
    "head": (770, 1_538, 2_050),
    "bitfit": (26_882, 104_450, 274_434),
    "lora:8": (74_498, 296_450, 788_482),
    "adapters pfeiffer": (298_370, 1_191_170, 3_173_890),
    "adapters parallel": (298_370, 1_191_170, 3_173_890),
}


@pytest.mark.parametrize("text", COUNTS)
def test_counts_in_numbers(text):
    found = []
    for H, layers in SIZES:
        of_size = modeling.BertConfig(
            30522, H, layers, H // 64, 4 * H, type_vocab_size=2
        )
        upper = "%d-%d" % (layers // 2, layers - 1) if text == "upper" else None
        method = parse("adapters" if upper else text, upper, layers, 64)
        shapes = model_variables.model_variables(
            of_size, method, Classification.numbered(2)
        ).trained()
        found.append(sum(int(np.prod(shape)) for shape in shapes.values()))
    assert tuple(found) == COUNTS[text]


@each_policy
def test_packages_and_graphs_agree_on_names_and_shapes(text, layers, pattern, lowest):
    method = parse(text, layers)
    variables = graph_variables.model_variables(
        CONFIG, CLASSES, classifier.Variant(method=method)
    )
    classes = Classification.numbered(CLASSES)
    known = model_variables.model_variables(CONFIG, method, classes)
    trained, frozen = known.trained(), known.frozen()
    assert set(trained) == set(variables.trained())
    assert {**trained, **frozen} == variables.shapes
    assert known.shapes == variables.shapes
    for collection in {*known.collections, *variables.collections}:
        names = known.collections[collection]
        assert sorted(names) == sorted(variables.collections[collection]), collection
    assert not set(trained) & set(frozen)
    counts = variables.parameter_counts()
    assert counts["trained"] == sum(int(np.prod(s)) for s in trained.values())


# --- flags --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layers"),
    [("8-11", (8, 9, 10, 11)), ("0,2-3", (0, 2, 3)), ("3, 1-1", (1, 3)), ("5", (5,))],
)
def test_layers_are_read(text, layers):
    assert layer_ranges.parse_layers("x", text, 12) == layers
    again = layer_ranges.format_layers(layers)
    assert layer_ranges.parse_layers("x", again, 12) == layers


@pytest.mark.parametrize(
    ("text", "layers", "part"),
    [
        ("all", None, "adapters, bitfit, full, head, layer_norm, lora:R, top_k:N"),
        ("top_k", None, "top_k:N"),
        ("head:2", None, "head:2"),
        ("top_k:0", None, "1 to 6"),
        ("top_k:7", None, "1 to 6"),
        ("top_k:-1", None, "1 to 6"),
        ("full", "1-2", "`adapter_layers`=1-2 is a setting of adapters, not of full"),
        ("adapters", "2-6", "allowed are 0 to 5"),
        ("adapters", "3-2", "'3-2'"),
        ("adapters", "1,", "''"),
        ("adapters", "x", "'x'"),
    ],
)
def test_choices_that_cannot_be(text, layers, part):
    with pytest.raises(ValueError) as error:
        parse(text, layers, 6)
    assert part in str(error.value)
    assert parse("adapters", "0-5", 6) == parse("adapters", None, 6)


# --- runs ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Flags of a BERT of two layers and a task."""
    folder = tmp_path_factory.mktemp("policies")
    return {
        **small_packages.write_base(folder / "bert"),
        **small_run.write_mrpc(folder / "MRPC"),
        "max_seq_length": 24,
        "train_batch_size": 8,
        "learning_rate": 1e-2,
        "num_train_epochs": 1.0,
    }


@pytest.fixture
def run(tmp_path, setting):
    """Runs into a folder of the given name; returns the folder."""

    def start(name, **flags):
        small_run.run(**{**setting, "output_dir": str(tmp_path / name), **flags})
        return tmp_path / name

    return start


@pytest.fixture
def fails(run, capsys):
    """Runs what has to end with one message; returns the message."""

    def start(name, **flags):
        with pytest.raises(SystemExit):
            run(name, **flags)
        return capsys.readouterr().err.splitlines()[-1]

    return start


def predictions(folder, name="test_results.tsv"):
    return np.loadtxt(folder / name)


def saved_names(folder):
    checkpoint = tf.train.latest_checkpoint(str(folder))
    return set(checkpoints.Checkpoint(checkpoint).shapes)


@pytest.mark.parametrize(
    ("flags", "pattern", "logged"),
    [
        (
            {"train_policy": "top_k:1"},
            "bert/(encoder/layer_1|pooler)/.*",
            "top_k:1 (layers 1, pooler, head): ",
        ),
        ({"train_policy": "layer_norm"}, "bert/.*/%s" % NORM, "layer_norm: 160 layer"),
        ({"train_policy": "head"}, "-", "head: 34 head = 34 of 5,554 parameters"),
        ({"train_policy": "bitfit"}, "bert/.*/(bias|beta)", "bitfit: 80 layer norms"),
        (
            {"adapter_layers": "1", "adapter_size": 4},
            "bert/encoder/layer_1/.*(adapters|LayerNorm)/.*",
            "adapters (adapters in layers 1, layer norms, head): 296 adapters + 64",
        ),
    ],
    ids=str,
)
def test_a_run_leaves_a_package_that_scores_as_it_did(
    run, setting, capsys, flags, pattern, logged
):
    flags = {**flags, "do_predict": True}
    output = run("a", do_train=True, checkpoint_content="trained", **flags)
    assert "--train_policy=" + logged in capsys.readouterr().err
    package = adapter_package.read(str(output / "adapters"))
    assert package.weights
    for name in package.weights:
        assert re.fullmatch(pattern + "|" + HEAD, name)
    # Trained variables, their slots, the step, and nothing else.
    assert saved_names(output) == {
        "global_step",
        *(name + end for name in package.weights for end in ("", "/adam_m", "/adam_v")),
    }
    policy = flags.get("train_policy", "adapters")
    layers = [1] if "adapter_layers" in flags else []
    assert package.config["train_policy"] == policy
    assert package.config["adapter"]["layers"] == layers
    identity = json.loads((output / "run.json").read_text())["identity"]
    assert (identity["train_policy"], identity["adapter_layers"]) == (policy, layers)

    again = run("b", adapters=str(output / "adapters"), **flags)
    np.testing.assert_array_equal(predictions(again), predictions(output))
    merged = str(output / "merged.ckpt")
    package_conversion.merge(package.path, setting["init_checkpoint"], merged)
    base = checkpoints.Checkpoint(setting["init_checkpoint"]).shapes
    assert set(checkpoints.Checkpoint(merged).shapes) == {
        "global_step", *base, *package.weights
    }  # fmt: skip
    for name, value in package.weights.items():
        assert np.array_equal(tf.train.load_variable(merged, name), value), name
    exported = package_conversion.export(
        tf.train.latest_checkpoint(str(output)),
        str(output / "exported"),
        package_conversion.PackageOptions(),
        base_model.BaseFiles(init_checkpoint=setting["init_checkpoint"]),
    )
    assert set(exported.weights) == set(package.weights)
    assert exported.config["base"] == package.config["base"]


def test_the_activation_of_adapters(run, fails, setting):
    output = run("a", do_train=True, adapter_activation="relu", do_predict=True)
    package = adapter_package.read(str(output / "adapters"))
    assert package.method.activation == "relu"
    # Left out, it is the package's.
    start = {"adapters": package.path, "do_predict": True}
    again = predictions(run("b", **start))
    np.testing.assert_array_equal(again, predictions(output))
    batch = small_packages.random_batch(4, 9)
    entry = {**package.config["adapter"], "activation": "gelu"}
    other = package._replace(config={**package.config, "adapter": entry})
    scores = [
        small_packages.single_task_scores(each, setting["init_checkpoint"], batch)
        for each in (package, other)
    ]
    assert np.abs(scores[0] - scores[1]).max() > 1e-5
    for flags in (
        {"adapter_activation": "tanh", **start},
        {"do_predict": True, "output_dir": str(output)},
    ):
        assert fails("c", **flags).count("--adapter_activation") == 1
    with pytest.raises(UserError, match=r"cannot be merged.*relu"):
        base = setting["init_checkpoint"]
        package_conversion.merge(package.path, base, str(output / "merged"))


def test_full_leaves_a_checkpoint_of_bert_and_no_package(run, fails, setting, capsys):
    flags = {"train_policy": "full", "do_predict": True}
    output = run("a", do_train=True, **flags)
    said = capsys.readouterr().err
    checkpoint = tf.train.latest_checkpoint(str(output))
    assert "No adapter package: --train_policy=full" in said
    assert checkpoint in said
    assert not os.path.exists(output / "adapters")
    bert = set(checkpoints.Checkpoint(setting["init_checkpoint"]).shapes)
    names = saved_names(output)
    assert {n for n in names if "/adam_" not in n} == {
        *bert,
        "output_weights",
        "output_bias",
        "global_step",
    }
    # No package is written; the checkpoint is used instead.
    again = run("b", **{**flags, "init_checkpoint": checkpoint})
    np.testing.assert_array_equal(predictions(again), predictions(output))

    assert '"full" there, "adapters" now' in fails("a", do_predict=True)
    message = fails("c", train_policy="full", adapters="x", do_predict=True)
    assert "x" in message
    with pytest.raises(UserError, match="no package; use it as `init_checkpoint`"):
        package_conversion.export(
            checkpoint,
            str(output / "p"),
            package_conversion.PackageOptions(),
            base_model.BaseFiles(),
        )


def test_an_earlier_record_is_of_adapters_in_all_layers(run, fails):
    output = run("a", do_train=True)
    path = output / "run.json"
    record = json.loads(path.read_text())
    del record["identity"]["train_policy"]
    del record["identity"]["adapter_layers"]
    path.write_text(json.dumps(record))
    for flags, difference in (
        ({"train_policy": "head"}, 'train_policy: "adapters" there, "head" now'),
        ({"adapter_layers": "0"}, "adapter_layers: [0, 1] there, [0] now"),
    ):
        message = fails("a", do_train=True, **flags)
        assert difference in message
        assert "the same --" + next(iter(flags)) in message
    run("a", do_predict=True)
    assert (output / "test_results.tsv").exists()


def test_adapters_are_left_out_where_that_is_asked_for(
    run, fails, setting, tmp_path, capsys
):
    task = small_packages.Task("mrpc", 4, ("0", "1"))
    whole = small_packages.write_package(tmp_path / "whole", setting, task)
    package = adapter_package.read(whole)
    flags = {"adapters": whole, "do_eval": True, "do_predict": True}
    output = run("a", ablate_adapter_layers="1", **flags)
    kept = set(os.listdir(output))
    text = capsys.readouterr().err
    assert "run.json" in text and "run_without_1.json" not in text
    assert {"eval_results_without_1.txt", "eval_without_1"} <= kept
    assert not {"eval_results.txt", "eval", "test_results.tsv", "MRPC.tsv"} & kept
    record = json.loads((output / "eval_results_without_1.json").read_text())
    assert record["ablated_adapter_layers"] == "1"
    assert json.loads((output / "run.json").read_text()).get("health") is None
    assert adapter_package.read(whole).config == package.config

    # Ablation gives the scores of adapters of zeros in layer 1.
    zeros = small_packages.write_package(
        tmp_path / "zeros", setting, task, zeros="layer_1/.*/adapters/"
    )
    expected = predictions(run("b", **{**flags, "adapters": zeros}))
    found = predictions(output, "test_results_without_1.tsv")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    run("a", **flags)
    assert np.abs(predictions(output) - found).max() > 1e-3
    assert (output / "eval_results_without_1.txt").exists()

    for changes, part in (
        ({"do_train": True}, "--ablate_adapter_layers=0"),
        ({"adapters": None, "train_policy": "head"}, "none have adapters"),
        ({"adapters": None, "adapter_layers": "1"}, "layers 1 have adapters"),
        ({"ablate_adapter_layers": "2"}, "--ablate_adapter_layers=2"),
    ):
        message = fails("d", **{"ablate_adapter_layers": "0", **flags, **changes})
        assert part in message


def test_a_package_of_another_policy_is_refused(fails, setting, tmp_path):
    task = small_packages.Task("mrpc", 4, ("0", "1"))
    folder = small_packages.write_package(tmp_path / "package", setting, task)
    for flags, flag in (
        ({"train_policy": "head"}, "--train_policy"),
        ({"adapter_layers": "0"}, "--adapter_layers"),
    ):
        message = fails("a", adapters=folder, do_predict=True, **flags)
        assert message.endswith("the one that it was trained with, " + flag)


def test_adapters_wider_than_the_model(monkeypatch):
    warnings = []
    monkeypatch.setattr(console, "warn", lambda text, *a: warnings.append(text % a))
    H = CONFIG.hidden_size
    adapters.Adapters(H).check(CONFIG)
    assert not warnings
    wide = adapters.Adapters(H + 1)
    wide.check(CONFIG)
    shapes = model_variables.model_variables(CONFIG, wide).shapes
    count = sum(np.prod(s) for name, s in shapes.items() if "/adapters/" in name)
    assert "%d MB" % -(-16 * count // 10**6) in warnings[0]
    adapters.Adapters(16 * H).check(CONFIG)
    text = "`adapter_size`=%d .*at most %d" % (16 * H + 1, 16 * H)
    with pytest.raises(UserError, match=text):
        adapters.Adapters(16 * H + 1).check(CONFIG)
    warnings.clear()
    lora.Lora(H).check(CONFIG)
    assert not warnings
    lora.Lora(H + 1).check(CONFIG)
    assert "lora:%d: the rank is above" % (H + 1) in warnings[0]
    with pytest.raises(UserError, match="lora:%d: .*1 to %d" % (16 * H + 1, 16 * H)):
        lora.Lora(16 * H + 1).check(CONFIG)
