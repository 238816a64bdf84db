"""Packages from a run's checkpoint and its `run.json`, which may be edited by hand."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from errors import UserError
from tests import small_packages
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    model_variables,
    package_conversion,
)

TRAINING = {"adapter_init_scale": 0.01, "learning_rate": 3e-2}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    base = small_packages.write_base(folder / "bert")
    task = small_packages.Task("mrpc", 4, ("0", "1"))
    path = small_packages.write_package(folder / "package", base, task)
    package = adapter_package.read(path)
    frozen = model_variables.frozen_shapes(package.bert_config)
    values = checkpoints.Checkpoint(base["init_checkpoint"]).iterate_values(frozen)
    step = np.array(10, np.int64)
    checkpoints.write(
        str(folder / "model.ckpt-10"),
        {**dict(values), **package.weights, "global_step": step},
    )
    return package


@pytest.fixture
def export(package, tmp_path):
    """Exports the checkpoint beside a changed `run.json`."""
    source = pathlib.Path(package.path).parent

    def start(training=None, **changes):
        identity = {
            **{name: package.config[name] for name in ("bert_config", "vocabulary")},
            **package.method.identity(2),
            **{"task": "mrpc", "labels": ["0", "1"], "type": "classification"},
            **{"do_lower_case": True, "max_seq_length": 24, **changes},
        }
        record = {"identity": identity, "training": {**TRAINING, **(training or {})}}
        (source / "run.json").write_text(json.dumps(record))
        return package_conversion.export(
            str(source / "model.ckpt-10"),
            str(tmp_path / "made"),
            package_conversion.PackageOptions(),
            base_model.BaseFiles(),
        )

    return start


@pytest.mark.parametrize(
    "changes", [{}, {"train_policy": None}, {"type": None, "task_config": None}]
)
def test_a_record_is_used(export, package, changes):
    made = export(**changes)
    assert made.method == dataclasses.replace(package.method, init_scale=0.01)
    assert made.config["weights"] == package.config["weights"]


def test_an_evaluation_without_a_baseline(export, package):
    sets = {"dev": {"scores": {"f1": 0.5}, "baseline": None}}
    path = pathlib.Path(package.path).with_name("eval_results.json")
    path.write_text(json.dumps({"global_step": 10, "sets": sets}))
    made = export()
    path.unlink()
    assert made.config["dev_scores"] == {"dev": {"f1": 0.5}}
    assert made.config["baseline"] is None


QA = {"type": "question_answering", "labels": []}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"train_policy": "ia3:4"}, ["ia3:4", "lora:R"]),
        ({"activation": "mish"}, ["activation", "mish", "relu"]),
        ({"training": {"adapter_init_scale": "x"}}, ["init_scale", "above 0"]),
        ({"head": "x"}, ["head", "an object"]),
        ({"head": {"uses_pooler": True}}, ["head.hidden is missing"]),
        ({**QA, "training": {"doc_stride": "x"}}, ["doc_stride", "a whole number"]),
        ({"type": "new_kind"}, ["type", "new_kind", "classification"]),
        ({"labels": ["1", "0"]}, ['labels is ["1", "0"]', '["0", "1"]']),
    ],
)
def test_a_wrong_entry_of_a_record_is_refused(export, tmp_path, changes, parts):
    with pytest.raises(UserError) as error:
        export(**changes)
    message = str(error.value)
    for part in ("/run.json: ", *parts):
        assert part in message
    assert "leave it out" not in message
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"vocabulary": "x"}, 'vocabulary is "x", it must be a SHA-256'),
        ({"training": {"learning_rate": "x"}}, "settings.learning_rate"),
        ({"training": {"learning_rate": float("nan")}}, "not JSON"),
    ],
)
def test_a_package_that_cannot_be_written_is_not_called_damaged(
    export, tmp_path, changes, part
):
    with pytest.raises(UserError) as error:
        export(**changes)
    message = str(error.value)
    assert part in message and str(tmp_path / "made") in message
    assert "damaged" not in message and "copy" not in message
    assert not (tmp_path / "made").exists()
