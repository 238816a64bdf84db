"""Seeds that follow from a variable's name, or from a training step.

TensorFlow's own seeds count the random operations of a graph and the runs of a session,
so that a resumed run, or one with another number of shards, would draw other numbers.
"""

import zlib

import tensorflow.compat.v1 as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.tpu import tpu_function


def variable_seed(name):
    """The operation seed of a variable's initializer, an int.

    It follows from the current scope and the name; None if the graph has no seed.
    """
    if tf.get_default_graph().seed is None:
        return None
    return _hash("%s/%s" % (tf.get_variable_scope().name, name))


def step_seeds(count):
    """Seeds for stateless random operations, different in each training step.

    They follow from the graph's seed, the global step, the replica, and the number and
    name scope of the call, so that a step draws the same numbers in a resumed run.

    Args:
      count: number of seeds.

    Returns:
      Int32 tensor [count, 2].
    """
    graph = tf.get_default_graph()
    place = "%s/%s" % (graph.seed, graph.unique_name("random_seeds"))
    hashes = [[_hash("%s/%d" % (place, i)) % 2**31] for i in range(count)]
    # A global step that is created here must not get the scope's name.
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
