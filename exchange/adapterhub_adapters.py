"""Adapters in the format of AdapterHub's library `adapters`: configs and tensors.

Supported are the placements of `tuning.adapters`, adapters that are equal to these with
some weights 0, and LoRA. Entries and their defaults are those of adapters 1.3.0.
"""

import math

import numpy as np

from exchange import adapter_files, hugging_face, lora_matrices
from exchange.adapter_files import constant_schema, fixed_entry
from system import schema
from tuning import adapters, lora

# Name in AdapterHub -> in `activations.ADAPTER_ACTIVATIONS`; of several names the first
# is written. AdapterHub's "gelu" is the exact one.
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_python_tanh": "gelu",
    "gelu_accurate": "gelu",
    "gelu_fast": "gelu",
    "swish": "swish",
    "silu": "swish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
ACTIVATION_NAMES = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
# The library's predecessor, which wrote no version.
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_SUPPORTED = (
    "Supported are DoubleSeqBnConfig(), SeqBnConfig(), ParBnConfig() and LoRAConfig(): "
    "give a folder that save_adapter wrote, and the base model of the adapter."
)

# --- bottlenecks ----------------------------------------------------------------

# Scope of a sublayer -> entry by which it has adapters.
_SUBLAYERS = {"attention/output": "mh_adapter", "output": "output_adapter"}
# Variable of an adapter -> its tensor there.
_TENSORS = {
    "weights1": "adapter_down.0.weight",
    "biases1": "adapter_down.0.bias",
    "weights2": "adapter_up.weight",
    "biases2": "adapter_up.bias",
}
# Entries of the placements that have them; others are `adapters.HOULSBY`.
_PLACEMENT_ENTRIES = {
    "is_parallel": adapters.PARALLEL,
    "original_ln_before": adapters.PFEIFFER,
}
_NO_NORM = "adapters have no layer norm of their own here"
# Entry -> its default and its schema.
_ENTRIES = {
    "original_ln_after": fixed_entry(True, "a layer norm follows each adapter here"),
    "ln_before": fixed_entry(False, _NO_NORM),
    "ln_after": fixed_entry(False, _NO_NORM),
    "use_gating": fixed_entry(False, "adapters have no gate here"),
    "phm_layer": fixed_entry(False, "matrices of adapters are not factorized here"),
    "cross_adapter": fixed_entry(False, "there is no cross-attention here"),
    **dict.fromkeys(_PLACEMENT_ENTRIES, (False, schema.BOOLEAN)),
    "residual_before_ln": (True, schema.BOOLEAN),
    "non_linearity": (None, schema.ANY),  # See `read_activation`.
    "scaling": (
        *(1.0, schema.any_of(schema.number(), schema.one_of("learned", "channel"))),
    ),
    "leave_out": ([], schema.List(schema.ANY)),
    "reduction_factor": (None, schema.ANY),  # See `_bottleneck_size`.
}
_UNCHECKED = (
    *_SUBLAYERS.values(),
    *("inv_adapter", "invertible_adapter"),  # See `_refuse_invertible`.
    # They matter in training only, or belong to values that are excluded.
    *("adapter_residual_before_ln", "dropout", "init_weights", "init_weights_seed"),
    *("inv_adapter_reduction_factor", "stochastic_depth"),
    # Of phm_layer.
    *("factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity"),
    *("learn_phm", "phm_bias", "phm_c_init", "phm_dim", "phm_init_range", "phm_rank"),
    *("shared_W_phm", "shared_phm_rule"),
)

# --- LoRA -----------------------------------------------------------------------

_LORA = "lora"  # the architecture
# Letters of "attn_matrices", and entries of other dense layers -> in `lora.TARGETS`.
_LORA_MATRICES = {"q": "query", "k": "key", "v": "value"}
_LORA_LAYERS = {"intermediate_lora": "intermediate", "output_lora": "output"}
_SHARED = "matrices are not shared here"
_LORA_ENTRIES = {
    "composition_mode": fixed_entry("add", "updates are added here"),
    "use_gating": fixed_entry(False, "updates have no gate here"),
    "use_dora": fixed_entry(False, "updates have no magnitude here"),
    "vera_d": fixed_entry(None, _SHARED),
    "vera_b": fixed_entry(None, _SHARED),
    "r": (8, schema.integer(1, 2**31 - 1)),
    "alpha": (8, lora_matrices.ALPHA),
    "attn_matrices": (["q", "v"], schema.List(schema.one_of(*_LORA_MATRICES))),
    "selfattn_lora": (True, schema.BOOLEAN),
    **dict.fromkeys(_LORA_LAYERS, (False, schema.BOOLEAN)),
    "leave_out": ([], schema.List(schema.ANY)),
}
# They matter in training only.
_LORA_UNCHECKED = ("dropout", "init_weights", "init_weights_seed", "dtype")

_ARCHITECTURE = schema.Value(
    lambda value: value in (None, _LORA),
    '"lora", or left out: bottleneck adapters and LoRA are supported',
)


