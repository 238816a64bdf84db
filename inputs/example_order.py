"""The examples of each training batch, as a function of the batch number.

Every epoch has every example once. A batch can span the end of an epoch and the start
of the next one.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

# Batches in a window of examples sorted by length. Larger windows need less padding,
# smaller ones shuffle better.
SORTED_BATCHES = 50


class BatchSlice(NamedTuple):
    """The slice of each batch that one machine computes."""

    replica_size: int  # examples per replica
    num_replicas: int  # on all machines
    first_replica: int  # on this machine
    local_replicas: int  # on this machine


def local_slice(params, input_context):
    """The `BatchSlice` of an input function, from its Estimator's arguments."""
    if input_context is not None:
        replicas = input_context.num_replicas_in_sync
        local = replicas // input_context.num_input_pipelines
        first = input_context.input_pipeline_id * local
        return BatchSlice(params["batch_size"] // replicas, replicas, first, local)
    if "context" in params:  # TPU: the batch size is per core
        _, machine, _, local = params["context"].current_input_fn_deployment()
        replicas = params["context"].num_replicas
        return BatchSlice(params["batch_size"], replicas, machine * local, local)
    return BatchSlice(params["batch_size"], 1, 0, 1)


def read_next_step(config):
    """The global step, an int64 scalar: the number of the next batch.

    The variable is read whenever an iterator is initialized, after the variable was
    restored, so that a recreated session resumes correctly too. Under a distribution
    strategy the Estimator creates the variable later, and the value is read from the
    last checkpoint of `config`, the Estimator's `RunConfig` or None.
    """
    step = tf.train.get_global_step()
    if step is None:
        checkpoint = config and tf.train.latest_checkpoint(config.model_dir)
        name = tf.GraphKeys.GLOBAL_STEP
        step = tf.train.load_variable(checkpoint, name) if checkpoint else 0
    return tf.cast(step, tf.int64)


def iterate_batches(batch_slice, first_batch, num_examples, seed, lengths=None):
    """The example numbers of all batches from `first_batch`, an int64 scalar, on.

    See `epoch_order` for the other arguments. Returns an infinite `tf.data.Dataset` of
    int32 [replica_size], `local_replicas` elements per batch.
    """
    batch_size = batch_slice.replica_size * batch_slice.num_replicas
    first_example = first_batch * batch_size
    first = batch_slice.first_replica

    def epoch_examples(epoch):
        order = epoch_order(epoch, batch_size, num_examples, seed, lengths)
        seen = tf.maximum(first_example - epoch * num_examples, 0)
        return tf.data.Dataset.from_tensor_slices(order[seen:])

    def select_local(numbers):
        by_replica = tf.reshape(numbers, [batch_slice.num_replicas, -1])
        return by_replica[first : first + batch_slice.local_replicas]

    epochs = tf.data.Dataset.range(first_example // num_examples, tf.int64.max)
    numbers = epochs.flat_map(epoch_examples)
    return numbers.batch(batch_size, drop_remainder=True).map(select_local).unbatch()


def epoch_order(epoch, batch_size, num_examples, seed, lengths=None):
    """A permutation of the examples, a function of the arguments alone.

    With `lengths`, the shuffled examples are sorted by length within windows of
    `SORTED_BATCHES` batches, and then the batches are shuffled. Batches that span two
    epochs keep their place.

    Args:
      epoch: int64 scalar tensor.
      lengths: int32 [num_examples]; None: no grouping by length.

    Returns:
      Int32 [num_examples].
    """

    def shuffle(count, number):
        shuffle_seed = tf.stack([tf.constant(seed, tf.int64), 2 * epoch + number])
        keys = tf.random.stateless_uniform(
            [count], shuffle_seed, maxval=tf.int32.max, dtype=tf.int32
        )
        return tf.argsort(keys, stable=True)

    order = shuffle(num_examples, 0)
    if lengths is None:
        return order
    missing = tf.cast(-epoch * num_examples % batch_size, tf.int32)
    first = tf.minimum(missing, num_examples)  # The first example of a whole batch.
    whole = (num_examples - first) // batch_size
    end = first + whole * batch_size
    window = tf.range(end - first) // (batch_size * SORTED_BATCHES)
    grouped = order[first:end]
    key = window * (tf.reduce_max(lengths) + 1) + tf.gather(lengths, grouped)
    grouped = tf.gather(grouped, tf.argsort(key, stable=True))
    grouped = tf.reshape(grouped, [whole, batch_size])
    grouped = tf.reshape(tf.gather(grouped, shuffle(whole, 1)), [-1])
    return tf.concat([order[:first], grouped, order[end:]], axis=0)
