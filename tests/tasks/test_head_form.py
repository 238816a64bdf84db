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
    small_packages.check_served(base, folders[:4])
    output = saved_model.export(
        folders[:3], base_model.BaseFiles(**base), str(tmp_path / "saved")
    )
    rows = [("a cat sat", "rain fell"), ("music", "on a mat while rain fell")]
    batch = small_packages.encode(base, rows, 24)
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ["serve"], output)
        assert sorted(model.signature_def) == [
            *("ids", "ids_first_tanh", "serving_default", "texts_first_tanh"),
        ]
        signature = model.signature_def["ids_first_tanh"]
        feed = {signature.inputs[name].name: value for name, value in batch.items()}
        feed[signature.inputs["task"].name] = ["default", "other"]
        found = session.run(signature.outputs["scores"].name, feed)
    for row, folder in enumerate(folders[1:3]):
        package = adapter_package.read(folder)
        alone = small_packages.single_task_scores(
            package, base["init_checkpoint"], batch
        )
        L = alone.shape[1]
        np.testing.assert_allclose(found[row, :L], alone[row], atol=1e-5)
        assert not found[row, L:].any()


def test_runs_take_the_form_of_their_package(tmp_path, base):
    data = small_run.write_mrpc(tmp_path / "MRPC")
    task = Task("mrpc", Classification(("0", "1"), head=FORMS[1]))
    folder = small_packages.write_package(tmp_path / "package", base, task)
    setting = {**base, **data, "max_seq_length": 24, "train_batch_size": 8}
    setting.update(learning_rate=1e-2, adapter_size=4, do_predict=True)

    def run(name, **flags):
        output = tmp_path / name
        small_run.run(output_dir=str(output), **{**setting, **flags})
        return np.loadtxt(output / "test_results.tsv")

    before = run("before", adapters=folder)
    model = predictor.Predictor(**base)
    model.add(folder)
    lines = (tmp_path / "MRPC" / "test.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t")[3:] for line in lines]
    found = [list(p.probabilities.values()) for p in model.predict("mrpc", rows)]
    np.testing.assert_allclose(found, before, atol=1e-5)
    trained = run("a", adapters=folder, do_train=True)
    assert np.abs(trained - before).max() > 0.01
    old = adapter_package.read(folder)
    new = adapter_package.read(str(tmp_path / "a" / "adapters"))
    assert new.task_type == old.task_type
    assert all(
        np.any(new.weights[n] != old.weights[n]) for n in FORMS[1].hidden_variables
    )
    again = run("b", adapters=new.path)
    np.testing.assert_array_equal(again, trained)
    np.testing.assert_array_equal(run("a", adapters=folder, do_train=True), trained)
    exported = package_conversion.export(
        tf.train.latest_checkpoint(str(tmp_path / "a")),
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
