"""Checks the `adapter_config.json` of AdapterHub's library `adapters`.

Supported are the bottleneck adapters of Houlsby et al. (`DoubleSeqBnConfig`), which
follow a sublayer's dense layer and precede residual connection and layer norm, and
adapters that are equal to these with some weights 0. Entries and their defaults are
those of adapters 1.3.0.
"""

import json
import math

from errors import UserError
from exchange import hf_files
from system import schema

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
# The library's predecessor, which wrote no version.
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_SUPPORTED = (
    "Supported are adapters trained with config=DoubleSeqBnConfig() or "
    "SeqBnConfig(original_ln_before=False)."
)
# Scope of a sublayer -> entry by which it has adapters.
SUBLAYERS = {"attention/output": "mh_adapter", "output": "output_adapter"}
# Variable of an adapter -> its tensor there.
TENSORS = {
    "weights1": "adapter_down.0.weight",
    "biases1": "adapter_down.0.bias",
    "weights2": "adapter_up.weight",
    "biases2": "adapter_up.bias",
}

# Entry -> its only supported value, which is the default, and the reason.
REQUIRED = {
    "is_parallel": (False, "adapters read the output of their sublayer here"),
    "original_ln_before": (False, "adapters come before the layer norm here"),
    "original_ln_after": (True, "a layer norm follows each adapter here"),
    "ln_before": (False, "adapters have no layer norm of their own here"),
    "ln_after": (False, "adapters have no layer norm of their own here"),
    "use_gating": (False, "adapters have no gate here"),
    "phm_layer": (False, "matrices of adapters are not factorized here"),
    "cross_adapter": (False, "there is no cross-attention here"),
}
# Entries that matter in training only, or belong to values that REQUIRED excludes.
_WITHOUT_EFFECT = (
    *("adapter_residual_before_ln", "dropout", "init_weights", "init_weights_seed"),
    *("inv_adapter_reduction_factor", "stochastic_depth"),
    # Of phm_layer.
    *("factorized_phm_W", "factorized_phm_rule", "hypercomplex_nonlinearity"),
    *("learn_phm", "phm_bias", "phm_c_init", "phm_dim", "phm_init_range", "phm_rank"),
    *("shared_W_phm", "shared_phm_rule"),
)


def only(value, reason):
    """A schema of one value, with the reason for messages."""
    return schema.Value(
        lambda found: type(found) is type(value) and found == value,
        "%s: %s" % (json.dumps(value), reason),
    )


UNKNOWN_ENTRY = schema.Value(lambda value: not value, "missing: it is not known")
_SCALING = schema.either(schema.number(), schema.one_of("learned", "channel"))
# Entry -> its schema and its default, in the order of the checks.
_ENTRIES = {
    # Other architectures lack the entries that follow.
    "architecture": (only(None, "only bottleneck adapters are supported"), None),
    **{entry: (only(*each), each[0]) for entry, each in REQUIRED.items()},
    "residual_before_ln": (schema.BOOLEAN, True),
    "non_linearity": (schema.one_of(*sorted(ACTIVATIONS)), None),
    "scaling": (_SCALING, 1.0),
    "leave_out": (schema.List(schema.ANY), []),
    "reduction_factor": (schema.ANY, None),  # See `_bottleneck_size`.
}
_DEFAULTS = {entry: default for entry, (_, default) in _ENTRIES.items()}
_CONFIG_SCHEMA = schema.Object(
    {entry: allowed for entry, (allowed, _) in _ENTRIES.items()},
    optional={
        **dict.fromkeys(SUBLAYERS.values(), schema.ANY),
        **dict.fromkeys(("inv_adapter", "invertible_adapter"), schema.ANY),
        **dict.fromkeys(_WITHOUT_EFFECT, schema.ANY),
    },
    others=UNKNOWN_ENTRY,
)


def adapter_places(layers, name, sublayers=SUBLAYERS):
    """Yields the scopes of sublayers in "bert", and the prefix of an adapter's tensors.

    `name` is that of the adapter.
    """
    for layer in layers:
        for sublayer in sublayers:
            scope = "encoder/layer_%d/%s" % (layer, sublayer)
            there = scope.replace("layer_", "layer.").replace("/", ".")
            yield scope, "%s.adapters.%s." % (there, name)


