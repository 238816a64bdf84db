"""Checks of checkpoints."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from weights import checkpoints, model_variables

SHAPES = {
    "bert/embeddings/word_embeddings": [7, 4],
    "bert/encoder/layer_0/output/adapters/weights1": [4, 2],
    "bert/encoder/layer_0/output/dense/kernel": [8, 4],
    "bert/encoder/layer_0/output/LayerNorm/beta": [4],
    "output_weights": [3, 4],
}
TRAINED = {
    "adapters": ["bert/encoder/layer_0/output/adapters/weights1"],
    "layer_norm": ["bert/encoder/layer_0/output/LayerNorm/beta"],
    "head": ["output_weights"],
}
TRAINED_NAMES = [name for names in TRAINED.values() for name in names]


def _save(path, shapes, fill=1.0):
    with tf.Graph().as_default(), tf.Session() as session:
        for name, shape in shapes.items():
            tf.get_variable(name, shape, initializer=tf.constant_initializer(fill))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(path), write_meta_graph=False)


def _without(*names):
    return {name: shape for name, shape in SHAPES.items() if name not in names}


def test_report_of_a_base_without_adapters(tmp_path):
    base = _without(TRAINED_NAMES[0], "output_weights")
    others = {"cls/seq_relationship/output_bias": [2], "global_step": []}
    others["output_weights/adam_m"] = [3, 4]
    checkpoint = _save(tmp_path / "base.ckpt", {**base, **others})
    report = checkpoints.Checkpoint(checkpoint).check_fit(SHAPES, TRAINED_NAMES)
    assert report.matched == sorted(base)
    assert report.missing == sorted([TRAINED_NAMES[0], "output_weights"])
    assert report.left_over == ["cls/seq_relationship/output_bias"]
    text = "\n".join(report.lines())
    assert "3 variables" in text
    assert TRAINED_NAMES[0] in text
    assert "cls/seq_relationship/output_bias" in text


def test_a_frozen_variable_may_not_be_missing(tmp_path):
    frozen = "bert/encoder/layer_0/output/dense/kernel"
    checkpoint = _save(tmp_path / "x.ckpt", _without(frozen))
    with pytest.raises(UserError, match=frozen):
        checkpoints.Checkpoint(checkpoint).check_fit(SHAPES, TRAINED_NAMES)
    report = checkpoints.Checkpoint(checkpoint).check_fit(
        SHAPES, TRAINED_NAMES, allow_random_base=True
    )
    assert report.missing == [frozen]


@pytest.mark.parametrize("ending", ["index", "data-00000-of-00001"])
def test_a_checkpoint_of_a_pipe_or_a_device(tmp_path, ending):
    checkpoint = _save(tmp_path / "x.ckpt", SHAPES)
    path = tmp_path / ("x.ckpt." + ending)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"%s cannot be read .*not a plain file" % path):
        checkpoints.Checkpoint(checkpoint)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"%s cannot be read .*not a plain file" % path):
        checkpoints.Checkpoint(checkpoint)


def test_the_name_of_the_last_checkpoint_in_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "checkpoint")
    with pytest.raises(
        UserError, match=r"checkpoint cannot be read .*not a plain file"
    ):
        checkpoints.latest(str(tmp_path))


def test_a_tensor_is_read_once(tmp_path, monkeypatch):
    checkpoint = checkpoints.Checkpoint(_save(tmp_path / "x.ckpt", SHAPES))
    read, reader = [], checkpoint._reader

    class Reader:
        def get_tensor(self, name):
            read.append(name)
            return reader.get_tensor(name)

    checkpoint._reader = Reader()
    first = checkpoint.base_fingerprint(set(SHAPES) - set(TRAINED_NAMES))
    checkpoint.check_values("")
    assert sorted(read) == sorted(SHAPES)
    assert checkpoint.base_fingerprint(set(SHAPES) - set(TRAINED_NAMES)) == first
    assert len(read) == len(SHAPES)


def test_fingerprint_tells_weights_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = _save(tmp_path / "a" / "x.ckpt", SHAPES)
    same = _save(tmp_path / "b" / "renamed.ckpt", SHAPES)
    other = _save(tmp_path / "y.ckpt", SHAPES, fill=2.0)
    digests = [checkpoints.Checkpoint(path).index_digest() for path in (one, same)]
    assert digests[0] == digests[1]
    assert checkpoints.Checkpoint(other).index_digest() not in digests


def test_warm_start_takes_what_is_there_and_leaves_the_rest(tmp_path):
    checkpoint = _save(tmp_path / "x.ckpt", _without("output_weights"), fill=5.0)
    for name, shape in SHAPES.items():
        tf.get_variable(name, shape, initializer=tf.zeros_initializer())
    assert checkpoints.warm_start(checkpoint, use_tpu=False) is None
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            value = 0.0 if variable.op.name == "output_weights" else 5.0
            assert np.all(session.run(variable) == value)


def test_what_is_not_read_as_it_was_written_is_an_error(tmp_path, monkeypatch):
    values = {"x": np.ones(3, np.float32)}
    checkpoints.write(str(tmp_path / "right"), values)
    read = lambda *_: np.zeros(3)  # noqa: E731
    monkeypatch.setattr(checkpoints.Checkpoint, "read_value", read)
    with pytest.raises(UserError, match=r"x of checkpoint .*wrong"):
        checkpoints.write(str(tmp_path / "wrong"), values)


def test_parameter_counts():
    counts = model_variables.VariableSet(SHAPES, TRAINED).parameter_counts()
    assert counts == {
        "adapters": 8,
        "layer_norm": 4,
        "head": 12,
        "trained": 24,
        "total": 28 + 8 + 32 + 4 + 12,
        "base": 28 + 32 + 4,
        "share": 24 / 64,
    }
