"""Checks the `adapter_config.json` of AdapterHub's library `adapters`.

Supported are the placements of `tuning.adapters`, adapters that are equal to these with
some weights 0, and LoRA. Entries and their defaults are those of adapters 1.3.0.
"""

import json
import math

from errors import UserError
from exchange import hf_files, hugging_face, lora_matrices
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
# The library's predecessor, which wrote no version.
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_SUPPORTED = (
    "Supported are DoubleSeqBnConfig(), SeqBnConfig(), ParBnConfig() and LoRAConfig()."
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
    "original_ln_after": (True, "a layer norm follows each adapter here"),
    "ln_before": (False, "adapters have no layer norm of their own here"),
    "ln_after": (False, "adapters have no layer norm of their own here"),
    "use_gating": (False, "adapters have no gate here"),
    "phm_layer": (False, "matrices of adapters are not factorized here"),
    "cross_adapter": (False, "there is no cross-attention here"),
}
# Entries of the placements that have them, see `find_placement`.
_PLACEMENT_ENTRIES = {
    "is_parallel": adapters.PARALLEL,
    "original_ln_before": adapters.PFEIFFER,
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
_SCALING = schema.any_of(schema.number(), schema.one_of("learned", "channel"))
# Entry -> its schema and its default, in the order of the checks.
_ENTRIES = {
    # Other architectures lack the entries that follow.
    "architecture": (only(None, "only bottleneck adapters are supported"), None),
    **{entry: (only(*each), each[0]) for entry, each in REQUIRED.items()},
    **dict.fromkeys(_PLACEMENT_ENTRIES, (schema.BOOLEAN, False)),
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

LORA = "lora"  # the architecture
# Letters of "attn_matrices", and entries of other dense layers -> in `lora.TARGETS`.
LORA_MATRICES = {"q": "query", "k": "key", "v": "value"}
LORA_LAYERS = {"intermediate_lora": "intermediate", "output_lora": "output"}
_LORA_REQUIRED = {
    "composition_mode": ("add", "updates are added here"),
    "use_gating": (False, "updates have no gate here"),
    "use_dora": (False, "updates have no magnitude here"),
    "vera_d": (None, "matrices are not shared here"),
    "vera_b": (None, "matrices are not shared here"),
}
_LORA_ENTRIES = {
    "architecture": (schema.one_of(LORA), LORA),
    **{entry: (only(*each), each[0]) for entry, each in _LORA_REQUIRED.items()},
    "r": (schema.integer(1, 2**31 - 1), 8),
    "alpha": (lora_matrices.ALPHA, 8),
    "attn_matrices": (schema.List(schema.one_of(*LORA_MATRICES)), ["q", "v"]),
    "selfattn_lora": (schema.BOOLEAN, True),
    **dict.fromkeys(LORA_LAYERS, (schema.BOOLEAN, False)),
    "leave_out": (schema.List(schema.ANY), []),
}
_LORA_DEFAULTS = {entry: default for entry, (_, default) in _LORA_ENTRIES.items()}
_LORA_SCHEMA = schema.Object(
    {entry: allowed for entry, (allowed, _) in _LORA_ENTRIES.items()},
    # They matter in training only.
    dict.fromkeys(
        ("dropout", "init_weights", "init_weights_seed", "dtype"), schema.ANY
    ),
    others=UNKNOWN_ENTRY,
)


def lora_updates(config, name, bert_config):
    """The `lora_matrices.Update`s that a config describes: dict from scope."""
    targets = [target for entry, target in LORA_LAYERS.items() if config[entry]]
    if config["selfattn_lora"]:
        targets += [LORA_MATRICES[letter] for letter in config["attn_matrices"]]
    updates = {}
    for index in range(bert_config.num_hidden_layers):
        if index in config["leave_out"]:
            continue
        for target in targets:
            scope = "bert/encoder/layer_%d/%s" % (index, lora.TARGETS[target])
            updates[scope] = lora_matrices.Update(
                *lora_tensors(scope, name),
                config["r"],
                config["alpha"] / config["r"],
            )
    return updates


def lora_tensors(scope, name):
    """The names of the two matrices of a dense layer, without "bert."."""
    module = hugging_face.module_name(scope)
    return tuple("%s.loras.%s.lora_%s" % (module, name, letter) for letter in "AB")


def lora_config(method):
    """The config of a `lora.Lora`; None if it has none there."""
    letters = [k for k, target in LORA_MATRICES.items() if target in method.targets]
    layers = {k: target in method.targets for k, target in LORA_LAYERS.items()}
    if len(letters) + sum(layers.values()) < len(method.targets):
        return None
    return {
        **_LORA_DEFAULTS,
        **layers,
        "r": method.rank,
        "alpha": method.alpha,
        "attn_matrices": letters,
        "selfattn_lora": bool(letters),
    }


def adapter_places(layers, name, sublayers):
    """Yields the scopes of sublayers in "bert", and the prefix of an adapter's tensors.

    `name` is that of the adapter.
    """
    for layer in layers:
        for sublayer in sublayers:
            scope = "encoder/layer_%d/%s" % (layer, sublayer)
            yield scope, "%s.adapters.%s." % (hugging_face.module_name(scope), name)


def read_config(stated, bert_config, path):
    """Checks that an adapter computes the same as those of this project.

    `stated` is the content of the file `path`, `bert_config` that of the base model.
    Returns the entry "config" with defaults for what it lacks; its "non_linearity" is
    one of `activations.ADAPTER_ACTIVATIONS`. "architecture" is None, or "lora".
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
    config = stated["config"]
    if config.get("architecture") == LORA:
        config = {**_LORA_DEFAULTS, **config}
        config["leave_out"] = config["leave_out"] or []
        hf_files.check_entries(config, _LORA_SCHEMA, path, _SUPPORTED)
        return config
    config = {**_DEFAULTS, **config}
    config["leave_out"] = config["leave_out"] or []
    config["non_linearity"] = name_activation(config["non_linearity"], stated)
    hf_files.check_entries(config, _CONFIG_SCHEMA, path, _SUPPORTED)
    config["non_linearity"] = ACTIVATIONS[config["non_linearity"]]
    return config


def name_activation(name, stated):
    """The name of an activation in today's library; of no text, the value itself.

    `stated` is the content of the file.
    """
    if not isinstance(name, str):
        return name
    name = name.lower()
    return name if "version" in stated else _OLD_ACTIVATIONS.get(name, name)


def find_placement(config, path):
    """The placement of a config, see `read_config`: one of `adapters.PLACEMENTS`."""
    found = [name for entry, name in _PLACEMENT_ENTRIES.items() if config[entry]]
    placement = (found or [adapters.HOULSBY])[0]
    problem = ""
    if placement == adapters.PFEIFFER and not config["residual_before_ln"]:
        problem = "residual_before_ln is false, with original_ln_before it must be true"
    for sublayer, entry in SUBLAYERS.items():
        if (
            config.get(entry)
            and sublayer not in adapters.PLACEMENTS[placement].sublayers
        ):
            problem = "%s is true, but %s adapters are %s here" % (
                *(entry, placement),
                adapters.PLACEMENTS[placement].place,
            )
    if problem:
        raise UserError("%s: %s. %s" % (path, problem, _SUPPORTED))
    return placement


def placement_config(placement):
    """The entries of a placement, a dict."""
    here = adapters.PLACEMENTS[placement]
    return {
        **{entry: name == placement for entry, name in _PLACEMENT_ENTRIES.items()},
        **{entry: sublayer in here.sublayers for sublayer, entry in SUBLAYERS.items()},
        "residual_before_ln": True,
        "scaling": here.scaling,
    }


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


def describe_changes(config, sizes, method, bert_config):
    """Lists, as texts, how imported adapters are represented differently.

    See `read_config` for `config`, and `expected_shapes` for `sizes`. `method` is the
    `adapters.Adapters` here.
    """
    changes, size = [], method.size
    placement = adapters.PLACEMENTS[method.placement]
    if config["scaling"] != placement.scaling:
        changes.append(
            "The scaling, %s, is part of weights2 and biases2." % config["scaling"]
        )
    absent = len(placement.sublayers) * bert_config.num_hidden_layers - len(sizes)
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
    return changes
