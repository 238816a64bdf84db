"""Reads and writes adapters in the format of AdapterHub's library `adapters`, 1.3.0.

A folder holds `adapter_config.json` with `adapter.safetensors` or
`pytorch_adapter.bin`, see `adapterhub_adapters`, and optionally a head:
`head_config.json` with `model_head.safetensors` or `pytorch_model_head.bin`.
"""

import json
import os
import re
from typing import Any

import numpy as np
import safetensors.numpy

from errors import explain_value_errors, printable
from exchange import adapter_files, adapterhub_adapters, heads, hf_files
from system import files, schema
from tasks import head_form, task_type
from tuning import adapters, lora

NAME = "AdapterHub"
METHODS = (adapters.Adapters, lora.Lora)
USE = """\
    from adapters import BertAdapterModel

    model = BertAdapterModel.from_pretrained("BASE")
    name = model.load_adapter("THIS_FOLDER", use_safetensors=True)
    model.set_active_adapters(name)
"""
_HEAD_CONFIG_NAME = "head_config.json"
_WEIGHTS_NAMES = ("adapter.safetensors", "pytorch_adapter.bin")
_HEAD_WEIGHTS_NAMES = ("model_head.safetensors", "pytorch_model_head.bin")
_OLD_SCOPE = re.compile("(attention|layer)_text_(task|lang)_adapters")

# Head type -> its entries, with their defaults and schemas. Without the pooler, a head
# reads the last layer's output at the first position.
_HEAD_ENTRIES: dict[str, dict[str, Any]] = {
    "classification": {
        "layers": (2, schema.one_of(1, 2)),
        "use_pooler": (False, schema.BOOLEAN),
        "bias": (True, schema.ANY),
    },
    "question_answering": {
        "layers": adapter_files.fixed_entry(1, "its head is linear here")
    },
}
_HEAD_UNCHECKED = (
    *("activation_function", "bias", "dropout_prob", "head_type", "label2id"),
    "use_pooler",
)
_HEAD_REMEDY = (
    "Supported are heads made by add_classification_head(NAME, num_labels=N) and "
    "add_qa_head(NAME), of one layer or, for classification, two; `new_head` "
    "replaces this one by a new one."
)


def recognizes(stated):
    """Whether the content of an `adapter_config.json` is of this format."""
    return isinstance(stated.get("config"), dict) and "format" not in stated


def read(folder, bert_config, keep_head):
    """Reads a folder for a base model: an `adapter_files.ForeignAdapter`.

    Raises:
      UserError: the folder is damaged, or its adapters or head are not supported.
    """
    stated = hf_files.read_json(os.path.join(folder, adapter_files.CONFIG_NAME))
    found = _read_weights(folder, _WEIGHTS_NAMES)
    method, weights, changes = adapterhub_adapters.read(
        stated, found, bert_config, folder
    )
    version = stated.get("version", "of no version")
    return adapter_files.ForeignAdapter(
        title="adapter %s of AdapterHub (%s)" % (stated["name"], version),
        model_name=hf_files.model_name(stated, "model_name"),
        method=method,
        weights=weights,
        changes=changes,
        head=_read_head(folder, bert_config.hidden_size) if keep_head else None,
    )


def _read_weights(folder, names):
    def rename(name):
        return _OLD_SCOPE.sub("adapters", name.removeprefix("bert."))

    return adapter_files.read_weights(folder, names, rename)


