"""Adapters from and to AdapterHub's format: what they compute, and what is refused."""

import json
import os
import shutil

import adapterhub_layout as layout
import numpy as np
import pytest
import torch_layout
from adapterhub_layout import (
    ADAPTER_CONFIG,
    HEAD_CONFIG,
    LAYERS,
    NAME,
    SIZE,
    H,
    changed,
    numpy_logits,
    package_logits,
    random_adapter,
    random_head,
    write_adapter,
    write_base,
)
from hf_layout import CONFIG, random_batch, random_weights
from safetensors.numpy import load_file, save_file

import tokenization
from errors import UserError
from exchange import adapterhub_adapters, conversion
from glue_data import GLUE_TASKS
from tasks.regression import Regression
from tests import programs, small_packages
from tuning import adapters, head, top_k
from weights import adapter_package, base_model, package_conversion

LETTERS = package_conversion.PackageOptions(name="letters", max_seq_length=9)
SCORES = package_conversion.PackageOptions(GLUE_TASKS["sts-b"], max_seq_length=9)
BATCH = random_batch(CONFIG)
HEAD_ALONE = head.Head()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("exchange") / "base")


def imported(tmp_path, base, given=LETTERS, name="package", new_head_seed=None):
    """The package of the folder tmp_path/in."""
    output = str(tmp_path / name)
    source = str(tmp_path / "in")
    conversion.import_adapter(source, base, given, output, new_head_seed)
    return adapter_package.read(output)


def refused(tmp_path, base, parts, given=LETTERS):
    """Asserts that tmp_path/in is refused, with `parts` in the message."""
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError) as caught:
        imported(tmp_path, base, given)
    for part in parts:
        assert part in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


# --- what imported adapters compute ---------------------------------------------


def check_logits(package, base, head, config=ADAPTER_CONFIG, weights=None, order=...):
    """Compares a package with numpy; returns the logits [batch, outputs]."""
    weights = random_adapter() if weights is None else weights
    wanted = numpy_logits(random_weights(CONFIG), config, weights, head, BATCH)
    found = package_logits(package, base.init_checkpoint, BATCH)
    np.testing.assert_allclose(found, wanted[:, order], rtol=0, atol=1e-5)
    return wanted


def check_import(tmp_path, base, config, weights, head_config=HEAD_CONFIG):
    """Imports, compares with numpy, and returns the package."""
    head = random_head()
    write_adapter(tmp_path / "in", config, weights, head_config, head)
    package = imported(tmp_path, base)
    wanted = check_logits(package, base, head, config, weights)
    # The adapters matter, and so does the least of what was changed in a test.
    plain = numpy_logits(random_weights(CONFIG), config, {}, head, BATCH)
    assert np.abs(plain - wanted).max() > 0.1
    return package


@pytest.mark.parametrize("activation", list(layout.ACTIVATIONS))
def test_activations(tmp_path, base, activation):
    config = changed(ADAPTER_CONFIG, non_linearity=activation)
    package = check_import(tmp_path, base, config, random_adapter())
    assert package.method.activation == {"gelu": "gelu_erf", "gelu_new": "gelu"}.get(
        activation, activation
    )


@pytest.mark.parametrize("name, ours", [("gelu", "gelu"), ("gelu_orig", "gelu_erf")])
def test_configs_without_a_version(tmp_path, base, name, ours):
    config = changed(ADAPTER_CONFIG, non_linearity=name)
    del config["version"]
    write_adapter(tmp_path / "in", config)
    assert imported(tmp_path, base).method.activation == ours


def test_package_of_an_import(tmp_path, base):
    package = check_import(tmp_path, base, ADAPTER_CONFIG, random_adapter())
    config = package.config
    assert config["task"] == {
        "name": "letters",
        "labels": ["no", "maybe", "yes"],
        "type": "classification",
        "is_regression": False,
        "metrics": ["accuracy", "macro_f1"],
        "text_columns": None,
    }
    assert config["adapter"]["size"] == SIZE
    assert config["origin"] == "adapter mine of AdapterHub (adapters.1.3.0)"
    assert config["do_lower_case"] is True and config["max_seq_length"] == 9
    # Layer norms equal the base model's, which differ from the default and each other.
    ours = random_weights(CONFIG)
    for name, value in package.weights.items():
        if "/LayerNorm/" in name:
            there = name[len("bert/") :].replace("layer_", "layer.").replace("/", ".")
            there = there.replace("gamma", "weight").replace("beta", "bias")
            np.testing.assert_array_equal(value, ours[there])


