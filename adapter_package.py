"""Adapter packages: what one task adds to a base, as two small files in a folder.

`adapter.safetensors` holds the trained variables (adapters, layer norms, head) under
their names, float32. `adapter_config.json` says what they belong to, and holds the
SHA-256 of the weights' file and of itself, so that damage to either is found.

Packages come from strangers: nothing of a file is believed before it is checked, and
no more memory is taken than the file is long.
"""

import hashlib
import json
import math
import os
from typing import Any, NamedTuple, Optional

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow.compat.v1 as tf

import modeling
from errors import UserError

VERSION = "1.0.0"  # of this program

WEIGHTS_NAME = "adapter.safetensors"
CONFIG_NAME = "adapter_config.json"
FOLDER = "adapters"  # of a run, in its output_dir
TRAIN_POLICY = "adapters"  # adapters, layer norms and head

_FORMAT = "adapter-bert"
_FORMAT_VERSION = 1
_DIGEST = "sha256"  # the config's own
_MOST_CONFIG_BYTES = 1 << 18
_MOST_BYTES_PER_ENTRY = 512  # of the weights' header


class AdapterPackage(NamedTuple):
    """A package that has been read and found whole."""

    path: str
    config: dict[str, Any]  # adapter_config.json
    weights: dict[str, np.ndarray]  # float32, by the variable's name

    @property
    def bert_config(self):
        """The `modeling.BertConfig` of the base."""
        return modeling.BertConfig.from_dict(self.config["bert_config"])

    @property
    def task(self):
        """Name of the task."""
        return self.config["task"]["name"]

    @property
    def labels(self):
        """Label strings in the order of their ids; [] for regression."""
        return self.config["task"]["labels"]

    @property
    def is_regression(self):
        """Whether the label is a number."""
        return self.config["task"]["is_regression"]

    @property
    def adapter_size(self):
        """The bottleneck's width."""
        return self.config["adapter"]["size"]

    @property
    def activation(self):
        """The adapters' activation, one of `modeling.ADAPTER_ACTIVATIONS`."""
        return self.config["adapter"]["activation"]


class Description(NamedTuple):
    """What a package's weights belong to."""

    task_name: str
    labels: list[str]
    is_regression: bool
    metrics: list[str]
    bert_config: dict[str, Any]
    adapter_size: int
    vocabulary: str  # SHA-256 of the vocabulary's file
    do_lower_case: bool
    max_seq_length: int
    adapter_init_scale: Optional[float] = None  # where it is known
    activation: str = "gelu"
    settings: Optional[dict[str, Any]] = None  # of the training
    origin: Optional[str] = None  # where the weights were trained, if not here


def trained_shapes(bert_config, adapter_size, num_outputs):
    """Names and shapes of the trained variables, sorted by name.

    Args:
      bert_config: a `modeling.BertConfig`.
      adapter_size: the bottleneck's width.
      num_outputs: labels; 1 for regression.

    Returns:
      Dict from name to list of ints.
    """
    H = bert_config.hidden_size
    shapes = {"output_weights": [num_outputs, H], "output_bias": [num_outputs]}

    def layer_norm(scope):
        for name in ("beta", "gamma"):
            shapes["%s/LayerNorm/%s" % (scope, name)] = [H]

    layer_norm("bert/embeddings")
    for layer in range(bert_config.num_hidden_layers):
        for sublayer in ("attention/output", "output"):
            scope = "bert/encoder/layer_%d/%s" % (layer, sublayer)
            layer_norm(scope)
            shapes[scope + "/adapters/weights1"] = [H, adapter_size]
            shapes[scope + "/adapters/biases1"] = [1, adapter_size]
            shapes[scope + "/adapters/weights2"] = [adapter_size, H]
            shapes[scope + "/adapters/biases2"] = [1, H]
    return dict(sorted(shapes.items()))