def read(stated, found, bert_config, folder):
    """Reads an adapter that computes the same as one of this project.

    `stated` is the content of the `adapter_config.json` in `folder`, `found` the
    tensors, a dict from name without "bert." to float32 array, `bert_config` that of
    the base model.

    Returns:
      The tuning method, its variables, and texts on what is represented differently.

    Raises:
      UserError: an entry is not supported, or the tensors are others.
    """
    about = schema.Object(
        {
            "name": schema.LINE,
            "config": schema.Object({}, {"architecture": _ARCHITECTURE}, schema.ANY),
        },
        optional={
            "model_type": constant_schema("bert", "give an adapter of BERT"),
            "hidden_size": constant_schema(
                bert_config.hidden_size, "that of `bert_config_file`"
            ),
        },
        others=schema.ANY,
    )
    with adapter_files.config_errors(folder, _SUPPORTED):
        about.check(stated)
    config = stated["config"]
    is_lora = config.get("architecture") == _LORA
    read_method = _read_lora if is_lora else _read_bottlenecks
    method, weights, changes = read_method(stated, found, bert_config, folder)
    if config.get("dropout") or config.get("stochastic_depth"):
        changes.append("Dropout within adapters, used in training only, is left out.")
    return method, weights, changes


def format_adapter(package, name):
    """The entry "config" and the tensors, without "bert.", of a package: two dicts."""
    is_lora = isinstance(package.method, lora.Lora)
    return (_format_lora if is_lora else _format_bottlenecks)(package, name)


def read_activation(name, entry, stated):
    """The activation of an entry, one of `activations.ADAPTER_ACTIVATIONS`.

    `stated` is the content of the file. Raises a `ValueError` for an unknown one.
    """
    found = name.lower() if isinstance(name, str) else ""
    if "version" not in stated:
        found = _OLD_ACTIVATIONS.get(found, found)
    if found not in ACTIVATIONS:
        allowed = "one of %s" % ", ".join(sorted(ACTIVATIONS))
        raise schema.SchemaError(entry, name, allowed)
    return ACTIVATIONS[found]


def _complete_config(stated, entries, unchecked):
    config = {**stated["config"], "leave_out": stated["config"].get("leave_out") or []}
    return adapter_files.complete_config(config, entries, ("architecture", *unchecked))


def _adapter_places(layers, sublayers, name):
    """Scopes of sublayers, and prefixes of the tensors of their adapter: a dict."""
    scopes = [
        "bert/encoder/layer_%d/%s" % (i, end) for i in layers for end in sublayers
    ]
    return {
        scope: "%s.adapters.%s." % (hugging_face.module_name(scope), name)
        for scope in scopes
    }


def _read_bottlenecks(stated, found, bert_config, folder):
    """See `read`. Scalings become part of the second layer, weights and biases."""
    H, name = bert_config.hidden_size, stated["name"]
    with adapter_files.config_errors(folder, _SUPPORTED):
        config = _complete_config(stated, _ENTRIES, _UNCHECKED)
        activation = read_activation(config["non_linearity"], "non_linearity", stated)
        placement = _find_placement(config)
        sublayers = [end for end, entry in _SUBLAYERS.items() if config.get(entry)]
        sizes = {
            layer: _bottleneck_size(config["reduction_factor"], layer, H)
            for layer in range(bert_config.num_hidden_layers)
            if layer not in config["leave_out"] and sublayers
        }
        if not sizes:
            raise ValueError("no adapter in any layer of the base model is described")
        _refuse_invertible(stated, found)
    scaling_shape = {"learned": (1,), "channel": (H,)}.get(str(config["scaling"]))
    shapes = {}
    for layer, size in sizes.items():
        for prefix in _adapter_places([layer], sublayers, name).values():
            for tensor, shape in zip(
                _TENSORS.values(), ((size, H), (size,), (H, size), (H,))
            ):
                shapes[prefix + tensor] = shape
            if scaling_shape:
                shapes[prefix + "scaling"] = scaling_shape
    adapter_files.check_shapes(found, shapes, folder)
    here, values = adapters.PLACEMENTS[placement], {}
    for scope, prefix in _adapter_places(sizes, sublayers, name).items():
        scaling = found.get(prefix + "scaling", config["scaling"]) / here.scaling
        for variable, tensor in _TENSORS.items():
            # In float64, so that scaling by 1 and by powers of 2 is exact.
            value = found[prefix + tensor].T.astype(np.float64)
            factor = scaling if variable.endswith("2") else 1.0
            values["%s/%s/%s" % (scope, here.scope, variable)] = value * factor
    layers = adapters.none_if_all(sizes, bert_config.num_hidden_layers)
    method = adapters.Adapters(
        max(sizes.values()), None, layers, activation=activation, placement=placement
    )
    weights, changes = adapter_files.complete_variables(
        values, method, bert_config, folder
    )
    if config["scaling"] != here.scaling:
        changes.append(
            "The scaling, %s, is part of weights2 and biases2." % config["scaling"]
        )
    return method, weights, changes


