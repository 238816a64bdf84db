"""Features that are kept: when they are reused, and when they are built again."""

import json
import os

import pytest
import tensorflow.compat.v1 as tf

import tokenization
from inputs import feature_cache, features
from tasks import task_data
from tasks.classification import Classification
from tasks.regression import Regression
from tests.places import DATA

VOCAB = str(DATA / "vocab_uncased.txt")
COUNTS = features.TextCounts(
    examples=2, pieces=12, unknown=1, longest=10, truncated=1, features=2
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenization.FullTokenizer(VOCAB)


@pytest.fixture
def write(tmp_path, tokenizer):
    """Writes two examples under a key; returns the counts and whether it built them."""

    def write(key, fails=False):
        path, built = str(tmp_path / "dev.tf_record"), []
        examples = [
            features.InputExample("x", "a film \u2603 a film"),
            features.InputExample("y", "a film", "a film a film a"),
        ]

        def featurize(index, example, counts):
            built.append(example)
            if fails:
                raise ValueError
            return [features.encode_example(index, example, 0, 8, tokenizer, counts)]

        spec = features.feature_spec(8)
        found = feature_cache.build_features(examples, featurize, spec, path, 1, key)
        return found, bool(built)

    return write


CLASSES = Classification(("0", "1"))
SPLIT = task_data.Split("dev", "rows.tsv", 0, "text", None, "label")


def _key(tmp_path, **changes):
    (tmp_path / "rows.tsv").write_text(changes.pop("rows", "a\n"))
    (tmp_path / "vocab.txt").write_text(changes.pop("vocab", "[PAD]\n"))
    settings = {
        "data_digest": feature_cache.files.digest(str(tmp_path / "rows.tsv")),
        "split": SPLIT,
        "vocab_file": str(tmp_path / "vocab.txt"),
        "do_lower_case": True,
        "task_type": CLASSES,
        "max_seq_length": 32,
        "multiple": 3,
    }
    return feature_cache.cache_key(**{**settings, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "b\n"},
        {"vocab": "[UNK]\n"},
        {"split": SPLIT._replace(text_a="title")},
        {"split": SPLIT._replace(holdout=task_data.Holdout(0.1, 1, True))},
        {"split": SPLIT._replace(holdout=task_data.Holdout(0.1, 2, True))},
        {"do_lower_case": False},
        {"task_type": Classification(("1", "0"))},
        {"task_type": Regression()},
        {"max_seq_length": 33},
        {"multiple": 4},
    ],
)
def test_the_key_holds_all_that_shapes_the_features(tmp_path, change):
    assert _key(tmp_path) == _key(tmp_path)
    assert _key(tmp_path, **change) != _key(tmp_path)
    assert json.loads(_key(tmp_path))["format"] == feature_cache.FORMAT_VERSION


def test_a_file_is_reused_until_its_key_is_another(tmp_path, write):
    assert write("one") == (COUNTS, True)
    assert write("one") == (COUNTS, False)
    assert write("two") == (COUNTS, True)
    os.remove(tmp_path / "dev.tf_record")
    assert write("two") == (COUNTS, True)
    assert sorted(os.listdir(tmp_path)) == ["dev.tf_record", "dev.tf_record.key"]


def test_a_broken_build_leaves_no_key_that_vouches_for_the_old_file(tmp_path, write):
    write("two")
    with pytest.raises(ValueError):
        write("three", fails=True)
    assert os.listdir(tmp_path) == ["dev.tf_record"]
    assert write("two") == (COUNTS, True)


@pytest.mark.parametrize("length", [0, 100, None])
def test_a_damaged_file_is_written_again(tmp_path, write, length):
    path = tmp_path / "dev.tf_record"
    write("one")
    intact = path.read_bytes()
    path.write_bytes(intact[:length] if length is not None else intact[:-1] + b"x")
    assert write("one") == (COUNTS, True)
    assert path.read_bytes() == intact
    assert write("one") == (COUNTS, False)


def test_a_damaged_key_file_counts_as_none(tmp_path, write):
    write("one")
    path = tmp_path / "dev.tf_record.key"
    stored = json.loads(path.read_text())
    stored["counts"]["pieces"] = "10"
    for content in ("", "[]", '{"key": "one", "counts": 3}', json.dumps(stored)):
        path.write_text(content)
        assert write("one") == (COUNTS, True), content


def test_a_file_that_may_not_be_read_is_written_again(tmp_path, write, monkeypatch):
    write("one")
    digest = feature_cache.files.digest
    refused = [str(tmp_path / "dev.tf_record")]

    def refuse_once(name):
        if name in refused:
            refused.remove(name)
            raise tf.errors.PermissionDeniedError(None, None, name)
        return digest(name)

    monkeypatch.setattr(feature_cache.files, "digest", refuse_once)
    assert write("one") == (COUNTS, True) and not refused