def frozen_shapes(bert_config):
    """Names and shapes of the frozen variables, sorted by name: the base.

    Args:
      bert_config: a `modeling.BertConfig`.

    Returns:
      Dict from name to list of ints.
    """
    H, wide = bert_config.hidden_size, bert_config.intermediate_size
    shapes = {
        "bert/embeddings/word_embeddings": [bert_config.vocab_size, H],
        "bert/embeddings/token_type_embeddings": [bert_config.type_vocab_size, H],
        "bert/embeddings/position_embeddings": [bert_config.max_position_embeddings, H],
    }

    def dense(scope, n_in, n_out):
        shapes["bert/%s/kernel" % scope] = [n_in, n_out]
        shapes["bert/%s/bias" % scope] = [n_out]

    for layer in range(bert_config.num_hidden_layers):
        scope = "encoder/layer_%d/" % layer
        for name in ("query", "key", "value"):
            dense(scope + "attention/self/" + name, H, H)
        dense(scope + "attention/output/dense", H, H)
        dense(scope + "intermediate/dense", H, wide)
        dense(scope + "output/dense", wide, H)
    dense("pooler/dense", H, H)
    return dict(sorted(shapes.items()))


def _num_outputs(task):
    return 1 if task["is_regression"] else len(task["labels"])


# --- writing --------------------------------------------------------------------


def write(folder, description, weights, base, global_step, dev_scores=None):
    """Writes a package, whole or not at all; an earlier one there is replaced.

    Args:
      folder: its path; the folder above it exists.
      description: a `Description`.
      weights: dict from name to float32 array, exactly the trained variables.
      base: what `checkpoints.base_fingerprint` gives.
      global_step: updates that the weights have seen.
      dev_scores: dict from dev set to dict from metric to float, or None.

    Raises:
      UserError: a weight is not finite, or the folder cannot be written.
    """
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise UserError(
                "%s is not finite: the training diverged, no adapter package is "
                "written to %s; try a smaller --learning_rate" % (name, folder)
            )
    config = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "program_version": VERSION,
        "task": {
            "name": description.task_name,
            "labels": list(description.labels),
            "is_regression": description.is_regression,
            "metrics": list(description.metrics),
        },
        "bert_config": description.bert_config,
        "adapter": {
            "size": description.adapter_size,
            "layers": list(range(description.bert_config["num_hidden_layers"])),
            "init_scale": description.adapter_init_scale,
            "activation": description.activation,
        },
        "train_policy": TRAIN_POLICY,
        "vocabulary": description.vocabulary,
        "do_lower_case": description.do_lower_case,
        "max_seq_length": description.max_seq_length,
        "settings": description.settings,
        "origin": description.origin,
        "global_step": int(global_step),
        "dev_scores": dev_scores,
        "parameters": sum(value.size for value in weights.values()),
        "base": base,
    }
    _write(folder, config, weights)


def add_scores(package, dev_scores):
    """Writes a package anew with its dev scores; see `write`."""
    _write(package.path, dict(package.config, dev_scores=dev_scores), package.weights)


def _write(folder, config, weights):
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(weights[name], "<f4") for name in sorted(weights)}
    )
    config = {key: value for key, value in config.items() if key != _DIGEST}
    config["weights"] = {"bytes": len(data), _DIGEST: hashlib.sha256(data).hexdigest()}
    config[_DIGEST] = _config_digest(config)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    partial, old = folder + ".partial", folder + ".old"
    _check(config, weights, folder)
    try:
        for path in (partial, old):
            if tf.io.gfile.exists(path):
                tf.io.gfile.rmtree(path)
        tf.io.gfile.makedirs(partial)
        for name, content in ((WEIGHTS_NAME, data), (CONFIG_NAME, text)):
            with tf.io.gfile.GFile(os.path.join(partial, name), "wb") as writer:
                writer.write(content)
        # Whole at any time: a folder cannot take the place of another in one step.
        if tf.io.gfile.exists(folder):
            tf.io.gfile.rename(folder, old)
        tf.io.gfile.rename(partial, folder)
        if tf.io.gfile.exists(old):
            tf.io.gfile.rmtree(old)
    except tf.errors.OpError as error:
        raise UserError(
            "the adapter package %s cannot be written (%s): give a folder that can"
            % (folder, " ".join(str(error).split()))
        ) from None


