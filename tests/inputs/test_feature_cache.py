"""Features that are kept: when they are reused, and when they are built again."""

import json
import os

import pytest
import tensorflow.compat.v1 as tf

import tokenization
from inputs import feature_cache, features, tasks
from tests.places import DATA

VOCAB = str(DATA / "vocab_uncased.txt")
COUNTS = features.TextCounts(examples=2, pieces=12, unknown=1, longest=10, truncated=1)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenization.FullTokenizer(VOCAB)


@pytest.fixture
def built(monkeypatch):
    """A list that grows with each file that is built."""
    calls = []
    build = features.file_based_convert_examples_to_features

    def count(*arguments):
        calls.append(arguments[-1])
        return build(*arguments)

    monkeypatch.setattr(features, "file_based_convert_examples_to_features", count)
    return calls


@pytest.fixture
def write(tmp_path, tokenizer, built):
    """Writes two examples under a key; returns the counts and whether it built them."""

    def write(key, labels=("0",)):
        before = len(built)
        examples = [
            features.InputExample("x", "a film \u2603 a film", None, "0"),
            features.InputExample("y", "a film", "a film a film a", "0"),
        ]
        counts = feature_cache.build_features(
            examples, labels, 8, tokenizer, str(tmp_path / "dev.tf_record"), key
        )
        return counts, len(built) > before

    return write


SPLIT = tasks.Split("dev", "rows.tsv", 0, "text", None, "label")


def _key(tmp_path, **changes):
    (tmp_path / "rows.tsv").write_text(changes.pop("rows", "a\n"))
    (tmp_path / "vocab.txt").write_text(changes.pop("vocab", "[PAD]\n"))
    settings = {
        "split": SPLIT,
        "do_lower_case": True,
        "label_list": ["0", "1"],
        "max_seq_length": 32,
        "padded_to": 3,
        **changes,
    }
    return feature_cache.cache_key(
        str(tmp_path / "rows.tsv"),
        settings.pop("split"),
        str(tmp_path / "vocab.txt"),
        **settings,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "b\n"},
        {"vocab": "[UNK]\n"},
        {"split": SPLIT._replace(text_a="title")},
        {"split": SPLIT._replace(holdout=tasks.Holdout(0.1, 1, True))},
        {"split": SPLIT._replace(holdout=tasks.Holdout(0.1, 2, True))},
        {"do_lower_case": False},
        {"label_list": ["1", "0"]},
        {"label_list": None},
        {"max_seq_length": 33},
        {"padded_to": 4},
    ],
)
def test_the_key_holds_all_that_shapes_the_features(tmp_path, change):
    assert _key(tmp_path) == _key(tmp_path)
    assert _key(tmp_path, **change) != _key(tmp_path)


def test_the_format_is_part_of_the_key(tmp_path, monkeypatch):
    before = _key(tmp_path)
    monkeypatch.setattr(feature_cache, "FORMAT_VERSION", -1)
    assert _key(tmp_path) != before


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
        write("three", labels=("not the label",))
    assert os.listdir(tmp_path) == ["dev.tf_record"]
    assert write("two") == (COUNTS, True)


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-20], flipped],
    ids=range(3),
)
def test_a_damaged_file_is_built_again(tmp_path, write, damage):
    path = tmp_path / "dev.tf_record"
    write("one")
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert write("one") == (COUNTS, True)
    assert path.read_bytes() == sound
    assert write("one") == (COUNTS, False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"one",
        b"\xff",
        b"[" * 100000,
        b"[]",
        b'{"key": "one"}',
        b'{"key": "one", "counts": 3}',
        b'{"key": "one", "counts": {"pieces": 3}}',
    ],
    ids=range(8),
)
def test_a_damaged_key_file_counts_as_none(tmp_path, write, content):
    write("one")
    (tmp_path / "dev.tf_record.key").write_bytes(content)
    assert write("one") == (COUNTS, True)


def test_a_file_without_the_right_to_read_it_is_built_again(
    tmp_path, write, monkeypatch
):
    write("one")
    digest = feature_cache.files.digest
    path = tmp_path / "dev.tf_record"

    def refuse_once(name):
        if name == str(path) and path.exists() and not write.refused:
            write.refused = True
            raise tf.errors.PermissionDeniedError(None, None, name)
        return digest(name)

    write.refused = False
    monkeypatch.setattr(feature_cache.files, "digest", refuse_once)
    assert write("one") == (COUNTS, True)


def test_counts_that_are_none(tmp_path, write):
    write("one")
    path = tmp_path / "dev.tf_record.key"
    stored = json.loads(path.read_text())
    stored["counts"]["pieces"] = "10"
    path.write_text(json.dumps(stored))
    assert write("one") == (COUNTS, True)
