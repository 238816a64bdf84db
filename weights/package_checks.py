"""What is checked of an adapter package's two files before anything of it is used.

Packages come from strangers: nothing of a file is believed before it is checked, and
what is allocated is bounded by the file's length.
"""

import hashlib
import json
import math
import re
import unicodedata

import numpy as np
import safetensors
import safetensors.numpy

import modeling
import optimization
from errors import UserError, printable
from model import activations, layer_ranges
from system import files
from weights import diagnosis

FORMAT = "adapter-bert"
FORMAT_VERSION = 1
DIGEST = "sha256"  # of the weights' file, and the config's own
MOST_CONFIG_BYTES = 1 << 18

_MOST_BYTES_PER_ENTRY = 512  # of the weights' header
_MOST_INT = 2**63 - 1
_SHA256 = re.compile("[0-9a-f]{64}")

_KINDS = {
    "task": dict,
    "bert_config": dict,
    "adapter": dict,
    "base": dict,
    "weights": dict,
    "train_policy": str,
    "vocabulary": str,
    "do_lower_case": bool,
    "max_seq_length": int,
    "global_step": int,
    "parameters": int,
    "program_version": str,
    "settings": (dict, type(None)),
    "dev_scores": (dict, type(None)),
    "origin": (str, type(None)),
}
_KINDS_WITHIN = {
    "bert_config": dict.fromkeys(modeling.CONFIG_SIZES, int),
    "task": {"name": str, "labels": list, "is_regression": bool, "metrics": list},
    "adapter": {
        "size": int,
        "layers": list,
        "activation": str,
        "init_scale": (int, float, type(None)),
    },
    "base": {"sha256": str, "parameters": int},
    "weights": {"bytes": int, "sha256": str},
}


def damaged(path, reason):
    """The `UserError` of a file that is not as it was written."""
    return UserError(
        "%s is damaged (%s): copy the adapter package again"
        % (path, printable(str(reason)))
    )


