"""Ways to compute a training step: precision, parts, recomputation, XLA."""

import itertools
import os

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

import optimization
from tasks import task_type
from tests import graph_variables, training_graph
from tests.training_graph import BATCH, CLASSES
from training import batch_gradients, classifier, estimators
from tuning import registry

LAYERS = 2  # the last one is computed for the first word piece alone
PLAIN = classifier.PLAIN


def make_run(computation, dropout=0.0):
    config = training_graph.make_config(LAYERS, dropout)
    return training_graph.TrainingGraph(config, computation)


class Trained:
    """A `TrainingGraph` after four steps."""

    def __init__(self, run):
        self.run = run
        self.losses = run.steps(4)
        self.values = run.values()


def assert_the_same(run, expected, tolerance=1e-5):
    trained = Trained(run)
    np.testing.assert_allclose(trained.losses, expected.losses, rtol=tolerance)
    assert sorted(trained.values) == sorted(expected.values)
    for name, value in expected.values.items():
        # Adam magnifies the rounding of gradients near 0, not that of its moments:
        # weights differ by 2e-5 on processors without AVX-512. A step is 1e-2.
        atol = tolerance if "/adam_" in name else max(tolerance, 5e-5)
        np.testing.assert_allclose(
            trained.values[name], value, rtol=tolerance, atol=atol, err_msg=name
        )


@pytest.fixture(autouse=True, scope="module")
def no_head_dropout():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(task_type, "HEAD_DROPOUT", 0.0)
        yield


@pytest.fixture(scope="module")
def plain(no_head_dropout):
    """What most runs are compared with."""
    return Trained(make_run(PLAIN))


@pytest.mark.parametrize("parts", [2, BATCH])
def test_parts_of_a_batch_give_the_update_of_the_whole(plain, parts):
    run = make_run(PLAIN._replace(gradient_accumulation_steps=parts))
    products = len(run.find_by_type("BatchMatMulV2"))
    assert products == parts * len(plain.run.find_by_type("BatchMatMulV2"))
    # The parts are computed one after the other.
    starts = [
        op
        for op in run.graph.get_operations()
        if op.type == "ResourceGather" and "embeddings" in op.name
    ]
    assert len(starts) == parts
    for first, second in itertools.pairwise(starts):
        assert first in graph_variables.ancestors(second)
    assert_the_same(run, plain)


@pytest.mark.parametrize("shards", [3, BATCH])
def test_shards_give_the_update_of_the_whole(plain, shards):
    run = make_run(PLAIN._replace(shards=shards))
    products = len(run.find_by_type("BatchMatMulV2"))
    assert products == shards * len(plain.run.find_by_type("BatchMatMulV2"))
    assert_the_same(run, plain)


def test_shards_of_recomputed_parts_give_the_update_of_the_whole(plain):
    run = make_run(
        PLAIN._replace(
            shards=2, gradient_accumulation_steps=2, recompute_activations=True
        )
    )
    assert_the_same(run, plain)


def test_shards_take_batches_of_any_size():
    scores = {}
    for shards in (1, 3):
        with tf.Graph().as_default(), tf.Session() as session:
            ids, mask = (tf.placeholder(tf.int32, [None, None]) for _ in range(2))
            output = classifier.create_model(
                training_graph.make_config(LAYERS),
                False,
                ids,
                mask,
                tf.zeros_like(ids),
                tf.zeros_like(ids[:, 0]),
                CLASSES,
                use_one_hot_embeddings=False,
                variant=classifier.Variant(
                    computation=PLAIN._replace(shards=shards),
                ),
            )
            training_graph.initialize(session)
            for rows in (1, 2, BATCH):
                feed = {
                    ids: training_graph.make_batch()["input_ids"][:rows],
                    mask: training_graph.make_batch()["input_mask"][:rows],
                }
                scores[shards, rows] = session.run(output.probabilities, feed)
    for rows in (1, 2, BATCH):
        assert scores[1, rows].shape == (rows, CLASSES)
        np.testing.assert_allclose(scores[3, rows], scores[1, rows], atol=1e-5)