def read_config(stated, bert_config, path):
    """Checks that an adapter computes the same as those of this project.

    `stated` is the content of the file `path`, `bert_config` that of the base model.
    Returns the entry "config" with defaults for what it lacks; its "non_linearity" is
    one of `activations.ADAPTER_ACTIVATIONS`.
    """
    required = {"name": schema.LINE, "config": schema.Object({}, others=schema.ANY)}
    optional = {
        "model_type": only("bert", "give an adapter of BERT"),
        "hidden_size": only(bert_config.hidden_size, "that of `bert_config_file`"),
    }
    hf_files.check_entries(
        stated,
        schema.Object(required, optional, others=schema.ANY),
        path,
        "Give a folder that save_adapter wrote, `input_dir`, and the base model that "
        "the adapter was trained on.",
    )
    config = {**_DEFAULTS, **stated["config"]}
    config["leave_out"] = config["leave_out"] or []
    activation = config["non_linearity"]
    if isinstance(activation, str):
        activation = activation.lower()
        if "version" not in stated:
            activation = _OLD_ACTIVATIONS.get(activation, activation)
        config["non_linearity"] = activation
    hf_files.check_entries(config, _CONFIG_SCHEMA, path, _SUPPORTED)
    config["non_linearity"] = ACTIVATIONS[activation]
    return config


def refuse_invertible(stated, config, tensor_names, path):
    """Refuses invertible adapters, those of the embeddings, by config and tensors.

    Old configs of task adapters describe invertible adapters that do not exist.
    """
    inverse = config.get("inv_adapter") or config.get("invertible_adapter")
    held = any("invertible" in name for name in tensor_names)
    if held or (inverse and stated.get("type") != "text_task"):
        raise UserError(
            "%s: inv_adapter is %s, but the embeddings have no adapter here. %s"
            % (path, schema.json_text(inverse), _SUPPORTED)
        )


def expected_shapes(config, name, bert_config, path):
    """Lists the tensors that a config, see `read_config`, describes.

    Returns:
      (shapes, sizes): dict from tensor name to shape, and dict from the scope of a
      sublayer in "bert" to its bottleneck size, for sublayers with adapters.
    """
    H = bert_config.hidden_size
    scaling_shape = {"learned": (1,), "channel": (H,)}.get(str(config["scaling"]))
    sublayers = [sublayer for sublayer, entry in SUBLAYERS.items() if config.get(entry)]
    shapes, sizes = {}, {}
    for layer in range(bert_config.num_hidden_layers):
        if layer in config["leave_out"]:
            continue
        size = _bottleneck_size(config["reduction_factor"], layer, H, path)
        tensor_shapes = ((size, H), (size,), (H, size), (H,))
        for scope, prefix in adapter_places([layer], name, sublayers):
            sizes[scope] = size
            for tensor, shape in zip(TENSORS.values(), tensor_shapes):
                shapes[prefix + tensor] = shape
            if scaling_shape:
                shapes[prefix + "scaling"] = scaling_shape
    if not sizes:
        raise UserError(
            "%s describes no adapter in any layer of the base model." % path
        )
    return shapes, sizes


def _bottleneck_size(factor, layer, hidden_size, path):
    """The bottleneck size of a layer, computed as AdapterHub does."""
    value = factor
    if isinstance(factor, dict):
        value = factor.get(str(layer), factor.get("default"))
    is_finite = schema.is_number(value) and 0 < value < math.inf
    if not is_finite or hidden_size // value >= 2**31:
        raise UserError(
            "%s: reduction_factor is %s, layer %d needs a number above 0, not too "
            "small. Give the adapter_config.json that lies beside the weights."
            % (path, schema.json_text(factor), layer)
        )
    return max(1, int(hidden_size // value))


def describe_changes(config, sizes, size, bert_config):
    """Lists, as texts, how adapters imported with `size` are represented differently.

    See `read_config` for `config`, and `expected_shapes` for `sizes`.
    """
    changes = []
    if config["scaling"] != 1:
        changes.append(
            "The scaling, %s, is part of weights2 and biases2." % config["scaling"]
        )
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
