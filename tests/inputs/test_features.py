"""Features against the original's, batches, and the cache."""

import itertools
import json
import os
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tokenization
from errors import UserError
from inputs import example_order, features
from tests.places import DATA

VOCAB = os.path.join(DATA, "vocab_uncased.txt")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenization.FullTokenizer(VOCAB)


def _rows():
    """Recorded pairs of features of the same row, truncated to 16 and whole.

    The rows' text is not the project's to ship. The recorded pieces of the whole row,
    glued together, are a text that gives the very same pieces.
    """
    with open(os.path.join(DATA, "golden_features.json")) as reader:
        records = json.load(reader)
    by_row = {}
    for record in records:
        row = (record["task"], record["split"], record["index"])
        by_row.setdefault(row, {})[record["max_seq_length"]] = record
    return [row for row in by_row.values() if row[128]["num_tokens"] < 128]


def _glue(pieces):
    return " ".join(pieces).replace(" ##", "")


def test_features_equal_the_original(tokenizer):
    rows = _rows()
    assert len(rows) > 100
    for row in rows:
        whole = row[128]
        pieces = tokenizer.convert_ids_to_tokens(whole["input_ids"])
        second = whole["num_segment_b"]
        first = whole["num_tokens"] - second
        example = features.InputExample(
            whole["guid"],
            _glue(pieces[1 : first - 1]),
            _glue(pieces[first:-1]) if second else None,
            whole["label"],
        )
        labels = ["0", "1"]
        for length, record in row.items():
            got = features.convert_single_example(9, example, labels, length, tokenizer)
            count = record["num_tokens"]
            assert got.input_ids == record["input_ids"] + [0] * (length - count)
            assert got.input_mask == [1] * count + [0] * (length - count)
            segments = [0] * (count - record["num_segment_b"])
            segments += [1] * record["num_segment_b"]
            assert got.segment_ids == segments + [0] * (length - count)
            assert got.label_id == record["label_id"]


def test_a_second_text_without_pieces_counts_as_none(tokenizer):
    examples = [
        features.InputExample("x", "a film " * 20, text_b, "1")
        for text_b in (None, "", " \u200b\ufffd")
    ]
    expected, *found = (
        vars(features.convert_single_example(9, each, ["0", "1"], 8, tokenizer))
        for each in examples
    )
    assert found == [expected, expected] and len(expected["input_ids"]) == 8


def test_padding_example_and_regression(tokenizer):
    padding = features.convert_single_example(
        9, features.PaddingInputExample(), ["0", "1"], 8, tokenizer
    )
    assert padding.input_mask == [0] * 8
    assert padding.label_id == 0
    assert padding.is_real_example is False
    example = features.InputExample("x", "a", "b", "3.75")
    got = features.convert_single_example(9, example, None, 8, tokenizer)
    assert got.label_id == 3.75


def _write(path, tokenizer, count, length=32):
    """Examples of 1 to 20 words, logged apart by their label."""
    labels = [str(i) for i in range(count)]
    random = np.random.RandomState(0)
    examples = [
        features.InputExample(label, "word " * random.randint(1, 21), None, label)
        for label in labels
    ]
    features.file_based_convert_examples_to_features(
        examples, labels, length, tokenizer, path
    )


def _batches(path, batch_size, steps=None, step_reached=0, calls=None, **arguments):
    """The first `steps` batches of a run that has reached a step, or of an evaluation.

    `calls` are arguments of the input function, `arguments` those of its builder.
    """
    settings = {"is_training": False, "drop_remainder": False, **arguments}
    calls = {"params": {"batch_size": batch_size}, **(calls or {})}
    with tf.Graph().as_default(), tf.Session() as session:
        if "config" not in calls:
            global_step = tf.train.create_global_step()
        input_fn = features.input_fn_builder(path, 32, **settings)
        iterator = tf.data.make_initializable_iterator(input_fn(**calls))
        batch = iterator.get_next()
        if "config" not in calls:
            # A session restores the step after the graph is built.
            session.run(tf.assign(global_step, step_reached))
        session.run(iterator.initializer)
        batches = []
        try:
            while steps is None or len(batches) < steps:
                batches.append(session.run(batch))
        except tf.errors.OutOfRangeError:
            pass
        return batches


def _examples_of(batches):
    return np.concatenate([batch["label_ids"] for batch in batches])


@pytest.fixture(scope="module")
def records(tmp_path_factory, tokenizer):
    path = str(tmp_path_factory.mktemp("few") / "train.tf_record")
    _write(path, tokenizer, 100)
    return path