def test_layers_are_traced_once():
    def count_functions(layers):
        config = training_graph.make_config(layers, dropout=0.1)
        run = training_graph.TrainingGraph(config, PLAIN)
        return len(run.graph.as_graph_def().library.function)

    assert count_functions(6) == count_functions(3)


def find_ancestors(run, part, kind):
    """For each executed operation, the names of those that have to run before it.

    `part` is in the names of the operations, `kind` in their types.
    """
    graph = graph_variables.optimized_graph(run.session, run.spec.train_op, run.feed)
    for node in graph.node:
        if kind in node.op and part in node.name:
            yield " ".join(graph_variables.names_before(graph, node.name))


def test_layers_are_recomputed_after_the_forward_pass(optimized_graphs):
    run = make_run(PLAIN._replace(recompute_activations=True), dropout=0.4)
    part = "layer_0/IdentityN_grad/PartitionedCall/attention/self"
    found = [*find_ancestors(run, part, "BatchMatMul")]
    found += find_ancestors(run, part, "StatelessRandomUniform")
    assert len(found) == 3
    for names in found:
        assert "bert/encoder/layer_1/PartitionedCall/output/dense" in names


def test_a_part_waits_for_the_backward_pass_of_the_one_before(optimized_graphs):
    config = training_graph.make_config(LAYERS)
    # Trains nothing below the layers.
    run = training_graph.TrainingGraph(
        config,
        PLAIN._replace(gradient_accumulation_steps=2),
        method=registry.parse("lora:4", {}, LAYERS),
    )
    first, second = find_ancestors(run, "embeddings", "ResourceGather")
    last = "layer_0/PartitionedCall_grad/PartitionedCall/gradients/attention/self/query"
    assert last not in first
    assert last in second


def test_recomputed_activations_change_nothing():
    expected = Trained(make_run(PLAIN, dropout=0.4))
    run = make_run(PLAIN._replace(recompute_activations=True), dropout=0.4)
    # Each layer's softmax once more.
    assert len(run.find_by_type("Softmax")) == (
        len(expected.run.find_by_type("Softmax")) + LAYERS
    )
    before = run.values()
    assert_the_same(run, expected)
    # And what is trained is all that changes.
    with run.graph.as_default():
        trained = {v.op.name for v in optimization.trainable_variables()}
    for name, value in run.values().items():
        if "adam_" not in name and name != "global_step":
            assert np.array_equal(value, before[name]) == (name not in trained), name


def test_each_part_of_each_shard_drops_other_elements_in_each_step():
    run = make_run(
        PLAIN._replace(
            shards=2, gradient_accumulation_steps=2, recompute_activations=True
        ),
        dropout=0.4,
    )
    # Seeds of the embeddings, and of each layer; layers are recomputed with the same.
    parts = 2 * 2
    seeds = [
        op.outputs[0]
        for op in run.graph.get_operations()
        if op.type == "ConcatV2" and op.outputs[0].dtype == tf.int32
    ]
    assert len(seeds) == parts * (1 + LAYERS)
    steps = []
    for _ in range(2):
        drawn = np.concatenate(run.session.run(seeds))
        steps.append({tuple(seed) for seed in drawn})
        run.steps(1)
    assert [len(step) for step in steps] == [parts * (1 + LAYERS * 3)] * 2
    assert not steps[0] & steps[1]


