"""Reads and writes LoRA in the format of the library peft, 0.18.1.

A folder holds `adapter_config.json` with `adapter_model.safetensors` or
`adapter_model.bin`, in which the head is too. Entries and their defaults are those of
peft 0.18.1.
"""

import math
import os
import re

import safetensors.numpy

from errors import UserError, printable
from exchange import adapter_files, heads, hf_files, hugging_face, lora_matrices
from exchange.adapter_files import absent_entry, fixed_entry
from system import files, schema
from tuning import lora

NAME = "peft"
METHODS = (lora.Lora,)
USE = """\
    import peft
    from transformers import %(model_class)s

    model = %(model_class)s.from_pretrained("BASE", num_labels=%(count)d)
    model = peft.PeftModel.from_pretrained(model, "THIS_FOLDER")
"""
VERSION = "0.18.1"
_WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_PATTERN = schema.pattern(
    re.compile(r"\^?[\w.]+"), "the name of a dense layer, or its end"
)

_NOT_HERE = "LoRA alone is supported here, without it"
_NO_PLACE = "packages of LoRA have no place for it"
_INITIAL_VALUES = ("gaussian", "eva", "orthogonal")
# Entry -> its default and its schema.
_ENTRIES = {
    "peft_type": (None, schema.one_of("LORA")),
    "r": (8, schema.integer(1)),
    "lora_alpha": (8, lora_matrices.ALPHA),
    "use_rslora": (False, schema.BOOLEAN),
    "rank_pattern": ({}, schema.Object({}, others=schema.integer(1))),
    "alpha_pattern": ({}, schema.Object({}, others=lora_matrices.ALPHA)),
    "bias": fixed_entry("none", "biases of the encoder are not part of LoRA here"),
    "use_dora": fixed_entry(False, _NOT_HERE),
    "use_qalora": fixed_entry(False, _NOT_HERE),
    "lora_bias": fixed_entry(False, _NOT_HERE),
    "init_lora_weights": (
        True,
        schema.Value(
            lambda value: isinstance(value, bool) or value in _INITIAL_VALUES,
            'true, false, "gaussian", "eva" or "orthogonal": others change the base '
            "model's weights",
        ),
    ),
    "layer_replication": absent_entry("layers are not repeated here"),
    "megatron_config": absent_entry(_NOT_HERE),
    "alora_invocation_tokens": absent_entry(_NOT_HERE),
    "arrow_config": absent_entry(_NOT_HERE),
    "target_parameters": absent_entry(_NO_PLACE),
    "trainable_token_indices": absent_entry(_NO_PLACE),
}
# Shown by the weights, or without effect after training.
_UNCHECKED = (
    *("auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules"),
    *("fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform"),
    *("lora_dropout", "megatron_core", "modules_to_save", "peft_version"),
    *("qalora_group_size", "revision", "target_modules", "task_type"),
)
_ADVICE = (
    "Supported is LoraConfig() for dense layers of the encoder, and the head in "
    "modules_to_save."
)


def recognizes(stated):
    """Whether the content of an `adapter_config.json` is of this format."""
    return "peft_type" in stated


