"""Bottleneck adapters in three placements; the default is the paper's.

A placement has a scope within a sublayer's, with the variables `weights1`, `biases1`,
`weights2` and `biases2`. With f(x) = activation(x W1 + b1) W2 + b2, a sublayer's input
r, and its output h before residual sum and layer norm LN:

    houlsby    LN(h + f(h) + r), both sublayers          output/adapters
    pfeiffer   LN(h + f(LN(h + r)) + r), feed-forward    output/adapters_pfeiffer
    parallel   LN(h + 4 f(r) + r), feed-forward          output/adapters_parallel

Houlsby et al., 2019 (arXiv:1902.00751); Pfeiffer et al., 2021 (arXiv:2005.00247),
`SeqBnConfig` of AdapterHub's library; He et al., 2022 (arXiv:2110.04366), its
`ParBnConfig`.

Layer norms are trained with "houlsby" alone, as in AdapterHub's library. With adapters
in some layers only, everything below the lowest of them is frozen, layer norms too, so
that the backward pass ends there.
"""

import dataclasses
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from model import activations, initializers, layer_ranges
from system import console, schema, wording
from tuning.method import MAX_TIMES_HIDDEN_SIZE, Method, Setting, register

# A model that serves many tasks stores an activation as its index.
ACTIVATIONS = tuple(sorted(activations.ADAPTER_ACTIVATIONS))


class Placement(NamedTuple):
    """The position of adapters in a layer."""

    scope: str  # of the variables, within a sublayer's scope
    sublayers: tuple[str, ...]  # scopes of the sublayers with adapters
    activation: str  # the default
    # Standard deviation of initial matrices, the default. None: it cannot be set, the
    # first matrix is Kaiming uniform and the second one zero.
    init_scale: float | None
    position: str  # in words
    scaling: float = 1.0  # factor of the bottleneck's output


HOULSBY, PFEIFFER, PARALLEL = "houlsby", "pfeiffer", "parallel"
PLACEMENTS = MappingProxyType(
    {
        HOULSBY: Placement(
            "adapters",
            ("attention/output", "output"),
            "gelu",
            1e-3,  # of the original program; the paper's text has 1e-2
            "after both sublayers",
        ),
        PFEIFFER: Placement(
            "adapters_pfeiffer",
            ("output",),
            "relu",
            0.02,  # of `SeqBnConfig`
            "after the feed-forward sublayer",
        ),
        PARALLEL: Placement(
            "adapters_parallel",
            ("output",),
            "relu",
            None,  # of `ParBnConfig`, as the scaling
            "beside the feed-forward sublayer",
            scaling=4.0,
        ),
    }
)

_ENCODER_LAYER = re.compile(r"(?:^|/)encoder/layer_(\d+)/")

_BYTES_PER_TRAINED = 16  # the weight, its gradient and Adam's two moments, in float32


