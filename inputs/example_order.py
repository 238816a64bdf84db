"""Which rows each batch of a training holds, whenever the training begins.

The rows come in epochs without end, each row once in each. A batch takes the next rows:
where its size does not divide the set, it ends one epoch and begins the next. So the
number of a batch alone says which rows it holds.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

# Batches whose rows are sorted by length together. More wastes less padding, fewer
# mixes better.
SORTED_BATCHES = 50


class BatchSlice(NamedTuple):
    """What one machine computes of a batch."""

    rows: int  # of the batch's part that one replica computes
    replicas: int  # of all machines
    first: int  # replica of this machine
    here: int  # replicas of this machine


def local_slice(params, input_context):
    """The `BatchSlice` of an input function, from what the Estimator calls it with."""
    if input_context is not None:
        replicas = input_context.num_replicas_in_sync
        here = replicas // input_context.num_input_pipelines
        first = input_context.input_pipeline_id * here
        return BatchSlice(params["batch_size"] // replicas, replicas, first, here)
    if "context" in params:  # TPU, where the batch size is that of a core
        _, machine, _, here = params["context"].current_input_fn_deployment()
        replicas = params["context"].num_replicas
        return BatchSlice(params["batch_size"], replicas, machine * here, here)
    return BatchSlice(params["batch_size"], 1, 0, 1)


def read_next_step(config):
    """The number of the batch that a training has to go on with.

    That is the global step, which counts the steps that were left out too. A variable
    of the graph is read whenever an iterator is initialized, after it was restored, so
    that a session that TensorFlow starts anew goes on rightly as well. Under a
    distribution strategy the Estimator makes it later: there the last checkpoint holds
    what it will be restored to.

    Args:
      config: the Estimator's `RunConfig`; None: there is no checkpoint.

    Returns:
      Int64 scalar tensor.
    """
    step = tf.train.get_global_step()
    if step is None:
        checkpoint = config and tf.train.latest_checkpoint(config.model_dir)
        name = tf.GraphKeys.GLOBAL_STEP
        step = tf.train.load_variable(checkpoint, name) if checkpoint else 0
    return tf.cast(step, tf.int64)


def iterate_batches(of, first_batch, num_examples, seed, lengths=None):
    """The numbers of the rows of each batch, without end.

    Args:
      of: a `BatchSlice`.
      first_batch: its number, int64 scalar tensor; those before it cost nothing.
      num_examples: rows of the set, N.
      seed: see `epoch_order`.
      lengths: see `epoch_order`.

    Returns:
      A `tf.data.Dataset` of int32 [of.rows], `of.here` of them a batch.
    """
    batch_size = of.rows * of.replicas
    first_row = first_batch * batch_size

    def epoch_rows(epoch):
        order = epoch_order(epoch, batch_size, num_examples, seed, lengths)
        seen = tf.maximum(first_row - epoch * num_examples, 0)
        return tf.data.Dataset.from_tensor_slices(order[seen:])

    def parts_here(rows):
        parts = tf.reshape(rows, [of.replicas, of.rows])
        return parts[of.first : of.first + of.here]

    epochs = tf.data.Dataset.range(first_row // num_examples, tf.int64.max)
    rows = epochs.flat_map(epoch_rows)
    return rows.batch(batch_size, drop_remainder=True).map(parts_here).unbatch()


def epoch_order(epoch, batch_size, num_examples, seed, lengths=None):
    """The rows of an epoch, each once, in an order that follows from the arguments.

    With lengths, windows of `SORTED_BATCHES` batches of the shuffled rows are sorted
    by them, and then the epoch's batches are shuffled. The rows that fill up the last
    batch of the epoch before, and those that begin a batch which the next epoch fills
    up, are left as they are.

    Args:
      epoch: its number, int64 scalar tensor.
      batch_size: rows of a batch.
      num_examples: rows of the set, N.
      seed: an int.
      lengths: of the rows, int32 [N]; None where batches need not be of similar ones.

    Returns:
      Int32 tensor [N].
    """

    def shuffled(count, number):
        of_draw = tf.stack([tf.constant(seed, tf.int64), 2 * epoch + number])
        drawn = tf.random.stateless_uniform(
            [count], of_draw, maxval=tf.int32.max, dtype=tf.int32
        )
        return tf.argsort(drawn, stable=True)

    order = shuffled(num_examples, 0)
    if lengths is None:
        return order
    begun = tf.cast(-epoch * num_examples % batch_size, tf.int32)
    first = tf.minimum(begun, num_examples)
    whole = (num_examples - first) // batch_size
    end = first + whole * batch_size
    window = tf.range(end - first) // (batch_size * SORTED_BATCHES)
    grouped = order[first:end]
    key = window * (tf.reduce_max(lengths) + 1) + tf.gather(lengths, grouped)
    grouped = tf.gather(grouped, tf.argsort(key, stable=True))
    grouped = tf.reshape(grouped, [whole, batch_size])
    grouped = tf.reshape(tf.gather(grouped, shuffled(whole, 1)), [-1])
    return tf.concat([order[:first], grouped, order[end:]], axis=0)
