"""Reads and writes adapters in the format of AdapterHub's library `adapters`, 1.3.0.

A folder holds `adapter_config.json` with `adapter.safetensors` or
`pytorch_adapter.bin`, and optionally a head: `head_config.json` with
`model_head.safetensors` or `pytorch_model_head.bin`. `adapterhub_config` checks which
adapters are supported.
"""

import json
import math
import os
import re
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from errors import UserError, printable
from exchange import adapterhub_config, hf_files
from system import schema
from tasks import task_type

CONFIG_NAME = "adapter_config.json"
HEAD_CONFIG_NAME = "head_config.json"
_WEIGHTS_NAMES = ("adapter.safetensors", "pytorch_adapter.bin")
_HEAD_WEIGHTS_NAMES = ("model_head.safetensors", "pytorch_model_head.bin")
_MODEL_WITH_HEAD = "BertForSequenceClassification"

_ACTIVATION_NAMES = {
    ours: theirs for theirs, ours in reversed(adapterhub_config.ACTIVATIONS.items())
}
_OLD_SCOPE = re.compile("(attention|layer)_text_(task|lang)_adapters")
_HEAD_DEFAULTS = {"head_type": None, "layers": 2, "use_pooler": False, "bias": True}
_only = adapterhub_config.only
_HEAD_SCHEMA = schema.Object(
    {
        "head_type": _only("classification", "heads have one output"),
        "layers": _only(1, "a head is one layer here"),
        "use_pooler": _only(True, "heads read the pooler's output here"),
        "num_labels": schema.integer(1),
        "bias": schema.ANY,
    },
    dict.fromkeys(("activation_function", "label2id", "dropout_prob"), schema.ANY),
    others=adapterhub_config.UNKNOWN_ENTRY,
)


class Head(NamedTuple):
    """A linear layer on the pooler's output; C outputs."""

    weights: np.ndarray  # float32 [C, H]
    bias: np.ndarray  # float32 [C]
    labels: list[str] | None  # in the order of the outputs; None: not stated


class Adapter(NamedTuple):
    """The adapters of a folder, as variables of this project."""

    name: str
    version: str
    model_name: str | None  # the model that it was trained on; None: not stated
    size: int
    activation: str  # one of `activations.ADAPTER_ACTIVATIONS`
    weights: dict[str, np.ndarray]  # float32, variables of the adapters
    changes: list[str]  # see `adapterhub_config.describe_changes`


def read(folder, bert_config):
    """Reads the adapters of a folder for a base model: an `Adapter`.

    Raises:
      UserError: the folder is damaged, or its adapters are not supported.
    """
    path = os.path.join(folder, CONFIG_NAME)
    stated = hf_files.read_json(path)
    config = adapterhub_config.read_config(stated, bert_config, path)
    name, model_name = stated["name"], stated.get("model_name")
    shapes, sizes = adapterhub_config.expected_shapes(config, name, bert_config, path)
    found = _read_weights(folder, _WEIGHTS_NAMES, path)
    adapterhub_config.refuse_invertible(stated, config, found, path)
    _check_shapes(found, shapes, folder)
    size = max(sizes.values())
    return Adapter(
        name=name,
        version=str(stated.get("version", "of no version")),
        model_name=model_name if isinstance(model_name, str) and model_name else None,
        size=size,
        activation=config["non_linearity"],
        weights=_convert_weights(found, config, name, sizes, size, bert_config, folder),
        changes=adapterhub_config.describe_changes(config, sizes, size, bert_config),
    )


def _read_weights(folder, names, config_path):
    """Reads the first of two files: dict from name, without "bert.", to array."""
    present = [name for name in names if os.path.isfile(os.path.join(folder, name))]
    if not present:
        raise UserError("There is no %s beside %s." % (" or ".join(names), config_path))
    tensors = hf_files.list_tensors(folder, present[:1])
    renamed = {}
    for tensor, value in hf_files.read_tensors(tensors):
        name = _OLD_SCOPE.sub("adapters", tensor.name.removeprefix("bert."))
        if name in renamed:
            raise UserError("%s holds %s twice." % (tensor.path, printable(name)))
        renamed[name] = value
    return renamed


