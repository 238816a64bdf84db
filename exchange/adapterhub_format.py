"""Adapters in the format of AdapterHub's library `adapters`: reading and writing.

Such a folder holds `adapter_config.json` with `adapter.safetensors` or
`pytorch_adapter.bin`, and maybe a head, `head_config.json` with
`model_head.safetensors` or `pytorch_model_head.bin`. Layout and meaning are those of
adapters 1.3.0; `adapterhub_config` says which adapters can be read.
"""

import json
import math
import os
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from errors import UserError, printable
from exchange import adapterhub_config, hf_files

CONFIG_NAME = "adapter_config.json"
HEAD_CONFIG_NAME = "head_config.json"
_WEIGHTS_NAMES = ("adapter.safetensors", "pytorch_adapter.bin")
_HEAD_WEIGHTS_NAMES = ("model_head.safetensors", "pytorch_model_head.bin")
_VERSION = "adapters.1.3.0"
_MODEL_CLASS = "BertAdapterModel"
_STATIC_CLASS = "BertForSequenceClassification"

_ACTIVATIONS_THERE = {
    "relu": "relu",
    "gelu_erf": "gelu",
    "gelu": "gelu_new",
    "swish": "swish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
_SCOPES_OF_OLD = (
    "attention_text_task_adapters",
    "attention_text_lang_adapters",
    "layer_text_task_adapters",
    "layer_text_lang_adapters",
)
_HEAD_ENTRIES = {
    "head_type",
    "num_labels",
    "layers",
    "activation_function",
    "label2id",
    "use_pooler",
    "bias",
    "dropout_prob",
}


class Head(NamedTuple):
    """A linear layer on the pooler's output; C outputs."""

    weights: np.ndarray  # float32 [C, H]
    bias: np.ndarray  # float32 [C]
    labels: list[str] | None  # in the order of the outputs, where it says so


class Adapter(NamedTuple):
    """What a folder holds, as variables of this project."""

    name: str
    version: str
    model_name: str | None  # the model that it was trained on, where this is stated
    size: int
    activation: str  # one of `activations.ADAPTER_ACTIVATIONS`
    weights: dict[str, np.ndarray]  # float32, of adapters alone, by variable
    notes: list[str]  # how they differ from what the folder holds, for the user


# --- reading --------------------------------------------------------------------


def read(folder, bert_config):
    """Reads the adapters of a folder.

    Args:
      folder: its path.
      bert_config: the `modeling.BertConfig` of the base.

    Returns:
      An `Adapter`.

    Raises:
      UserError: the folder is damaged, or holds what cannot be represented here.
    """
    path = os.path.join(folder, CONFIG_NAME)
    stated = hf_files.read_json(path)
    name, config = stated.get("name"), stated.get("config")
    model_name = stated.get("model_name")
    adapterhub_config.check_model(stated, bert_config, path)
    if not isinstance(name, str) or not isinstance(config, dict):
        raise UserError(
            '%s is not of AdapterHub: "name" has to be text and "config" an object. '
            "Give the folder that save_adapter made, --input_dir." % path
        )
    activation = adapterhub_config.check_config(stated, config, path)
    shapes, sizes = adapterhub_config.expected(config, name, bert_config, path)
    found = _read_weights(folder, _WEIGHTS_NAMES, path)
    adapterhub_config.refuse_invertible(stated, config, found, path)
    _check_shapes(found, shapes, folder)
    size = max(sizes.values())
    return Adapter(
        name=name,
        version=str(stated.get("version", "of no version")),
        model_name=model_name if isinstance(model_name, str) and model_name else None,
        size=size,
        activation=activation,
        weights=_weights(found, config, name, sizes, size, bert_config, folder),
        notes=adapterhub_config.notes(config, sizes, size, bert_config),
    )


def _read_weights(folder, names, config_path):
    """The tensors of the first of two files, by name without "bert." before it."""
    present = [name for name in names if os.path.isfile(os.path.join(folder, name))]
    if not present:
        raise UserError(
            "There is neither %s beside %s." % (" nor ".join(names), config_path)
        )
    tensors = hf_files.list_tensors(folder, present[:1])
    for tensor in tensors:
        if tensor.type not in hf_files.FLOAT_TYPES:
            raise UserError(
                "%s: %s is of type %s, not one of %s."
                % (
                    tensor.path,
                    printable(tensor.name),
                    tensor.type,
                    ", ".join(hf_files.FLOAT_TYPES),
                )
            )
    renamed = {}
    for tensor, value in hf_files.read_tensors(tensors):
        name = tensor.name
        name = name[len("bert.") :] if name.startswith("bert.") else name
        for scope in _SCOPES_OF_OLD:
            name = name.replace(scope, "adapters")
        if name in renamed:
            raise UserError("%s holds %s twice." % (tensor.path, printable(name)))
        renamed[name] = value
    return renamed


def _check_shapes(found, shapes, folder):
    """Refuses weights that are not those that the config describes."""
    problems = ["%s is missing" % name for name in shapes if name not in found]
    problems += [
        "%s is no part of it" % printable(name)
        for name in sorted(found)
        if name not in shapes
    ]
    problems += [
        "%s has shape %s, by the config it is %s"
        % (name, list(found[name].shape), list(shape))
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    if problems:
        raise UserError(
            "The weights in %s are not those that its config and --bert_config_file "
            "describe. Give the base that they were trained on, or fetch them anew. %s"
            % (folder, hf_files.enumerate_problems(problems))
        )


def _weights(found, config, name, sizes, size, bert_config, folder):
    """The adapters' variables, narrow and missing ones filled up with zeros.

    Scaling goes into the second matrix and bias: s (h W + b) = h (s W) + s b.
    """
    H = bert_config.hidden_size
    weights = {}
    for layer in range(bert_config.num_hidden_layers):
        for sublayer in adapterhub_config.SUBLAYERS:
            scope = "encoder/layer_%d/%s" % (layer, sublayer)
            here = "bert/%s/adapters/" % scope
            weights[here + "weights1"] = np.zeros([H, size], np.float32)
            weights[here + "biases1"] = np.zeros([1, size], np.float32)
            weights[here + "weights2"] = np.zeros([size, H], np.float32)
            weights[here + "biases2"] = np.zeros([1, H], np.float32)
            if scope not in sizes:
                continue
            there, used = adapterhub_config.name_there(scope, name), sizes[scope]
            scaling = found.get(there + "scaling", config.get("scaling", 1.0))
            # In float64, so that a scaling of 1 and powers of 2 are exact.
            scaling = np.asarray(scaling, np.float64)
            weights[here + "weights1"][:, :used] = found[
                there + "adapter_down.0.weight"
            ].T
            weights[here + "biases1"][0, :used] = found[there + "adapter_down.0.bias"]
            with np.errstate(over="ignore"):
                weights[here + "weights2"][:used] = (
                    found[there + "adapter_up.weight"].T * scaling
                )
                weights[here + "biases2"][0] = (
                    found[there + "adapter_up.bias"] * scaling
                )
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise UserError("The scaled weights in %s are beyond float32." % folder)
    return weights


def read_head(folder, hidden_size):
    """Reads the head of a folder.

    Args:
      folder: its path.
      hidden_size: the base's.

    Returns:
      A `Head`, or None if the folder has none.

    Raises:
      UserError: the head is damaged, or cannot be represented here.
    """
    path = os.path.join(folder, HEAD_CONFIG_NAME)
    if not os.path.exists(path):
        return None
    stated = hf_files.read_json(path)
    config, name = stated.get("config"), stated.get("name")
    if stated.get("model_class") == _STATIC_CLASS and config is None:
        # Its one head is what the config describes here.
        config = {
            "head_type": "classification",
            "num_labels": stated.get("num_labels"),
            "layers": 1,
            "use_pooler": True,
            "label2id": stated.get("label2id"),
        }
        prefix = "classifier."
    else:
        prefix = "heads.%s.1." % name
    if not isinstance(config, dict):
        raise UserError(
            '%s: "config" has to be an object. Give the head_config.json that lies '
            "beside the weights." % path
        )
    _check_head(config, path)
    count = config["num_labels"]
    shapes = {prefix + "weight": (count, hidden_size)}
    if config.get("bias", True):
        shapes[prefix + "bias"] = (count,)
    found = _read_weights(folder, _HEAD_WEIGHTS_NAMES, path)
    _check_shapes(found, shapes, folder)
    zeros = np.zeros([count], np.float32)
    return Head(
        found[prefix + "weight"],
        found.get(prefix + "bias", zeros),
        _head_labels(config.get("label2id"), count, path),
    )


def _check_head(config, path):
    remedy = (
        "; a head made there by add_classification_head(NAME, num_labels=N, layers=1, "
        "use_pooler=True) can be read, and --new_head leaves this one out and makes "
        "one that has yet to be trained"
    )
    kind, count = config.get("head_type"), config.get("num_labels")
    if kind != "classification":
        raise adapterhub_config.refusal(
            path,
            "head_type",
            kind,
            "here a head gives one label or number for a text" + remedy,
        )
    if config.get("layers", 2) != 1:
        raise adapterhub_config.refusal(
            path,
            "layers",
            config.get("layers", 2),
            "here a head is one layer, on the base's frozen pooler" + remedy,
        )
    if config.get("use_pooler", False) is not True:
        raise adapterhub_config.refusal(
            path,
            "use_pooler",
            config.get("use_pooler", False),
            "here a head reads the pooler's output, not the last layer's" + remedy,
        )
    unknown = sorted(e for e in set(config) - _HEAD_ENTRIES if config[e])
    if unknown:
        raise adapterhub_config.refusal(
            path,
            printable(unknown[0]),
            config[unknown[0]],
            "it is not known here" + remedy,
        )
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(
            "%s: num_labels is %s, it has to be a whole number of at least 1."
            % (path, printable(json.dumps(count), 100))
        )


def _head_labels(label2id, count, path):
    """The labels in the order of their ids; None where they have no names."""
    if not label2id:
        return None
    ids = label2id.values() if isinstance(label2id, dict) else ()
    if not all(type(i) is int for i in ids) or sorted(ids) != list(range(count)):
        raise UserError(
            "%s: label2id is %s, it has to give the ids 0 to %d to that many labels."
            % (path, printable(json.dumps(label2id), 100), count - 1)
        )
    labels = sorted(label2id, key=label2id.get)
    if labels == ["LABEL_%d" % i for i in range(count)]:
        return None
    return labels


# --- writing --------------------------------------------------------------------


def files(package, head_dropout):
    """The files of a package in this format, without its layer norms.

    Args:
      package: an `adapter_package.AdapterPackage`.
      head_dropout: probability of dropout before the head, in training.

    Returns:
      Dict from file name to bytes.
    """
    name = adapter_name(package)
    H = package.bert_config.hidden_size
    num_layers = package.bert_config.num_hidden_layers
    layers = package.config["adapter"]["layers"]
    about: dict[str, Any] = {
        "name": name,
        "model_type": "bert",
        "model_class": _MODEL_CLASS,
        "model_name": None,
        "hidden_size": H,
        "version": _VERSION,
    }
    config = {
        "mh_adapter": True,
        "output_adapter": True,
        "reduction_factor": _reduction_factor(H, package.adapter_size),
        "non_linearity": _ACTIVATIONS_THERE[package.activation],
        "residual_before_ln": True,
        "scaling": 1.0,
        "leave_out": [layer for layer in range(num_layers) if layer not in layers],
        **{entry: value for entry, value, _ in adapterhub_config.NEEDED},
    }
    labels = {label: i for i, label in enumerate(package.labels)}
    head_config = {
        "head_type": "classification",
        "num_labels": len(package.labels) or 1,
        "layers": 1,
        "activation_function": None,
        "label2id": labels or None,
        "use_pooler": True,
        "bias": True,
        "dropout_prob": head_dropout,
    }
    weights = {}
    for layer in layers:
        for sublayer in adapterhub_config.SUBLAYERS:
            scope = "encoder/layer_%d/%s" % (layer, sublayer)
            there = "bert." + adapterhub_config.name_there(scope, name)
            for variable, tensor in (
                ("weights1", "adapter_down.0.weight"),
                ("biases1", "adapter_down.0.bias"),
                ("weights2", "adapter_up.weight"),
                ("biases2", "adapter_up.bias"),
            ):
                value = package.weights["bert/%s/adapters/%s" % (scope, variable)]
                weights[there + tensor] = np.ascontiguousarray(
                    value.T if "weights" in variable else value[0]
                )
    head = "heads.%s.1." % name
    head_weights = {
        head + "weight": package.weights["output_weights"],
        head + "bias": package.weights["output_bias"],
    }
    return {
        CONFIG_NAME: _json(dict(about, config=config)),
        _WEIGHTS_NAMES[0]: safetensors.numpy.save(weights),
        HEAD_CONFIG_NAME: _json(dict(about, config=head_config)),
        _HEAD_WEIGHTS_NAMES[0]: safetensors.numpy.save(head_weights),
    }


def adapter_name(package):
    """The package's task as a name that PyTorch's modules can have."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in package.task)


def _json(content):
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("utf-8")


def _reduction_factor(width, size):
    """A factor of which the library's rule, int(width // factor), makes the size."""
    if width % size == 0:
        return width // size
    factor = width / size
    while int(width // factor) < size:
        factor = math.nextafter(factor, 0.0)
    return factor