def read(folder, bert_config, keep_head):
    """Reads the LoRA of a folder for a base model: an `adapter_files.ForeignAdapter`.

    Raises:
      UserError: the folder is damaged, or not supported.
    """
    stated = hf_files.read_json(os.path.join(folder, adapter_files.CONFIG_NAME))
    given = {name: value for name, value in stated.items() if value is not None}
    with adapter_files.config_errors(folder, _ADVICE):
        config = adapter_files.complete_config(given, _ENTRIES, _UNCHECKED)
        for entry in ("rank_pattern", "alpha_pattern"):
            for pattern in config[entry]:
                _PATTERN.check(pattern, entry)
    found = adapter_files.read_weights(
        folder, _WEIGHTS_NAMES, lambda name: name.removeprefix(_PREFIX)
    )
    kinds = heads.tensor_names()
    head_names = {name for names in kinds.values() for name in names}
    head = {name: found.pop(name) for name in head_names & found.keys()}
    # Models with a head have the encoder as a part.
    part = "bert." if any(name.startswith("bert.") for name in found) else ""
    updates = {}
    for scope in lora_matrices.target_scopes(range(bert_config.num_hidden_layers)):
        module = part + hugging_face.module_name(scope)
        names = _tensor_names(module)
        if found.keys() & names:
            rank = _find_value(config["rank_pattern"], module, config["r"])
            alpha = _find_value(config["alpha_pattern"], module, config["lora_alpha"])
            divisor = math.sqrt(rank) if config["use_rslora"] else rank
            updates[scope] = lora_matrices.Update(*names, rank, alpha / divisor)
    others = sorted(n for n in found if "encoder.layer." not in n or ".lora_" not in n)
    if others:
        raise UserError(
            "`input_dir`=%s holds %s: %s. In LoraConfig leave such modules out of "
            "target_modules and modules_to_save. %s"
            % (folder, printable(others[0]), _NO_PLACE, _ADVICE)
        )
    if not updates:
        raise UserError("`input_dir`=%s holds no LoRA matrices. %s" % (folder, _ADVICE))
    method, weights, changes = lora_matrices.import_updates(
        updates, found, bert_config, folder
    )
    if config.get("lora_dropout"):
        changes.append("Dropout of LoRA, used in training only, is left out.")
    if config.get("task_type") == "QUESTION_ANS":
        changes.append(
            "peft computes question answering without segment ids, since its `forward` "
            "drops them; here they are used, as in transformers."
        )
    version = config.get("peft_version", "of no version")
    return adapter_files.ForeignAdapter(
        title="LoRA of peft (%s)" % version,
        model_name=hf_files.model_name(config, "base_model_name_or_path"),
        method=method,
        weights=weights,
        changes=changes,
        head=_read_head(head, kinds, config, bert_config.hidden_size, folder)
        if keep_head and head
        else None,
    )


def _read_head(found, kinds, config, hidden_size, folder):
    shapes = {name: value.shape for name, value in found.items()}
    kind = heads.find_kind(kinds, shapes, hidden_size, "`input_dir`=%s" % folder)
    # The models of other tasks have heads of the same name.
    reason = "other heads can be replaced by a `new_head`"
    model_class = adapter_files.constant_schema(kind.model_class, reason)
    entries = {
        "task_type": adapter_files.constant_schema(kind.peft, reason),
        "auto_mapping": schema.Object(
            {}, {"base_model_class": model_class}, schema.ANY
        ),
    }
    with adapter_files.config_errors(folder, _ADVICE):
        schema.Object({}, entries, schema.ANY).check(config)
    return heads.Head(kind, *(found[name] for name in kind.tensors))


def _tensor_names(module):
    return tuple("%s.lora_%s.weight" % (module, letter) for letter in "AB")


def _find_value(patterns, module, default):
    """The value of the first pattern that fits a module's name, as in peft.

    A pattern is a regular expression for the name or its end, from a dot on.
    """
    for pattern, value in patterns.items():
        if re.match(r"(.*\.)?(%s)$" % pattern, module):
            return value
    return default


def find_problem(package):
    """The part of an `AdapterPackage`'s head that the format lacks, or ""."""
    return heads.export_head(package).find_problem()


def format_files(package):
    """Formats a package: dict from file name to content."""
    method, head = package.method, heads.export_head(package)
    ends = [lora.TARGETS[name].replace("/", ".") for name in method.targets]
    config = {
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": method.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": [head.kind.layer],
        "peft_type": "LORA",
        "peft_version": VERSION,
        "r": method.rank,
        # As a list, "output.dense" would be that of the attention too.
        "target_modules": r".*\.layer\.\d+\.(%s)" % "|".join(map(re.escape, ends)),
        "task_type": head.kind.peft,
    }
    tensors = {
        _PREFIX + name: value
        for name, value in zip(head.kind.tensors, (head.weights, head.bias))
    }
    tensors.update(
        lora_matrices.export_updates(
            package,
            lambda scope: _tensor_names(
                _PREFIX + "bert." + hugging_face.module_name(scope)
            ),
        )
    )
    return {
        adapter_files.CONFIG_NAME: files.format_json(config),
        _WEIGHTS_NAMES[0]: safetensors.numpy.save(tensors, {"format": "pt"}),
    }
