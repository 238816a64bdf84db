"""Adapters after both sublayers (Houlsby et al., 2019, arXiv:1902.00751), the default.

Adapters and layer norms are trained. Where only some layers have adapters, all below
the lowest of them is frozen, layer norms too, so that the backward pass ends there.
"""

import functools
import re
from typing import ClassVar

import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from model import activations, layer_ranges
from system import schema, wording
from tuning.method import Method, Setting, register

# In the tables of a model that serves many tasks, an activation is its index here.
ACTIVATIONS = tuple(sorted(activations.ADAPTER_ACTIVATIONS))

_ADAPTER = "bert/encoder/layer_%s/attention/output/adapters/weights1"
_ENCODER_LAYER = re.compile(r"(?:^|/)encoder/layer_(\d+)/")

_MOST_TIMES_HIDDEN_SIZE = 16  # the paper's widest adapters: 2/3 of the hidden size
_BYTES_PER_TRAINED = 16  # the weight, its gradient and Adam's two moments, in float32


@register
class Adapters(Method):
    """The paper's adapters."""

    name = modeling.ADAPTERS
    help = "adapters, layer norms, head"
    settings = (
        Setting(
            "adapter_size",
            64,
            "Width of the adapters' bottleneck.",
            schema.integer(1),  # more: `check`
        ),
        Setting(
            "adapter_layers",
            None,
            "Layers with adapters, counted from 0, such as 8-11 or 0,2-3; default: "
            "all. Everything below the lowest of them is frozen, layer norms too.",
        ),
        Setting(
            "adapter_init_scale",
            1e-3,
            "Standard deviation of the adapters' initial weights (the paper: 1e-2).",
            schema.number(above=0),
        ),
    )
    unit_axes: ClassVar[dict[str, int]] = {
        "/adapters/weights1": 1,
        "/adapters/biases1": 1,
        "/adapters/weights2": 0,
    }

    size: int = 64
    init_scale: float | None = 1e-3  # None: not known
    layers: tuple[int, ...] | None = None  # ascending; None: all
    activation: str = "gelu"  # others are for imported adapters

    @classmethod
    def parse(cls, argument, settings, num_layers):
        text = settings["adapter_layers"]
        layers = text and layer_ranges.parse_layers("adapter_layers", text, num_layers)
        return cls(
            settings["adapter_size"],
            settings["adapter_init_scale"],
            _unless_all(layers or (), num_layers),
        )

    @property
    def description(self):
        if not self.layers:
            return self.help
        layers = layer_ranges.format_layers(self.layers)
        return "adapters in layers %s, layer norms, head" % layers

    def flags(self):
        flags = {"adapter_size": self.size}
        if self.layers:
            flags["adapter_layers"] = layer_ranges.format_layers(self.layers)
        return flags

    def check(self, bert_config):
        """Refuses adapters far wider than the model, and warns of wide ones."""
        H = bert_config.hidden_size
        if self.size <= H:
            return
        layer = 2 * (2 * H * self.size + self.size + H)
        weights = layer * bert_config.num_hidden_layers
        megabytes = -(-weights * _BYTES_PER_TRAINED // 10**6)
        cost = (
            "`adapter_size`=%.40r is wider than the model, of hidden_size %d: its "
            "adapters take %s MB of memory in training"
            % (self.size, H, wording.thousands(megabytes))
        )
        if self.size > _MOST_TIMES_HIDDEN_SIZE * H:
            raise UserError(
                "%s; at most %d is allowed" % (cost, _MOST_TIMES_HIDDEN_SIZE * H)
            )
        tf.logging.warning("%s; the paper's sizes are 8 to 512", cost)

    def entry(self, num_layers):
        return {
            "size": self.size,
            "layers": list(self.layers or range(num_layers)),
            "init_scale": self.init_scale,
            "activation": self.activation,
        }

    @classmethod
    def from_entry(cls, argument, entry, num_layers):
        layers = entry["layers"]
        if not layers or layers != sorted(set(layers).intersection(range(num_layers))):
            raise ValueError("adapter.layers are not those of the model")
        layers = _unless_all(layers, num_layers)
        return cls(entry["size"], entry["init_scale"], layers, entry["activation"])

    @classmethod
    def from_checkpoint(cls, argument, shapes, settings, num_layers):
        sizes = {}
        for name, shape in shapes.items():
            match = re.fullmatch(_ADAPTER % r"(\d{1,9})", name)
            # `base_model.check_shapes` refuses more layers than the model has.
            if match and len(shape) == 2 and int(match[1]) < num_layers:
                sizes[int(match[1])] = shape[1]
        if not sizes:
            raise ValueError("it holds no adapters (no %s)" % (_ADAPTER % 0))
        return cls(
            sizes[min(sizes)],
            settings.get("adapter_init_scale"),
            _unless_all(sorted(sizes), num_layers),
            settings.get("activation", "gelu"),
        )

    def layer_hooks(self, index):
        if self.layers and index not in self.layers:
            return ()
        # A package with an unknown scale brings its weights.
        return _hooks(self.size, self.init_scale or 1e-3, self.activation)

    def trains(self, name, collection):
        if collection == modeling.LAYER_NORM and self.layers:
            match = _ENCODER_LAYER.search(name)
            # The layer norm of the embeddings is trained with layer 0.
            return int(match[1] if match else 0) >= self.layers[0]
        return collection in modeling.TRAINED_COLLECTIONS

    def served_settings(self):
        return {"activation": ACTIVATIONS.index(self.activation)}

    @classmethod
    def serving_hooks(cls, used, own):
        index = own["activation"][:, tf.newaxis, tf.newaxis]

        def activate(x):  # [B, P, A]
            first, *others = used["activation"]
            output = _activate(first, x)
            for each in others:
                is_own = tf.equal(index, each)
                output = tf.where_v2(is_own, _activate(each, x), output)
            return tf.where_v2(own["adapters_units"][:, tf.newaxis], output, 0.0)

        # Size and initial scale are those of the weights.
        adapter = functools.partial(modeling.feedforward_adapter, activation=activate)
        return (modeling.AdapterHooks(adapter),)

    @property
    def merge_problem(self):
        if self.activation == "gelu":
            return ""
        text = "its adapters use %s, and those of checkpoints are computed with gelu"
        return text % self.activation


def _activate(index, x):
    return activations.ADAPTER_ACTIVATIONS[ACTIVATIONS[index]](x)


def _unless_all(layers, num_layers):
    return None if len(layers) in (0, num_layers) else tuple(layers)


@functools.lru_cache
def _hooks(size, init_scale, activation):
    """The hooks of a layer; cached, since equal hooks must be the same."""
    adapter = functools.partial(
        modeling.feedforward_adapter,
        hidden_size=size,
        init_scale=init_scale,
        activation=activation,
    )
    return (modeling.AdapterHooks(adapter),)
