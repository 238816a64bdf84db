"""`bert_config.json`: which entries count, and which sizes make a model."""

import json

import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from model import configuration
from weights import model_variables

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
}


def test_other_entries_are_ignored(tmp_path, monkeypatch):
    extra = {"to_dict": 16, "validate": 1, "__class__": 1, "directionality": "\x1b["}
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(dict(SIZES, hidden_act="relu", **extra)))
    notes = []
    monkeypatch.setattr(tf.logging, "info", lambda text, *a: notes.append(text % a))
    config = configuration.BertConfig.from_json_file(str(path))
    (note,) = notes
    assert note.endswith(": __class__, directionality, to_dict, validate")
    assert set(config.to_dict()) == set(configuration.FIELDS)
    assert set(config.__dict__) == set(configuration.FIELDS)
    assert (config.hidden_size, config.hidden_act) == (16, "relu")
    # Defaults are BERT-base's.
    assert config.initializer_range == 0.02


def _refused(field, value):
    config = configuration.BertConfig.from_dict(dict(SIZES, **{field: value}))
    with pytest.raises(UserError) as error:
        config.validate("a.json")
    message = str(error.value)
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        # 10^12 weights of 4 bytes: 4 times in each layer, and in the pooler.
        ("hidden_size", 10**6, "36,000 GB"),
        ("vocab_size", 10**10, "from 1 to 1000000000"),
        ("num_hidden_layers", 1001, "from 1 to 1000"),
        ("hidden_size", 0, "0"),
        ("hidden_size", "768", '"768"'),
        ("vocab_size", None, "null"),
        ("num_attention_heads", 5, "5"),
        ("hidden_dropout_prob", False, "false"),
        ("hidden_dropout_prob", 1.0, "1.0"),
        ("initializer_range", True, "true"),
        ("initializer_range", float("nan"), "NaN"),
        ("initializer_range", 10**400, "..."),
        ("initializer_range", -1, "-1"),
        ("hidden_act", "swish", "swish"),
        ("hidden_act", ["gelu"] * 1000, "gelu"),
    ],
)
def test_impossible_sizes_are_refused(field, value, part):
    message = _refused(field, value)
    assert field in message and part in message


def test_memory_counts_frozen_weights_and_layer_norms(monkeypatch):
    config = configuration.BertConfig.from_dict(SIZES)
    count = model_variables.model_variables(config).parameter_counts()["base"]
    monkeypatch.setattr(configuration, "_MAX_GB", 4 * count / 10**9)
    config.validate("a.json")
    monkeypatch.setattr(configuration, "_MAX_GB", (4 * count - 1) / 10**9)
    with pytest.raises(UserError, match="GB of memory"):
        config.validate("a.json")
