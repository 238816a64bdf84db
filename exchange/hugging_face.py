"""Reads and writes BERT encoders in Hugging Face's layout.

A folder holds `config.json`, a vocabulary (`hf_tokenizer`) and weights (`hf_files`).
All tensors are checked against the config before any value is read.
"""

import math
import os
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from absl import logging

import modeling
from errors import UserError, explain_value_errors, printable
from exchange import heads, hf_files, hf_tokenizer
from model import configuration
from system import files, schema

CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "model.safetensors"

# Both configs have the same defaults, but for sizes.
_DEFAULTS = {
    field: getattr(modeling.BertConfig, field)
    for field in configuration.FIELDS
    if field not in configuration.CONFIG_SIZES
}
# Activation in config.json -> in bert_config.json.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
}

# Values of a config.json that are supported; `BertConfig.validate` checks the sizes.
_CONFIG_SCHEMA = schema.Object(
    {
        **dict.fromkeys(configuration.CONFIG_SIZES, schema.ANY),
        "hidden_act": schema.one_of(*_ACTIVATIONS),
    },
    optional={
        "model_type": schema.one_of("bert"),
        "position_embedding_type": schema.one_of("absolute"),
        "is_decoder": schema.one_of(False),
        "add_cross_attention": schema.one_of(False),
        # Models related to BERT have at most 1e-5.
        "layer_norm_eps": schema.number(above=0, maximum=1e-5),
    },
    others=schema.ANY,
)

_POOLER_SCOPE = "bert/pooler/"
# A tensor of every encoder, by which the prefix of the encoder's tensors is found.
_LANDMARK = "embeddings.word_embeddings.weight"
_PARTS = ("embeddings.", "encoder.", "pooler.")
# A buffer with the numbers 0, 1, 2, ..., which is not needed.
_POSITIONS = "embeddings.position_ids"


# Last part of a variable's name -> suffixes of the source; old files have Google's.
_SUFFIXES = {
    "kernel": ("weight",),
    "bias": ("bias",),
    "beta": ("bias", "beta"),
    "gamma": ("weight", "gamma"),
}


class Source(NamedTuple):
    """The tensor in Hugging Face's layout that a variable is read from."""

    names: tuple[str, ...]  # possible names, the usual one first
    shape: tuple[int, ...]
    transposed: bool  # as kernels are

    def transpose(self, value):
        """The array of the variable from that of the tensor, or the reverse."""
        return np.ascontiguousarray(value.T if self.transposed else value)


def read_config(path):
    """Reads a `config.json` and checks that it describes a BERT encoder.

    Returns:
      Two dicts: the content of the `bert_config.json`, and that of the file.

    Raises:
      UserError: the file is damaged, or describes a model that is not supported.
    """
    source = {**_DEFAULTS, **hf_files.read_json(path)}
    with explain_value_errors(
        path,
        "Choose another encoder for `input_dir`, or give the config.json that belongs "
        "to the weights.",
    ):
        _CONFIG_SCHEMA.check(source)
    config = {field: source[field] for field in configuration.FIELDS}
    activation = config["hidden_act"]
    epsilon = source.get("layer_norm_eps") or modeling.LAYER_NORM_EPSILON
    config["hidden_act"] = _ACTIVATIONS[activation]
    modeling.BertConfig.from_dict(config).validate(path)

    if activation == "gelu":
        logging.warning(
            "%s: hidden_act 'gelu' is the exact GELU. It is computed by the tanh "
            "approximation, as in Google's BERT, which differs by less than 5e-4 per "
            "value." % path
        )
    if source.get("auto_map"):
        logging.warning(
            "%s: auto_map names custom code, which is not run: make sure that the "
            "encoder is a plain BERT." % path
        )
    if not math.isclose(epsilon, modeling.LAYER_NORM_EPSILON):
        logging.warning(
            "%s: layer_norm_eps is %g, for which bert_config.json has no entry: %g is "
            "used. The outputs differ slightly."
            % (path, epsilon, modeling.LAYER_NORM_EPSILON)
        )
    return config, source


