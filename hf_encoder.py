"""Reads and writes BERT encoders in Hugging Face's layout.

Such a folder holds `config.json`, `vocab.txt` and `model.safetensors`, or the
weights in parts with `model.safetensors.index.json`. Everything is checked against
what the config says before a single weight is read.
"""

import collections
import contextlib
import json
import math
import os

import numpy as np
import safetensors
import safetensors.numpy
from absl import logging

import files
import modeling
import tokenization
from errors import UserError

CONFIG_NAME = "config.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
VOCAB_NAME = "vocab.txt"
_WEIGHTS_NAME = "model.safetensors"
_INDEX_NAME = "model.safetensors.index.json"

# Fields that both configs have with the same default.
_DEFAULTS = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
}
# Hugging Face's names of activations -> the names in bert_config.json.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
}
# The other way. "gelu" there is the exact one.
_ACTIVATIONS_THERE = {"gelu": "gelu_new", "relu": "relu", "tanh": "tanh"}
# The exact one, of the error function; "gelu" in bert_config.json approximates it.
_EXACT_GELU = "gelu"
# The largest in use by BERT's relatives. A larger one would be another model.
_LARGEST_EPSILON = 1e-5

FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
_PREFIX = "bert."
_POOLER_SCOPE = "bert/pooler/"
# Heads of the pre-training, and a buffer that only counts 0, 1, 2...
_IGNORED_PREFIX = "cls."
_IGNORED_NAMES = ("embeddings.position_ids",)

# Where a variable comes from: `names` are the source's possible names for it, the
# first the usual one; `shape` is the source's; the kernels are stored transposed.
Source = collections.namedtuple("Source", ["names", "shape", "transposed"])

# A tensor of the input, not yet read.
StoredTensor = collections.namedtuple("StoredTensor", ["path", "name", "shape", "type"])


def read_config(path):
    """Reads a `config.json` and checks that it describes a BERT encoder.

    Args:
      path: the file.

    Returns:
      A dict, the content of the `bert_config.json`.

    Raises:
      UserError: the file is damaged, or names something that this project's BERT
        does not do.
    """
    source = read_json(path)

    def refuse(field, allowed):
        raise UserError(
            "%s: %s is %r, and only %s can be converted: this is not a BERT encoder as "
            "this project runs it. Choose another encoder for --input_dir."
            % (path, field, source[field], allowed)
        )

    if source.get("model_type", "bert") != "bert":
        refuse("model_type", '"bert"')
    if source.get("position_embedding_type", "absolute") != "absolute":
        refuse("position_embedding_type", '"absolute"')
    for field in ("is_decoder", "add_cross_attention"):
        if source.get(field):
            refuse(field, "false")
    epsilon = source.get("layer_norm_eps", modeling.LAYER_NORM_EPSILON)
    if not is_number(epsilon) or not 0 < epsilon <= _LARGEST_EPSILON:
        refuse("layer_norm_eps", "a number above 0, at most %g" % _LARGEST_EPSILON)
    absent = [field for field in modeling.CONFIG_SIZES if field not in source]
    if absent:
        raise UserError(
            "%s lacks %s. Take the file from where the weights come from."
            % (path, ", ".join(absent))
        )
    config = {field: source[field] for field in modeling.CONFIG_SIZES}
    config.update({field: source.get(field, _DEFAULTS[field]) for field in _DEFAULTS})
    activation = config["hidden_act"]
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        refuse("hidden_act", "one of %s" % ", ".join(sorted(_ACTIVATIONS)))
    config["hidden_act"] = _ACTIVATIONS[activation]
    modeling.BertConfig.from_dict(config).validate(path)

    if activation == _EXACT_GELU:
        logging.warning(
            "%s: hidden_act %r is the exact GELU; here, as in Google's BERT, it runs "
            "as the tanh approximation, which differs by less than 5e-4 per value.",
            path,
            activation,
        )
    if not math.isclose(epsilon, modeling.LAYER_NORM_EPSILON):
        logging.warning(
            "%s: layer_norm_eps is %g; bert_config.json cannot say so, and this "
            "project's BERT uses %g. The outputs differ a little.",
            path,
            epsilon,
            modeling.LAYER_NORM_EPSILON,
        )
    return config