def test_xla_gives_the_same_and_compiles(plain):
    run = make_run(PLAIN._replace(xla="true"))
    # Adam's first steps enlarge rounding errors of gradients near zero.
    assert_the_same(run, plain, tolerance=5e-5)
    graph = graph_variables.optimized_graph(run.session, run.spec.train_op, run.feed)
    calls = [node for node in graph.node if node.op == "PartitionedCall"]
    assert len(calls) == 2 * LAYERS  # forward and backward
    assert all(node.attr["_XlaMustCompile"].b for node in calls)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_for_frozen_kernels_and_attention(plain, precision):
    dtype = classifier.PRECISIONS[precision]
    run = make_run(PLAIN._replace(precision=precision))
    dtype, single = dtype.as_datatype_enum, tf.float32.as_datatype_enum
    low = [name for name, found in run.find_by_type("MatMul") if found == dtype]
    # Six products of each layer, and the pooler.
    forward = [name for name in low if not name.startswith("gradients")]
    assert len(forward) == LAYERS * 6 + 1
    for name, found in run.find_by_type("MatMul"):
        assert found == dtype or "adapters" in name or "head" in name
    assert {found for _, found in run.find_by_type("BatchMatMulV2")} == {dtype}
    assert {found for _, found in run.find_by_type("Softmax")} == {single}
    with run.graph.as_default():
        kept = {v.dtype.base_dtype for v in tf.global_variables()}
    assert kept == {tf.float32, tf.int64}
    np.testing.assert_allclose(run.steps(4), plain.losses, rtol=0.03)


def test_gradients_that_are_not_finite_are_skipped(monkeypatch):
    monkeypatch.setattr(batch_gradients.LossScale, "INITIAL", 2.0**120)
    run = make_run(PLAIN._replace(precision="float16"))
    before = run.values()
    (scale,) = [
        v
        for v in run.graph.get_collection("variables")
        if v.op.name == optimization.LOSS_SCALE
    ]
    run.steps(1)
    after = run.values()
    assert run.session.run(scale) == 2.0**119
    for name, value in before.items():
        if name not in ("global_step", optimization.LOSS_SCALE):
            np.testing.assert_array_equal(after[name], value, name)
    scale.load(2.0**10, run.session)
    run.steps(1)
    assert run.session.run(scale) == 2.0**10
    changed = run.values()
    assert any(
        (changed[name] != value).any()
        for name, value in after.items()
        if "adam_" in name
    )
    assert all(np.isfinite(value).all() for value in changed.values())


def test_loss_scale_grows_after_enough_finite_steps(monkeypatch):
    monkeypatch.setattr(batch_gradients.LossScale, "DOUBLED_AFTER", 3)
    scale = batch_gradients.LossScale()
    finite = tf.placeholder(tf.bool, [])
    update = scale.update(finite)
    course = []
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for is_finite in (1, 1, 0, 1, 1, 1, 1):
            session.run(update, {finite: bool(is_finite)})
            course.append(session.run(scale.value) / scale.INITIAL)
    assert course == [1, 1, 0.5, 0.5, 0.5, 1, 1]


def test_flags_reach_the_step(tmp_path, monkeypatch):
    batches, shards = {}, {}
    session_config = estimators.session_config

    def cpu_shards(batch_sizes):
        batches[name] = batch_sizes
        return 2 if name == "float16" else 1

    def configured(count):
        shards[name] = count
        return session_config(count)

    monkeypatch.setattr(estimators, "cpu_shards", cpu_shards)
    monkeypatch.setattr(estimators, "session_config", configured)
    model = small_run.write_model(tmp_path / "bert")
    rows = small_run.write_mrpc(tmp_path / "MRPC")
    scores = {}
    for name, changes in {
        "plain": {},
        "float16": {
            "precision": "float16",
            "gradient_accumulation_steps": 4,
            "recompute_activations": True,
        },
        "xla": {"xla": "true"},
    }.items():
        output = str(tmp_path / name)
        small_run.run(
            do_train=True,
            do_predict=True,
            output_dir=output,
            **model,
            **rows,
            **changes,
        )
        scores[name] = np.loadtxt(os.path.join(output, "test_results.tsv"))
        kept = tf.train.load_checkpoint(tf.train.latest_checkpoint(output))
        assert set(kept.get_variable_to_dtype_map().values()) == {tf.float32, tf.int64}
        assert kept.has_tensor("loss_scale") == (name == "float16")
    # XLA uses all cores for what it compiles.
    assert shards == {"plain": 1, "float16": 2, "xla": 1}
    assert batches == {"plain": [8, 8], "float16": [2, 8]}
    assert (scores["float16"] != scores["plain"]).any()
    for name, values in scores.items():
        np.testing.assert_allclose(values, scores["plain"], atol=0.05, err_msg=name)