def _config_digest(config):
    """SHA-256 of all entries but itself, however they are laid out in the file."""
    rest = {key: value for key, value in config.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


# --- reading --------------------------------------------------------------------


def read(folder):
    """Reads a package.

    Returns:
      An `AdapterPackage`.

    Raises:
      UserError: naming the file that is missing, damaged or of another program.
    """
    config_path = os.path.join(folder, CONFIG_NAME)
    config = _parse(config_path, _read_file(config_path, _MOST_CONFIG_BYTES))
    _check_config(config, config_path)
    weights_path = os.path.join(folder, WEIGHTS_NAME)
    stated = config["weights"]["bytes"]
    data = _read_file(weights_path, stated)
    if len(data) != stated or hashlib.sha256(data).hexdigest() != config["weights"].get(
        _DIGEST
    ):
        raise _damaged(
            weights_path,
            "its %d bytes are not the %d that %s describes"
            % (len(data), stated, CONFIG_NAME),
        )
    try:
        weights = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _damaged(weights_path, error) from None
    _check(config, weights, folder)
    return AdapterPackage(folder, config, weights)


def _damaged(path, reason):
    return UserError(
        "%s is damaged (%s): copy the adapter package again" % (path, reason)
    )


def _read_file(path, most_bytes):
    """A file's bytes.

    Raises:
      UserError: it is not there, or is longer than `most_bytes`.
    """
    try:
        length = tf.io.gfile.stat(path).length
        if length > most_bytes:
            raise _damaged(path, "%d bytes, at most %d" % (length, most_bytes))
        with tf.io.gfile.GFile(path, "rb") as reader:
            return reader.read()
    except tf.errors.OpError as error:
        raise UserError(
            "%s cannot be read (%s): an adapter package is a folder with %s and %s, "
            "such as OUTPUT_DIR/%s of a training"
            % (
                path,
                " ".join(str(error).split()),
                CONFIG_NAME,
                WEIGHTS_NAME,
                FOLDER,
            )
        ) from None


def _parse(path, data):
    try:
        config = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        raise UserError(
            '%s is not of an adapter package of this program (its "format" is not '
            '"%s"); convert_checkpoint.py reads those of AdapterHub' % (path, _FORMAT)
        )
    if config.get("format_version") != _FORMAT_VERSION:
        raise UserError(
            "%s has format version %r, this program reads %d: use the version of the "
            "program that wrote it, %r"
            % (
                path,
                config.get("format_version"),
                _FORMAT_VERSION,
                config.get("program_version"),
            )
        )
    if config.get(_DIGEST) != _config_digest(config):
        raise _damaged(path, "its content is not what was written")
    return config


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
    "settings": (dict, type(None)),
    "dev_scores": (dict, type(None)),
    "origin": (str, type(None)),
}
_KINDS_WITHIN = {
    "task": {"name": str, "labels": list, "is_regression": bool, "metrics": list},
    "adapter": {"size": int, "layers": list, "activation": str},
    "base": {"sha256": str, "parameters": int},
    "weights": {"bytes": int, "sha256": str},
}


def _check_config(config, path):
    """Refuses a config of no possible package.

    Raises:
      UserError: naming the entry.
    """

    def check(entries, kinds, within=""):
        for key, kind in kinds.items():
            value = entries.get(key)
            # True is an int to Python.
            if not isinstance(value, kind) or (kind is int and value is True):
                raise _damaged(path, "%s%s is %.80r" % (within, key, value))

    check(config, _KINDS)
    for entry, kinds in _KINDS_WITHIN.items():
        check(config[entry], kinds, entry + ".")
    bert_config = modeling.BertConfig.from_dict(config["bert_config"])
    bert_config.validate(path)
    task, adapter = config["task"], config["adapter"]
    problem = None
    if not all(isinstance(x, str) for x in task["labels"] + task["metrics"]):
        problem = "a label or metric is no text"
    elif len(set(task["labels"])) != len(task["labels"]):
        problem = "a label is there twice"
    elif task["is_regression"] == bool(task["labels"]):
        problem = "labels are %.80r" % (task["labels"],)
    elif adapter["size"] < 1:
        problem = "adapter.size is %d" % adapter["size"]
    elif adapter["activation"] not in modeling.ADAPTER_ACTIVATIONS:
        problem = "adapter.activation is %r, allowed are %s" % (
            adapter["activation"],
            ", ".join(sorted(modeling.ADAPTER_ACTIVATIONS)),
        )
    elif config["max_seq_length"] < 3:
        problem = "max_seq_length is %d" % config["max_seq_length"]
    elif config["weights"]["bytes"] > _most_bytes(
        bert_config, adapter["size"], _num_outputs(task)
    ):
        problem = (
            "weights.bytes is %d, more than such weights take"
            % (config["weights"]["bytes"])
        )
    # A byte of the file for each variable at least: so the list of names is bounded.
    elif bert_config.num_hidden_layers > config["weights"]["bytes"]:
        problem = "num_hidden_layers is %d" % bert_config.num_hidden_layers
    elif adapter["layers"] != list(range(bert_config.num_hidden_layers)):
        problem = "adapter.layers are not those of the model"
    if problem:
        raise _damaged(path, problem)


