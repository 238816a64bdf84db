"""LoRA from and to peft's format: what is refused, and what the files say.

What imported LoRA computes: test_recorded.py.
"""

import json
import os
import shutil

import hf_layout
import numpy as np
import pytest
import torch_layout
from adapterhub_layout import package_logits, write_base
from hf_layout import CONFIG, numpy_bert, random_batch
from safetensors.numpy import load_file, save_file

from errors import UserError
from exchange import conversion, hf_files, hugging_face
from glue_data import GLUE_TASKS
from tests import programs, small_packages
from tests.exchange import test_recorded
from tests.exchange.test_recorded import DATA
from tuning import adapters, bitfit, lora
from weights import adapter_package, base_model, checkpoints, package_conversion

QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"

NORM = "base_model.model.bert.encoder.layer.0.output.LayerNorm.bias"
BIAS = "base_model.model.classifier.bias"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("exchange") / "base")


def write_peft(folder, entries=None, change=None, source="peft_default"):
    """Writes a recorded folder with other entries and tensors; returns its path."""
    shutil.copytree(DATA / source, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(entries or {})}))
    if change:
        path = folder / "adapter_model.safetensors"
        weights = load_file(str(path))
        change(weights)
        save_file(weights, str(path))
    return str(folder)


def imported(folder, base, output, **options):
    given = {"name": "letters", "labels": ["a", "b", "c"], "max_seq_length": 9}
    options = package_conversion.PackageOptions(**{**given, **options})
    conversion.import_adapter(folder, base, options, str(output))
    return adapter_package.read(str(output))


@pytest.mark.parametrize(
    "entries, part",
    [
        ({"peft_type": "IA3"}, 'peft_type is "IA3"'),
        ({"peft_type": None}, "peft_type is null"),
        ({"use_dora": True}, "use_dora is true"),
        ({"bias": "all"}, 'bias is "all"'),
        ({"init_lora_weights": 1}, "init_lora_weights is 1"),
        ({"init_lora_weights": "pissa"}, "others change the base model's weights"),
        ({"layer_replication": [[0, 1]]}, "missing: layers are not repeated here"),
        (
            {"trainable_token_indices": [1]},
            "missing: packages of LoRA have no place for",
        ),
        (
            {"target_parameters": ["a"]},
            "missing: packages of LoRA have no place for it",
        ),
        ({"alora_invocation_tokens": [1]}, "missing: LoRA alone is supported here"),
        ({"rank_pattern": {"(a*)*$": 2}}, "(a*)*$"),
        ({"rank_pattern": {"query": 0}}, "rank_pattern.query is 0"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"r": 3}, "has shape [2, 12], by the config it is [3, 12]"),
        ({"lora_alpha": 1e300}, "lora_alpha is 1e+300"),
        ({"alpha_pattern": {"query": 5e-324}}, "alpha_pattern.query is 5e-324"),
        ({"of_a_later_version": 1}, "of_a_later_version is 1"),
        ({"task_type": "TOKEN_CLS"}, 'task_type is "TOKEN_CLS", it must be "SEQ_CLS"'),
        (
            {"auto_mapping": {"base_model_class": "BertForMultipleChoice"}},
            'auto_mapping.base_model_class is "BertForMultipleChoice"',
        ),
    ],
)
def test_configs_that_are_refused(tmp_path, base, entries, part):
    folder = write_peft(tmp_path / "in", entries)
    with pytest.raises(UserError) as caught:
        imported(folder, base, tmp_path / "out")
    assert part in str(caught.value)
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda w: w.pop(QUERY), "query.lora_A.weight is missing"),
        (
            # As target_modules="all-linear" does.
            lambda w: w.update(
                {"base_model.model.bert.pooler.dense.lora_A.weight": w[QUERY]}
            ),
            "bert.pooler.dense.lora_A.weight: packages of LoRA have no place for it",
        ),
        (
            lambda w: w.update({QUERY.replace("layer.0", "layer.2"): w[QUERY]}),
            "query.lora_A.weight is not part of it",
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if "lora" in name],
            "no LoRA matrices",
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if "classifier" in name],
            "has no head",
        ),
        (
            # As modules_to_save=["LayerNorm"] does.
            lambda w: w.update({NORM: w[BIAS]}),
            "LayerNorm.bias: packages of LoRA have no place for it",
        ),
        (lambda w: w.pop(BIAS), "it has (3, 12) and None"),
        (lambda w: w.update({BIAS: np.array(w[BIAS][0])}), "it has (3, 12) and ()"),
        (
            lambda w: w.update({"base_model.model.qa_outputs.bias": w[BIAS]}),
            "holds 2 heads",
        ),
        (lambda w: w[QUERY].fill(np.inf), "infinite"),
    ],
)
def test_weights_that_are_refused(tmp_path, base, change, part):
    folder = write_peft(tmp_path / "in", change=change)
    with pytest.raises(UserError) as caught:
        imported(folder, base, tmp_path / "out")
    assert part in str(caught.value)
    assert os.listdir(tmp_path) == ["in"]


