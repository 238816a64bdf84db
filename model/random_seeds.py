"""Random seeds from a variable's name, or from the training step.

TensorFlow's seeds depend on the number of random operations in the graph and of session
runs: a resumed run, or another number of shards, would draw other numbers.
"""

import zlib

import tensorflow.compat.v1 as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.tpu import tpu_function


def variable_seed(name):
    """The operation seed, an int, from a variable's scope and name.

    None if the graph has no seed.
    """
    if tf.get_default_graph().seed is None:
        return None
    return _hash("%s/%s" % (tf.get_variable_scope().name, name))


def step_seeds(count):
    """Seeds for stateless random operations, different in each training step.

    The seeds depend on the graph's seed, the global step, the replica, and the number
    and name scope of the call. A resumed run therefore draws the same numbers.

    Args:
      count: number of seeds.

    Returns:
      Int32 tensor [count, 2].
    """
    graph = tf.get_default_graph()
    prefix = "%s/%s" % (graph.seed, graph.unique_name("random_seeds"))
    hashes = [[_hash("%s/%d" % (prefix, i)) % 2**31] for i in range(count)]
    # The global step may be created here, and belongs to no scope.
    root = tf.VariableScope(reuse=tf.AUTO_REUSE)
    with tf.variable_scope(root, auxiliary_name_scope=False):
        step = tf.train.get_or_create_global_step()
    steps = tf.fill([count, 1], tf.cast(step, tf.int32))
    return tf.concat([tf.constant(hashes, tf.int32) + _replica(), steps], axis=1)


def _hash(text):
    return zlib.crc32(text.encode("utf-8"))


def _replica():
    """The index of the replica or TPU core."""
    if tpu_function.get_tpu_context().number_of_shards is not None:
        return tf.cast(xla.replica_id(), tf.int32)
    return tf.distribute.get_replica_context().replica_id_in_sync_group
