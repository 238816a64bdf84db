"""What the `adapter_config.json` of AdapterHub's library `adapters` says.

Read here are the bottleneck adapters of Houlsby et al.: after a sublayer's dense layer
and before residual and layer norm (`DoubleSeqBnConfig` there), and what equals them
when some weights are zero. Names, defaults and meaning of the entries are those of
adapters 1.3.0.
"""

import json
import math

from errors import UserError, printable
from system import schema

# Names there -> in `activations.ADAPTER_ACTIVATIONS`; "gelu" is exact there, and
# approximated by tanh here.
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
# Configs without a version are of the library's predecessor.
_ACTIVATIONS_OF_NO_VERSION = {"gelu": "gelu_new", "gelu_orig": "gelu"}
# What that library has to be told for adapters that can be read here.
_READABLE = (
    "adapters trained there with config=DoubleSeqBnConfig(), or with "
    "SeqBnConfig(original_ln_before=False), can be read"
)
# Scope of a sublayer -> the entry that says whether it has adapters.
SUBLAYERS = {"attention/output": "mh_adapter", "output": "output_adapter"}

# Entries, what they have to be and are where they are missing, and why.
NEEDED = (
    (
        "is_parallel",
        False,
        "here an adapter reads its sublayer's output, not its input",
    ),
    ("original_ln_before", False, "here an adapter comes before its layer norm"),
    ("original_ln_after", True, "here a layer norm follows each adapter"),
    ("ln_before", False, "here an adapter has no layer norm of its own"),
    ("ln_after", False, "here an adapter has no layer norm of its own"),
    ("use_gating", False, "here an adapter has no gate"),
    ("phm_layer", False, "here an adapter's matrices are whole, no products"),
    ("cross_adapter", False, "here no attention reads another text"),
)
# These shape a training alone, or say more of what NEEDED rules out.
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
    *(entry for entry, _, _ in NEEDED),
}


def refusal(path, entry, value, reason):
    """The `UserError` of an entry whose value cannot be represented."""
    return UserError(
        "%s: %s is %s, which cannot be represented: %s."
        % (path, entry, printable(json.dumps(value), 100), reason)
    )


def check_model(stated, bert_config, path):
    """Refuses an adapter of another kind or width of model.

    Args:
      stated: dict, the whole file.
      bert_config: the `modeling.BertConfig` of the base.
      path: the file, for messages.
    """
    kind, width = stated.get("model_type", "bert"), stated.get("hidden_size")
    if kind != "bert":
        raise refusal(path, "model_type", kind, "this project has BERT alone")
    if width is not None and width != bert_config.hidden_size:
        raise UserError(
            "%s: hidden_size is %s, that of --bert_config_file is %d: give the base "
            "that the adapter was trained on"
            % (path, printable(json.dumps(width), 100), bert_config.hidden_size)
        )


def check_config(stated, config, path):
    """Refuses what is computed otherwise there than here.

    Args:
      stated: dict, the whole file.
      config: dict, its "config".
      path: the file, for messages.

    Returns:
      The activation, one of `activations.ADAPTER_ACTIVATIONS`.

    Raises:
      UserError: naming the entry and the reason.
    """
    if config.get("architecture") is not None:
        raise refusal(
            path,
            "architecture",
            config["architecture"],
            "only bottleneck adapters are; " + _READABLE,
        )
    for entry, needed, reason in NEEDED:
        value = config.get(entry, needed)
        if value is not needed:
            raise refusal(path, entry, value, "%s; %s" % (reason, _READABLE))
    residual = config.get("residual_before_ln", True)
    if not isinstance(residual, bool):
        raise refusal(
            path,
            "residual_before_ln",
            residual,
            "here an adapter adds its input to its output",
        )
    unknown = sorted(
        entry for entry in set(config) - _READ - _WITHOUT_EFFECT if config[entry]
    )
    if unknown:
        raise refusal(
            path, printable(unknown[0]), config[unknown[0]], "it is not known here"
        )
    activation = config.get("non_linearity")
    name = activation.lower() if isinstance(activation, str) else None
    if "version" not in stated:
        name = _ACTIVATIONS_OF_NO_VERSION.get(name, name)
    if name not in _ACTIVATIONS:
        raise refusal(
            path,
            "non_linearity",
            activation,
            "the activations that can are %s" % ", ".join(sorted(_ACTIVATIONS)),
        )
    return _ACTIVATIONS[name]


