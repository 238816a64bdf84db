"""What the seeds of random numbers follow from, and that nothing else counts."""

import types

import numpy as np
import tensorflow.compat.v1 as tf

from model import random_seeds


def drawn(step=3, seed=5, scope="layer", replica=0, before=()):
    """The seeds of three calls, two of them in one scope, int [3, 2, 2]."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.set_random_seed(seed)
        for name in before:
            tf.random.uniform([], name=name)
        with tf.variable_scope(scope):
            places = [random_seeds.step_seeds(2) for _ in range(2)]
        places.append(random_seeds.step_seeds(2))
        (global_step,) = tf.global_variables()
        assert global_step is tf.train.get_global_step(graph)
        # A checkpoint's name for it, wherever it was asked for first.
        assert global_step.op.name == "global_step"
        session.run(tf.assign(global_step, step))
        return session.run(tf.stack(places))


def test_seeds_follow_from_seed_step_place_and_replica_alone(monkeypatch):
    seeds = drawn()
    assert len({tuple(pair) for pair in seeds.reshape(-1, 2)}) == 6
    np.testing.assert_array_equal(drawn(before=("x", "y")), seeds)
    differing = [drawn(step=4), drawn(seed=6), drawn(scope="other")]
    context = types.SimpleNamespace(replica_id_in_sync_group=1)
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)
    differing.append(drawn())
    for other in differing[:2] + differing[3:]:
        assert (other != seeds).any(axis=-1).all()
    # The call out of the scope is where it was.
    assert (differing[2] != seeds).any(axis=-1).tolist() == [[True] * 2] * 2 + [
        [False] * 2
    ]


def test_a_variable_is_seeded_by_its_name_where_the_graph_is_seeded():
    assert random_seeds.variable_seed("kernel") is None
    tf.set_random_seed(3)
    with tf.variable_scope("dense"):
        inner = [random_seeds.variable_seed("kernel") for _ in range(2)]
    assert inner[0] == inner[1] != random_seeds.variable_seed("kernel")