@register
class Adapters(Method):
    """Bottleneck adapters."""

    name = modeling.ADAPTERS
    help = "adapters, layer norms, head"
    settings = (
        Setting(
            "adapter_size",
            64,
            "Width of the adapters' bottleneck.",
            schema.integer(1),  # maximum: see `check`
            int,
        ),
        Setting(
            "adapter_placement",
            HOULSBY,
            "Place of the adapters: %s. Layer norms are trained with %s alone."
            % (
                "; ".join("%s, %s" % (k, v.position) for k, v in PLACEMENTS.items()),
                HOULSBY,
            ),
            schema.one_of(*PLACEMENTS),
        ),
        Setting(
            "adapter_layers",
            None,
            "Layers with adapters, counted from 0, such as 8-11 or 0,2-3; default: "
            "all. Everything below the lowest of them is frozen, layer norms too.",
        ),
        Setting(
            "adapter_init_scale",
            None,
            "Standard deviation of the adapters' initial weights; default: 1e-3 "
            "(placement houlsby; the paper: 1e-2) and 0.02 (pfeiffer). Those of "
            "parallel adapters are fixed.",
            schema.number(above=0),
            float,
        ),
        Setting(
            "adapter_activation",
            None,
            "Activation of the adapters, %s; default: gelu (placement houlsby) and "
            "relu (others)." % ", ".join(ACTIVATIONS),
            schema.one_of(*ACTIVATIONS),
        ),
    )
    entry_schema = schema.Object(
        {
            "size": schema.integer(1, 2**31 - 1),
            "layers": schema.List(schema.integer()),  # ascending
            "init_scale": schema.nullable(schema.number(above=0)),
            "activation": schema.one_of(*ACTIVATIONS),
        },
        # Earlier versions, which have "houlsby" alone, refuse the entry.
        optional={"placement": schema.one_of(*PLACEMENTS)},
    )
    unit_axes: ClassVar[dict[str, int]] = {
        "/%s/%s" % (each.scope, name): axis
        for each in PLACEMENTS.values()
        for name, axis in (("weights1", 1), ("biases1", 1), ("weights2", 0))
    }
    units_setting = "adapter_size"

    size: int = 64
    init_scale: float | None = 1e-3  # None: unknown, or fixed
    layers: tuple[int, ...] | None = None  # ascending; None: all
    activation: str = "gelu"  # one of `ACTIVATIONS`
    placement: str = HOULSBY  # one of `PLACEMENTS`

    @classmethod
    def parse(cls, argument, settings, num_layers):
        text, name = settings["adapter_layers"], settings["adapter_placement"]
        layers = text and layer_ranges.parse_layers("adapter_layers", text, num_layers)
        placement, scale = PLACEMENTS[name], settings["adapter_init_scale"]
        if placement.init_scale is None and scale is not None:
            raise ValueError(
                "`adapter_init_scale`=%g: %s adapters have fixed initial values (one "
                "matrix Kaiming uniform, the other zero); leave it out" % (scale, name)
            )
        return cls(
            settings["adapter_size"],
            placement.init_scale if scale is None else scale,
            none_if_all(layers or (), num_layers),
            settings["adapter_activation"] or placement.activation,
            name,
        )

    @property
    def description(self):
        text = "adapters"
        if self.placement != HOULSBY:
            text = "%s %s" % (self.placement, text)
        if self.layers:
            text += " in layers %s" % layer_ranges.format_layers(self.layers)
        return text + (", layer norms, head" if self.trains_layer_norms else ", head")

    @property
    def trains_layer_norms(self):
        return self.placement == HOULSBY

    def flags(self):
        flags = {"adapter_size": self.size}
        if self.placement != HOULSBY:
            flags["adapter_placement"] = self.placement
        if self.layers:
            flags["adapter_layers"] = layer_ranges.format_layers(self.layers)
        if self.activation != PLACEMENTS[self.placement].activation:
            flags["adapter_activation"] = self.activation
        return flags

    def describe_adapters(self, num_layers):
        return "size %d, %s, %s of layers %s%s" % (
            self.size,
            self.activation,
            PLACEMENTS[self.placement].position,
            layer_ranges.format_layers(self.layers or range(num_layers)),
            "" if self.init_scale is None else ", initial scale %g" % self.init_scale,
        )

    def check(self, bert_config):
        """Refuses adapters much wider than the model; warns about wide ones."""
        H = bert_config.hidden_size
        if self.size <= H:
            return
        adapter = 2 * H * self.size + self.size + H
        count = len(self.layers or range(bert_config.num_hidden_layers))
        weights = adapter * count * len(PLACEMENTS[self.placement].sublayers)
        megabytes = -(-weights * _BYTES_PER_TRAINED // 10**6)
        cost = (
            "`adapter_size`=%.40r is wider than the model, of hidden_size %d: its "
            "adapters take %s MB of memory in training"
            % (self.size, H, wording.thousands(megabytes))
        )
        if self.size > MAX_TIMES_HIDDEN_SIZE * H:
            raise UserError(
                "%s; at most %d is allowed" % (cost, MAX_TIMES_HIDDEN_SIZE * H)
            )
        console.warn("%s; the paper's sizes are 8 to 512", cost)

    def entry(self, num_layers):
        entry = {
            "size": self.size,
            "layers": list(self.layers or range(num_layers)),
            "init_scale": self.init_scale,
            "activation": self.activation,
        }
        if self.placement != HOULSBY:
            entry["placement"] = self.placement
        return entry

    @classmethod
    def from_entry(cls, argument, entry, num_layers):
        layers = entry["layers"]
        if not layers or layers != sorted(set(layers).intersection(range(num_layers))):
            raise ValueError("adapter.layers are not those of the model")
        return cls(
            entry["size"],
            entry["init_scale"],
            none_if_all(layers, num_layers),
            entry["activation"],
            entry.get("placement") or HOULSBY,
        )

    @classmethod
    def from_checkpoint(cls, argument, shapes, settings, num_layers):
        placement = settings.get("adapter_placement", HOULSBY)
        schema.one_of(*PLACEMENTS).check(placement, "adapter_placement")
        scope, (sublayer, *_), *_ = PLACEMENTS[placement]
        variable = "bert/encoder/layer_%s/" + "%s/%s/weights1" % (sublayer, scope)
        sizes = {}
        for name, shape in shapes.items():
            match = re.fullmatch(variable % r"(\d{1,9})", name)
            # `base_model.check_shapes` refuses more layers than the model has.
            if match and len(shape) == 2 and int(match[1]) < num_layers:
                sizes[int(match[1])] = shape[1]
        if not sizes:
            raise ValueError("it holds no adapters (no %s)" % (variable % 0))
        return cls(
            sizes[min(sizes)],
            settings.get("adapter_init_scale"),
            none_if_all(sorted(sizes), num_layers),
            settings.get("activation", "gelu"),
            placement,
        )

    def identity(self, num_layers):
        own = {"train_policy": self.text, "adapter_placement": self.placement}
        return {**own, **super().identity(num_layers)}

    def training_entries(self):
        return {"adapter_init_scale": self.init_scale}

    def layer_hooks(self, index):
        if self.layers and index not in self.layers:
            return ()
        # An unknown scale is that of a package, whose weights replace initial ones.
        scale = self.init_scale or 1e-3
        return (_AdapterHooks(self.placement, self.activation, self.size, scale),)

    def trains(self, name, collection):
        if collection != modeling.LAYER_NORM:
            return collection in (modeling.ADAPTERS, modeling.HEAD)
        if self.trains_layer_norms and self.layers:
            match = _ENCODER_LAYER.search(name)
            # The layer norm of the embeddings is trained with layer 0.
            return int(match[1] if match else 0) >= self.layers[0]
        return self.trains_layer_norms

    def served_settings(self):
        return {"activation": ACTIVATIONS.index(self.activation)}

    @property
    def serving_kind(self):
        return self.name, self.placement

    def serving_hooks(self, used, own):
        index = own["activation"][:, tf.newaxis, tf.newaxis]

        def activate(x):  # [B, P, A]
            first, *others = used["activation"]
            output = _activate(first, x)
            for each in others:
                mask = tf.equal(index, each)
                output = tf.where_v2(mask, _activate(each, x), output)
            return tf.where_v2(own["adapters_units"][:, tf.newaxis], output, 0.0)

        # Packages provide the weights: size and initial scale have no effect.
        return (_AdapterHooks(self.placement, activate),)

    @property
    def merge_problem(self):
        if (self.activation, self.placement) == ("gelu", HOULSBY):
            return ""
        return (
            "its adapters are %s, with %s; adapters of checkpoints are %s, with gelu"
            % (
                PLACEMENTS[self.placement].position,
                self.activation,
                PLACEMENTS[HOULSBY].position,
            )
        )


@dataclasses.dataclass(frozen=True)
class _AdapterHooks(modeling.LayerHooks):
    placement: str
    activation: str | Callable  # see `modeling.bottleneck`
    size: int = 1
    init_scale: float = 1e-3

    def sublayer(self, x, residual, normalize):
        if self.placement == HOULSBY:
            return x + self._bottleneck(x)
        if tf.get_variable_scope().name.endswith("attention/output"):
            return x
        if self.placement == PFEIFFER:
            return x + self._bottleneck(normalize(x + residual))
        return x + PLACEMENTS[PARALLEL].scaling * self._bottleneck(residual)

    def _bottleneck(self, x):
        initial = [initializers.TruncatedNormal(self.init_scale)] * 2
        if PLACEMENTS[self.placement].init_scale is None:
            initial = [initializers.KaimingUniform(), initializers.zeros]
        scope = PLACEMENTS[self.placement].scope
        return modeling.bottleneck(x, self.size, self.activation, initial, scope)


def _activate(index, x):
    return activations.ADAPTER_ACTIVATIONS[ACTIVATIONS[index]](x)


def none_if_all(layers, num_layers):
    """`Adapters.layers` of a collection of ascending layers."""
    return None if len(layers) in (0, num_layers) else tuple(layers)