def expected_sources(config):
    """Lists the variables of a BERT and where each comes from.

    Args:
      config: dict, the content of a `bert_config.json`.

    Returns:
      An `OrderedDict` variable name -> `Source`.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    sources = collections.OrderedDict()

    def embeddings(name, rows):
        source = "embeddings.%s.weight" % name
        sources["bert/embeddings/" + name] = Source((source,), (rows, hidden), False)

    def dense(name, n_in, n_out):
        source = _source_name(name)
        sources["bert/%s/kernel" % name] = Source(
            (source + ".weight",), (n_out, n_in), True
        )
        sources["bert/%s/bias" % name] = Source((source + ".bias",), (n_out,), False)

    def layer_norm(name):
        source = _source_name(name)
        for ours, theirs in (("beta", "bias"), ("gamma", "weight")):
            # Files of the library's first years keep Google's suffixes.
            names = ("%s.%s" % (source, theirs), "%s.%s" % (source, ours))
            sources["bert/%s/%s" % (name, ours)] = Source(names, (hidden,), False)

    embeddings("word_embeddings", config["vocab_size"])
    embeddings("token_type_embeddings", config["type_vocab_size"])
    embeddings("position_embeddings", config["max_position_embeddings"])
    layer_norm("embeddings/LayerNorm")
    for index in range(config["num_hidden_layers"]):
        layer = "encoder/layer_%d/" % index
        for part in ("query", "key", "value"):
            dense(layer + "attention/self/" + part, hidden, hidden)
        dense(layer + "attention/output/dense", hidden, hidden)
        layer_norm(layer + "attention/output/LayerNorm")
        dense(layer + "intermediate/dense", hidden, inner)
        dense(layer + "output/dense", inner, hidden)
        layer_norm(layer + "output/LayerNorm")
    dense("pooler/dense", hidden, hidden)
    return sources


def match_tensors(tensors, sources):
    """Pairs the input's tensors with the variables.

    Args:
      tensors: list of `StoredTensor`.
      sources: what `expected_sources` returns.

    Returns:
      (plan, missing): a dict variable name -> (`StoredTensor`, `Source`), and a dict
      of the pooler's variables that the input lacks, name -> `Source`: both or none.

    Raises:
      UserError: a tensor is missing, unknown, twice there, or has another shape or
        type than the config asks for. All cases stand in the one message.
    """
    left = {}
    ignored, problems = [], []
    for tensor in tensors:
        name = tensor.name
        if name.startswith(_PREFIX):
            name = name[len(_PREFIX) :]
        if name in left:
            problems.append("%s is there with and without %r" % (name, _PREFIX))
        left[name] = tensor
    for name in sorted(left):
        if name.startswith(_IGNORED_PREFIX) or name in _IGNORED_NAMES:
            ignored.append(left.pop(name).name)

    plan, missing = {}, {}
    for variable, source in sources.items():
        found = next((name for name in source.names if name in left), None)
        if found is None:
            missing[variable] = source
            continue
        tensor = left.pop(found)
        if tensor.shape != source.shape:
            problems.append(
                "%s has shape %s, by the config it is %s"
                % (tensor.name, list(tensor.shape), list(source.shape))
            )
        if tensor.type not in FLOAT_TYPES:
            problems.append(
                "%s is of type %s, not one of %s"
                % (tensor.name, tensor.type, ", ".join(FLOAT_TYPES))
            )
        plan[variable] = (tensor, source)
    if set(missing) != {name for name in sources if name.startswith(_POOLER_SCOPE)}:
        problems += ["%s is missing" % source.names[0] for source in missing.values()]
    problems += ["%s is not a part of BERT" % left[name].name for name in sorted(left)]
    if problems:
        raise UserError(
            "The tensors in --input_dir do not make the BERT that its config.json "
            "describes. Give the encoder's own config.json and weights. %s"
            % enumerate_problems(problems)
        )
    if ignored:
        logging.info("Left out, not of the encoder: %s", ", ".join(ignored))
    return plan, missing


def enumerate_problems(problems, limit=8):
    """Returns up to `limit` problems as text, and the number of those left out."""
    text = "%d found: %s" % (len(problems), "; ".join(problems[:limit]))
    more = len(problems) - limit
    return text + ("; and %d more." % more if more > 0 else ".")


def _source_name(name):
    """Returns the input's dotted name for a name within the "bert" scope."""
    return name.replace("layer_", "layer.").replace("/", ".")