@pytest.mark.parametrize(
    "model_name, warns",
    [("bert-base-cased", True), ("x/bert-uncased\x1b", False), (3, False), ("", False)],
)
def test_the_model_that_an_adapter_was_trained_on(
    tmp_path, base, monkeypatch, model_name, warns
):
    logged = []
    for level in ("info", "warning"):
        monkeypatch.setattr(
            conversion.logging, level, lambda text, *args: logged.append(text % args)
        )
    write_adapter(tmp_path / "in", dict(ADAPTER_CONFIG, model_name=model_name))
    package = imported(tmp_path, base)
    shown = str(model_name).replace("\x1b", r"\x1b")
    if isinstance(model_name, str) and model_name:
        assert package.config["origin"].endswith(", trained on " + shown)
        assert any("trained on " + shown in text for text in logged)
    else:
        assert package.config["origin"].endswith("(adapters.1.3.0)")
    assert any("`do_lower_case`=True does not fit" in text for text in logged) is warns


@pytest.mark.parametrize(
    "scaling, shape", [(4.0, None), (0.3, None), ("learned", (1,)), ("channel", (H,))]
)
def test_scaling_becomes_part_of_the_weights(tmp_path, base, scaling, shape):
    config = changed(ADAPTER_CONFIG, scaling=scaling)
    check_import(tmp_path, base, config, random_adapter(scaling=shape))


@pytest.mark.parametrize(
    "entries, keep",
    [
        ({"leave_out": [0]}, lambda scope: ".layer.1." in scope),
        ({"mh_adapter": False}, lambda scope: "attention" not in scope),
        ({"output_adapter": False}, lambda scope: "attention" in scope),
    ],
)
def test_sublayers_without_adapters(tmp_path, base, entries, keep):
    weights = {n: v for n, v in random_adapter().items() if keep(n)}
    package = check_import(tmp_path, base, changed(ADAPTER_CONFIG, **entries), weights)
    here = {n: v for n, v in package.weights.items() if "/adapters/" in n}
    zero = [name for name, value in here.items() if not value.any()]
    leaves_out = "leave_out" in entries
    assert package.method.layers == ((1,) if leaves_out else None)
    assert len(weights) == len(here) - len(zero) == 8
    assert len(zero) == (0 if leaves_out else 8)


@pytest.mark.parametrize("activation", ["swish", "sigmoid"])
def test_bottlenecks_of_different_widths(tmp_path, base, activation):
    config = changed(
        ADAPTER_CONFIG,
        reduction_factor={"1": 2, "default": 4},
        non_linearity=activation,
    )
    package = check_import(tmp_path, base, config, random_adapter(sizes={0: 3, 1: 6}))
    assert package.adapter_size == 6


def test_case_that_the_vocabulary_contradicts(tmp_path, base, monkeypatch):
    write_adapter(tmp_path / "in")
    monkeypatch.setattr(tokenization, "detect_lower_case", lambda vocab: False)
    refused(tmp_path, base, ["`do_lower_case`=True does not fit", base.vocab_file])
    given = LETTERS._replace(do_lower_case=True)
    assert imported(tmp_path, base, given).config["do_lower_case"] is True
    given = LETTERS._replace(do_lower_case=False)
    assert imported(tmp_path, base, given, "cased").config["do_lower_case"] is False


def test_other_names_for_the_same_weights(tmp_path, base):
    weights = random_adapter()
    wanted = check_import(tmp_path, base, ADAPTER_CONFIG, weights)

    def old(name):
        task = "layer_text_task_adapters"
        if "attention" in name:
            task = "attention_text_task_adapters"
        return name.replace(".adapters.", ".%s." % task)

    for index, rename in enumerate([lambda n: n[len("bert.") :], old]):
        save_file(
            {rename(name): value for name, value in weights.items()},
            str(tmp_path / "in" / "adapter.safetensors"),
        )
        found = imported(tmp_path, base, name="renamed%d" % index)
        assert found.config["weights"] == wanted.config["weights"]


