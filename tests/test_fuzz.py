"""Damaged weights and settings of strangers: read, or refused with one message."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil

import adapterhub_layout
import hf_layout
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modeling
from exchange import adapterhub_format, conversion, peft_format
from system import files
from tests import small_packages
from tests.fuzzing import (
    bounded_memory,  # noqa: F401  (a fixture)
    changed_bytes,
    changed_document,
    changed_json,
    changed_safetensors,
    fuzzed,
    read_or_refuse,
)
from tests.places import ROOT
from tuning import adapters
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    model_variables,
    package_checks,
    package_conversion,
    package_report,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_packages.write_base(tmp_path_factory.mktemp("fuzz") / "bert")


@pytest.fixture(scope="module")
def written(tmp_path_factory, base):
    """A sound package."""
    task = small_packages.Task("pair", 4, ("no", "yes"))
    folder = tmp_path_factory.mktemp("fuzz") / "package"
    return pathlib.Path(small_packages.write_package(folder, base, task))


@pytest.fixture
def package(tmp_path, written):
    """A package to damage."""
    return pathlib.Path(shutil.copytree(written, tmp_path / "package"))


def check_package(folder):
    found = read_or_refuse(adapter_package.read, str(folder))
    if found is not None:
        lines = package_report.format_summary(found)
        lines += package_report.format_table([found, found])
        assert all(line.isprintable() for line in lines)
        assert all(np.isfinite(value).all() for value in found.weights.values())


# --- the readers ----------------------------------------------------------------


@fuzzed
@given(data=st.data())
def test_json(data):
    text = changed_json(data.draw, {"a": [1, 2.5, {"b": None}], "c": "d"})
    with contextlib.suppress(ValueError):
        assert isinstance(files.parse_json_object(text), dict)


@fuzzed
@given(data=st.data())
def test_bert_config(base, data):
    path = pathlib.Path(base["bert_config_file"]).with_name("changed.json")
    seed = json.loads(pathlib.Path(base["bert_config_file"]).read_text())
    path.write_bytes(changed_json(data.draw, seed))
    config = read_or_refuse(modeling.BertConfig.from_json_file, str(path))
    if config is not None:
        modeling.BertConfig.from_dict(config.to_dict()).validate("again")
        method = adapters.Adapters(data.draw(st.integers(1)))
        read_or_refuse(method.check, config)


@fuzzed
@given(data=st.data())
def test_bytes_of_a_package(package, written, data):
    for name in (adapter_package.CONFIG_NAME, adapter_package.WEIGHTS_NAME):
        sound = (written / name).read_bytes()
        (package / name).write_bytes(changed_bytes(data.draw, sound))
    check_package(package)


def forge_digests(package, config):
    weights = (package / adapter_package.WEIGHTS_NAME).read_bytes()
    if isinstance(config.get("weights"), dict):
        config["weights"].setdefault("bytes", len(weights))
        config["weights"].setdefault("sha256", hashlib.sha256(weights).hexdigest())
    config["sha256"] = package_checks.config_digest(config)
    path = package / adapter_package.CONFIG_NAME
    path.write_text(json.dumps(config))


@fuzzed
@given(data=st.data())
def test_config_of_a_package_with_digests_that_fit(package, written, data):
    seed = json.loads((written / adapter_package.CONFIG_NAME).read_bytes())
    forge_digests(package, changed_document(data.draw, seed))
    check_package(package)


@fuzzed
@given(data=st.data())
def test_weights_of_a_package_with_digests_that_fit(package, written, data):
    sound = (written / adapter_package.WEIGHTS_NAME).read_bytes()
    weights = package / adapter_package.WEIGHTS_NAME
    weights.write_bytes(changed_safetensors(data.draw, sound))
    config = json.loads((written / adapter_package.CONFIG_NAME).read_bytes())
    config["weights"] = {}
    forge_digests(package, config)
    check_package(package)


@pytest.fixture
def run_folder(tmp_path, written, base):
    """A run's folder with a checkpoint, as `manage_adapters.py export` takes it."""
    sound = adapter_package.read(str(written))
    frozen = model_variables.frozen_shapes(sound.bert_config)
    values = dict(
        checkpoints.Checkpoint(base["init_checkpoint"]).iterate_values(frozen)
    )
    values.update(sound.weights, global_step=np.int64(10))
    (tmp_path / "run").mkdir()
    checkpoints.write(str(tmp_path / "run" / "model.ckpt-10"), values)
    return tmp_path / "run"