def _most_bytes(bert_config, adapter_size, num_outputs):
    """How long the weights' file can be."""
    H, L = bert_config.hidden_size, bert_config.num_hidden_layers
    adapter = 2 * H * adapter_size + adapter_size + H
    parameters = 2 * H + 2 * L * (2 * H + adapter) + num_outputs * (H + 1)
    entries = 4 + 2 * L * 6
    return 8 + 4 * parameters + _MOST_BYTES_PER_ENTRY * entries


def _check(config, weights, folder):
    """Refuses weights that are not those that the config describes.

    Raises:
      UserError: naming the variable.
    """
    path = os.path.join(folder, WEIGHTS_NAME)
    bert_config = modeling.BertConfig.from_dict(config["bert_config"])
    expected = trained_shapes(
        bert_config, config["adapter"]["size"], _num_outputs(config["task"])
    )
    for name in sorted(set(expected) ^ set(weights)):
        where = "is missing" if name in expected else "does not belong there"
        raise _damaged(path, "%s %s" % (name, where))
    for name, shape in expected.items():
        value = weights[name]
        if list(value.shape) != shape or value.dtype != np.float32:
            raise _damaged(
                path,
                "%s is %s %s, expected float32 %s"
                % (name, value.dtype, list(value.shape), shape),
            )
        if not np.isfinite(value).all():
            raise _damaged(path, "%s is not finite" % name)
    assert config["parameters"] == sum(math.prod(s) for s in expected.values())


# --- fitting --------------------------------------------------------------------


def check_fit(package, given):
    """Refuses a package that does not belong to what a run was given.

    Args:
      package: an `AdapterPackage`.
      given: dict with any of "base" (what `checkpoints.base_fingerprint` gives),
        "bert_config" (dict), "vocabulary" (SHA-256), "do_lower_case", "adapter_size",
        "labels" (list; [] for regression).

    Raises:
      UserError: what differs, with both values and the flag to change.
    """
    config = package.config
    wanted = {
        "bert_config": (config["bert_config"], "bert_config_file"),
        "vocabulary": (config["vocabulary"], "vocab_file"),
        "do_lower_case": (config["do_lower_case"], "do_lower_case"),
        "adapter_size": (package.adapter_size, "adapter_size"),
        "labels": (package.labels, "task_name"),
        "base": (config["base"], "init_checkpoint"),
    }
    for key, (expected, flag) in wanted.items():
        value = given.get(key, expected)
        if isinstance(expected, dict):
            # The rest, such as dropout, does not decide whether weights fit.
            keys = {"sha256"} if key == "base" else _SIZES
            expected, value = (
                {k: v for k, v in entries.items() if k in keys}
                for entries in (expected, value)
            )
        if value != expected:
            raise UserError(
                "--adapters=%s does not fit: its %s is %s, given is %s; give the one "
                "that it was trained with, --%s"
                % (
                    package.path,
                    key,
                    json.dumps(expected, sort_keys=True),
                    json.dumps(value, sort_keys=True),
                    flag,
                )
            )


_SIZES = {
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
}