def test_patterns_are_regular_expressions(tmp_path, base):
    found = []
    for number, pattern in enumerate(["self.query", "self..uery", "self.uery"]):
        entries = {"alpha_pattern": {pattern: 24}}
        folder = write_peft(tmp_path / ("in%d" % number), entries)
        package = imported(folder, base, tmp_path / ("out%d" % number))
        found.append({n: w.tobytes() for n, w in package.weights.items()})
    assert found[0] == found[1] != found[2]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_scaled_weights_beyond_float32(tmp_path, base):
    up = QUERY.replace("lora_A", "lora_B")
    folder = write_peft(
        tmp_path / "in",
        {"alpha_pattern": {up.split(".", 2)[2].removesuffix(".lora_B.weight"): 1e6}},
        lambda weights: weights.update({up: weights[up] * 1e35}),
    )
    with pytest.raises(UserError, match="beyond float32"):
        imported(folder, base, tmp_path / "out")


@pytest.mark.parametrize(
    "source, options, part",
    [
        ("peft_questions", {}, "`labels`"),
        (
            "peft_questions",
            {"task": GLUE_TASKS["cola"], "labels": None},
            "cola needs 2",
        ),
        ("peft_questions", {"labels": None}, "leaves no room"),
        ("peft_number", {}, "do not suit a head with 1 output: "),
        ("peft_default", {"labels": None}, "`labels`=A,B"),
        ("peft_default", {"labels": ["a", "b"]}, "needs 2 of BertForSequence"),
    ],
)
def test_heads_of_other_tasks(tmp_path, base, source, options, part):
    folder = write_peft(tmp_path / "in", source=source)
    with pytest.raises(UserError) as caught:
        imported(folder, base, tmp_path / "out", **options)
    assert part in str(caught.value)


def test_labels_come_into_the_tasks_order(tmp_path, base):
    folder = write_peft(tmp_path / "in")
    labels = ["neutral", "contradiction", "entailment"]
    package = imported(
        *(folder, base, tmp_path / "out"), task=GLUE_TASKS["mnli"], labels=labels
    )
    weights = load_file(str(tmp_path / "in" / "adapter_model.safetensors"))
    bias = weights["base_model.model.classifier.bias"]
    assert package.labels == sorted(labels)
    np.testing.assert_array_equal(package.weights["output_bias"], bias[[1, 2, 0]])


def test_package_of_an_import(tmp_path, base, monkeypatch):
    reads, read = [], hf_files.read_tensors
    monkeypatch.setattr(hf_files, "read_tensors", lambda t: reads.append(t) or read(t))
    entries = {"base_model_name_or_path": "bert-base-cased", "lora_dropout": 0.1}
    folder = write_peft(tmp_path / "in", entries)
    package = imported(folder, base, tmp_path / "out")
    assert len(reads) == 1  # The head's weights are in the same file.
    config = package.config
    assert config["train_policy"] == "lora:2"
    assert config["adapter"]["alpha"] == 8
    assert config["adapter"]["targets"] == ["query", "value"]
    assert config["origin"].startswith("LoRA of peft (0.")
    assert config["origin"].endswith(", trained on bert-base-cased")
    assert not [name for name in package.weights if "LayerNorm" in name]


def test_weights_in_files_of_pytorch(tmp_path, base):
    folder = write_peft(tmp_path / "in")
    wanted = imported(folder, base, tmp_path / "wanted")
    path = tmp_path / "in" / "adapter_model.safetensors"
    torch_layout.save(
        tmp_path / "in" / "adapter_model.bin", load_file(str(path)), False
    )
    path.unlink()
    found = imported(folder, base, tmp_path / "found")
    assert found.config["weights"] == wanted.config["weights"]