def find_weights(input_dir):
    """Returns the weights' file names in `input_dir`, the index first if there is one.

    Raises:
      UserError: there are none, or the index names a file that is not there.
    """
    if os.path.isfile(os.path.join(input_dir, _WEIGHTS_NAME)):
        return [_WEIGHTS_NAME]
    index_path = os.path.join(input_dir, _INDEX_NAME)
    if not os.path.isfile(index_path):
        raise UserError(
            "There is neither %s nor %s in --input_dir=%s. Weights in another format "
            "have to be saved as safetensors first."
            % (_WEIGHTS_NAME, _INDEX_NAME, input_dir)
        )
    parts = sorted(set(_read_index(index_path).values()))
    for part in parts:
        # A part lies beside its index; a path elsewhere is no part of this encoder.
        if os.path.basename(part) != part or not os.path.isfile(
            os.path.join(input_dir, part)
        ):
            raise UserError(
                "%s names the file %r, which is not in that folder."
                % (index_path, part)
            )
    return [_INDEX_NAME, *parts]


def _read_index(path):
    """Returns the index's dict tensor name -> file name."""
    weight_map = read_json(path).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(part, str) for part in weight_map.values())
    ):
        raise UserError(
            '%s: "weight_map" has to be an object of tensor names and file names.'
            % path
        )
    return weight_map


def list_tensors(input_dir, weight_files):
    """Returns every tensor of the weights' files, a list of `StoredTensor`.

    Raises:
      UserError: a file is damaged, or the index and the files disagree.
    """
    tensors = []
    for name in weight_files:
        if name == _INDEX_NAME:
            continue
        path = os.path.join(input_dir, name)
        with _opened(path) as stored:
            for key in sorted(stored.keys()):
                view = stored.get_slice(key)
                tensors.append(
                    StoredTensor(path, key, tuple(view.get_shape()), view.get_dtype())
                )
    if _INDEX_NAME in weight_files:
        index_path = os.path.join(input_dir, _INDEX_NAME)
        stated = set(_read_index(index_path).items())
        actual = {(item.name, os.path.basename(item.path)) for item in tensors}
        if stated != actual:
            name, part = min(stated ^ actual)
            raise UserError(
                "%s and the files beside it disagree, for one on %s in %s. Fetch the "
                "encoder anew." % (index_path, name, part)
            )
    return tensors


@contextlib.contextmanager
def _opened(path):
    """Opens a safetensors file; damage to it becomes a `UserError`."""
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            yield stored
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            "%s is damaged or is no safetensors file (%s). Fetch it anew."
            % (path, error)
        ) from error


def read_tensor(tensor, source):
    """Returns a tensor as the variable's value, float32.

    Raises:
      UserError: a value is no finite float32.
    """
    with _opened(tensor.path) as stored, np.errstate(over="ignore"):
        value = stored.get_tensor(tensor.name).astype(np.float32)
    if not np.isfinite(value).all():
        raise UserError(
            "%s: the tensor %s has values that are infinite, not a number or beyond "
            "float32. Fetch the file anew or choose another encoder."
            % (tensor.path, tensor.name)
        )
    return np.ascontiguousarray(value.T if source.transposed else value)