def test_entries_that_only_shape_a_training(tmp_path, base, monkeypatch):
    config = changed(
        ADAPTER_CONFIG,
        dropout=0.2,
        init_weights="houlsby",
        residual_before_ln=False,
        adapter_residual_before_ln=True,
        new_in_a_later_version=None,
    )
    write_adapter(tmp_path / "in", config)
    logged = []
    monkeypatch.setattr(conversion.logging, "info", lambda *texts: logged.append(texts))
    package = imported(tmp_path, base)
    assert any("Dropout" in text for texts in logged for text in texts[1:2])
    check_logits(package, base, random_head(), config)


def test_invertible_adapters_that_were_never_made(tmp_path, base):
    inverse = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
    config = changed(ADAPTER_CONFIG, invertible_adapter=inverse)
    write_adapter(tmp_path / "in", dict(config, type="text_task"))
    imported(tmp_path, base)
    os.rename(tmp_path / "package", tmp_path / "done")
    config = dict(config, type="text_lang")
    (tmp_path / "in" / "adapter_config.json").write_text(json.dumps(config))
    refused(tmp_path, base, ["inv_adapter", "nice", "embeddings"])


# --- heads and tasks ------------------------------------------------------------


def test_static_head(tmp_path, base):
    head = random_head(2)
    stated = dict(HEAD_CONFIG, config=None, num_labels=2, name=None)
    stated["model_class"] = "BertForSequenceClassification"
    named = dict(zip(("classifier.weight", "classifier.bias"), head.values()))
    write_adapter(tmp_path / "in", head_config=stated, head_weights=named)
    given = LETTERS._replace(labels=["x", "y"])
    check_logits(imported(tmp_path, base, given), base, head)
    stated["model_class"] = "BertForTokenClassification"
    (tmp_path / "in" / "head_config.json").write_text(json.dumps(stated))
    shutil.rmtree(tmp_path / "package")
    refused(tmp_path, base, ['model_class is "BertForTokenClassification", it must be'])


def test_head_without_bias(tmp_path, base):
    head = random_head()
    write_adapter(
        tmp_path / "in",
        head_config=changed(HEAD_CONFIG, bias=False),
        head_weights={n: v for n, v in head.items() if "bias" not in n},
    )
    assert not imported(tmp_path, base).weights["output_bias"].any()


def test_regression(tmp_path, base):
    head = random_head(1)
    write_adapter(
        tmp_path / "in",
        head_config=changed(HEAD_CONFIG, num_labels=1, label2id={"LABEL_0": 0}),
        head_weights=head,
    )
    for given in (SCORES, LETTERS):
        package = imported(tmp_path, base, given, given.name or "sts-b")
        assert package.task_type == Regression() and package.labels == []
        assert package.config["task"]["metrics"] == ["spearman", "pearson"]
        check_logits(package, base, head, order=[0])
    for given, part in (
        (LETTERS._replace(labels=["a"]), "must be left out"),
        (LETTERS._replace(task=GLUE_TASKS["mrpc"]), "task mrpc needs 2"),
    ):
        refused(tmp_path, base, [part], given)