def _find_placement(config):
    """The name of a config's placement; may raise a `ValueError`."""
    found = [name for entry, name in _PLACEMENT_ENTRIES.items() if config[entry]]
    placement = (found or [adapters.HOULSBY])[0]
    here = adapters.PLACEMENTS[placement]
    if placement == adapters.PFEIFFER and not config["residual_before_ln"]:
        raise ValueError(
            "residual_before_ln is false, with original_ln_before it must be true"
        )
    for sublayer, entry in _SUBLAYERS.items():
        if config.get(entry) and sublayer not in here.sublayers:
            raise ValueError(
                "%s is true, but %s adapters are %s here"
                % (entry, placement, here.position)
            )
    return placement


def _bottleneck_size(factor, layer, hidden_size):
    """The bottleneck size of a layer, computed as AdapterHub does."""
    value = factor
    if isinstance(factor, dict):
        value = factor.get(str(layer), factor.get("default"))
    is_finite = schema.is_number(value) and 0 < value < math.inf
    if not is_finite or hidden_size // value >= 2**31:
        raise ValueError(
            "reduction_factor is %s, layer %d needs a number above 0, not too small"
            % (schema.json_text(factor), layer)
        )
    return max(1, int(hidden_size // value))


def _refuse_invertible(stated, tensor_names):
    """Raises a `ValueError` for invertible adapters, those of the embeddings.

    Old configs of task adapters describe invertible adapters that do not exist.
    """
    config = stated["config"]
    inverse = config.get("inv_adapter") or config.get("invertible_adapter")
    held = any("invertible" in name for name in tensor_names)
    if held or (inverse and stated.get("type") != "text_task"):
        raise ValueError(
            "inv_adapter is %s, but the embeddings have no adapter here"
            % schema.json_text(inverse)
        )


def _format_bottlenecks(package, name):
    method = package.method
    every = range(package.bert_config.num_hidden_layers)
    layers = method.layers or every
    here, weights = adapters.PLACEMENTS[method.placement], {}
    factor = _reduction_factor(package.bert_config.hidden_size, method.size)
    config = {
        **{entry: default for entry, (default, _) in _ENTRIES.items()},
        **{
            entry: each == method.placement
            for entry, each in _PLACEMENT_ENTRIES.items()
        },
        **{entry: end in here.sublayers for end, entry in _SUBLAYERS.items()},
        "scaling": here.scaling,
        "reduction_factor": factor,
        "non_linearity": ACTIVATION_NAMES[method.activation],
        "leave_out": [layer for layer in every if layer not in layers],
    }
    for scope, prefix in _adapter_places(layers, here.sublayers, name).items():
        for variable, tensor in _TENSORS.items():
            value = package.weights["%s/%s/%s" % (scope, here.scope, variable)]
            value = value.T if "weights" in variable else value[0]
            weights[prefix + tensor] = np.ascontiguousarray(value)
    return config, weights


def _reduction_factor(width, size):
    """A factor with `int(width // factor) == size`, AdapterHub's rule."""
    if width % size == 0:
        return width // size
    factor = width / size
    while int(width // factor) < size:
        factor = math.nextafter(factor, 0.0)
    return factor


def _lora_tensors(scope, name):
    """The names of the two matrices of a dense layer, without "bert."."""
    module = hugging_face.module_name(scope)
    return ["%s.loras.%s.lora_%s" % (module, name, letter) for letter in "AB"]


def _read_lora(stated, found, bert_config, folder):
    with adapter_files.config_errors(folder, _SUPPORTED):
        config = _complete_config(stated, _LORA_ENTRIES, _LORA_UNCHECKED)
        targets = [target for entry, target in _LORA_LAYERS.items() if config[entry]]
        if config["selfattn_lora"]:
            targets += [_LORA_MATRICES[letter] for letter in config["attn_matrices"]]
        every = range(bert_config.num_hidden_layers)
        layers = [layer for layer in every if layer not in config["leave_out"]]
        if not (targets and layers):
            raise ValueError("no update of any dense layer is described")
    rank, scaling = config["r"], config["alpha"] / config["r"]
    updates = {
        scope: lora_matrices.Update(
            *_lora_tensors(scope, stated["name"]), rank, scaling
        )
        for scope in lora_matrices.target_scopes(layers, targets)
    }
    return lora_matrices.import_updates(updates, found, bert_config, folder)


def lora_entries(method):
    """The entries for the targets of a `lora.Lora`; None if one has no entry."""
    letters = [k for k, target in _LORA_MATRICES.items() if target in method.targets]
    layers = {k: target in method.targets for k, target in _LORA_LAYERS.items()}
    if len(letters) + sum(layers.values()) < len(method.targets):
        return None
    return {**layers, "attn_matrices": letters, "selfattn_lora": bool(letters)}


def _format_lora(package, name):
    config = {
        **{entry: default for entry, (default, _) in _LORA_ENTRIES.items()},
        **lora_entries(package.method),
        "architecture": _LORA,
        "r": package.method.rank,
        "alpha": package.method.alpha,
    }
    return config, lora_matrices.export_updates(
        package, lambda scope: _lora_tensors(scope, name)
    )
