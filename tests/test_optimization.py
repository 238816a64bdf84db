"""The optimizer against twelve steps recorded from the original program."""

import json
import os
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import optimization
from tests.places import DATA
from training import classifier

FEATURES = ("input_ids", "input_mask", "segment_ids", "label_ids")


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


class Trained(NamedTuple):
    """What the recorded training gives here."""

    settings: dict
    arrays: dict  # recorded from the original
    names: list[str]  # of all trained variables
    gradients: list  # of them in the first step
    losses: list[float]  # of the recorded steps
    values: dict  # of all variables after these
    rates: list[float]  # of all steps, those that were not recorded too


@pytest.fixture(scope="module")
def trained():
    with open(os.path.join(DATA, "golden_small.json")) as reader:
        settings = json.load(reader)
    arrays = np.load(os.path.join(DATA, "golden_small.npz"))
    with tf.Graph().as_default(), tf.Session() as session:
        batch = {
            name: tf.placeholder(tf.int32, arrays["batch/" + name].shape[1:])
            for name in FEATURES
        }

        def feed(number):
            return {batch[name]: arrays["batch/" + name][number] for name in FEATURES}

        output = classifier.create_model(
            modeling.BertConfig.from_dict(settings["bert_config"]),
            False,
            *(batch[name] for name in FEATURES),
            settings["num_labels"],
            use_one_hot_embeddings=False,
        )
        step = optimization.build_train_step(
            output.loss,
            settings["init_lr"],
            settings["num_train_steps"],
            settings["num_warmup_steps"],
            use_tpu=False,
        )
        variables = optimization.trainable_variables()
        gradients = tf.gradients(output.loss, variables)
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            if "init/" + variable.op.name in arrays:
                variable.load(arrays["init/" + variable.op.name], session)
        gradients = session.run(gradients, feed(0))
        losses, rates = [], []
        fetches = [output.loss, step.learning_rate, step.train_op]
        for number in range(len(arrays["train/loss"])):
            loss, rate, _ = session.run(fetches, feed(number))
            losses.append(loss)
            rates.append(rate)
        values = session.run({v.op.name: v for v in tf.global_variables()})
        while len(rates) < settings["num_train_steps"]:
            rates.append(session.run(fetches, feed(0))[1])
        names = [variable.op.name for variable in variables]
        return Trained(settings, arrays, names, gradients, losses, values, rates)


def test_gradients_equal_the_original(trained):
    assert trained.names == trained.settings["trainable_in_order"]
    for name, gradient in zip(trained.names, trained.gradients):
        expected = trained.arrays["gradient/" + name]
        assert relative_error(gradient, expected) < 1e-5


def test_twelve_steps_equal_the_original(trained):
    arrays, values = trained.arrays, trained.values
    assert len(trained.losses) == 12
    np.testing.assert_allclose(trained.losses, arrays["train/loss"], rtol=1e-5)
    recorded = {n[len("after/") :] for n in arrays.files if n.startswith("after/")}
    # Every variable that training may change is recorded: 40, and two slots each.
    slots = {name for name in values if "/adam_" in name}
    assert recorded == slots | set(trained.names)
    assert len(recorded) == 120
    for name in recorded:
        assert relative_error(values[name], arrays["after/" + name]) < 1e-5, name
    for name in set(values) - recorded - {"global_step"}:
        np.testing.assert_array_equal(values[name], arrays["init/" + name], name)
    assert values["global_step"] == arrays["train/global_step"]


def test_schedule_in_numbers():
    step = tf.placeholder(tf.int64, [])
    rate = optimization.learning_rate_schedule(0.5, 20, 4, step)
    flat = optimization.learning_rate_schedule(0.5, 20, 0, step)
    with tf.Session() as session:
        at = lambda tensor, number: session.run(tensor, {step: number})  # noqa: E731
        assert at(rate, 1) == pytest.approx(0.125)
        assert at(rate, 3) == pytest.approx(0.375)
        assert at(rate, 4) == pytest.approx(0.5 * 16 / 20)
        assert at(rate, 20) == 0.0
        assert at(flat, 1) == pytest.approx(0.5 * 19 / 20)


def test_first_and_last_learning_rate(trained):
    settings, rates = trained.settings, trained.rates
    assert rates[0] == pytest.approx(settings["init_lr"] / settings["num_warmup_steps"])
    assert rates[-1] == 0.0
    assert np.argmax(rates) == settings["num_warmup_steps"] - 1