@pytest.mark.parametrize(
    "label2id, labels",
    [
        ({"entailment": 0, "neutral": 1, "contradiction": 2}, None),
        (None, ["entailment", "neutral", "contradiction"]),
        ({"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, ["entailment", "neutral", None]),
        ({"x": 2, "y": 0, "z": 1}, ["entailment", "neutral", "contradiction"]),
    ],
)
def test_labels_come_into_the_tasks_order(tmp_path, base, label2id, labels):
    labels = labels and [label or "contradiction" for label in labels]
    head = random_head()
    write_adapter(
        tmp_path / "in",
        head_config=changed(HEAD_CONFIG, label2id=label2id),
        head_weights=head,
    )
    given = LETTERS._replace(task=GLUE_TASKS["mnli"], labels=labels)
    package = imported(tmp_path, base, given)
    assert package.task == "mnli"
    assert package.labels == ["contradiction", "entailment", "neutral"]
    check_logits(package, base, head, order=[2, 0, 1])


@pytest.mark.parametrize(
    "label2id, given, parts",
    [
        (None, {"task": GLUE_TASKS["mnli"]}, ["`labels`=contradiction"]),
        (
            {"x": 0, "y": 1, "z": 2},
            {"task": GLUE_TASKS["mnli"]},
            ["x, y, z", "`labels`=contradiction"],
        ),
        (None, {"task": GLUE_TASKS["rte"]}, ["3 outputs", "task rte needs 2"]),
        (None, {}, ["`task_name`=letters", "`labels`"]),
        (None, {"labels": ["a", "b", "a"]}, ["`labels`=a,b,a"]),
        (None, {"labels": ["a", "", "b"]}, ["`labels`=a,,b"]),
        (
            None,
            {"task": GLUE_TASKS["mnli"], "labels": ["a", "b", "c"]},
            ["`labels`=a,b,c", "not the labels of `task_name`=mnli"],
        ),
        (
            {"a": 0, "b": 1, "c": 2},
            {"labels": ["b", "a", "c"]},
            ["`labels`=b,a,c", "in the order a,b,c"],
        ),
        ({"a": 0, "b": 1, "c": 5}, {}, ["label2id", "0 to 2"]),
        (None, {"max_seq_length": 10, "labels": ["a", "b", "c"]}, ["length 10", "9"]),
        (None, {"max_seq_length": 2, "labels": ["a", "b", "c"]}, ["seq_length`=2"]),
    ],
)
def test_tasks_that_do_not_fit(tmp_path, base, label2id, given, parts):
    head_config = changed(HEAD_CONFIG, label2id=label2id)
    write_adapter(tmp_path / "in", head_config=head_config)
    refused(tmp_path, base, parts, LETTERS._replace(**given))


@pytest.mark.parametrize(
    "entry, value",
    [
        ("use_pooler", 3),
        ("layers", 3),
        ("activation_function", "leakyrelu"),
        ("head_type", "tagging"),
        ("later", [1]),
        ("num_labels", 0),
    ],
)
def test_entries_of_heads_that_are_refused(tmp_path, base, entry, value):
    head_config = changed(HEAD_CONFIG, **{entry: value})
    write_adapter(tmp_path / "in", head_config=head_config)
    refused(
        tmp_path, base, ["head_config.json", "%s is %s" % (entry, json.dumps(value))]
    )
    # The adapters can be imported with a new head.
    options = LETTERS._replace(labels=["a", "b"])
    package = imported(tmp_path, base, options, new_head_seed=0)
    assert package.weights["output_weights"].shape == (2, H)
    assert 0 < np.abs(package.weights["output_weights"]).max() < 0.04
    assert package.labels == ["a", "b"]


def test_head_defaults_of_old_configs(tmp_path, base):
    """Entries that are missing are those of a head of two layers without pooler."""
    head_config = changed(HEAD_CONFIG)
    for entry in ("use_pooler", "layers", "bias"):
        del head_config["config"][entry]
    write_adapter(tmp_path / "in", head_config=head_config)
    refused(tmp_path, base, ["heads.mine.4.weight is missing", "[3, 12]", "[12, 12]"])
    head_config["config"]["head_type"] = "question_answering"
    head_config["config"]["layers"] = 2
    (tmp_path / "in" / "head_config.json").write_text(json.dumps(head_config))
    refused(tmp_path, base, ["layers is 2, it must be 1: its head is linear here"])


def test_no_head(tmp_path, base):
    write_adapter(tmp_path / "in", head_config=None)
    refused(tmp_path, base, ["no head", "`new_head`"])
    options = LETTERS._replace(task=GLUE_TASKS["cola"])
    heads = [
        imported(tmp_path, base, options, str(i), seed).weights["output_weights"]
        for i, seed in enumerate([5, 5, 6])
    ]
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])
    with pytest.raises(UserError, match=r'`labels`.* 1 output: .*\["a"\]') as caught:
        imported(tmp_path, base, LETTERS._replace(labels=["a"]), "x", new_head_seed=0)
    assert "input_dir" not in str(caught.value)


# --- what is refused ------------------------------------------------------------