def refuse_invertible(stated, config, found, path):
    """Refuses adapters of the embeddings.

    Task adapters of the library's first years state some and have none.

    Args:
      stated: dict, the whole file.
      config: dict, its "config".
      found: names of the stored tensors.
      path: the file, for messages.
    """
    inverse = config.get("inv_adapter") or config.get("invertible_adapter")
    held = any("invertible" in name for name in found)
    if held or (inverse and stated.get("type") != "text_task"):
        raise refusal(
            path,
            "inv_adapter",
            inverse,
            "here the embeddings have no adapter; " + _READABLE,
        )


def expected(config, name, bert_config, path):
    """The tensors that a config describes.

    Args:
      config: dict, the "config" of the file.
      name: of the adapter.
      bert_config: the `modeling.BertConfig` of the base.
      path: the file, for messages.

    Returns:
      (shapes, sizes): dict from name there to shape, and dict from scope here, within
      "bert", to the bottleneck's width; sublayers without adapters are not in it.

    Raises:
      UserError: naming the entry.
    """
    H = bert_config.hidden_size
    left_out = config.get("leave_out") or []
    if not isinstance(left_out, list):
        raise refusal(path, "leave_out", left_out, "it is no list of layers")
    scaling = config.get("scaling", 1.0)
    scaling_shapes = {"learned": (1,), "channel": (H,)}
    if not (isinstance(scaling, str) and scaling in scaling_shapes) and not (
        schema.is_number(scaling) and math.isfinite(scaling)
    ):
        raise refusal(
            path, "scaling", scaling, 'a number, "learned" or "channel" can be'
        )
    shapes, sizes = {}, {}
    for layer in range(bert_config.num_hidden_layers):
        if layer in left_out:
            continue
        size = _bottleneck(config.get("reduction_factor"), layer, H, path)
        for sublayer, entry in SUBLAYERS.items():
            if not config.get(entry):
                continue
            scope = "encoder/layer_%d/%s" % (layer, sublayer)
            there = name_there(scope, name)
            shapes[there + "adapter_down.0.weight"] = (size, H)
            shapes[there + "adapter_down.0.bias"] = (size,)
            shapes[there + "adapter_up.weight"] = (H, size)
            shapes[there + "adapter_up.bias"] = (H,)
            if isinstance(scaling, str):
                shapes[there + "scaling"] = scaling_shapes[scaling]
            sizes[scope] = size
    if not sizes:
        raise UserError("%s describes no adapter in any layer of the base." % path)
    return shapes, sizes


def name_there(scope, name):
    """Prefix there of the adapter in a scope within "bert" here."""
    return "%s.adapters.%s." % (
        scope.replace("layer_", "layer.").replace("/", "."),
        name,
    )


def _bottleneck(factor, layer, width, path):
    """The bottleneck's width in a layer, by the library's rule."""
    value = factor
    if isinstance(factor, dict):
        value = factor.get(str(layer), factor.get("default"))
    if not schema.is_number(value) or not 0 < value < math.inf:
        raise UserError(
            "%s: reduction_factor is %s, layer %d needs a number above 0 there. Give "
            "the adapter_config.json that lies beside the weights."
            % (path, printable(json.dumps(factor), 100), layer)
        )
    size = width // value
    if not size < 2**31:
        raise refusal(path, "reduction_factor", factor, "it is too small")
    return max(1, int(size))


def notes(config, sizes, size, bert_config):
    """What the user has to know of how adapters are represented, a list of texts.

    Args:
      config: dict, the "config" of the file.
      sizes: what `expected` gives.
      size: the bottleneck's width here.
      bert_config: the `modeling.BertConfig` of the base.
    """
    told = []
    scaling = config.get("scaling", 1.0)
    if scaling != 1:
        told.append("The scaling, %s, is now part of weights2 and biases2." % scaling)
    absent = 2 * bert_config.num_hidden_layers - len(sizes)
    if absent:
        told.append(
            "%d sublayers have no adapter there; here theirs are zero, which is the "
            "same." % absent
        )
    if min(sizes.values()) < size:
        told.append(
            "Bottlenecks are of different widths there; here all have %d, filled up "
            "with zeros, which is the same." % size
        )
    if config.get("dropout") or config.get("stochastic_depth"):
        told.append(
            "Dropout within adapters is not done here; it matters in training alone."
        )
    return told