def test_export(tmp_path):
    flags = small_packages.write_base(tmp_path / "base")
    method = lora.Lora(3, 6.0, ("key", "output"))
    task = small_packages.Task("two", 1, ("x", "y"), other_method=method)
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    conversion.export_adapter(folder, str(tmp_path / "out"), "peft")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == 3 and config["lora_alpha"] == 6
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["classifier"]
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "num_labels=2" in readme and "layer norms" not in readme
    package = imported(
        *(str(tmp_path / "out"), base_model.BaseFiles(**flags), tmp_path / "again"),
        labels=["x", "y"],
    )
    before = adapter_package.read(folder)
    assert package.config["weights"] == before.config["weights"]
    assert package.config["adapter"] == before.config["adapter"]
    other = small_packages.Task("bits", 1, ("x", "y"), other_method=bitfit.BitFit())
    folder = small_packages.write_package(tmp_path / "bits", flags, other)
    for library in ("peft", "adapterhub"):
        with pytest.raises(UserError, match="has no place"):
            conversion.export_adapter(folder, str(tmp_path / "x"), library)
    method = lora.Lora(3, 6.0, ("attention_output",))
    other = small_packages.Task("low", 1, ("x", "y"), other_method=method)
    folder = small_packages.write_package(tmp_path / "low", flags, other)
    with pytest.raises(UserError, match="attention's output"):
        conversion.export_adapter(folder, str(tmp_path / "x"), "adapterhub")


@pytest.mark.parametrize(
    "name", ["peft_default", "peft_all", "peft_questions", "peft_number"]
)
def test_a_merged_model_for_transformers(tmp_path, base, name):
    package = test_recorded.import_case(
        name, str(DATA / name), base, str(tmp_path / "package")
    )
    conversion.write_model(base, str(tmp_path / "hf"), package.path, keep_head=True)
    weights = load_file(str(tmp_path / "hf" / "model.safetensors"))
    encoder = {
        key.removeprefix("bert."): value
        for key, value in weights.items()
        if key.startswith("bert.")
    }
    sequence, pooled = numpy_bert(CONFIG, encoder, *random_batch(CONFIG))
    layer = "qa_outputs" if "questions" in name else "classifier"
    output = sequence if "questions" in name else pooled
    found = output @ weights[layer + ".weight"].T + weights[layer + ".bias"]
    if "questions" in name:
        found = np.moveaxis(found, 2, 1)
    wanted = package_logits(package, base.init_checkpoint, random_batch(CONFIG))
    if "questions" in name:
        mask = random_batch(CONFIG)[1][:, None]
        found, wanted = found * mask, wanted * mask
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    # And back, as a checkpoint with its head.
    conversion.convert(str(tmp_path / "hf"), str(tmp_path / "back"), keep_head=True)
    again = test_recorded.base_files(tmp_path / "back")
    # A run's checkpoint holds the optimizer's state too.
    stored = checkpoints.Checkpoint(again.init_checkpoint)
    values = dict(stored.iterate_values(stored.shapes))
    values.update({each + "/adam_m": values[each] for each in list(values)})
    values["global_step"] = np.int64(3)
    (tmp_path / "run").mkdir()
    again = again._replace(init_checkpoint=str(tmp_path / "run" / "model.ckpt-3"))
    checkpoints.write(again.init_checkpoint, values)
    conversion.write_model(again, str(tmp_path / "hf2"), keep_head=True)
    stored = load_file(str(tmp_path / "hf2" / "model.safetensors"))
    assert all(np.array_equal(stored[key], weights[key]) for key in weights)
    architectures = {
        "classifier": "SequenceClassification",
        "qa_outputs": "QuestionAnswering",
    }
    config = json.loads((tmp_path / "hf2" / "config.json").read_text())
    assert config["architectures"] == ["BertFor" + architectures[layer]]


@pytest.mark.parametrize(
    "files, part",
    [
        ({}, "it has no adapter_config.json"),
        ({"config.json": "{}"}, "`to`=checkpoint"),
        ({"adapter_config.json": "{}"}, "is of neither library"),
        ({"adapter_config.json": '{"format": "adapter-bert"}'}, "package already"),
        ({"model.ckpt-3.index": ""}, "manage_adapters.py export"),
        ({"default/adapter_config.json": "{}"}, "its folder default has one"),
    ],
)
def test_folders_of_something_else(tmp_path, base, files, part):
    (tmp_path / "in" / "default").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "in" / name).write_text(content)
    with pytest.raises(UserError) as caught:
        imported(str(tmp_path / "in"), base, tmp_path / "out")
    assert part in str(caught.value)