@pytest.mark.parametrize(
    "entry, value",
    [
        ("is_parallel", "beside"),
        ("ln_before", True),
        ("use_gating", True),
        ("cross_adapter", True),
        ("residual_before_ln", "post_add"),
        ("inv_adapter", "nice"),
        ("architecture", "prefix_tuning"),
        ("non_linearity", "leakyrelu"),
        ("non_linearity", None),
        ("leave_out", 3),
        ("reduction_factor", None),
        ("reduction_factor", {"0": 3}),
        ("reduction_factor", 1e-300),
        ("gate_of_a_later_version", "x"),
    ],
)
def test_entries_of_adapters_that_are_refused(tmp_path, base, entry, value):
    write_adapter(tmp_path / "in", changed(ADAPTER_CONFIG, **{entry: value}))
    refused(
        tmp_path, base, ["adapter_config.json", "%s is %s" % (entry, json.dumps(value))]
    )


@pytest.mark.parametrize(
    "entries, parts",
    [
        ({"is_parallel": True}, ["mh_adapter is true", "beside the feed-forward"]),
        ({"original_ln_before": True}, ["mh_adapter is true", "pfeiffer"]),
        (
            {
                "original_ln_before": True,
                "mh_adapter": False,
                "residual_before_ln": False,
            },
            ["residual_before_ln is false"],
        ),
        ({"scaling": 1e39}, ["beyond float32"]),
        ({"leave_out": [0, 1]}, ["no adapter in any layer"]),
        ({"reduction_factor": 2}, ["[4, 12]", "[6, 12]"]),
        ({"leave_out": [1]}, ["layer.1.attention.output.adapters.mine", "not part"]),
        ({"scaling": "learned"}, ["adapters.mine.scaling is missing"]),
    ],
)
def test_weights_that_the_config_does_not_describe(tmp_path, base, entries, parts):
    write_adapter(tmp_path / "in", changed(ADAPTER_CONFIG, **entries))
    refused(tmp_path, base, parts)


@pytest.mark.parametrize(
    "entries, part",
    [
        ({"model_type": "roberta"}, 'model_type is "roberta"'),
        ({"hidden_size": 768}, "hidden_size is 768"),
        ({"name": None}, "name is null"),
        ({"name": "other"}, "adapters.other.adapter_down"),
    ],
)
def test_files_that_are_refused(tmp_path, base, entries, part):
    write_adapter(tmp_path / "in", dict(ADAPTER_CONFIG, **entries))
    refused(tmp_path, base, ["in", part])


KEY = "bert.encoder.layer.0.output.adapters.mine.adapter_up.weight"