def _one_update(name, gradient, in_adapters=False, **rates):
    collections = (modeling.ADAPTERS,) if in_adapters else ()
    variable = modeling.get_variable(
        name, [1], tf.constant_initializer(2.0), collections
    )
    optimizer = optimization.AdamWeightDecayOptimizer(
        learning_rate=0.1,
        exclude_from_weight_decay=optimization.NO_WEIGHT_DECAY,
        **rates,
    )
    update = optimizer.apply_gradients([(tf.constant([gradient]), variable)])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(update)
        return session.run(variable)[0]


@pytest.mark.parametrize(
    ("name", "in_adapters", "decay"),
    [
        ("kernel", False, 0.3),
        ("adapters/weights1", True, 0.7),
        ("adapters/biases1", True, 0.0),
        ("LayerNorm/gamma", False, 0.0),
        ("output_bias", False, 0.0),
        ("output_weights", False, 0.3),
    ],
)
def test_decay_by_name_and_collection(name, in_adapters, decay):
    # No gradient: only the decay, lr * rate * value, changes the variable.
    value = _one_update(
        name, 0.0, in_adapters, weight_decay_rate=0.3, adapter_weight_decay_rate=0.7
    )
    assert value == pytest.approx(2.0 - 0.1 * decay * 2.0, abs=1e-6)


def test_adam_without_bias_correction_and_epsilon_outside_the_root():
    expected = 2.0 - 0.1 * (0.1 * 0.5) / (np.sqrt(0.001 * 0.25) + 1e-6)
    assert _one_update("kernel", 0.5) == pytest.approx(expected, abs=1e-6)


def test_gradients_are_clipped_to_norm_one():
    variable = modeling.get_variable("x", [2], tf.zeros_initializer(), (modeling.HEAD,))
    loss = tf.reduce_sum(variable * tf.constant([300.0, 400.0]))
    step = optimization.build_train_step(loss, 0.1, 10, 0, use_tpu=False)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        norm, _ = session.run([step.gradient_norm, step.train_op])
        moment = session.run(tf.global_variables("x/adam_m")[0])
    assert norm == pytest.approx(500.0)
    np.testing.assert_allclose(moment, [0.06, 0.08], rtol=1e-5)


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(value, is_given):
    variables = [
        modeling.get_variable(name, [2], tf.ones_initializer(), (modeling.HEAD,))
        for name in ("kernel", "bias")
    ]
    gradients = [tf.placeholder(tf.float32, [2]) for _ in variables]
    optimizer = optimization.AdamWeightDecayOptimizer(
        learning_rate=0.1,
        weight_decay_rate=0.5,
        bias_correction=True,
        is_finite=tf.math.is_finite(tf.global_norm(gradients)) if is_given else None,
    )
    update = optimizer.apply_gradients(zip(gradients, variables))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())

        def after(*values):
            session.run(update, dict(zip(gradients, values)))
            return session.run(tf.global_variables())

        before = after([0.1, 0.2], [0.3, 0.4])
        # The gradient of the other variable is finite.
        np.testing.assert_equal(after([0.1, 0.2], [0.3, value]), before)
        for old, new in zip(before, after([0.1, 0.2], [0.3, 0.4])):
            assert np.all(old != new)


@pytest.mark.parametrize("use_resource", [False, True])
def test_plain_variables_are_minimized(use_resource):
    # Other programs have reference variables, in none of this program's collections.
    target = tf.constant([0.4, 0.2, -0.5])
    x = tf.get_variable(
        "x", initializer=tf.constant([0.1, -0.2, -0.1]), use_resource=use_resource
    )
    unused = tf.get_variable("unused", [2], use_resource=use_resource)
    optimizer = optimization.AdamWeightDecayOptimizer(0.2, weight_decay_rate=1e-4)
    update = optimizer.minimize(
        tf.reduce_mean(tf.square(target - x)), var_list=[x, unused]
    )
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(unused)
        for _ in range(100):
            session.run(update)
        np.testing.assert_allclose(*session.run([x, target]), rtol=1e-2, atol=1e-2)
        np.testing.assert_array_equal(session.run(unused), before)
    assert {v.op.name for v in tf.global_variables()} == {
        "x",
        "unused",
        "x/adam_m",
        "x/adam_v",
    }
