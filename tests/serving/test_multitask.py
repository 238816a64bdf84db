"""Many tasks in one graph: scores equal those of single-task models."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from exchange import conversion
from serving import multitask, predictor, saved_model
from tasks.classification import Classification
from tasks.regression import Regression
from tests import small_packages
from tests.small_packages import FOUR_TASKS, Task
from tuning import adapters
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    model_variables,
    package_conversion,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Flags of a small base."""
    return small_packages.write_base(tmp_path_factory.mktemp("model") / "base")


def read_packages(folder, base, tasks=FOUR_TASKS):
    """Writes and reads a package for each task."""
    return [
        adapter_package.read(path)
        for path in small_packages.write_packages(folder, base, tasks)
    ]


def run(packages, base, batch, task_ids):
    """Builds the graph with the packages' tables and runs it once."""
    checkpoint = checkpoints.Checkpoint(base["init_checkpoint"])
    (stack,) = multitask.stack_packages(packages, checkpoint).values()
    config = packages[0].bert_config
    frozen = model_variables.frozen_shapes(config)
    values = dict(checkpoint.iterate_values(frozen))
    with tf.Graph().as_default(), tf.Session() as session:
        tables = {
            name: tf.placeholder(value.dtype, [None, *value.shape[1:]])
            for name, value in stack.tables().items()
        }
        inputs = {name: tf.placeholder(tf.int32, [None, None]) for name in batch}
        ids = tf.placeholder(tf.int32, [None])
        outputs = multitask.build_graph(config, stack, tables, task_ids=ids, **inputs)
        small_packages.load(session, values)
        assert sorted(frozen) == sorted(v.op.name for v in tf.global_variables())
        feed = {tables[name]: value for name, value in stack.tables().items()}
        feed.update({inputs[name]: value for name, value in batch.items()})
        return session.run(outputs, {**feed, ids: task_ids})


def check_against_single_tasks(packages, base, batch, task_ids, outputs):
    """Compares each row with a single-task model; 0 beyond its labels."""
    for i, package in enumerate(packages):
        rows = np.flatnonzero(np.array(task_ids) == i)
        expected = small_packages.single_task_scores(
            package, base["init_checkpoint"], batch
        ).reshape(len(task_ids), -1)[rows]
        used = expected.shape[1]
        np.testing.assert_allclose(outputs.scores[rows, :used], expected, atol=1e-5)
        np.testing.assert_array_equal(outputs.scores[rows, used:], 0)
        is_own = np.arange(outputs.is_own.shape[1]) < used
        assert (outputs.is_own[rows] == is_own).all()


def test_weights_that_no_consumer_knows_are_refused(tmp_path, base, monkeypatch):
    """Whatever the tuning method is called: here one that trains kernels too."""
    trains = adapters.Adapters.trains
    monkeypatch.setattr(
        adapters.Adapters,
        "trains",
        lambda method, name, collection: (
            trains(method, name, collection)
            or name.endswith("intermediate/dense/kernel")
        ),
    )
    folder = small_packages.write_package(tmp_path / "package", base, FOUR_TASKS[0])
    output = str(tmp_path / "output")
    for consume in (
        predictor.Predictor(**base).add,
        lambda value: saved_model.export([value], base_model.BaseFiles(**base), output),
        lambda value: conversion.export_adapter(value, output, "adapterhub"),
        lambda value: conversion.write_model(
            base_model.BaseFiles(**base), output, value
        ),
    ):
        with pytest.raises(UserError, match=r"bert/.*/kernel"):
            consume(folder)
    assert not (tmp_path / "output" / "1").exists()
    # A merged checkpoint holds them.
    merged = str(tmp_path / "merged" / "model.ckpt")
    (tmp_path / "merged").mkdir()
    package = package_conversion.merge(folder, base["init_checkpoint"], merged)
    name = "bert/encoder/layer_0/intermediate/dense/kernel"
    (value,) = dict(checkpoints.Checkpoint(merged).iterate_values([name])).values()
    np.testing.assert_array_equal(value, package.weights[name])


def test_scores_equal_single_task_models(tmp_path, base):
    packages = read_packages(tmp_path, base)
    batch = small_packages.random_batch(10, 9)
    task_ids = [2, 0, 1, 3, 3, 1, 0, 2, 2, 1]
    outputs = run(packages, base, batch, task_ids)
    assert outputs.scores.shape == (10, 3)
    check_against_single_tasks(packages, base, batch, task_ids, outputs)


def test_activations_that_no_task_has_change_nothing(tmp_path, base, monkeypatch):
    packages = read_packages(tmp_path, base)
    batch = small_packages.random_batch(4, 6)
    used = run(packages, base, batch, [0, 1, 2, 3])
    every = {"activation": tuple(range(len(adapters.ACTIVATIONS))), "task_type": (0, 2)}
    monkeypatch.setattr(multitask.PackageStack, "used_settings", lambda stack: every)
    all_of_them = run(packages, base, batch, [0, 1, 2, 3])
    np.testing.assert_array_equal(used.scores, all_of_them.scores)


TWENTY = tuple("label %d" % i for i in range(20))


@pytest.mark.parametrize("batch_size,length", [(1, 7), (6, 16)])
def test_added_tasks_change_no_bit_of_the_others(tmp_path, batch_size, length):
    base = small_packages.write_base(tmp_path / "base", hidden_size=48)
    two, number, three, twenty, one = read_packages(
        tmp_path,
        base,
        [
            Task("two", 8, ("0", "1")),
            Task("number", 7, None),
            Task("three", 64, ("a", "b", "c"), "swish"),
            Task("twenty", 256, TWENTY, "relu"),
            Task("one", 64, ("x",)),
        ],
    )
    batch = small_packages.random_batch(batch_size, length)

    def scores(packages, tasks):
        ids = [packages.index(task) for task in tasks]
        rows = [ids[i % len(ids)] for i in range(batch_size)]
        return run(packages, base, batch, rows).scores

    def check(before, after, tasks):
        few, many = scores(before, tasks), scores(after, tasks)
        np.testing.assert_array_equal(many[:, : few.shape[1]], few)
        np.testing.assert_array_equal(many[:, few.shape[1] :], 0)

    check([number], [three, number], [number])
    check([two], [three, two, one, twenty, number], [two])
    check([two, number], [twenty, number, one, three, two], [two, number])


def test_tables_hold_no_padding(tmp_path, base):
    packages = read_packages(tmp_path, base)
    checkpoint = checkpoints.Checkpoint(base["init_checkpoint"])
    (stack,) = multitask.stack_packages(packages, checkpoint).values()
    assert sum(value.size for value in stack.weights.values()) == sum(
        package.config["parameters"] for package in packages
    )
    assert stack.tasks == ["pair", "score", "three", "wide"]
    assert stack.types[1:3] == (Regression(), Classification(("a", "b", "c")))
    used = stack.used_settings()["activation"]
    assert [adapters.ACTIVATIONS[i] for i in used] == ["gelu", "relu"]


def test_packages_of_two_base_models_are_refused(tmp_path, base):
    other = small_packages.write_base(tmp_path / "other", seed=8)
    packages = [
        *read_packages(tmp_path, base, FOUR_TASKS[:1]),
        *read_packages(tmp_path, other, FOUR_TASKS[1:2]),
    ]
    with pytest.raises(UserError, match=r"score does not fit: its base.*`init_check"):
        checkpoint = checkpoints.Checkpoint(base["init_checkpoint"])
        multitask.stack_packages(packages, checkpoint)
