"""The graph against figures recorded from the original program, and its variables."""

import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from model import initializers, random_seeds
from tests import graph_variables
from tests.places import DATA
from training import classifier
from tuning.adapters import Adapters

BERT_BASE = modeling.BertConfig(30522, type_vocab_size=2)
BERT_LARGE = modeling.BertConfig(
    30522,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    type_vocab_size=2,
)


@pytest.fixture(scope="module")
def golden():
    with open(os.path.join(DATA, "golden_small.json")) as reader:
        settings = json.load(reader)
    return settings, np.load(os.path.join(DATA, "golden_small.npz"))


def _small_config(**changes):
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 24,
        "type_vocab_size": 2,
    }
    return modeling.BertConfig(**{**sizes, **changes})


def _load(session, arrays, prefix):
    for variable in tf.global_variables():
        name = prefix + variable.op.name
        if name in arrays:
            variable.load(arrays[name], session)


def _assert_close(actual, expected, tolerance=1e-5):
    scale = np.abs(expected).max()
    assert np.abs(np.asarray(actual) - expected).max() <= tolerance * scale


def test_forward_equals_the_original(golden):
    settings, arrays = golden
    config = modeling.BertConfig.from_dict(settings["bert_config"])
    batch = {
        name: tf.constant(arrays["batch/" + name][0])
        for name in ("input_ids", "input_mask", "segment_ids", "label_ids")
    }
    output = classifier.create_model(
        config,
        False,
        batch["input_ids"],
        batch["input_mask"],
        batch["segment_ids"],
        batch["label_ids"],
        settings["num_labels"],
        use_one_hot_embeddings=False,
    )
    with tf.variable_scope("", reuse=True):
        model = modeling.BertModel(
            config,
            False,
            batch["input_ids"],
            batch["input_mask"],
            batch["segment_ids"],
            scope="bert",
        )
        fetches = {
            "embedding_output": model.get_embedding_output(),
            "layers": tf.stack(model.get_all_encoder_layers()),
            "sequence_output": model.get_sequence_output(),
            "pooled_output": model.get_pooled_output(),
            **output._asdict(),
        }
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        _load(session, arrays, "init/")
        values = session.run(fetches)
    recorded = [name for name in arrays.files if name.startswith("forward/")]
    assert len(recorded) == 8
    for name in recorded:
        _assert_close(values[name[len("forward/") :]], arrays[name])


def test_every_variable_of_the_original_is_there_and_no_other(golden):
    settings, arrays = golden
    config = modeling.BertConfig.from_dict(settings["bert_config"])
    variables = graph_variables.model_variables(config, 3, classifier.Variant())
    expected = {
        name[len("init/") :]: list(arrays[name].shape)
        for name in arrays.files
        if name.startswith("init/")
    }
    assert variables.shapes == expected
    trained = [name for names in variables.collections.values() for name in names]
    assert trained == settings["trainable_in_order"]


def test_pooled_output_only_gives_the_same_and_no_sequence():
    ids = tf.constant(np.random.RandomState(0).randint(0, 50, [3, 7]), tf.int32)
    mask = tf.constant([[1] * 7, [1] * 5 + [0] * 2, [1] + [0] * 6], tf.int32)
    config = _small_config(initializer_range=0.5)
    models = []
    for options in (None, modeling.Options(pooled_output_only=True)):
        with tf.variable_scope("", reuse=bool(models)):
            models.append(
                modeling.BertModel(
                    config, False, ids, mask, scope="bert", options=options
                )
            )
    outputs = [model.get_pooled_output() for model in models]
    gradient_to = tf.global_variables("bert/encoder/layer_0/output/adapters/weights1")
    gradients = [
        tf.gradients(tf.reduce_sum(tf.square(output)), gradient_to)[0]
        for output in outputs
    ]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for full, pooled_only in session.run([outputs, gradients]):
            assert np.abs(full).max() > 0
            _assert_close(pooled_only, full)
    with pytest.raises(ValueError, match="pooled_output_only"):
        models[1].get_sequence_output()


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("use_resource", [False, True])
def test_every_operation_leads_to_an_output(is_training, use_resource):
    # The original's test requires this, with reference variables.
    ids = tf.ones([13, 7], tf.int32)
    with tf.variable_scope("", use_resource=use_resource):
        model = modeling.BertModel(_small_config(), is_training, ids, ids, ids)
    outputs = [
        model.get_embedding_output(),
        model.get_sequence_output(),
        model.get_pooled_output(),
        *model.get_all_encoder_layers(),
    ]
    reached = graph_variables.ancestors(
        tf.global_variables_initializer(), *(output.op for output in outputs)
    )
    unreached = [
        op.name
        for op in tf.get_default_graph().get_operations()
        if op not in reached
        # The bookkeeping of resource variables.
        and not op.name.endswith(
            ("/IsInitialized/VarIsInitializedOp", "/Read/ReadVariableOp")
        )
    ]
    assert unreached == []


