"""Adapters from and to AdapterHub's library, run there and here."""

import adapters
import hf_layout
import numpy as np
import pytest
import torch
from adapterhub_layout import package_logits, write_base

import glue_data
from exchange import conversion
from tasks.regression import Regression
from tests import small_packages
from weights import adapter_package, base_model, package_conversion


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


def load(folder):
    """The base model as the library's model, in evaluation mode."""
    return adapters.BertAdapterModel.from_pretrained(str(folder)).eval()


def logits(model, batch):
    ids, mask, types = (torch.tensor(part) for part in batch)
    with torch.no_grad():
        output = model(ids, attention_mask=mask, token_type_ids=types)
    return output.logits.numpy()


def made_there(folder, config, safe=True, **head):
    """Saves an adapter of random weights; returns its model, active."""
    torch.manual_seed(3)
    model = load(folder)
    model.add_adapter("mine", config=config)
    head = {"num_labels": 3, "layers": 1, "use_pooler": True, **head}
    model.add_classification_head("mine", **head)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".mine." in name:
                value.normal_()
    model.set_active_adapters("mine")
    saved = str(folder.parent / "saved")
    model.save_adapter(saved, "mine", use_safetensors=safe)
    return model.eval(), saved


LABELS = {"id2label": {0: "a", 1: "b", 2: "c"}}


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"non_linearity": "gelu"},
        {"non_linearity": "gelu_new"},
        {"non_linearity": "gelu_fast"},
        {"non_linearity": "relu"},
        {"non_linearity": "tanh"},
        {"non_linearity": "sigmoid"},
        {"non_linearity": "linear"},
        {"scaling": 4.0},
        {"scaling": "learned"},
        {"scaling": "channel"},
        {"leave_out": [1]},
        {"mh_adapter": False},
        {"reduction_factor": {"0": 6, "default": 2}},
        {"reduction_factor": 0.5},
        {"residual_before_ln": False},
        {"dropout": 0.3},
    ],
    ids=str,
)
def test_import(tmp_path, base, settings, safe):
    config = adapters.DoubleSeqBnConfig(**{"reduction_factor": 3, **settings})
    model, saved = made_there(tmp_path / "base" / "hf", config, safe, **LABELS)
    given = package_conversion.PackageOptions(name="letters", max_seq_length=9)
    output = str(tmp_path / "package")
    conversion.import_adapter(saved, base, given, output)
    package = adapter_package.read(output)
    batch = hf_layout.random_batch(hf_layout.CONFIG)
    found = package_logits(package, base.init_checkpoint, batch)
    wanted = logits(model, batch)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    model.set_active_adapters(None)
    model.active_head = "mine"
    assert np.abs(logits(model, batch) - wanted).max() > 0.1


def test_import_of_one_output(tmp_path, base):
    config = adapters.DoubleSeqBnConfig(reduction_factor=3)
    model, saved = made_there(tmp_path / "base" / "hf", config, num_labels=1)
    given = package_conversion.PackageOptions(
        glue_data.get_task("sts-b"), max_seq_length=9
    )
    output = str(tmp_path / "package")
    conversion.import_adapter(saved, base, given, output)
    package = adapter_package.read(output)
    assert package.task_type == Regression()
    batch = hf_layout.random_batch(hf_layout.CONFIG)
    found = package_logits(package, base.init_checkpoint, batch)
    np.testing.assert_allclose(found, logits(model, batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings, entry",
    [
        (
            adapters.SeqBnConfig(reduction_factor=3, mh_adapter=True),
            "mh_adapter is true",
        ),
        (adapters.CompacterConfig(reduction_factor=3), "phm_layer is true"),
        (adapters.DoubleSeqBnInvConfig(reduction_factor=3), 'inv_adapter is "nice"'),
        (adapters.LoRAConfig(use_dora=True), "use_dora is true"),
        (adapters.IA3Config(), 'composition_mode is "scale"'),
        (adapters.PrefixTuningConfig(), 'architecture is "prefix_tuning"'),
        (adapters.MAMConfig(), 'architecture is "union"'),
        (adapters.UniPELTConfig(), 'architecture is "union"'),
    ],
)
def test_others_are_refused(tmp_path, base, settings, entry):
    _, saved = made_there(tmp_path / "base" / "hf", settings, safe=False)
    given = package_conversion.PackageOptions(
        name="letters", labels=["a", "b", "c"], max_seq_length=9
    )
    with pytest.raises(conversion.UserError, match=entry):
        conversion.import_adapter(saved, base, given, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "task",
    [
        *small_packages.FOUR_TASKS,
        small_packages.Task("exact", 7, ("x", "y"), "gelu_erf"),
        small_packages.Task("smooth", 16, ("x", "y"), "swish"),
        small_packages.Task("flat", 5, ("x", "y"), "linear"),
        small_packages.Task("round", 5, ("x", "y"), "tanh"),
        small_packages.Task("gate", 5, ("x", "y"), "sigmoid"),
    ],
    ids=lambda task: task.name,
)
def test_export(tmp_path, task):
    flags = small_packages.write_base(tmp_path / "base")
    base = base_model.BaseFiles(**flags)
    folder = small_packages.write_package(tmp_path / "package", flags, task)
    conversion.write_model(base, str(tmp_path / "merged"), folder)
    conversion.write_model(base, str(tmp_path / "plain"))
    conversion.export_adapter(folder, str(tmp_path / "theirs"), "adapterhub")
    inputs = small_packages.random_batch(4, 8)
    batch = (inputs["input_ids"], inputs["input_mask"], inputs["segment_ids"])
    package = adapter_package.read(folder)
    wanted = package_logits(package, base.init_checkpoint, batch)
    found = {}
    for name in ("merged", "plain"):
        model = load(tmp_path / name)
        info = {}
        adapter = model.load_adapter(
            str(tmp_path / "theirs"), use_safetensors=True, loading_info=info
        )
        assert not info["missing_keys"] and not info["unexpected_keys"]
        model.set_active_adapters(adapter)
        found[name] = logits(model.eval(), batch).reshape(wanted.shape)
    np.testing.assert_allclose(found["merged"], wanted, rtol=0, atol=1e-5)
    # With other layer norms the scores differ, as its README says.
    assert np.abs(found["plain"] - wanted).max() > 0.01
    head = model.heads[adapter]
    labels = package.labels or ["LABEL_0"]
    assert head.config["label2id"] == {label: i for i, label in enumerate(labels)}