def module_name(scope):
    """A variable scope's name there: "encoder.layer.0.output.dense"."""
    name = scope.removeprefix("bert/")
    return name.replace("layer_", "layer.").replace("/", ".")


def expected_sources(config):
    """The variables of the BERT of a `bert_config.json`: dict name -> `Source`."""
    bert_config = modeling.BertConfig.from_dict(config)
    sources = {}
    variables = modeling.encoder_variables(bert_config)
    for name, info in variables.items():
        scope, _, kind = name.rpartition("/")
        suffixes = _SUFFIXES.get(kind, (kind + ".weight",))  # Embeddings.
        is_kernel = kind == "kernel"
        sources[name] = Source(
            tuple("%s.%s" % (module_name(scope), suffix) for suffix in suffixes),
            tuple(reversed(info.shape) if is_kernel else info.shape),
            is_kernel,
        )
    return sources


def match_tensors(tensors, config, keep_head=False):
    """Matches `hf_files.StoredTensor`s with the variables of a `bert_config.json`.

    Names may have a prefix, such as "bert." or "0.auto_model.". Other tensors than the
    encoder's are left out, but with `keep_head` the head of a task.

    Returns:
      (matches, missing): a dict variable name -> (`StoredTensor`, `Source`), and a
      dict of the pooler's variables if the input lacks them, name -> `Source`.

    Raises:
      UserError: tensors of the encoder are missing, unknown, duplicate, or have other
        shapes than the config requires. One message lists them.
    """
    sources = expected_sources(config)
    left, others = _split_encoder(tensors)
    matches = _match_head(others, config["hidden_size"]) if keep_head else {}
    missing = {}
    problems = _find_duplicates(others, sources)
    for variable, source in sources.items():
        found = next((name for name in source.names if name in left), None)
        if found is None:
            missing[variable] = source
            continue
        tensor = left.pop(found)
        matches[variable] = (tensor, source)
        if tensor.shape != source.shape:
            problems.append(
                "%s has shape %s, the config requires %s"
                % (printable(tensor.name), list(tensor.shape), list(source.shape))
            )
    if set(missing) != {name for name in sources if name.startswith(_POOLER_SCOPE)}:
        problems += ["%s is missing" % source.names[0] for source in missing.values()]
    problems += [
        "%s is not part of BERT" % printable(left[name].name) for name in sorted(left)
    ]
    if problems:
        raise UserError(
            "The tensors in `input_dir` are not those of the BERT in its config.json. "
            "Give the config.json that belongs to the weights. %s"
            % hf_files.enumerate_problems(problems)
        )
    kept = {tensor for tensor, _ in matches.values()}
    left_out = [name for name in others if others[name] not in kept]
    if left_out:
        logging.info(
            "Tensors that are not part of the encoder are left out: %s",
            hf_files.enumerate_problems(list(map(printable, left_out))),
        )
    return matches, missing


def _match_head(others, hidden_size):
    """The head's part of `match_tensors`, from the tensors beside the encoder."""
    kinds = heads.tensor_names()
    shapes = {name: tensor.shape for name, tensor in others.items()}
    kind = heads.find_kind(kinds, shapes, hidden_size, "`input_dir`")
    return {
        variable: (others[name], Source((name,), shapes[name], False))
        for variable, name in zip(heads.variable_names()[kind], kinds[kind])
    }


def _split_encoder(tensors):
    """Returns two dicts: the encoder's tensors, without prefix, and the others."""
    names = [tensor.name for tensor in tensors]
    landmarks = [name for name in names if ("." + name).endswith("." + _LANDMARK)]
    if len(landmarks) != 1:
        raise UserError(
            "The weights in `input_dir` must hold one BERT encoder, with one tensor "
            "whose name ends in %s. They hold %d: %s. Give a folder with one."
            % (_LANDMARK, len(landmarks), printable(", ".join(landmarks or names[:3])))
        )
    prefix = landmarks[0][: -len(_LANDMARK)]
    encoder, others = {}, {}
    for tensor in tensors:
        name = tensor.name[len(prefix) :]
        # Without a prefix, a head's tensors have names that no part of the encoder has.
        if tensor.name.startswith(prefix) and (prefix or name.startswith(_PARTS)):
            encoder[name] = tensor
        else:
            others[tensor.name] = tensor
    encoder.pop(_POSITIONS, None)
    return encoder, others