@pytest.mark.parametrize("one_hot", [False, True])
def test_padding_changes_no_logit(one_hot):
    random = np.random.RandomState(1)
    ids = random.randint(1, 50, [3, 9])
    mask = np.ones([3, 9], int)
    mask[1, 4:] = 0
    longer = [np.pad(x, [(0, 0), (0, 12)]) for x in (ids, mask)]
    fed_ids, fed_mask = (tf.placeholder(tf.int32, [None, None]) for _ in range(2))
    logits = classifier.create_model(
        _small_config(initializer_range=0.5),
        False,
        fed_ids,
        fed_mask,
        tf.zeros_like(fed_ids),
        tf.zeros([3], tf.int32),
        2,
        use_one_hot_embeddings=one_hot,
    ).logits
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        short = session.run(logits, {fed_ids: ids, fed_mask: mask})
        padded = session.run(logits, {fed_ids: longer[0], fed_mask: longer[1]})
    assert np.ptp(short) > 1e-3
    _assert_close(padded, short)


@pytest.mark.parametrize(
    ("config", "size", "adapters", "layer_norm", "head", "share"),
    [
        (BERT_BASE, 64, 2379264, 38400, 1538, 2.21),
        (BERT_LARGE, 64, 6343680, 100352, 2050, 1.92),
    ],
)
def test_parameter_counts(config, size, adapters, layer_norm, head, share):
    variables = graph_variables.model_variables(
        config, 2, classifier.Variant(method=Adapters(size))
    )
    counts = variables.parameter_counts()
    assert counts["adapters"] == adapters
    assert counts["layer_norm"] == layer_norm
    assert counts["head"] == head
    assert counts["trained"] == adapters + layer_norm + head
    assert round(100 * counts["share"], 2) == share
    assert len(variables.shapes) == 24 * config.num_hidden_layers + 9


def test_adapter_starts_near_the_identity_and_matters():
    x = tf.constant(np.random.RandomState(2).randn(4, 16), tf.float32)
    near = modeling.feedforward_adapter(x, hidden_size=5, init_scale=1e-3)
    with tf.variable_scope("far"):
        far = modeling.feedforward_adapter(x, hidden_size=5, init_scale=1.0)
    shapes = [v.shape.as_list() for v in tf.get_collection("adapters")[:4]]
    assert shapes == [[16, 5], [1, 5], [5, 16], [1, 16]]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        x, near, far = session.run([x, near, far])
    assert 0 < np.abs(near - x).max() < 1e-3
    assert np.abs(far - x).max() > 0.1


def test_initial_values_follow_from_seed_and_name_alone():
    def values(seed, draws_before=0):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(seed)
            for _ in range(draws_before):
                tf.random.uniform([])
            with tf.variable_scope("scope"):
                a = modeling.normal_variable("a", [300, 200], 0.5)
            b = modeling.normal_variable("a", [300, 200], 0.5)
            session.run(tf.global_variables_initializer())
            return session.run([a, b])

    a, b = values(3)
    assert (a != b).any()
    np.testing.assert_array_equal(values(3, draws_before=5), [a, b])
    assert (values(4)[0] != a).any()
    assert (values(None)[0] != values(None)[0]).any()
    # Truncated at two standard deviations: the deviation is 0.8796 of the original.
    assert abs(a).max() <= 1.0
    assert abs(a.std() - 0.5 * 0.8796) < 0.005


