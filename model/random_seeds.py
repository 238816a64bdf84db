"""Seeds that follow from what they are for: a variable, or a place in a training step.

TensorFlow by itself counts the random operations of a graph and the runs of a session.
A training that is resumed, or computed in shards, would then draw other numbers.
"""

import zlib

import tensorflow.compat.v1 as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.tpu import tpu_function


def variable_seed(name):
    """The seed of a variable's initial value, beside that of the graph.

    Args:
      name: of the variable, without its scope.

    Returns:
      An int, from the scope and the name; None where the graph has no seed, so that
      TensorFlow draws one.
    """
    if tf.get_default_graph().seed is None:
        return None
    return _hash("%s/%s" % (tf.get_variable_scope().name, name))


def step_seeds(count):
    """Seeds for stateless random numbers, others in each training step.

    They follow from the graph's seed, the global step, the place of the call in the
    graph and the replica, and from nothing else: the same step of the same training
    draws the same, however often it was interrupted before. Each call is a place of
    its own: a layer, a shard, a part of a batch.

    Args:
      count: how many.

    Returns:
      Int32 tensor [count, 2].
    """
    graph = tf.get_default_graph()
    place = "%s/%s" % (graph.seed, graph.unique_name("random_seeds"))
    hashes = [[_hash("%s/%d" % (place, i)) % 2**31] for i in range(count)]
    # The variable, where this makes it, is not to be called after the scope.
    root = tf.VariableScope(reuse=tf.AUTO_REUSE)
    with tf.variable_scope(root, auxiliary_name_scope=False):
        step = tf.train.get_or_create_global_step()
    steps = tf.fill([count, 1], tf.cast(step, tf.int32))
    return tf.concat([tf.constant(hashes, tf.int32) + _replica(), steps], axis=1)


def _hash(text):
    return zlib.crc32(text.encode("utf-8"))


def _replica():
    """The number of the replica: machines and TPU cores run one graph."""
    if tpu_function.get_tpu_context().number_of_shards is not None:
        return tf.cast(xla.replica_id(), tf.int32)
    return tf.distribute.get_replica_context().replica_id_in_sync_group
