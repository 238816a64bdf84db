"""Small BERT encoders in Hugging Face's layout, and what they compute."""

import functools
import json
import math

import numpy as np
from safetensors.numpy import save_file

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "c", "d", "e"]
CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.2,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.3,
    "hidden_size": 12,
    "initializer_range": 0.05,
    "intermediate_size": 20,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 9,
    "model_type": "bert",
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 11,
}


def random_weights(config, seed=0):
    """Weights of a BERT in Hugging Face's layout, far from their usual start."""
    random = np.random.RandomState(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (
            config["max_position_embeddings"],
            hidden,
        ),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        layer = "encoder.layer.%d." % index
        for name, n_in, n_out in (
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", hidden, inner),
            ("output.dense", inner, hidden),
        ):
            shapes[layer + name + ".weight"] = (n_out, n_in)
            shapes[layer + name + ".bias"] = (n_out,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[layer + name + ".weight"] = (hidden,)
            shapes[layer + name + ".bias"] = (hidden,)
    return {
        name: random.normal(scale=0.4, size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def prefixed(weights):
    """The weights as a model with pre-training heads names them."""
    heads = {"cls.predictions.bias": np.zeros(11, np.float32)}
    positions = {"bert.embeddings.position_ids": np.arange(9)[None]}
    return {**{"bert." + name: weights[name] for name in weights}, **heads, **positions}


def legacy(weights):
    """The weights as files of the first years name them."""
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weights[name]
        for name in weights
    }


def write_encoder(folder, config=None, weights=None, tokens=TOKENS):
    """Writes a folder in Hugging Face's layout; returns its path."""
    folder.mkdir(exist_ok=True)
    config = CONFIG if config is None else config
    weights = random_weights(CONFIG) if weights is None else weights
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in tokens))
    save_file(weights, str(folder / "model.safetensors"))
    return str(folder)


def numpy_bert(config, weights, ids, mask, types, adapter=lambda scope, x, *_: x):
    """BERT's forward pass from Hugging Face's weights, by numpy in float64.

    Args:
      config: dict, the `config.json`.
      weights: dict name -> array.
      ids, mask, types: integer arrays [batch, sequence].
      adapter: function of a sublayer's name there, its dense layer's output and its
        input, [batch, sequence, hidden], and its layer norm, a function; returns an
        array of the same shape.

    Returns:
      (sequence output [batch, sequence, hidden], pooled output [batch, hidden]).
    """
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    heads = config["num_attention_heads"]
    activation = {
        "gelu_new": lambda x: (
            0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        ),
        "relu": lambda x: np.maximum(x, 0),
    }[config["hidden_act"]]

    def linear(name, x):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def normalized(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
        return x * weights[name + ".weight"] + weights[name + ".bias"]

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.token_type_embeddings.weight"][types]
        + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    )
    x = normalized("embeddings.LayerNorm", x)
    for index in range(config["num_hidden_layers"]):
        layer = "encoder.layer.%d." % index
        query, key, value = (
            split(linear(layer + "attention.self." + part, x))
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        context = (scores @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        context = linear(layer + "attention.output.dense", context)
        norm = functools.partial(normalized, layer + "attention.output.LayerNorm")
        x = norm(x + adapter(layer + "attention.output", context, x, norm))
        inner = activation(linear(layer + "intermediate.dense", x))
        inner = linear(layer + "output.dense", inner)
        norm = functools.partial(normalized, layer + "output.LayerNorm")
        x = norm(x + adapter(layer + "output", inner, x, norm))
    return x, np.tanh(linear("pooler.dense", x[:, 0]))


def random_batch(config):
    """Returns ids, mask and segment ids of 4 sequences, padded to 7."""
    random = np.random.RandomState(5)
    ids = random.randint(1, config["vocab_size"], size=(4, 7))
    mask = (np.arange(7) < np.array([[7], [3], [5], [1]])).astype(int)
    types = random.randint(0, config["type_vocab_size"], size=(4, 7))
    return ids * mask, mask, types * mask


def write_tokenizer(folder, tokens=TOKENS, **changes):
    """Writes a tokenizer.json as transformers 5 does, and no vocab.txt.

    `changes` are entries of its parts, as `normalizer={"lowercase": False}`; None takes
    the part out.
    """
    special = [token for token in tokens if token.startswith("[")]
    parts = {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", 3],
            "cls": ["[CLS]", 2],
        },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: index for index, token in enumerate(tokens)},
        },
        "added_tokens": [
            {
                "id": tokens.index(token),
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token in special
        ],
    }
    for part, entries in changes.items():
        if isinstance(entries, dict):
            parts[part].update(entries)
        else:
            parts[part] = entries
    (folder / "vocab.txt").unlink(missing_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", **parts}))