def check_vocabulary(path, vocab_size):
    """Refuses a vocabulary that the tokenizer or the embedding table cannot take.

    Raises:
      UserError: it is missing, damaged, or longer than the table.
    """
    if not os.path.isfile(path):
        raise UserError(
            "There is no %s in --input_dir=%s. Only encoders with BERT's vocabulary "
            "file can be converted." % (VOCAB_NAME, os.path.dirname(path))
        )
    tokens = len(tokenization.FullTokenizer(path).vocab)
    if tokens > vocab_size:
        raise UserError(
            "%s has %d tokens, more than the vocab_size of %d in %s beside it: the "
            "last ones have no embedding. Use the two files of the same encoder."
            % (path, tokens, vocab_size, CONFIG_NAME)
        )
    if tokens < vocab_size:
        logging.warning(
            "%s has %d tokens, vocab_size is %d: the last %d rows of the word "
            "embeddings are never used.",
            path,
            tokens,
            vocab_size,
            vocab_size - tokens,
        )


def random_pooler(config, missing, seed):
    """Returns a pooler as BERT initializes it: kernel by truncated normal, zero bias.

    Args:
      config: dict, the content of a `bert_config.json`.
      missing: dict variable name -> `Source`, the pooler's kernel and bias.
      seed: seed of the kernel.

    Returns:
      A dict variable name -> float32 array.
    """
    random = np.random.RandomState(seed)
    values = {}
    for name, source in missing.items():
        if not source.transposed:
            values[name] = np.zeros(source.shape, np.float32)
            continue
        kernel = random.standard_normal(source.shape)
        while (outside := np.abs(kernel) > 2).any():
            kernel[outside] = random.standard_normal(outside.sum())
        values[name] = (kernel * config["initializer_range"]).astype(np.float32)
    return values


# --- writing --------------------------------------------------------------------


def write(folder, bert_config, values, do_lower_case):
    """Writes an encoder into a folder and reads it back; all but its vocabulary.

    Args:
      folder: an empty folder.
      bert_config: dict, the content of a `bert_config.json`.
      values: dict variable name -> float32 array, all those of `expected_sources`.
      do_lower_case: whether the tokenizer is to lower-case text.

    Raises:
      UserError: a value is not finite.
    """
    config = {
        field: bert_config[field] for field in (*modeling.CONFIG_SIZES, *_DEFAULTS)
    }
    activation = (config["hidden_act"] or "linear").lower()
    config["hidden_act"] = activation
    written = dict(
        config,
        architectures=["BertModel"],
        hidden_act=_ACTIVATIONS_THERE.get(activation, activation),
        layer_norm_eps=modeling.LAYER_NORM_EPSILON,
        model_type="bert",
        pad_token_id=0,
        position_embedding_type="absolute",
        torch_dtype="float32",
    )
    tokenizer = {
        "do_lower_case": do_lower_case,
        "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "BertTokenizer",
    }
    for name, content in (
        (CONFIG_NAME, written),
        (TOKENIZER_CONFIG_NAME, tokenizer),
    ):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as writer:
            writer.write(json.dumps(content, indent=2, sort_keys=True) + "\n")
    sources = expected_sources(config)
    tensors = {
        source.names[0]: np.ascontiguousarray(
            values[name].T if source.transposed else values[name]
        )
        for name, source in sources.items()
    }
    # The library refuses a file that does not say for which framework it is.
    safetensors.numpy.save_file(
        tensors, os.path.join(folder, _WEIGHTS_NAME), metadata={"format": "pt"}
    )
    del tensors
    assert read_config(os.path.join(folder, CONFIG_NAME)) == config
    plan, missing = match_tensors(list_tensors(folder, [_WEIGHTS_NAME]), sources)
    assert not missing
    for name, (tensor, source) in plan.items():
        assert np.array_equal(read_tensor(tensor, source), values[name]), name


def is_number(value):
    """Says whether a JSON value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_json(path):
    """Returns the JSON object in a file; trouble becomes a `UserError`."""
    return files.read_json(path, "fetch it anew")
