"""Heads of other forms than the original's, as imported packages have them."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from serving import predictor, saved_model
from tasks import head_form, task_type
from tasks.classification import Classification
from tasks.head_form import HeadForm
from tasks.regression import Regression
from tests import small_packages, small_run
from tuning import adapters, lora
from tuning.method import Method
from weights import adapter_package, base_model, package_conversion

FORMS = (HeadForm(), HeadForm(False, "tanh"), HeadForm(False), HeadForm(True, "relu"))


class Task(NamedTuple):
    """What `small_packages.write_package` takes."""

    name: str
    type: task_type.TaskType
    method: Method = adapters.Adapters(4, None)


def write_packages(folder, base):
    """A package of each form, on one base model; of the last two for other methods."""
    two, three = ("no", "yes"), ("a", "b", "c")
    tasks = (
        Task("plain", Classification(two)),
        Task("default", Classification(three, head=FORMS[1])),
        Task("other", Classification(two, head=FORMS[1]), adapters.Adapters(3, None)),
        Task("first", Regression(head=FORMS[2]), lora.Lora(2)),
        Task("hidden", Classification(two, head=FORMS[3])),
    )
    return [
        small_packages.write_package(folder / task.name, base, task, seed)
        for seed, task in enumerate(tasks)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_packages.write_base(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, base):
    return write_packages(tmp_path_factory.mktemp("packages"), base)


def test_entries_of_packages(folders):
    packages = [adapter_package.read(folder) for folder in folders]
    forms = [FORMS[i] for i in (0, 1, 1, 2, 3)]
    assert [each.task_type.head for each in packages] == forms
    names = [sorted(n for n in each.weights if "put_w" in n) for each in packages]
    assert names == [["output_weights"]] + 4 * [["head/output_weights"]]
    assert packages[1].config["task"]["head"] == {
        "uses_pooler": False,
        "hidden": "tanh",
    }
    assert "head" not in packages[0].config["task"]


@pytest.mark.parametrize(
    "entry", [{"uses_pooler": 1, "hidden": None}, {"hidden": "tanh"}, {"x": 1}, 3]
)
def test_entries_that_are_refused(entry):
    with pytest.raises(ValueError, match="head"):
        Classification.from_entries({"labels": ["a", "b"], "head": entry})
    with pytest.raises(ValueError, match="head"):
        task_type.TYPES["question_answering"].from_entries({"head": {"hidden": "tanh"}})


def test_tasks_of_all_forms_are_served_together(tmp_path, base, folders):
    rows = [("a cat sat", "rain fell"), ("music", "on a mat while rain fell")]
    batch = small_packages.encode(base, rows, 24)
    model, alone = predictor.Predictor(**base), {}
    for folder in folders[:4]:
        package = adapter_package.read(folder)
        model.add(folder)
        alone[package.task] = small_packages.single_task_scores(
            package, base["init_checkpoint"], batch
        )
    for task, wanted in alone.items():
        found = [
            [each.score]
            if each.probabilities is None
            else [*each.probabilities.values()]
            for each in model.predict(task, rows)
        ]
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=task)
    output = saved_model.export(
        folders[:3], base_model.BaseFiles(**base), str(tmp_path / "saved")
    )
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, ["serve"], output)
        assert sorted(loaded.signature_def) == [
            *("ids", "ids_first_tanh", "serving_default", "texts_first_tanh"),
        ]
        signature = loaded.signature_def["ids_first_tanh"]
        feed = {signature.inputs[name].name: value for name, value in batch.items()}
        feed[signature.inputs["task"].name] = ["default", "other"]
        found = session.run(signature.outputs["scores"].name, feed)
    for row, task in enumerate(("default", "other")):
        L = alone[task].shape[1]
        np.testing.assert_allclose(found[row, :L], alone[task][row], atol=1e-5)
        assert not found[row, L:].any()


def test_runs_take_the_form_of_their_package(tmp_path, base):
    data = small_run.write_mrpc(tmp_path / "MRPC")
    task = Task("mrpc", Classification(("0", "1"), head=FORMS[1]))
    folder = small_packages.write_package(tmp_path / "package", base, task)
    output = tmp_path / "run"
    small_run.run(
        output_dir=str(output),
        **{**base, **data, "max_seq_length": 24, "train_batch_size": 8},
        **{"learning_rate": 1e-2, "adapter_size": 4, "adapters": folder},
        **{"do_train": True, "do_predict": True},
    )
    old = adapter_package.read(folder)
    new = adapter_package.read(str(output / "adapters"))
    assert new.task_type == old.task_type
    for name in (*FORMS[1].hidden_variables, *FORMS[1].output_variables):
        assert np.any(new.weights[name] != old.weights[name])
    lines = (tmp_path / "MRPC" / "test.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t")[3:] for line in lines]
    model = predictor.Predictor(**base)
    model.add(new.path)
    found = [list(p.probabilities.values()) for p in model.predict("mrpc", rows)]
    wanted = np.loadtxt(output / "test_results.tsv")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    exported = package_conversion.export(
        tf.train.latest_checkpoint(str(output)),
        str(tmp_path / "exported"),
        package_conversion.PackageOptions(),
        base_model.BaseFiles(),
    )
    assert exported.config["weights"] == new.config["weights"]
    with pytest.raises(UserError, match="two layers on the first position"):
        package_conversion.merge(folder, base["init_checkpoint"], str(tmp_path / "m"))


def test_the_default_is_the_originals():
    assert head_form.DEFAULT.shapes(8, 2) == {
        "output_weights": [2, 8],
        "output_bias": [2],
    }
