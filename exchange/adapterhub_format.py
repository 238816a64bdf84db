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
from typing import Any

import numpy as np
import safetensors.numpy

from errors import UserError, printable
from exchange import (
    adapter_files,
    adapterhub_config,
    heads,
    hf_files,
    lora_matrices,
)
from system import schema
from tasks import head_form, task_type
from tuning import adapters, lora

NAME = "AdapterHub"
HEAD_CONFIG_NAME = "head_config.json"
_WEIGHTS_NAMES = ("adapter.safetensors", "pytorch_adapter.bin")
_HEAD_WEIGHTS_NAMES = ("model_head.safetensors", "pytorch_model_head.bin")

_ACTIVATION_NAMES = {
    ours: theirs for theirs, ours in reversed(adapterhub_config.ACTIVATIONS.items())
}
_OLD_SCOPE = re.compile("(attention|layer)_text_(task|lang)_adapters")
# Head type -> its defaults.
_HEAD_DEFAULTS: dict[str, dict[str, Any]] = {
    "classification": {"layers": 2, "use_pooler": False, "bias": True},
    "question_answering": {"layers": 1, "bias": True},
}
# Types whose head can have two layers, or read another output than the pooler's.
_FORMS = ("classification",)
_HEAD_SCHEMA = schema.Object(
    {
        "head_type": schema.one_of(*_HEAD_DEFAULTS),
        "layers": schema.one_of(1, 2),
        "num_labels": schema.integer(1),
        "bias": schema.ANY,
    },
    {
        "use_pooler": schema.BOOLEAN,
        "activation_function": schema.one_of(*sorted(adapterhub_config.ACTIVATIONS)),
        **dict.fromkeys(("label2id", "dropout_prob"), schema.ANY),
    },
    others=adapterhub_config.UNKNOWN_ENTRY,
)


def recognizes(stated):
    """Whether the content of an `adapter_config.json` is of this format."""
    return isinstance(stated.get("config"), dict) and "format" not in stated


def read(folder, bert_config):
    """Reads a folder for a base model: an `adapter_files.ForeignAdapter`.

    Raises:
      UserError: the folder is damaged, or its adapters are not supported.
    """
    path = os.path.join(folder, adapter_files.CONFIG_NAME)
    stated = hf_files.read_json(path)
    config = adapterhub_config.read_config(stated, bert_config, path)
    name, model_name = stated["name"], stated.get("model_name")
    found = _read_weights(folder, _WEIGHTS_NAMES)
    read_method = _read_bottlenecks
    if config["architecture"] == adapterhub_config.LORA:
        read_method = _read_lora
    method, weights, changes = read_method(
        stated, config, found, bert_config, folder, path
    )
    if config.get("dropout") or config.get("stochastic_depth"):
        changes.append("Dropout within adapters, used in training only, is left out.")
    version = stated.get("version", "of no version")
    return adapter_files.ForeignAdapter(
        title="adapter %s of AdapterHub (%s)" % (name, version),
        model_name=model_name if isinstance(model_name, str) and model_name else None,
        method=method,
        weights=weights,
        changes=changes,
    )


def _read_bottlenecks(stated, config, found, bert_config, folder, path):
    """The `adapters.Adapters` of a folder, its variables, and the changes as texts."""
    name, placement = stated["name"], adapterhub_config.find_placement(config, path)
    shapes, sizes = adapterhub_config.expected_shapes(config, name, bert_config, path)
    adapterhub_config.refuse_invertible(stated, config, found, path)
    adapter_files.check_shapes(found, shapes, folder)
    method = adapters.Adapters(
        max(sizes.values()),
        None,
        activation=config["non_linearity"],
        placement=placement,
    )
    return (
        method,
        _convert_weights(found, config, name, sizes, method, bert_config, folder),
        adapterhub_config.describe_changes(config, sizes, method, bert_config),
    )


def _read_lora(stated, config, found, bert_config, folder, path):
    updates = adapterhub_config.lora_updates(config, stated["name"], bert_config)
    if not updates:
        raise UserError("%s describes no update of any dense layer." % path)
    return lora_matrices.import_updates(updates, found, bert_config, folder)


def _read_weights(folder, names):
    def rename(name):
        return _OLD_SCOPE.sub("adapters", name.removeprefix("bert."))

    return adapter_files.read_weights(folder, names, rename)


