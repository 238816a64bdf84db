"""Adapters that other libraries saved compute here what they computed there.

tests/data/exchange was recorded by tests/optional/library_models.py.
"""

import os

import numpy as np
import pytest
from adapterhub_layout import package_logits, write_base
from hf_layout import CONFIG, random_batch
from safetensors.numpy import load_file

from exchange import conversion
from tests.places import ROOT
from weights import adapter_package, base_model, package_conversion

DATA = ROOT / "tests" / "data" / "exchange"
BATCH = random_batch(CONFIG)
NAMES = sorted(os.listdir(DATA)) if DATA.exists() else []
CASES = [name for name in NAMES if (DATA / name).is_dir()]


def base_files(folder):
    names = ("bert_model.ckpt", "bert_config.json", "vocab.txt")
    return base_model.BaseFiles(*(str(folder / name) for name in names))


def import_case(name, folder, base, output):
    """The package of a case in `folder`."""
    labels = ["a", "b", "c"]
    if "number" in name or "questions" in name:
        labels = None
    elif name.startswith("hub") and "static" not in name:
        labels = None  # The head names them.
    options = package_conversion.PackageOptions(
        name="mine",
        labels=labels,
        entries={"max_query_length": 3},
        max_seq_length=9,
    )
    conversion.import_adapter(folder, base, options, output)
    return adapter_package.read(output)


def logits(package, base):
    return package_logits(package, base.init_checkpoint, BATCH)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("exchange") / "base")


@pytest.mark.parametrize("name", CASES)
def test_recorded_adapters(tmp_path, base, name):
    folder = str(DATA / name)
    package = import_case(name, folder, base, str(tmp_path / "package"))
    wanted = np.load(DATA / "logits.npz")[name]
    found = logits(package, base)
    is_real = BATCH[1] == 1
    if found.ndim == 3:
        found, wanted = (np.moveaxis(x, 1, 2)[is_real] for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    library = "peft" if name.startswith("peft") else "adapterhub"
    conversion.export_adapter(package.path, str(tmp_path / "out"), library)
    again = import_case(name, str(tmp_path / "out"), base, str(tmp_path / "again"))
    assert again.config["weights"] == package.config["weights"]
    assert again.config["adapter"] == package.config["adapter"]


@pytest.mark.parametrize("name", ["peft_default", "peft_all", "peft_questions"])
def test_what_peft_wrote_is_written_again(tmp_path, base, name):
    package = import_case(name, str(DATA / name), base, str(tmp_path / "package"))
    conversion.export_adapter(package.path, str(tmp_path / "out"), "peft")
    wanted = load_file(str(DATA / name / "adapter_model.safetensors"))
    found = load_file(str(tmp_path / "out" / "adapter_model.safetensors"))
    assert found.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_array_equal(found[key], wanted[key])