def test_truncated_normal_draws_again_what_is_outside():
    values = initializers.truncated_normal(np.random.RandomState(2), [300, 200], 0.5)
    assert values.dtype == np.float32 and values.shape == (300, 200)
    # Clipping would leave one in 22 at the bound, and a larger deviation.
    assert (abs(values) > 0.9999).sum() < 10
    assert abs(values).max() <= 1.0
    assert abs(values.std() - 0.5 * 0.8796) < 0.005


def test_without_adapters_there_are_none():
    for nothing in (None, ""):
        with tf.Graph().as_default():
            ids = tf.zeros([1, 3], tf.int32)
            modeling.BertModel(_small_config(), False, ids, adapter_fn=nothing)
            assert not tf.get_collection("adapters")
    with pytest.raises(ValueError, match="houlsby"):
        modeling.get_adapter("houlsby")


@pytest.mark.parametrize("shape", [[2, 4, 4], [4]])
def test_building_blocks_take_matrices_alone(shape):
    x, options = tf.zeros(shape), modeling.Options()
    with pytest.raises(ValueError, match="rank 2"):
        modeling.feedforward_adapter(x)
    with pytest.raises(ValueError, match="rank 2"):
        modeling.dense(x, 4, _small_config(), options)


def _reference_gelu(x):
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))


def test_gelu_and_its_gradient():
    x = np.concatenate([np.linspace(-12, 12, 401), [-1e3, 1e3]])
    step = 1e-5
    slope = (_reference_gelu(x + step) - _reference_gelu(x - step)) / (2 * step)
    tensor = tf.constant(x, tf.float32)
    y = modeling.gelu(tensor)
    with tf.Session() as session:
        value, gradient = session.run([y, tf.gradients(y, tensor)[0]])
    np.testing.assert_allclose(value, _reference_gelu(x), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(gradient, slope, atol=5e-6)


def test_layer_norm_and_its_gradients():
    random = np.random.RandomState(3)
    x = tf.constant(random.randn(6, 8) * 3 + 1)
    beta = tf.constant(random.randn(8))
    gamma = tf.constant(random.randn(8))
    weights = tf.constant(random.randn(6, 8))
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    plain = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)
    ours = modeling._normalize(x, beta, gamma)
    both = [
        [y, *tf.gradients(tf.reduce_sum(y * weights), [x, beta, gamma])]
        for y in (plain, ours)
    ]
    with tf.Session() as session:
        expected, actual = session.run(both)
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_dropout_drops_the_given_fraction_and_keeps_the_mean():
    y = modeling.dropout(tf.ones([2000, 1000]), 0.1)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        value = session.run(y)
    # With 8 random bits, 25 or 26 of 256 values, the fraction would be further off.
    assert abs((value == 0).mean() - 0.1) < 0.001
    # 6554 of 65536 values of 16 bits.
    np.testing.assert_allclose(value[value != 0], 65536 / 58982, rtol=1e-6)
    x = tf.ones([3])
    assert modeling.dropout(x, 0.0) is x


def test_dropout_of_a_seed_drops_the_same_and_so_does_its_gradient():
    x = tf.constant(np.random.RandomState(0).rand(7, 9) + 1, tf.float32)
    seed = random_seeds.step_seeds(1)[0]
    y, again, other = (modeling.dropout(x, 0.5, s) for s in (seed, seed, None))
    (gradient,) = tf.gradients(y, x, tf.ones_like(x))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        runs = []
        for _ in range(2):
            runs.append(session.run([y, again, other, gradient]))
            session.run(tf.assign_add(tf.train.get_global_step(), 1))
    for value, same, different, slope in runs:
        np.testing.assert_array_equal(value, same)
        assert ((value == 0) != (different == 0)).any()
        np.testing.assert_array_equal(slope, np.where(value == 0, 0, 2))
    assert ((runs[0][0] == 0) != (runs[1][0] == 0)).any()


def test_config_round_trip(tmp_path):
    path = tmp_path / "bert_config.json"
    path.write_text(BERT_LARGE.to_json_string())
    read = modeling.BertConfig.from_json_file(str(path))
    assert read.to_dict() == BERT_LARGE.to_dict()


def test_too_long_a_sequence_is_refused():
    with pytest.raises(ValueError, match="25 exceeds max_position_embeddings 24"):
        modeling.BertModel(_small_config(), False, tf.zeros([1, 25], tf.int32))