def _convert_weights(found, config, name, sizes, method, bert_config, folder):
    """Returns the adapters' variables; missing and smaller ones are padded with zeros.

    The scaling becomes part of the second layer: s (h W + b) = h (s W) + s b.
    """
    H, size = bert_config.hidden_size, method.size
    shapes = ((H, size), (1, size), (size, H), (1, H))
    weights = {}
    layers = range(bert_config.num_hidden_layers)
    placement = adapters.PLACEMENTS[method.placement]
    for scope, prefix in adapterhub_config.adapter_places(
        layers, name, placement.sublayers
    ):
        for (variable, tensor), shape in zip(adapterhub_config.TENSORS.items(), shapes):
            value = np.zeros(shape)
            if scope in sizes:
                # In float64, so that scaling by 1 and by powers of 2 is exact.
                stored = np.atleast_2d(found[prefix + tensor].T.astype(np.float64))
                if variable in ("weights2", "biases2"):
                    scaling = found.get(prefix + "scaling", config["scaling"])
                    stored *= scaling / placement.scaling
                value[: stored.shape[0], : stored.shape[1]] = stored
            with np.errstate(over="ignore"):
                value = value.astype(np.float32)
            weights["bert/%s/%s/%s" % (scope, placement.scope, variable)] = value
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise UserError("The scaled weights in %s are beyond float32." % folder)
    return weights


def read_head(folder, hidden_size):
    """Reads the `heads.Head` of a folder, of `hidden_size`; None if missing.

    Raises:
      UserError: the head is damaged or not supported.
    """
    path = os.path.join(folder, HEAD_CONFIG_NAME)
    if not os.path.exists(path):
        return None
    stated = hf_files.read_json(path)
    config, name = stated.get("config"), stated.get("name")
    kinds = {kind.model_class: kind for kind in heads.library_heads()}
    kind = kinds.get(stated.get("model_class")) if config is None else None
    if kind:
        # The config of its one head, which the file does not state.
        config = {
            **{"head_type": kind.adapterhub, "layers": 1, "use_pooler": True},
            **{entry: stated.get(entry) for entry in ("num_labels", "label2id")},
        }
        stem = kind.layer
    else:
        stem = "heads.%s." % name
    if not isinstance(config, dict):
        raise UserError(
            '%s: "config" must be an object. Give the head_config.json that belongs '
            "to the weights." % path
        )
    config = {**_HEAD_DEFAULTS.get(str(config.get("head_type")), {}), **config}
    config["activation_function"] = adapterhub_config.name_activation(
        config.get("activation_function"), stated
    )
    remedy = (
        "Supported are heads made by add_classification_head(NAME, num_labels=N) and "
        "add_qa_head(NAME), of one layer or, for classification, two; `new_head` "
        "replaces this one by a new one."
    )
    hf_files.check_entries(config, _HEAD_SCHEMA, path, remedy)
    head_type, layers = config["head_type"], config["layers"]
    form, indices = head_form.DEFAULT, [1]
    if head_type in _FORMS:
        activation = config["activation_function"] or "linear"
        hidden = adapterhub_config.ACTIVATIONS[activation] if layers == 2 else None
        form = head_form.HeadForm(config["use_pooler"], hidden)
        indices = _layer_indices(layers, config["activation_function"])
    elif layers != 1:
        raise UserError(
            "%s: layers is %d, for %s it must be 1. %s"
            % (path, layers, head_type, remedy)
        )
    (kind,) = (k for k in kinds.values() if k.adapterhub == head_type)
    H, count = hidden_size, config["num_labels"]
    names = [
        stem + ("%d." % index if stem.endswith(".") else ".") + part
        for index in indices
        for part in ("weight", "bias")
    ]
    shapes = dict(zip(names, ((H, H), (H,), (count, H), (count,))[-len(names) :]))
    *hidden_names, weight, bias = names
    if not config["bias"]:
        del shapes[bias]
    found = _read_weights(folder, _HEAD_WEIGHTS_NAMES)
    adapter_files.check_shapes(found, shapes, folder)
    return heads.Head(
        kind,
        found[weight],
        found.get(bias, np.zeros([count], np.float32)),
        _head_labels(config.get("label2id"), count, path),
        form,
        tuple(found[each] for each in hidden_names),
    )


