"""Adapters of the libraries, imported and exported again, compute what they did."""

import os

import numpy as np
import pytest
import transformers

from exchange import conversion, heads
from tests.exchange import test_recorded
from tests.optional import library_models
from tests.optional.library_models import CASES, compute_logits


def compare(found, wanted):
    is_real = library_models.BATCH[1] == 1
    if found.ndim == 3:
        # Nobody reads the logits of padding.
        found, wanted = (np.moveaxis(x, 1, 2)[is_real] for x in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_round_trip(tmp_path, name, seed):
    hf_base, saved, wanted = library_models.make(name, str(tmp_path), seed)
    conversion.convert(hf_base, str(tmp_path / "checkpoint"))
    base = test_recorded.base_files(tmp_path / "checkpoint")
    package = test_recorded.import_case(name, saved, base, str(tmp_path / "package"))
    compare(test_recorded.logits(package, base), wanted)
    library = "peft" if name.startswith("peft") else "adapterhub"
    theirs = str(tmp_path / "theirs")
    conversion.export_adapter(package.path, theirs, library)
    if library == "peft":
        head = heads.export_head(package)
        model = library_models.load_peft(hf_base, theirs, head)
    else:
        model = library_models.load_adapter(hf_base, theirs)
    compare(compute_logits(model), wanted)
    if not package.method.merge_problem and library == "peft":
        merged = str(tmp_path / "merged")
        conversion.write_model(base, merged, package.path, keep_head=True)
        model_class = getattr(transformers, heads.export_head(package).kind.model_class)
        compare(compute_logits(model_class.from_pretrained(merged)), wanted)


@pytest.mark.parametrize("name", CASES)
def test_recorded_files(tmp_path, name):
    """The files in tests/data/exchange are those of the installed libraries."""
    _, saved, wanted = library_models.make(name, str(tmp_path))
    recorded = np.load(library_models.DATA / "logits.npz")[name]
    np.testing.assert_allclose(recorded, wanted, rtol=0, atol=1e-6)
    assert {*os.listdir(saved)} - {"README.md"} == {
        *os.listdir(library_models.DATA / name)
    }
