"""The question-answering head against the original's: logits, loss, training."""

import os
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
import optimization
from tasks.question_answering import QuestionAnswering
from tests import squad_data

INPUTS = "input_ids", "input_mask", "segment_ids"
POSITIONS = "start_positions", "end_positions"

# Their gradients are zero but for rounding: a constant that is added to all logits of a
# window changes no loss.
NOISE = "cls/squad/output_bias", "bert/encoder/layer_1/output/LayerNorm/beta"

SETTINGS = squad_data.load("model.json")


@pytest.fixture(scope="module")
def arrays():
    return np.load(os.path.join(squad_data.SQUAD, "model.npz"))


class Graph(NamedTuple):
    fed: dict  # placeholders [B, S] or [B] by name
    sequence_output: tf.Tensor
    logits: tf.Tensor  # [B, 2, S], of start and end
    loss: tf.Tensor

    def feed(self, arrays, number):
        """A recorded batch."""
        return {x: arrays["batch/" + name][number] for name, x in self.fed.items()}


def build_graph():
    shapes = {name: [None, 64] for name in INPUTS} | {
        name: [None] for name in POSITIONS
    }
    fed = {name: tf.placeholder(tf.int32, shape) for name, shape in shapes.items()}
    config = modeling.BertConfig.from_dict(SETTINGS["bert_config"])
    model = modeling.BertModel(
        config, False, *(fed[name] for name in INPUTS), scope="bert"
    )
    task_type = QuestionAnswering()
    logits = task_type.compute_logits(model.get_sequence_output(), is_training=True)
    losses = task_type.compute_losses(logits, task_type.read_label_features(fed))
    return Graph(fed, model.get_sequence_output(), logits, tf.reduce_mean(losses))


def load_values(session, arrays, prefix):
    """Loads recorded values; those of frozen variables are the initial ones."""
    session.run(tf.global_variables_initializer())
    for variable in tf.global_variables():
        name = modeling.base_name(variable)
        if "init/" + name in arrays:
            name = (prefix if prefix + name in arrays else "init/") + name
            feed = {variable.initializer.inputs[1]: arrays[name]}
            session.run(variable.initializer, feed)


def assert_close(found, expected, tolerance, name=""):
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max(), name


def test_forward_and_gradients_equal_the_original(arrays):
    graph = build_graph()
    variables = optimization.trainable_variables()
    names = [modeling.base_name(variable) for variable in variables]
    assert names == SETTINGS["trainable_in_order"]
    forward = {
        "sequence_output": graph.sequence_output,
        "start_logits": graph.logits[:, 0],
        "end_logits": graph.logits[:, 1],
        "loss": graph.loss,
    }
    gradients = dict(zip(names, tf.gradients(graph.loss, variables)))
    with tf.Session() as session:
        load_values(session, arrays, "init/")
        forward, gradients = session.run([forward, gradients], graph.feed(arrays, 0))
    for name, value in forward.items():
        assert_close(value, arrays["forward/" + name], 1e-5, name)
    for name, gradient in gradients.items():
        if name in NOISE:
            assert np.abs(gradient).max() < 1e-6
        else:
            assert_close(gradient, arrays["gradient/" + name], 1e-5, name)


@pytest.mark.parametrize(
    ("prefix", "first_step"),
    # The original's graph does not order the schedule's reading of the step and its
    # increment. This program reads after it; before it there is one step less.
    [("", 0), ("step_before/", -1)],
)
def test_training_steps_equal_the_original(arrays, prefix, first_step):
    graph = build_graph()
    step = optimization.build_train_step(
        graph.loss,
        SETTINGS["init_lr"],
        SETTINGS["num_train_steps"],
        SETTINGS["num_warmup_steps"],
        use_tpu=False,
    )
    fetches = graph.loss, step.learning_rate, step.gradient_norm, step.train_op
    with tf.Session() as session:
        load_values(session, arrays, "init/")
        tf.train.get_global_step().load(first_step, session)
        steps = [
            session.run(fetches, graph.feed(arrays, number))[:3]
            for number in range(SETTINGS["num_train_steps"])
        ]
        values = session.run({modeling.base_name(v): v for v in tf.global_variables()})
    losses, rates, norms = np.transpose(steps)
    np.testing.assert_allclose(losses, arrays[prefix + "train/loss"], rtol=1e-4)
    np.testing.assert_allclose(rates, arrays[prefix + "train/learning_rate"], rtol=1e-6)
    np.testing.assert_allclose(norms, arrays[prefix + "train/global_norm"], rtol=1e-3)
    prefix += "after/"
    recorded = [name for name in arrays.files if name.startswith(prefix)]
    # Of the second reading there are no moments.
    trained = len(SETTINGS["trainable_in_order"])
    assert len(recorded) == (trained if first_step else 3 * trained)
    for path in recorded:
        name = path[len(prefix) :]
        if not name.startswith(NOISE):
            is_slot = name.endswith(("/adam_m", "/adam_v"))
            error = np.abs(values[name] - arrays[path]).max()
            assert error < (1e-4 * np.abs(arrays[path]).max() if is_slot else 1e-5)
        elif name in NOISE:
            assert np.abs(values[name] - arrays[path]).max() < 1e-3


@pytest.mark.parametrize("prefix", ["init", "after"])
def test_logits_of_files_equal_the_original(arrays, prefix):
    graph = build_graph()
    recorded = np.load(os.path.join(squad_data.SQUAD, "logits.npz"))
    output = squad_data.make_features(
        squad_data.read("dev", "v2.0"), SETTINGS, is_training=False
    )
    batch = {graph.fed[name]: [getattr(f, name) for f in output] for name in INPUTS}
    with tf.Session() as session:
        load_values(session, arrays, prefix + "/")
        found = session.run(graph.logits, batch)
    for name, values in zip(("start", "end"), np.moveaxis(found, 1, 0)):
        expected = recorded["v2.0/%s/%s_logits" % (prefix, name)]
        if prefix == "after":  # See NOISE.
            values, expected = (
                x - x.mean(axis=1, keepdims=True) for x in (values, expected)
            )
        assert_close(values, expected, 1e-5)
