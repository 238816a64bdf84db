"""Logits and losses of the question-answering head, against the original's."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from tasks.squad import head
from tests import squad_data

INPUTS = "input_ids", "input_mask", "segment_ids", "start_positions", "end_positions"


@pytest.fixture(scope="module")
def arrays():
    return np.load(os.path.join(squad_data.SQUAD, "model.npz"))


def build_model():
    """Placeholders [B, S] or [B] by name, the model and its head."""
    config = modeling.BertConfig.from_dict(squad_data.load("model.json")["bert_config"])
    fed = {
        name: tf.placeholder(
            tf.int32, [None] if name.endswith("positions") else [None, 64], name
        )
        for name in INPUTS
    }
    model = modeling.BertModel(
        config, False, *(fed[name] for name in INPUTS[:3]), scope="bert"
    )
    return fed, model, head.create_head(model.get_sequence_output())


def load_values(session, arrays, prefix):
    """Loads recorded values; those of frozen variables are the initial ones."""
    for variable in tf.global_variables():
        name = modeling.base_name(variable)
        name = (prefix if prefix + name in arrays else "init/") + name
        session.run(
            variable.initializer, {variable.initializer.inputs[1]: arrays[name]}
        )


def test_forward_equals_the_original(arrays):
    fed, model, logits = build_model()
    settings = squad_data.load("model.json")
    assert [
        modeling.base_name(v) for v in tf.get_collection(modeling.HEAD)
    ] == settings["trainable_in_order"][-2:]
    loss = tf.reduce_mean(
        head.span_loss(logits, fed["start_positions"], fed["end_positions"])
    )
    fetches = {
        "sequence_output": model.get_sequence_output(),
        "start_logits": logits.start,
        "end_logits": logits.end,
        "loss": loss,
    }
    batch = {tensor: arrays["batch/" + name][0] for name, tensor in fed.items()}
    with tf.Session() as session:
        load_values(session, arrays, "init/")
        found = session.run(fetches, batch)
    for name, value in found.items():
        expected = arrays["forward/" + name]
        error = np.abs(value - expected).max() / np.abs(expected).max()
        assert error < 1e-5, name


@pytest.mark.parametrize("prefix", ["init", "after"])
def test_logits_of_files_equal_the_original(arrays, prefix):
    fed, _, logits = build_model()
    recorded = np.load(os.path.join(squad_data.SQUAD, "logits.npz"))
    settings = squad_data.load("model.json")
    output = squad_data.make_features(
        squad_data.read("dev", "v2.0"), settings, is_training=False
    )
    batch = {fed[name]: [getattr(f, name) for f in output] for name in INPUTS[:3]}
    with tf.Session() as session:
        load_values(session, arrays, prefix + "/")
        found = session.run(logits, batch)
    for name, values in zip(logits._fields, found):
        expected = recorded["v2.0/%s/%s_logits" % (prefix, name)]
        # After training, noise in the bias's gradient moves all logits of a window.
        if prefix == "after":
            values -= values.mean(axis=1, keepdims=True)
            expected = expected - expected.mean(axis=1, keepdims=True)
        assert np.abs(values - expected).max() < 1e-5 * np.abs(expected).max()
