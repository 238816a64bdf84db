"""The question-answering head: logits of an answer's first and last token."""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

import modeling
from tasks import head_form

HEAD_INITIALIZER_RANGE = 0.02


class SpanLogits(NamedTuple):
    """Logits of each position, padding and question included."""

    start: tf.Tensor  # float32 [B, S]
    end: tf.Tensor  # float32 [B, S]


def variable_shapes(hidden_size):
    """The variables of `create_head`: dict from name to list of ints."""
    return {"cls/squad/output_weights": [2, hidden_size], "cls/squad/output_bias": [2]}


def create_head(sequence_output):
    """A linear layer from each position to two logits, without dropout.

    In the original, its variables are missing in the collection of the head, so that
    they are not trained.

    Args:
      sequence_output: float [B, S, H], see `modeling.BertModel`.

    Returns:
      `SpanLogits`.
    """
    B, S, H = modeling.get_shape_list(sequence_output, expected_rank=3)
    (name, shape), bias = variable_shapes(H).items()
    collections = (modeling.HEAD,)
    weights = modeling.normal_variable(
        *(name, shape, HEAD_INITIALIZER_RANGE), collections=collections
    )
    bias = modeling.get_variable(*bias, tf.zeros_initializer(), collections)
    rows = tf.reshape(sequence_output, [-1, H])
    logits = modeling.apply_weights(head_form.apply_linear, rows, weights, bias)
    return SpanLogits(*tf.unstack(tf.reshape(logits, [B, S, 2]), axis=2))


def span_loss(logits, start_positions, end_positions):
    """Cross-entropy over the positions, mean of start and end.

    Args:
      logits: `SpanLogits`.
      start_positions: int32 [B].
      end_positions: int32 [B].

    Returns:
      Float32 [B].
    """
    start_loss, end_loss = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=each)
        for labels, each in zip((start_positions, end_positions), logits)
    )
    return (start_loss + end_loss) / 2.0
