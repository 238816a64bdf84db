"""Checks the `adapter_config.json` of AdapterHub's library `adapters`.

Supported are the bottleneck adapters of Houlsby et al., after a sublayer's dense layer
and before residual connection and layer norm (`DoubleSeqBnConfig` there), and adapters
that are equal to these with some weights 0. Entries and their defaults are those of
adapters 1.3.0.
"""

import json
import math

from errors import UserError, printable
from system import schema

# Name in AdapterHub -> in `activations.ADAPTER_ACTIVATIONS`. AdapterHub's "gelu" is the
# exact one.
_ACTIVATIONS = {
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
# The library's predecessor, which wrote no version.
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_SUPPORTED = (
    "supported are adapters trained with config=DoubleSeqBnConfig() or "
    "SeqBnConfig(original_ln_before=False)"
)
# Scope of a sublayer -> entry by which it has adapters.
SUBLAYERS = {"attention/output": "mh_adapter", "output": "output_adapter"}

# Entry, its required value and default, and the reason.
REQUIRED = (
    ("is_parallel", False, "adapters read the output of their sublayer here"),
    ("original_ln_before", False, "adapters come before the layer norm here"),
    ("original_ln_after", True, "a layer norm follows each adapter here"),
    ("ln_before", False, "adapters have no layer norm of their own here"),
    ("ln_after", False, "adapters have no layer norm of their own here"),
    ("use_gating", False, "adapters have no gate here"),
    ("phm_layer", False, "matrices of adapters are not factorized here"),
    ("cross_adapter", False, "there is no cross-attention here"),
)
# Entries that matter in training only, or belong to values that REQUIRED excludes.
_WITHOUT_EFFECT = {
    "architecture",
    "adapter_residual_before_ln",
    "dropout",
    "factorized_phm_W",
    "factorized_phm_rule",
    "hypercomplex_nonlinearity",
    "init_weights",
    "init_weights_seed",
    "inv_adapter_reduction_factor",
    "learn_phm",
    "phm_bias",
    "phm_c_init",
    "phm_dim",
    "phm_init_range",
    "phm_rank",
    "residual_before_ln",
    "shared_W_phm",
    "shared_phm_rule",
    "stochastic_depth",
}
_READ = {
    "mh_adapter",
    "output_adapter",
    "reduction_factor",
    "non_linearity",
    "scaling",
    "leave_out",
    "inv_adapter",
    "invertible_adapter",
    *(entry for entry, _, _ in REQUIRED),
}


def unsupported(path, entry, value, reason):
    """Returns the `UserError` for an entry whose value is not supported."""
    return UserError(
        "%s: %s is %s, which is not supported: %s."
        % (path, entry, printable(json.dumps(value), 100), reason)
    )


def check_model(stated, bert_config, path):
    """Refuses an adapter for another model type or hidden size.

    Args:
      stated: dict, the content of the file.
      bert_config: `modeling.BertConfig` of the base model.
      path: of the file, for messages.
    """
    kind, width = stated.get("model_type", "bert"), stated.get("hidden_size")
    if kind != "bert":
        raise unsupported(path, "model_type", kind, "only BERT is")
    if width is not None and width != bert_config.hidden_size:
        raise UserError(
            "%s: hidden_size is %s, that of --bert_config_file is %d: give the base "
            "model that the adapter was trained on"
            % (path, printable(json.dumps(width), 100), bert_config.hidden_size)
        )


def check_config(stated, config, path):
    """Refuses adapters that compute something else than those of this project.

    Args:
      stated: dict, the content of the file.
      config: dict, its "config".
      path: of the file, for messages.

    Returns:
      The activation, one of `activations.ADAPTER_ACTIVATIONS`.

    Raises:
      UserError: naming the entry and the reason.
    """
    if config.get("architecture") is not None:
        raise unsupported(
            path,
            "architecture",
            config["architecture"],
            _SUPPORTED,
        )
    for entry, needed, reason in REQUIRED:
        value = config.get(entry, needed)
        if value is not needed:
            raise unsupported(path, entry, value, "%s; %s" % (reason, _SUPPORTED))
    residual = config.get("residual_before_ln", True)
    if not isinstance(residual, bool):
        raise unsupported(
            path,
            "residual_before_ln",
            residual,
            "an adapter adds its input to its output here",
        )
    unknown = sorted(
        entry for entry in set(config) - _READ - _WITHOUT_EFFECT if config[entry]
    )
    if unknown:
        raise unsupported(
            path, printable(unknown[0]), config[unknown[0]], "the entry is not known"
        )
    activation = config.get("non_linearity")
    name = activation.lower() if isinstance(activation, str) else None
    if "version" not in stated:
        name = _OLD_ACTIVATIONS.get(name, name)
    if name not in _ACTIVATIONS:
        raise unsupported(
            path,
            "non_linearity",
            activation,
            "supported are %s" % ", ".join(sorted(_ACTIVATIONS)),
        )
    return _ACTIVATIONS[name]


def refuse_invertible(stated, config, tensor_names, path):
    """Refuses invertible adapters, those of the embeddings.

    Old configs of task adapters describe invertible adapters that do not exist.

    Args:
      stated: dict, the content of the file.
      config: dict, its "config".
      tensor_names: names of the stored tensors.
      path: of the file, for messages.
    """
    inverse = config.get("inv_adapter") or config.get("invertible_adapter")
    held = any("invertible" in name for name in tensor_names)
    if held or (inverse and stated.get("type") != "text_task"):
        raise unsupported(
            path,
            "inv_adapter",
            inverse,
            "the embeddings have no adapter here; " + _SUPPORTED,
        )


def expected_shapes(config, name, bert_config, path):
    """Lists the tensors that a config describes.

    Args:
      config: dict, the "config" of the file.
      name: name of the adapter.
      bert_config: `modeling.BertConfig` of the base model.
      path: of the file, for messages.

    Returns:
      (shapes, sizes): dict from tensor name to shape, and dict from the scope of a
      sublayer in "bert" to its bottleneck size, for sublayers with adapters.

    Raises:
      UserError: naming the entry.
    """
    H = bert_config.hidden_size
    left_out = config.get("leave_out") or []
    if not isinstance(left_out, list):
        raise unsupported(path, "leave_out", left_out, "it is not a list of layers")
    scaling = config.get("scaling", 1.0)
    scaling_shapes = {"learned": (1,), "channel": (H,)}
    if not (isinstance(scaling, str) and scaling in scaling_shapes) and not (
        schema.is_number(scaling) and math.isfinite(scaling)
    ):
        raise unsupported(
            path, "scaling", scaling, 'supported are numbers, "learned" and "channel"'
        )
    shapes, sizes = {}, {}
    for layer in range(bert_config.num_hidden_layers):
        if layer in left_out:
            continue
        size = _bottleneck_size(config.get("reduction_factor"), layer, H, path)
        for sublayer, entry in SUBLAYERS.items():
            if not config.get(entry):
                continue
            scope = "encoder/layer_%d/%s" % (layer, sublayer)
            prefix = tensor_prefix(scope, name)
            shapes[prefix + "adapter_down.0.weight"] = (size, H)
            shapes[prefix + "adapter_down.0.bias"] = (size,)
            shapes[prefix + "adapter_up.weight"] = (H, size)
            shapes[prefix + "adapter_up.bias"] = (H,)
            if isinstance(scaling, str):
                shapes[prefix + "scaling"] = scaling_shapes[scaling]
            sizes[scope] = size
    if not sizes:
        raise UserError(
            "%s describes no adapter in any layer of the base model." % path
        )
    return shapes, sizes


def tensor_prefix(scope, name):
    """Prefix of the tensors of the adapter in a scope of "bert"."""
    return "%s.adapters.%s." % (
        scope.replace("layer_", "layer.").replace("/", "."),
        name,
    )


def _bottleneck_size(factor, layer, hidden_size, path):
    """The bottleneck size of a layer, computed as AdapterHub does."""
    value = factor
    if isinstance(factor, dict):
        value = factor.get(str(layer), factor.get("default"))
    if not schema.is_number(value) or not 0 < value < math.inf:
        raise UserError(
            "%s: reduction_factor is %s, layer %d needs a number above 0. Give "
            "the adapter_config.json that lies beside the weights."
            % (path, printable(json.dumps(factor), 100), layer)
        )
    size = hidden_size // value
    if not size < 2**31:
        raise unsupported(path, "reduction_factor", factor, "it is too small")
    return max(1, int(size))


def describe_changes(config, sizes, size, bert_config):
    """Describes how the imported adapters are represented differently.

    Args:
      config: dict, the "config" of the file.
      sizes: see `expected_shapes`.
      size: bottleneck size of the imported adapters.
      bert_config: `modeling.BertConfig` of the base model.

    Returns:
      List of texts.
    """
    changes = []
    scaling = config.get("scaling", 1.0)
    if scaling != 1:
        changes.append("The scaling, %s, is part of weights2 and biases2." % scaling)
    absent = 2 * bert_config.num_hidden_layers - len(sizes)
    if absent:
        changes.append(
            "%d sublayers had no adapter: theirs are zeros, which is equivalent."
            % absent
        )
    if min(sizes.values()) < size:
        changes.append(
            "Bottleneck sizes differed: all are %d, padded with zeros, which is "
            "equivalent." % size
        )
    if config.get("dropout") or config.get("stochastic_depth"):
        changes.append("Dropout within adapters, used in training only, is left out.")
    return changes