@pytest.mark.parametrize(
    "change, parts",
    [
        (lambda w: w.pop(KEY), [KEY[5:] + " is missing"]),
        (lambda w: w.update({KEY: w[KEY][:, :3].copy()}), ["[12, 3]", "[12, 4]"]),
        (lambda w: w.update({KEY[5:]: w[KEY]}), ["twice"]),
        (lambda w: w.update({KEY: w[KEY].astype(np.int32)}), ["I32", "F32"]),
        (lambda w: w[KEY].fill(np.inf), [KEY, "infinite"]),
        (
            lambda w: w.update({"bert.invertible_adapters.mine.F.0.bias": w[KEY]}),
            ["inv_adapter", "embeddings"],
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, base, change, parts):
    weights = random_adapter()
    change(weights)
    write_adapter(tmp_path / "in", weights=weights)
    refused(tmp_path, base, parts)


@pytest.mark.parametrize(
    "name, content, part",
    [
        ("adapter_config.json", None, "it has no adapter_config.json"),
        ("adapter_config.json", b"{", "JSON"),
        ("adapter.safetensors", None, "no adapter.safetensors or pytorch"),
        ("adapter.safetensors", b"\xff" * 50, "damaged"),
        ("head_config.json", b"3", "JSON object"),
        ("head_config.json", b'{"config": 3}', "config is 3, it must be an object"),
        (
            "head_config.json",
            b'{"config": null, "model_class": []}',
            "model_class is []",
        ),
        ("model_head.safetensors", None, "no model_head.safetensors or"),
    ],
)
def test_damaged_files(tmp_path, base, name, content, part):
    write_adapter(tmp_path / "in")
    path = tmp_path / "in" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    refused(tmp_path, base, ["in", part])


@pytest.mark.parametrize("old", [False, True])
def test_weights_in_files_of_pytorch(tmp_path, base, old):
    write_adapter(tmp_path / "in")
    wanted = imported(tmp_path, base, name="wanted")
    for stem, values in (
        ("adapter", random_adapter()),
        ("model_head", random_head()),
    ):
        (tmp_path / "in" / (stem + ".safetensors")).unlink()
        path = tmp_path / "in" / ("pytorch_%s.bin" % stem)
        torch_layout.save(path, values, old)
    found = imported(tmp_path, base, name="found")
    assert found.config["weights"] == wanted.config["weights"]


def test_output_that_is_there(tmp_path, base):
    write_adapter(tmp_path / "in")
    imported(tmp_path, base)
    before = (tmp_path / "package" / "adapter.safetensors").read_bytes()
    save_file(random_adapter(9), str(tmp_path / "in" / "adapter.safetensors"))
    refused(tmp_path, base, ["`output_dir`", "nothing is overwritten"])
    with pytest.raises(UserError, match="nothing is overwritten"):
        conversion.export_adapter(
            str(tmp_path / "package"), str(tmp_path / "in"), "adapterhub"
        )
    assert (tmp_path / "package" / "adapter.safetensors").read_bytes() == before


# --- export ---------------------------------------------------------------------


def test_export_and_import_again(tmp_path, base):
    write_adapter(tmp_path / "in")
    first = imported(tmp_path, base)
    conversion.export_adapter(first.path, str(tmp_path / "out"), "adapterhub")
    # Bit for bit what came in, under the name of the task.
    weights = load_file(str(tmp_path / "out" / "adapter.safetensors"))
    there = {
        name.replace(".%s." % NAME, ".letters."): value
        for name, value in random_adapter().items()
    }
    assert weights.keys() == there.keys()
    assert all(np.array_equal(weights[name], there[name]) for name in there)
    head = load_file(str(tmp_path / "out" / "model_head.safetensors"))
    assert sorted(head) == ["heads.letters.1.bias", "heads.letters.1.weight"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    stated = config.pop("config")
    assert config.items() <= {**ADAPTER_CONFIG, **config}.items()
    assert config["version"].startswith("adapters.")  # Else "gelu" is another one.
    assert {entry: ADAPTER_CONFIG["config"][entry] for entry in stated} == stated
    stated = json.loads((tmp_path / "out" / "head_config.json").read_text())["config"]
    assert stated["label2id"] == HEAD_CONFIG["config"]["label2id"]
    assert stated["use_pooler"] is True and stated["layers"] == 1
    os.rename(tmp_path / "in", tmp_path / "first")
    os.rename(tmp_path / "out", tmp_path / "in")
    again = imported(tmp_path, base, name="again")
    assert again.config["weights"] == first.config["weights"]
    assert again.config["task"] == first.config["task"]
    assert again.config["base"] == first.config["base"]


def test_layer_norms_travel_with_the_base(tmp_path):
    """Exports a package, and imports it on the base model with its layer norms."""
    flags = small_packages.write_base(tmp_path / "base")
    base = base_model.BaseFiles(**flags)
    task = small_packages.FOUR_TASKS[2]
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    conversion.export_adapter(folder, str(tmp_path / "in"), "adapterhub")
    conversion.write_model(base, str(tmp_path / "hf"), folder)
    conversion.convert(str(tmp_path / "hf"), str(tmp_path / "merged"))
    merged = base._replace(init_checkpoint=str(tmp_path / "merged" / "bert_model.ckpt"))
    given = package_conversion.PackageOptions(name=task.name, max_seq_length=16)
    before = adapter_package.read(folder)
    after = imported(tmp_path, merged, given, "again")
    assert after.config["weights"] == before.config["weights"]
    assert after.config["base"] == before.config["base"]
    plain = imported(tmp_path, base, given, "plain")
    assert plain.config["weights"] != before.config["weights"]


def test_adapters_of_some_layers_are_left_out_of_the_others(tmp_path):
    flags = small_packages.write_base(tmp_path / "base")
    upper = adapters.Adapters(4, None, (1,))
    task = small_packages.Task("upper", 4, ("a", "b"), other_method=upper)
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    conversion.export_adapter(folder, str(tmp_path / "in"), "adapterhub")
    config = json.loads((tmp_path / "in" / "adapter_config.json").read_text())["config"]
    assert config["leave_out"] == [0]
    assert "adapters in layers 1," in (tmp_path / "in" / "README.md").read_text()
    given = package_conversion.PackageOptions(name=task.name, max_seq_length=16)
    after = imported(tmp_path, base_model.BaseFiles(**flags), given, "again")
    before = adapter_package.read(folder)
    assert after.method.layers == before.method.layers
    assert after.weights.keys() == before.weights.keys()
    for name in after.weights:
        if "/adapters/" in name:
            assert np.array_equal(after.weights[name], before.weights[name])
    head = small_packages.Task("head", 1, ("a", "b"), other_method=HEAD_ALONE)
    folder = small_packages.write_package(tmp_path / "head", flags, head)
    with pytest.raises(UserError, match=r"holds head \(`train_policy`"):
        conversion.export_adapter(folder, str(tmp_path / "out"), "adapterhub")
    assert not (tmp_path / "out").exists()


def test_layers_of_a_package_become_part_of_a_base(tmp_path):
    flags = small_packages.write_base(tmp_path / "base")
    task = small_packages.Task("top", 1, ("a", "b"), other_method=top_k.TopK((1,)))
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    conversion.write_model(
        base_model.BaseFiles(**flags), str(tmp_path / "hf"), folder, keep_head=True
    )
    package = adapter_package.read(folder)
    stored = load_file(str(tmp_path / "hf" / "model.safetensors"))
    kernel = package.weights["bert/encoder/layer_1/output/dense/kernel"]
    np.testing.assert_array_equal(
        stored["bert.encoder.layer.1.output.dense.weight"], kernel.T
    )
    np.testing.assert_array_equal(
        stored["classifier.weight"], package.weights["output_weights"]
    )
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["id2label"] == {"0": "a", "1": "b"}


@pytest.mark.parametrize(
    "size, factor", [(4, 3), (12, 1), (24, 0.5), (5, None), (7, None), (100, None)]
)
def test_reduction_factors(size, factor):
    found = adapterhub_adapters._reduction_factor(H, size)
    assert int(H // found) == size
    assert factor in (None, found)
    # Factors for other widths too, as the library reads them from JSON.
    for width in (384, 768, 1024):
        found = json.loads(
            json.dumps(adapterhub_adapters._reduction_factor(width, size))
        )
        assert int(width // found) == size


def test_name_that_pytorch_can_have(tmp_path):
    flags = small_packages.write_base(tmp_path / "base")
    task = small_packages.Task("a.b/c d-e", 3, ("x", "y"))
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    conversion.export_adapter(folder, str(tmp_path / "out"), "adapterhub")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["name"] == "a_b_c_d-e"
    names = load_file(str(tmp_path / "out" / "adapter.safetensors"))
    assert len(names) == 4 * 2 * LAYERS
    assert all(".adapters.a_b_c_d-e.adapter_" in name for name in names)


# --- the program ----------------------------------------------------------------


def test_program(tmp_path, base):
    write_adapter(tmp_path / "in", changed(ADAPTER_CONFIG, scaling=0.5))
    done = programs.run(
        "convert_checkpoint.py",
        "--to=package",
        "--input_dir=%s" % (tmp_path / "in"),
        "--task_name=letters",
        "--max_seq_length=9",
        "--nodo_lower_case",
        *("--%s=%s" % item for item in base._asdict().items()),
        "--output_dir=%s" % (tmp_path / "package"),
    )
    assert done.returncode == 0, done.stderr
    assert "layer norms are those of --init_checkpoint" in done.stderr
    assert "scaling, 0.5" in done.stderr
    package = adapter_package.read(str(tmp_path / "package"))
    assert package.config["do_lower_case"] is False
    done = programs.run(
        "convert_checkpoint.py",
        "--to=adapterhub",
        "--adapters=%s" % package.path,
        "--output_dir=%s" % (tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out" / "README.md").read_text()