def _layer_indices(layers, activation):
    """The places of the linear layers in a head, which has dropout before each."""
    return [1] if layers == 1 else [1, 4 if activation else 3]


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


def find_problem(package):
    """The part of an `AdapterPackage`'s tuning method that the format lacks, or ""."""
    method = package.method
    if isinstance(method, adapters.Adapters):
        return ""
    if isinstance(method, lora.Lora):
        is_supported = adapterhub_config.lora_config(method) is not None
        return "" if is_supported else "updates of the attention's output"
    return "no adapters but %s (`train_policy`=%s)" % (method.description, method.text)


def format_files(package):
    """Formats an `AdapterPackage` of `find_problem` "": dict from file to bytes.

    Its layer norms are left out.
    """
    name = adapter_name(package)
    about: dict[str, Any] = {
        "name": name,
        "model_type": "bert",
        "model_class": "BertAdapterModel",
        "model_name": None,
        "hidden_size": package.bert_config.hidden_size,
        "version": "adapters.1.3.0",
    }
    is_lora = isinstance(package.method, lora.Lora)
    config, weights = (_format_lora if is_lora else _format_bottlenecks)(package, name)
    weights = {"bert." + tensor: value for tensor, value in weights.items()}
    head = heads.export_head(package)
    layers, activation = 1, None
    if head.form.hidden is not None:
        layers, activation = 2, _ACTIVATION_NAMES[head.form.hidden]
    head_config = {
        "head_type": head.kind.adapterhub,
        "num_labels": len(head.bias),
        "layers": layers,
        "activation_function": activation,
        "label2id": {label: i for i, label in enumerate(head.labels or [])} or None,
        "dropout_prob": 0.0,
    }
    if head.kind.adapterhub in _FORMS:
        own = {"use_pooler": head.form.uses_pooler, "bias": True}
        head_config.update(own, dropout_prob=task_type.HEAD_DROPOUT)
    names = [
        "heads.%s.%d.%s" % (name, index, part)
        for index in _layer_indices(layers, activation)
        for part in ("weight", "bias")
    ]
    head_weights = dict(zip(names, (*head.hidden, head.weights, head.bias)))
    about, head_about = dict(about, config=config), dict(about, config=head_config)
    return {
        adapter_files.CONFIG_NAME: hf_files.format_json(about).encode(),
        _WEIGHTS_NAMES[0]: safetensors.numpy.save(weights),
        HEAD_CONFIG_NAME: hf_files.format_json(head_about).encode(),
        _HEAD_WEIGHTS_NAMES[0]: safetensors.numpy.save(head_weights),
    }


_USE = """\
    from adapters import BertAdapterModel

    model = BertAdapterModel.from_pretrained("BASE")
    name = model.load_adapter("THIS_FOLDER", use_safetensors=True)
    model.set_active_adapters(name)
"""


def describe_use(package):
    """Python code that loads the files, for people."""
    return _USE


def _format_bottlenecks(package, name):
    """The config of an adapter, and its tensors without "bert.": two dicts."""
    method = package.method
    every = range(package.bert_config.num_hidden_layers)
    layers = method.layers or every
    config = {
        **adapterhub_config.placement_config(method.placement),
        "reduction_factor": _reduction_factor(
            package.bert_config.hidden_size, method.size
        ),
        "non_linearity": _ACTIVATION_NAMES[method.activation],
        "leave_out": [layer for layer in every if layer not in layers],
        **{name: value for name, (value, _) in adapterhub_config.REQUIRED.items()},
    }
    placement, weights = adapters.PLACEMENTS[method.placement], {}
    for scope, prefix in adapterhub_config.adapter_places(
        layers, name, placement.sublayers
    ):
        for variable, tensor in adapterhub_config.TENSORS.items():
            value = package.weights[
                "bert/%s/%s/%s" % (scope, placement.scope, variable)
            ]
            value = value.T if "weights" in variable else value[0]
            weights[prefix + tensor] = np.ascontiguousarray(value)
    return config, weights


def _format_lora(package, name):
    weights = {}
    for scope, update in lora_matrices.export_updates(package).items():
        weights.update(zip(adapterhub_config.lora_tensors(scope, name), update))
    return adapterhub_config.lora_config(package.method), weights


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
