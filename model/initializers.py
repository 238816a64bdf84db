"""Initializers that share operations.

Every operation of a graph delays the first step, and a large model in training has more
than a thousand variables.
"""

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf


def _share(key, make):
    """A tensor of the current graph, one for each key."""
    graph = tf.get_default_graph()
    if not hasattr(graph, "shared_tensors"):
        graph.shared_tensors = {}
    if key not in graph.shared_tensors:
        graph.shared_tensors[key] = make()
    return graph.shared_tensors[key]


def _constant(value, dtype):
    return _share((value, dtype), lambda: tf.constant(value, dtype))


def zeros(shape, dtype=tf.float32, partition_info=None):
    """An initializer: zeros, one tensor for all variables of a shape."""
    del partition_info
    sizes = tuple(tf.TensorShape(shape).as_list())
    return _share(
        ("zeros", sizes, dtype), lambda: tf.zeros(_constant(sizes, tf.int32), dtype)
    )


def _draw(operation, shape, dtype, seed):
    sizes = tuple(tf.TensorShape(shape).as_list())
    graph_seed, seed = tf.get_seed(seed)
    return operation(
        shape=_constant(sizes, tf.int32),
        dtype=dtype,
        seed=graph_seed or 0,
        seed2=seed or 0,
    )


class TruncatedNormal(NamedTuple):
    """An initializer: values of `tf.truncated_normal` with mean 0."""

    stddev: float
    seed: int | None = None

    def __call__(self, shape, dtype=tf.float32, partition_info=None):
        del partition_info
        drawn = _draw(tf.raw_ops.TruncatedNormal, shape, dtype, self.seed)
        return drawn * _constant(self.stddev, dtype)


class KaimingUniform(NamedTuple):
    """An initializer of [n_in, n_out]: uniform from -1 / sqrt(n_in) to 1 / sqrt(n_in).

    He et al., 2015 (arXiv:1502.01852), with a slope of sqrt(5), as PyTorch initializes
    its linear layers.
    """

    seed: int | None = None

    def __call__(self, shape, dtype=tf.float32, partition_info=None):
        del partition_info
        drawn = _draw(tf.raw_ops.RandomUniform, shape, dtype, self.seed)
        limit = tf.TensorShape(shape).as_list()[0] ** -0.5
        return drawn * _constant(2.0 * limit, dtype) - _constant(limit, dtype)


def truncated_normal(random, shape, stddev):
    """Draws a float32 array from the distribution of `TruncatedNormal`.

    `random` is a `np.random.RandomState`. Values beyond two standard deviations are
    drawn again.
    """
    values = random.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = random.standard_normal(outside.sum())
    return (values * stddev).astype(np.float32)


RANDOM = (TruncatedNormal, KaimingUniform)