def _check_shapes(found, shapes, folder):
    """Refuses weights other than those that the config describes."""
    problems = ["%s is missing" % name for name in shapes if name not in found]
    others = sorted(found.keys() - shapes)
    problems += ["%s is not part of it" % printable(name) for name in others]
    problems += [
        "%s has shape %s, by the config it is %s"
        % (name, list(found[name].shape), list(shape))
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    if problems:
        raise UserError(
            "The weights in %s do not fit its config and `bert_config_file`. Give the "
            "base model that they were trained on, or fetch them again. %s"
            % (folder, hf_files.enumerate_problems(problems))
        )


def _convert_weights(found, config, name, sizes, size, bert_config, folder):
    """Returns the adapters' variables; missing and smaller ones are padded with zeros.

    The scaling becomes part of the second layer: s (h W + b) = h (s W) + s b.
    """
    H = bert_config.hidden_size
    shapes = ((H, size), (1, size), (size, H), (1, H))
    weights = {}
    layers = range(bert_config.num_hidden_layers)
    for scope, prefix in adapterhub_config.adapter_places(layers, name):
        for (variable, tensor), shape in zip(adapterhub_config.TENSORS.items(), shapes):
            value = np.zeros(shape)
            if scope in sizes:
                # In float64, so that scaling by 1 and by powers of 2 is exact.
                stored = np.atleast_2d(found[prefix + tensor].T.astype(np.float64))
                if variable in ("weights2", "biases2"):
                    stored *= found.get(prefix + "scaling", config["scaling"])
                value[: stored.shape[0], : stored.shape[1]] = stored
            with np.errstate(over="ignore"):
                value = value.astype(np.float32)
            weights["bert/%s/adapters/%s" % (scope, variable)] = value
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise UserError("The scaled weights in %s are beyond float32." % folder)
    return weights


def read_head(folder, hidden_size):
    """Reads the `Head` of a folder for a base model of `hidden_size`; None if missing.

    Raises:
      UserError: the head is damaged or not supported.
    """
    path = os.path.join(folder, HEAD_CONFIG_NAME)
    if not os.path.exists(path):
        return None
    stated = hf_files.read_json(path)
    config, name = stated.get("config"), stated.get("name")
    if stated.get("model_class") == _MODEL_WITH_HEAD and config is None:
        # The config of its one head, which the file does not state.
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
            '%s: "config" must be an object. Give the head_config.json that belongs '
            "to the weights." % path
        )
    config = {**_HEAD_DEFAULTS, **config}
    hf_files.check_entries(
        config,
        _HEAD_SCHEMA,
        path,
        "Supported is a head made by add_classification_head(NAME, num_labels=N, "
        "layers=1, use_pooler=True); `new_head` replaces this one by a new one.",
    )
    count = config["num_labels"]
    shapes = {prefix + "weight": (count, hidden_size)}
    if config["bias"]:
        shapes[prefix + "bias"] = (count,)
    found = _read_weights(folder, _HEAD_WEIGHTS_NAMES, path)
    _check_shapes(found, shapes, folder)
    bias = found.get(prefix + "bias", np.zeros([count], np.float32))
    labels = _head_labels(config.get("label2id"), count, path)
    return Head(found[prefix + "weight"], bias, labels)


def _head_labels(label2id, count, path):
    """The labels in the order of their ids; None for missing and default ones."""
    if not label2id:
        return None
    ids = label2id.values() if isinstance(label2id, dict) else ()
    if not all(type(i) is int for i in ids) or sorted(ids) != list(range(count)):
        raise UserError(
            "%s: label2id is %s, it must map labels to the ids 0 to %d."
            % (path, printable(json.dumps(label2id), 100), count - 1)
        )
    labels = sorted(label2id, key=label2id.get)
    if labels == ["LABEL_%d" % i for i in range(count)]:
        return None
    return labels


def format_files(package):
    """Formats an `AdapterPackage` without its layer norms: dict from file to bytes."""
    name = adapter_name(package)
    H = package.bert_config.hidden_size
    num_layers = package.bert_config.num_hidden_layers
    layers = package.config["adapter"]["layers"]
    about: dict[str, Any] = {
        "name": name,
        "model_type": "bert",
        "model_class": "BertAdapterModel",
        "model_name": None,
        "hidden_size": H,
        "version": "adapters.1.3.0",
    }
    config = {
        "mh_adapter": True,
        "output_adapter": True,
        "reduction_factor": _reduction_factor(H, package.adapter_size),
        "non_linearity": _ACTIVATION_NAMES[package.activation],
        "residual_before_ln": True,
        "scaling": 1.0,
        "leave_out": [layer for layer in range(num_layers) if layer not in layers],
        **{name: value for name, (value, _) in adapterhub_config.REQUIRED.items()},
    }
    labels = {label: i for i, label in enumerate(package.labels)}
    head_config = {
        "head_type": "classification",
        "num_labels": package.task_type.num_outputs,
        "layers": 1,
        "activation_function": None,
        "label2id": labels or None,
        "use_pooler": True,
        "bias": True,
        "dropout_prob": task_type.HEAD_DROPOUT,
    }
    weights = {}
    for scope, prefix in adapterhub_config.adapter_places(layers, name):
        for variable, tensor in adapterhub_config.TENSORS.items():
            value = package.weights["bert/%s/adapters/%s" % (scope, variable)]
            value = value.T if "weights" in variable else value[0]
            weights["bert." + prefix + tensor] = np.ascontiguousarray(value)
    head = "heads.%s.1." % name
    head_weights = {
        head + "weight": package.weights["output_weights"],
        head + "bias": package.weights["output_bias"],
    }
    about, head_about = dict(about, config=config), dict(about, config=head_config)
    return {
        CONFIG_NAME: hf_files.format_json(about).encode(),
        _WEIGHTS_NAMES[0]: safetensors.numpy.save(weights),
        HEAD_CONFIG_NAME: hf_files.format_json(head_about).encode(),
        _HEAD_WEIGHTS_NAMES[0]: safetensors.numpy.save(head_weights),
    }


def adapter_name(package):
    """The name of a package's task, in characters that names in PyTorch can have."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in package.task)


def _reduction_factor(width, size):
    """A factor with `int(width // factor) == size`, AdapterHub's rule."""
    if width % size == 0:
        return width // size
    factor = width / size
    while int(width // factor) < size:
        factor = math.nextafter(factor, 0.0)
    return factor