def test_evaluation_keeps_order_and_drops_padding_only(records):
    whole = _batches(records, 8)
    cut = _batches(records, 8, dynamic_padding=True)
    assert [len(b["label_ids"]) for b in whole] == [8] * 12 + [4]
    widths = set()
    for a, b in zip(whole, cut):
        width = b["input_ids"].shape[1]
        widths.add(width)
        assert a["input_ids"].shape[1] == 32
        assert b["input_mask"].sum(axis=1).max() == width
        np.testing.assert_array_equal(a["input_ids"][:, :width], b["input_ids"])
        assert not a["input_mask"][:, width:].any()
        np.testing.assert_array_equal(a["label_ids"], b["label_ids"])
    assert len(widths) > 1
    np.testing.assert_array_equal(_examples_of(cut), np.arange(100))
    # Padded to a multiple, but not beyond the length.
    multiples = _batches(records, 8, dynamic_padding=True, length_multiple=5)
    for exact, multiple in zip(cut, multiples):
        width = min(-(-exact["input_ids"].shape[1] // 5) * 5, 32)
        assert multiple["input_ids"].shape[1] == width


def test_a_batch_of_padding_alone_keeps_a_position(tmp_path, tokenizer):
    path = str(tmp_path / "eval.tf_record")
    examples = [features.PaddingInputExample()] * 2
    features.file_based_convert_examples_to_features(
        examples, ["0"], 32, tokenizer, path
    )
    (batch,) = _batches(path, 2, dynamic_padding=True)
    assert batch["input_ids"].shape == (2, 1)


def _training(dynamic_padding, num_examples, seed=5):
    return {
        "is_training": True,
        "drop_remainder": True,
        "num_examples": num_examples,
        "dynamic_padding": dynamic_padding,
        "seed": seed,
    }


@pytest.mark.parametrize("dynamic_padding", [False, True])
def test_each_epoch_holds_every_example_once_in_another_order(records, dynamic_padding):
    order = _examples_of(_batches(records, 10, 20, **_training(dynamic_padding, 100)))
    first, second = list(order[:100]), list(order[100:])
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second and first != sorted(first)
    again = _examples_of(_batches(records, 10, 20, **_training(dynamic_padding, 100)))
    np.testing.assert_array_equal(order, again)
    other = _examples_of(
        _batches(records, 10, 10, **_training(dynamic_padding, 100, 6))
    )
    assert first != list(other)


# Two to four windows of `example_order.SORTED_BATCHES` batches.
MANY = 1200


@pytest.fixture(scope="module")
def many_records(tmp_path_factory, tokenizer):
    path = str(tmp_path_factory.mktemp("many") / "train.tf_record")
    _write(path, tokenizer, MANY)
    return path


@pytest.mark.parametrize(("batch_size", "dynamic_padding"), [(8, False), (7, True)])
def test_interrupted_epochs_hold_every_example_once(
    many_records, batch_size, dynamic_padding
):
    settings = _training(dynamic_padding, MANY)
    steps = 2 * MANY // batch_size  # two epochs
    whole = _batches(many_records, batch_size, steps, **settings)
    rows = _examples_of(whole)
    assert sorted(rows[:MANY]) == list(range(MANY))
    assert np.bincount(rows[MANY:]).max() == 1
    for interruptions in (1, 4):
        stops = [steps * i // (interruptions + 1) for i in range(interruptions + 2)]
        parts = [
            _batches(many_records, batch_size, stop - start, start, **settings)
            for start, stop in itertools.pairwise(stops)
        ]
        resumed = [batch for part in parts for batch in part]
        assert len(resumed) == len(whole)
        for actual, expected in zip(resumed, whole):
            for name, value in expected.items():
                np.testing.assert_array_equal(actual[name], value)


def test_batches_larger_than_the_set_hold_several_epochs(records):
    rows = _examples_of(_batches(records, 250, 2, **_training(True, 100)))
    for epoch in range(5):
        assert sorted(rows[100 * epoch : 100 * (epoch + 1)]) == list(range(100))


class _Context:
    """Stands for a `tf.distribute.InputContext` and for a `TPUContext`."""

    def __init__(self, replicas, machines, machine):
        self.num_replicas_in_sync = self.num_replicas = replicas
        self.num_input_pipelines = machines
        self.input_pipeline_id = machine

    def current_input_fn_deployment(self):
        here = self.num_replicas // self.num_input_pipelines
        return None, self.input_pipeline_id, self.num_input_pipelines, here


@pytest.mark.parametrize("on_tpu", [False, True])
def test_replicas_share_the_batches_of_one_device(tmp_path, records, on_tpu):
    settings = _training(not on_tpu, 100)
    whole = _batches(records, 12, 9, **settings)
    # Four replicas on two machines, which resume from the checkpoint of step 5.
    with tf.Graph().as_default(), tf.Session() as session:
        session.run(tf.assign(tf.train.create_global_step(), 5))
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"), 5)
    config = types.SimpleNamespace(model_dir=str(tmp_path))
    parts = []
    for machine in range(2):
        context = _Context(4, 2, machine)
        calls = {"config": config, "input_context": context}
        if on_tpu:
            params = {"batch_size": 12 // 4, "context": context}
            calls = {"config": config, "params": params}
        here = _batches(records, 12, 4 * 2, calls=calls, **settings)
        parts.append(_examples_of(here).reshape(4, 2, 3))
    together = np.concatenate(parts, axis=1).reshape(4, 12)
    np.testing.assert_array_equal(together, [b["label_ids"] for b in whole[5:]])


def test_grouping_by_length_wastes_less_padding(records):
    def padding(dynamic):
        batches = _batches(records, 7, steps=28, **_training(dynamic, 100, seed=3))
        masks = [b["input_mask"] for b in batches]
        return 1 - sum(m.sum() for m in masks) / sum(m.size for m in masks)

    assert padding(True) < 0.2 < padding(False)


def test_whole_batches_hold_examples_of_similar_length():
    lengths = np.random.RandomState(0).randint(1, 30, 100)
    epoch = tf.constant(1, tf.int64)
    order = example_order.epoch_order(epoch, 7, 100, 3, tf.constant(lengths, tf.int32))
    with tf.Session() as session:
        numbers = session.run(order)
    assert sorted(numbers) == list(range(100))
    # A batch has two examples of epoch 0 and five of epoch 1; four are left.
    batches = lengths[numbers][5:96].reshape(13, 7)
    spans = sorted((batch.min(), batch.max()) for batch in batches)
    assert all(
        longest <= next_one for (_, longest), (next_one, _) in itertools.pairwise(spans)
    )
    assert [batch.min() for batch in batches] != [shortest for shortest, _ in spans]


def test_static_shapes_for_tpu_and_no_tuning(records):
    input_fn = features.input_fn_builder(records, 32, True, True, num_examples=100)
    dataset = input_fn({"batch_size": 4})
    shapes = {"label_ids": [4], "is_real_example": [4]}
    for name in ("input_ids", "input_mask", "segment_ids"):
        shapes[name] = [4, 32]
    found = tf.data.get_output_shapes(dataset)
    assert {name: shape.as_list() for name, shape in found.items()} == shapes
    assert dataset.options().autotune.enabled is False


@pytest.mark.parametrize("length", [2, 513])
def test_sequence_length_limits(length):
    with pytest.raises(UserError, match="max_seq_length"):
        features.check_seq_length(length, 512)
    features.check_seq_length(3, 512)
    features.check_seq_length(512, 512)


def test_texts_are_counted_before_truncation(tokenizer):
    counts = features.TextCounts()
    assert counts.unknown_fraction == counts.truncated_fraction == 0
    rows = [("a film", "a film a"), ("a \u2603", None), ("a " * 20, ""), ("", None)]
    for text_a, text_b in rows:
        example = features.InputExample("x", text_a, text_b, "0")
        features.convert_single_example(9, example, ["0"], 8, tokenizer, counts)
    padding = features.PaddingInputExample()
    features.convert_single_example(9, padding, ["0"], 8, tokenizer, counts)
    assert counts == features.TextCounts(
        examples=4, pieces=5 + 2 + 20, unknown=1, longest=22, truncated=1
    )
    assert counts.unknown_fraction == 1 / 27
    assert counts.truncated_fraction == 1 / 4


@pytest.mark.parametrize(
    "tokens, parts",
    [
        (["[PAD]", "a", "b"], []),
        (["[PAD]", "", "a", "", "b", "", "b"], ["3 lines, first line 2,"]),
        (["a", "[PAD]", "b"], ["[PAD] on its first line"]),
        (["[PAD]", "[PAD]"], ["1 line,", "[PAD] on its first line"]),
    ],
)
def test_warnings_about_a_vocabulary(monkeypatch, tokens, parts):
    logged = []
    monkeypatch.setattr(
        features.console, "warn", lambda text, *args: logged.append(text % args)
    )
    vocab = {token: index for index, token in enumerate(tokens)}
    features.check_vocabulary("v.txt", vocab, len(tokens), "c.json")
    assert len(logged) == len(parts)
    for text, part in zip(logged, parts):
        assert part in text and "v.txt" in text
    # The ids are lines, however few tokens there are.
    with pytest.raises(
        UserError, match="v.txt has %d entries.* is %d" % (len(tokens), len(tokens) - 1)
    ):
        features.check_vocabulary("v.txt", vocab, len(tokens) - 1, "c.json")