RUN = {
    "task": "mrpc",
    "labels": ["0", "1"],
    "adapter_size": 4,
    "vocabulary": "0" * 64,
    "do_lower_case": True,
    "max_seq_length": 24,
    "activation": "gelu",
}
TRAINING = {"adapter_init_scale": 1e-3, "seed": 1}
SETS = {"dev": {"examples": 4, "scores": {"f1": 0.5, "accuracy": float("nan")}}}


@fuzzed
@given(data=st.data())
def test_records_beside_a_checkpoint(run_folder, written, data):
    config = json.loads((written / adapter_package.CONFIG_NAME).read_bytes())
    identity = dict(RUN, bert_config=config["bert_config"])
    record = {"identity": identity, "training": TRAINING, "parameters": {}}
    results = {"task": "mrpc", "global_step": 10, "sets": SETS}
    (run_folder / "run.json").write_bytes(changed_json(data.draw, record))
    (run_folder / "eval_results.json").write_bytes(changed_json(data.draw, results))
    output = run_folder.parent / "made"
    shutil.rmtree(output, ignore_errors=True)
    read_or_refuse(
        package_conversion.export,
        str(run_folder / "model.ckpt-10"),
        str(output),
        package_conversion.PackageOptions(),
        base_model.BaseFiles(),
    )
    if output.exists():
        check_package(output)
    assert {"run"} <= set(os.listdir(run_folder.parent)) <= {"run", "made"}


@fuzzed
@given(data=st.data())
def test_encoders_of_hugging_face(tmp_path, data):
    for left in ("encoder", "output"):
        shutil.rmtree(tmp_path / left, ignore_errors=True)
    folder = pathlib.Path(hf_layout.write_encoder(tmp_path / "encoder"))
    if data.draw(st.booleans()):
        (folder / "config.json").write_bytes(changed_json(data.draw, hf_layout.CONFIG))
    if data.draw(st.booleans()):
        (folder / "tokenizer_config.json").write_bytes(
            changed_json(data.draw, {"do_lower_case": True, "model_max_length": 512})
        )
    weights = folder / "model.safetensors"
    if data.draw(st.booleans()):
        weights.write_bytes(changed_safetensors(data.draw, weights.read_bytes()))
    if data.draw(st.booleans()):
        names = hf_layout.random_weights(hf_layout.CONFIG)
        index = {"weight_map": dict.fromkeys(names, "part.safetensors")}
        weights.rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_bytes(
            changed_json(data.draw, index)
        )
    read_or_refuse(conversion.convert, str(folder), str(tmp_path / "output"))
    assert {"encoder"} <= set(os.listdir(tmp_path)) <= {"encoder", "output"}


@fuzzed
@given(data=st.data())
def test_adapters_of_peft(tmp_path, data):
    shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
    folder = tmp_path / "adapter"
    shutil.copytree(ROOT / "tests" / "data" / "exchange" / "peft_patterns", folder)
    config = modeling.BertConfig.from_dict(hf_layout.CONFIG)
    path = folder / "adapter_config.json"
    if data.draw(st.booleans()):
        path.write_bytes(changed_json(data.draw, json.loads(path.read_text())))
    path = folder / "adapter_model.safetensors"
    if data.draw(st.booleans()):
        path.write_bytes(changed_safetensors(data.draw, path.read_bytes()))
    read_or_refuse(peft_format.read, str(folder), config, data.draw(st.booleans()))


@fuzzed
@given(data=st.data())
def test_adapters_of_adapterhub(tmp_path, data):
    shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
    folder = pathlib.Path(adapterhub_layout.write_adapter(tmp_path / "adapter"))
    config = modeling.BertConfig.from_dict(hf_layout.CONFIG)
    for name in ("adapter_config.json", "head_config.json"):
        if data.draw(st.booleans()):
            sound = json.loads((folder / name).read_text())
            (folder / name).write_bytes(changed_json(data.draw, sound))
    for name in ("adapter.safetensors", "model_head.safetensors"):
        if data.draw(st.booleans()):
            sound = (folder / name).read_bytes()
            (folder / name).write_bytes(changed_safetensors(data.draw, sound))
    keep_head = data.draw(st.booleans())
    read_or_refuse(adapterhub_format.read, str(folder), config, keep_head)