def config_digest(config):
    """SHA-256 of all entries but itself, however they are laid out in the file."""
    rest = {key: value for key, value in config.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def parse_config(data, path):
    """The config that a file holds.

    Args:
      data: the file's bytes, at most `MOST_CONFIG_BYTES`.
      path: the file, for messages.

    Returns:
      Dict; its entries are of the right kinds and describe a possible package.

    Raises:
      UserError: the file is of another program or version, or is damaged.
    """
    try:
        config = files.parse_json_object(data, finite=True)
    except ValueError as error:
        raise damaged(path, error) from None
    if config.get("format") != FORMAT:
        raise UserError(
            '%s is not of an adapter package of this program (its "format" is not '
            '"%s"); convert_checkpoint.py reads those of AdapterHub' % (path, FORMAT)
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            "%s has format version %.80r, this program reads %d: use the version of "
            "the program that wrote it, %.80r"
            % (
                path,
                config.get("format_version"),
                FORMAT_VERSION,
                config.get("program_version"),
            )
        )
    if config.get(DIGEST) != config_digest(config):
        raise damaged(path, "its content is not what was written")
    check_config(config, path)
    return config


def _is_text(value):
    """Whether it is a string that files and terminals show and do not obey.

    JSON can hold halves of characters too. A label may have a tab in it.
    """
    return isinstance(value, str) and not any(
        unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value if c != "\t"
    )


def check_config(config, path):
    """Refuses a config of no possible package.

    Args:
      config: dict, all of it.
      path: its file, for messages.

    Raises:
      UserError: naming the entry.
    """
    _check_kinds(config, _KINDS, "", path)
    for entry, kinds in _KINDS_WITHIN.items():
        _check_kinds(config[entry], kinds, entry + ".", path)
    bert_config = config["bert_config"]
    modeling.BertConfig.from_dict(bert_config).validate(path)
    task, adapter = config["task"], config["adapter"]
    scale = adapter["init_scale"]
    length, longest = config["max_seq_length"], bert_config["max_position_embeddings"]
    problem = None
    if not all(map(_is_text, [task["name"], *task["labels"], *task["metrics"]])):
        problem = "task has a name, label or metric that is no text of one line"
    elif not all(
        map(_SHA256.fullmatch, (config["vocabulary"], config["base"][DIGEST]))
    ):
        problem = "vocabulary or base.%s is no SHA-256" % DIGEST
    elif len(set(task["labels"])) != len(task["labels"]):
        problem = "a label is there twice"
    elif task["is_regression"] == bool(task["labels"]):
        problem = "task.labels are %.80r" % (task["labels"],)
    elif not _are_columns(task.get("text_columns")):
        problem = "task.text_columns are %.80r" % (task["text_columns"],)
    elif bool(adapter["size"]) != bool(adapter["layers"]):
        problem = "adapter.size is %d" % adapter["size"]
    elif scale is not None and not 0 < scale < math.inf:
        problem = "adapter.init_scale is %.80r" % scale
    elif adapter["activation"] not in activations.ADAPTER_ACTIVATIONS:
        problem = "adapter.activation is %.80r, allowed are %s" % (
            adapter["activation"],
            ", ".join(sorted(activations.ADAPTER_ACTIVATIONS)),
        )
    elif not isinstance(config.get("selection"), (str, type(None))):
        problem = "selection is %.80r" % (config["selection"],)
    elif not 3 <= length <= longest:
        problem = "max_seq_length is %d, the model's longest %d" % (length, longest)
    elif not _are_scores(config["dev_scores"] or {}):
        problem = "dev_scores are %.80r" % config["dev_scores"]
    try:
        policy_of(config)
        diagnosis.from_json(config.get("health"))
    except ValueError as error:
        problem = error
    if problem:
        raise damaged(path, problem)


def _are_columns(columns):
    """Whether an entry is that of two columns; versions before have none."""
    if columns is None:
        return True
    if not isinstance(columns, list) or len(columns) != 2 or columns[0] is None:
        return False
    return all(
        column is None or _is_text(column) or (type(column) is int and column >= 0)
        for column in columns
    )


def policy_of(config):
    """The `optimization.TrainPolicy` that a config describes.

    Args:
      config: dict, its entries of the right kinds.

    Raises:
      ValueError: no package is of such a policy, or its layers are not the model's.
    """
    layers = config["adapter"]["layers"]
    num_layers = config["bert_config"]["num_hidden_layers"]
    if len(layers) > num_layers or not all(type(layer) is int for layer in layers):
        raise ValueError("adapter.layers are not those of the model")
    try:
        policy = optimization.parse_policy(
            config["train_policy"], layer_ranges.as_text(layers), num_layers
        )
    except UserError as error:
        raise ValueError(str(error)) from None
    if policy.name == optimization.FULL:
        raise ValueError("train_policy is full, of which there are no packages")
    if policy.layers_with_adapters(num_layers) != layers:
        raise ValueError("adapter.layers are not those of the model")
    return policy


def _check_kinds(entries, kinds, within, path):
    for key, kind in kinds.items():
        if key not in entries:
            raise damaged(path, "%s%s is missing" % (within, key))
        value = entries[key]
        # True is an int to Python.
        if (
            not isinstance(value, kind)
            or (isinstance(value, bool) and kind is not bool)
            or (isinstance(value, int) and not 0 <= value <= _MOST_INT)
        ):
            raise damaged(path, "%s%s is %.80r" % (within, key, value))


def _are_scores(dev_scores):
    """Whether this is a dict of dicts of finite numbers or None."""
    return all(
        isinstance(scores, dict)
        and all(
            value is None or (isinstance(value, (int, float)) and abs(value) < math.inf)
            for value in scores.values()
        )
        for scores in dev_scores.values()
    )


def check_counts(config, trained, frozen, path):
    """Refuses numbers of parameters and bytes that such a package cannot have.

    Args:
      config: what `parse_config` gives.
      trained: dict from name to shape of the trained variables.
      frozen: the same of the frozen ones.
      path: the config's file, for messages.

    Raises:
      UserError: naming the entry.
    """
    parameters = count(trained)
    most_bytes = 8 + 4 * parameters + _MOST_BYTES_PER_ENTRY * len(trained)
    for name, value, fits in (
        ("parameters", config["parameters"], config["parameters"] == parameters),
        (
            "base.parameters",
            config["base"]["parameters"],
            config["base"]["parameters"] == count(frozen),
        ),
        (
            "weights.bytes",
            config["weights"]["bytes"],
            config["weights"]["bytes"] <= most_bytes,
        ),
    ):
        if not fits:
            raise damaged(path, "%s is %d, not that of such a model" % (name, value))


def count(shapes):
    """Number of parameters of variables, a dict from name to shape."""
    return sum(math.prod(shape) for shape in shapes.values())


def parse_weights(data, config, shapes, path):
    """The weights that a file holds.

    Args:
      data: the file's bytes.
      config: what `parse_config` gives.
      shapes: dict from name to shape of the trained variables.
      path: the file, for messages.

    Returns:
      Dict from name to float32 array.

    Raises:
      UserError: they are not those that the config describes.
    """
    stated = config["weights"]
    if (len(data), hashlib.sha256(data).hexdigest()) != (
        stated["bytes"],
        stated[DIGEST],
    ):
        raise damaged(
            path,
            "its %d bytes are not the %d that its config describes"
            % (len(data), stated["bytes"]),
        )
    try:
        weights = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from None
    check_weights(weights, shapes, path)
    return weights


def check_weights(weights, shapes, path):
    """Refuses weights that are not those of the given variables.

    Args:
      weights: dict from name to array.
      shapes: dict from name to shape, in ints.
      path: their file, for messages.

    Raises:
      UserError: naming the variable.
    """
    for name in sorted(set(shapes) ^ set(weights)):
        where = "is missing" if name in shapes else "does not belong there"
        raise damaged(path, "%.200r %s" % (name, where))
    for name, shape in shapes.items():
        value = weights[name]
        if list(value.shape) != shape or value.dtype != np.float32:
            raise damaged(
                path,
                "%s is %s %s, expected float32 %s"
                % (name, value.dtype, list(value.shape), shape),
            )
        if not np.isfinite(value).all():
            raise damaged(path, "%s is not finite" % name)
