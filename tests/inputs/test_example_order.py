"""The order of an epoch's rows, by itself."""

import itertools

import numpy as np
import tensorflow.compat.v1 as tf

from inputs import example_order


def test_whole_batches_hold_rows_of_similar_length():
    lengths = np.random.RandomState(0).randint(1, 30, 100)
    epoch = tf.constant(1, tf.int64)
    order = example_order.epoch_order(epoch, 7, 100, 3, tf.constant(lengths, tf.int32))
    with tf.Session() as session:
        rows = session.run(order)
    assert sorted(rows) == list(range(100))
    # Two rows of epoch 0 began a batch that five of epoch 1 fill up; four are left.
    batches = lengths[rows][5:96].reshape(13, 7)
    spans = sorted((batch.min(), batch.max()) for batch in batches)
    assert all(
        longest <= next_one for (_, longest), (next_one, _) in itertools.pairwise(spans)
    )
    assert [batch.min() for batch in batches] != [shortest for shortest, _ in spans]