def test_program(tmp_path, base):
    files = ["--%s=%s" % item for item in base._asdict().items()]
    done = programs.run(
        "convert_checkpoint.py",
        "--to=package",
        "--input_dir=%s" % write_peft(tmp_path / "in", source="peft_questions"),
        *("--task_name=squad", "--max_seq_length=9", "--max_query_length=2"),
        *("--doc_stride=3", "--version_2_with_negative", *files),
        "--null_score_diff_threshold=-1.5",
        "--output_dir=%s" % (tmp_path / "package"),
    )
    assert done.returncode == 0, done.stderr
    assert "without segment ids" in done.stderr
    package = adapter_package.read(str(tmp_path / "package"))
    task = package.config["task"]
    assert task["doc_stride"] == 3 and task["max_query_length"] == 2
    assert task["version_2_with_negative"] is True
    assert task["null_score_diff_threshold"] == -1.5
    assert task["text_columns"] == ["question", "context"]
    assert task["metrics"] == ["exact", "f1"]
    done = programs.run(
        "convert_checkpoint.py",
        *("--to=huggingface", "--keep_head", *files),
        "--adapters=%s" % package.path,
        "--output_dir=%s" % (tmp_path / "hf"),
    )
    assert done.returncode == 0, done.stderr
    stored = load_file(str(tmp_path / "hf" / "model.safetensors"))
    head = package.weights["cls/squad/output_weights"]
    np.testing.assert_array_equal(stored["qa_outputs.weight"], head)


def test_a_model_of_questions_has_no_pooler(tmp_path):
    """As `BertForQuestionAnswering` saves it."""
    weights = {"bert." + n: v for n, v in hf_layout.random_weights(CONFIG).items()}
    del weights["bert.pooler.dense.weight"], weights["bert.pooler.dense.bias"]
    random = np.random.RandomState(3)
    weights["qa_outputs.weight"] = random.normal(size=(2, 12)).astype(np.float32)
    weights["qa_outputs.bias"] = np.float32([1, -1])
    source = hf_layout.write_encoder(tmp_path / "in", weights=weights)
    with pytest.raises(UserError, match="question answering does not read"):
        conversion.convert(source, str(tmp_path / "out"), keep_head=True)
    conversion.convert(source, str(tmp_path / "out"), True, keep_head=True)
    stored = checkpoints.Checkpoint(str(tmp_path / "out" / "bert_model.ckpt"))
    for name, layer in (("weights", "weight"), ("bias", "bias")):
        found = stored.read_value("cls/squad/output_" + name)
        np.testing.assert_array_equal(found, weights["qa_outputs." + layer])


def test_heads_that_cannot_be_kept(tmp_path, base):
    flags = small_packages.write_base(tmp_path / "base")
    folder = small_packages.write_package(
        tmp_path / "package", flags, small_packages.FOUR_TASKS[0]
    )
    given = base_model.BaseFiles(**flags)
    for arguments, part in (
        ((given, str(tmp_path / "x"), folder), "not merged; use `to`=adapterhub$"),
        ((given, str(tmp_path / "x")), "holds 0 heads"),
    ):
        with pytest.raises(UserError, match=part):
            conversion.write_model(*arguments, keep_head=True)
    pfeiffer = adapters.Adapters(3, None, placement="pfeiffer")
    task = small_packages.Task("one", 3, ("a", "b"), other_method=pfeiffer)
    folder = small_packages.write_package(tmp_path / "one", flags, task)
    with pytest.raises(UserError, match="no layer norms: leave it out"):
        conversion.write_model(given, str(tmp_path / "x"), folder)
    conversion.write_model(given, str(tmp_path / "plain"))
    with pytest.raises(UserError, match="holds 0 heads"):
        conversion.convert(str(tmp_path / "plain"), str(tmp_path / "x"), keep_head=True)
    assert not (tmp_path / "x").exists()
    assert hugging_face.CONFIG_NAME in os.listdir(tmp_path / "plain")