def _read_head(folder, hidden_size):
    """Reads the `heads.Head` of a folder; None if there is none."""
    path = os.path.join(folder, _HEAD_CONFIG_NAME)
    if not os.path.exists(path):
        return None
    stated = hf_files.read_json(path)
    config, kinds = stated.get("config"), heads.tensor_names()
    models = {kind.model_class: kind.adapterhub for kind in kinds}
    is_static = config is None
    if is_static:
        with explain_value_errors(path, _HEAD_REMEDY):
            schema.one_of(*models).check(stated.get("model_class"), "model_class")
        # The config of its one head, which the file does not state.
        config = {"head_type": models[stated["model_class"]], "layers": 1}
        config.update(
            {entry: stated.get(entry) for entry in ("num_labels", "label2id")}
        )
        config["use_pooler"] = True
    with explain_value_errors(path, _HEAD_REMEDY):
        schema.Object({}, others=schema.ANY).check(config, "config")
        schema.one_of(*_HEAD_ENTRIES).check(config.get("head_type"), "head_type")
        head_type = config["head_type"]
        entries = {**_HEAD_ENTRIES[head_type], "num_labels": (None, schema.integer(1))}
        config = adapter_files.complete_config(config, entries, _HEAD_UNCHECKED)
        count, layers = config["num_labels"], config["layers"]
        activation, hidden = config.get("activation_function"), "linear"
        if activation is not None:
            hidden = adapterhub_adapters.read_activation(
                activation, "activation_function", stated
            )
        labels = _read_labels(config.get("label2id"), count)
    form = head_form.DEFAULT
    if head_type == "classification":
        hidden = hidden if layers == 2 else None
        form = head_form.HeadForm(config["use_pooler"], hidden)
    (kind,) = (each for each in kinds if each.adapterhub == head_type)
    names = kind.tensors
    if not is_static:
        names = _head_tensors("heads.%s." % stated.get("name"), layers, activation)
    H = hidden_size
    shapes = dict(zip(names, ((H, H), (H,), (count, H), (count,))[-len(names) :]))
    *hidden_names, weight, bias = names
    if not config.get("bias", True):
        del shapes[bias]
    found = _read_weights(folder, _HEAD_WEIGHTS_NAMES)
    adapter_files.check_shapes(found, shapes, folder)
    return heads.Head(
        kind,
        found[weight],
        found.get(bias, np.zeros([count], np.float32)),
        labels,
        form,
        tuple(found[each] for each in hidden_names),
    )


def _head_tensors(stem, layers, activation):
    """The names of a head's tensors; each layer comes after dropout."""
    indices = [1] if layers == 1 else [1, 4 if activation else 3]
    return [stem + "%d.%s" % (i, part) for i in indices for part in ("weight", "bias")]


def _read_labels(label2id, count):
    """The labels in the order of their ids; None for missing and default ones."""
    if not label2id:
        return None
    ids = label2id.values() if isinstance(label2id, dict) else ()
    if not all(type(i) is int for i in ids) or sorted(ids) != list(range(count)):
        raise ValueError(
            "label2id is %s, it must map labels to the ids 0 to %d"
            % (printable(json.dumps(label2id), 100), count - 1)
        )
    labels = sorted(label2id, key=label2id.get)
    return None if labels == ["LABEL_%d" % i for i in range(count)] else labels


def find_problem(package):
    """The part of an `AdapterPackage`'s tuning method that the format lacks, or ""."""
    method = package.method
    if isinstance(method, lora.Lora) and not adapterhub_adapters.lora_entries(method):
        return "updates of the attention's output"
    return ""


def format_files(package):
    """Formats a package, but its layer norms: dict from file name to content."""
    # Names of modules in PyTorch can have these characters.
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in package.task)
    config, weights = adapterhub_adapters.format_adapter(package, name)
    head = heads.export_head(package)
    own = _HEAD_ENTRIES[head.kind.adapterhub]
    head_config = {
        **{entry: default for entry, (default, _) in own.items()},
        "head_type": head.kind.adapterhub,
        "num_labels": len(head.bias),
        "layers": 1,
        "activation_function": None,
        "label2id": {label: i for i, label in enumerate(head.labels or [])} or None,
        "dropout_prob": 0.0,
    }
    if "use_pooler" in own:
        head_config["use_pooler"] = head.form.uses_pooler
        head_config["dropout_prob"] = task_type.HEAD_DROPOUT
    if head.form.hidden is not None:
        activation = adapterhub_adapters.ACTIVATION_NAMES[head.form.hidden]
        head_config.update(layers=2, activation_function=activation)
    names = _head_tensors(
        "heads.%s." % name, head_config["layers"], head_config["activation_function"]
    )
    about = {
        "name": name,
        "model_type": "bert",
        "model_class": "BertAdapterModel",
        "model_name": None,
        "hidden_size": package.bert_config.hidden_size,
        "version": "adapters.1.3.0",
    }
    return {
        adapter_files.CONFIG_NAME: files.format_json({**about, "config": config}),
        _WEIGHTS_NAMES[0]: safetensors.numpy.save(
            {"bert." + tensor: value for tensor, value in weights.items()}
        ),
        _HEAD_CONFIG_NAME: files.format_json({**about, "config": head_config}),
        _HEAD_WEIGHTS_NAMES[0]: safetensors.numpy.save(
            dict(zip(names, (*head.hidden, head.weights, head.bias)))
        ),
    }
