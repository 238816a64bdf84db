"""Initial values of variables, in few operations.

Every operation of a graph costs time before the first step, and a large model in
training has more than a thousand variables.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf


def _share(key, make):
    """A tensor of the current graph that all callers with the key get."""
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


class TruncatedNormal(NamedTuple):
    """An initializer: values of `tf.truncated_normal` with mean 0."""

    stddev: float
    seed: int | None

    def __call__(self, shape, dtype=tf.float32, partition_info=None):
        del partition_info
        sizes = tuple(tf.TensorShape(shape).as_list())
        graph_seed, seed = tf.get_seed(self.seed)
        drawn = tf.raw_ops.TruncatedNormal(
            shape=_constant(sizes, tf.int32),
            dtype=dtype,
            seed=graph_seed or 0,
            seed2=seed or 0,
        )
        return drawn * _constant(self.stddev, dtype)