def _find_duplicates(others, sources):
    """Tensors of the encoder that have no prefix or another one, a list of texts."""
    known = {name for source in sources.values() for name in source.names}
    problems = []
    for name in others:
        steps = name.split(".")
        same = known.intersection(".".join(steps[i:]) for i in range(len(steps)))
        problems += ["%s exists with and without a prefix" % each for each in same]
    return problems


def read_values(matches):
    """Yields (name, float32 array) of the variables that `match_tensors` matched.

    Raises:
      UserError: a file is damaged, or a value is not a finite float32.
    """
    variables = {tensor: (name, source) for name, (tensor, source) in matches.items()}
    for tensor, value in hf_files.read_tensors(variables):
        name, source = variables[tensor]
        yield name, source.transpose(value)


def write(folder, bert_config, values, do_lower_case, head=None):
    """Writes a model without its vocabulary into an empty folder; reads it back.

    Args:
      folder: its path.
      bert_config: the content of a `bert_config.json`.
      values: dict from the names of all of `expected_sources` to float32 arrays.
      do_lower_case: of the tokenizer.
      head: a `heads.Head`; None: an encoder is written.

    Raises:
      UserError: a value is not finite, or the files do not hold what was written.
    """
    config = {field: bert_config[field] for field in configuration.FIELDS}
    activation = (config["hidden_act"] or "linear").lower()
    config["hidden_act"] = activation
    written = dict(
        config,
        architectures=[head.kind.model_class if head else "BertModel"],
        # Its "gelu" is the exact one.
        hidden_act="gelu_new" if activation == "gelu" else activation,
        layer_norm_eps=modeling.LAYER_NORM_EPSILON,
        model_type="bert",
        pad_token_id=0,
        position_embedding_type="absolute",
        torch_dtype="float32",
    )
    if head:
        labels = head.labels or ["LABEL_%d" % i for i in range(len(head.bias))]
        written["id2label"] = {str(i): label for i, label in enumerate(labels)}
        written["label2id"] = {label: i for i, label in enumerate(labels)}
    tokenizer = {
        "do_lower_case": do_lower_case,
        "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "BertTokenizer",
    }
    config_path = os.path.join(folder, CONFIG_NAME)
    tokenizer_path = os.path.join(folder, hf_tokenizer.CONFIG_NAME)
    files.write_whole(config_path, files.format_json(written))
    files.write_whole(tokenizer_path, files.format_json(tokenizer))
    sources, values = expected_sources(config), dict(values)
    prefix = "bert." if head else ""
    tensors = {
        prefix + source.names[0]: source.transpose(values[name])
        for name, source in sources.items()
    }
    if head:
        own = head.weights, head.bias
        values.update(zip(heads.variable_names()[head.kind], own))
        tensors.update(zip(head.kind.tensors, own))
    # transformers refuses files without a framework.
    safetensors.numpy.save_file(
        tensors, os.path.join(folder, _WEIGHTS_NAME), metadata={"format": "pt"}
    )
    del tensors
    stored_config, _ = read_config(config_path)
    matches, _ = match_tensors(
        hf_files.list_tensors(folder, [_WEIGHTS_NAME]), config, head is not None
    )
    if (
        stored_config != config
        or matches.keys() != values.keys()
        or any(not np.array_equal(v, values[name]) for name, v in read_values(matches))
    ):
        raise UserError(
            "%s does not hold what was written: check that disk, and convert again, or "
            "to another place" % folder
        )
