"""LoRA: low-rank updates of kernels (Hu et al., 2022, arXiv:2106.09685).

A dense layer x W + b becomes x W + b + (alpha / R) x A B. Each target of each layer has
two float32 variables beside its `kernel`, the transposes of loralib's and peft's:

    bert/encoder/layer_0/attention/self/query/lora_A   [n_in, R]
    bert/encoder/layer_0/attention/self/query/lora_B   [R, n_out]

These and the head are trained, without dropout, as peft does by default. In a package
`train_policy` is "lora:R", and the entry "adapter" has "alpha" and "targets".
"""

import dataclasses
import re
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from model import initializers
from system import console, schema
from tuning import head
from tuning.method import MAX_TIMES_HIDDEN_SIZE, Method, Setting, register

# Dense layers of an encoder layer: from name to end of the variable scope. A scope
# belongs to the first match.
TARGETS = MappingProxyType(
    {
        "query": "attention/self/query",
        "key": "attention/self/key",
        "value": "attention/self/value",
        "attention_output": "attention/output/dense",
        "intermediate": "intermediate/dense",
        "output": "output/dense",
    }
)
_MAX_RANK = 2**16


@register
class Lora(Method):
    """Trains low-rank updates of the targets' kernels, and the head."""

    name = "lora"
    argument = "R"
    help = "updates of rank R of kernels, head"
    # Defaults: targets of the paper's experiments, section 4.2; alpha of peft.
    settings = (
        Setting(
            "lora_alpha",
            8.0,
            "Updates are multiplied by lora_alpha / R.",
            schema.number(above=0),
            float,
        ),
        Setting(
            "lora_targets",
            "query,value",
            "Dense layers of each encoder layer that are updated, separated by commas: "
            "%s." % ", ".join(TARGETS),
        ),
    )
    entry_schema = Method.entry_schema._replace(
        required={
            **Method.entry_schema.required,
            "alpha": schema.number(above=0),
            "targets": schema.List(schema.one_of(*TARGETS), 1, len(TARGETS), True),
        }
    )
    unit_axes: ClassVar[dict[str, int]] = {"/lora_A": 1, "/lora_B": 0}

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = ("query", "value")  # in the order of `TARGETS`

    @classmethod
    def parse(cls, argument, settings, num_layers):
        rank = int(argument) if re.fullmatch("[0-9]{1,9}", argument) else 0
        if not 1 <= rank <= _MAX_RANK:
            raise ValueError("the rank R can be 1 to %d" % _MAX_RANK)
        names = {name.strip() for name in settings["lora_targets"].split(",")}
        if unknown := sorted(names - TARGETS.keys()):
            raise ValueError(
                "`lora_targets`=%.80s: unknown dense layer %.80r: one of %s"
                % (settings["lora_targets"], unknown[0], ", ".join(TARGETS))
            )
        targets = tuple(name for name in TARGETS if name in names)
        return cls(rank, float(settings["lora_alpha"]), targets)

    @property
    def text(self):
        return "%s:%d" % (self.name, self.rank)

    @property
    def description(self):
        return "updates of rank %d, alpha %g, of %s; head" % (
            self.rank,
            self.alpha,
            ", ".join(self.targets),
        )

    def describe_adapters(self, num_layers):
        text = "low-rank updates of %s in all layers: rank %d, alpha %g"
        return text % (", ".join(self.targets), self.rank, self.alpha)

    @property
    def scaling(self):
        return self.alpha / self.rank

    def flags(self):
        return {**super().flags(), **self._settings()}

    def _settings(self):
        return {"lora_alpha": self.alpha, "lora_targets": ",".join(self.targets)}

    def check(self, bert_config):
        """Refuses a rank far above the kernels'; warns about one that is above."""
        H = bert_config.hidden_size
        if self.rank > MAX_TIMES_HIDDEN_SIZE * H:
            raise UserError(
                "`train_policy`=%s: the rank can be 1 to %d"
                % (self.text, MAX_TIMES_HIDDEN_SIZE * H)
            )
        if self.rank > H:
            console.warn(
                "`train_policy`=%s: the rank is above the model's hidden_size, %d",
                *(self.text, H),
            )

    def entry(self, num_layers):
        own = {"alpha": self.alpha, "targets": list(self.targets)}
        return {**super().entry(num_layers), **own}

    @classmethod
    def from_entry(cls, argument, entry, num_layers):
        settings = {
            "lora_alpha": entry["alpha"],
            "lora_targets": ",".join(entry["targets"]),
        }
        return cls.parse(argument, settings, num_layers)

    @classmethod
    def from_checkpoint(cls, argument, shapes, settings, num_layers):
        cls.entry_schema.required["alpha"].check(settings.get("lora_alpha"), "alpha")
        schema.TEXT.check(settings.get("lora_targets"), "lora_targets")
        return cls.parse(argument, settings, num_layers)

    def identity(self, num_layers):
        return {**super().identity(num_layers), **self._settings()}

    def layer_hooks(self, index):
        return (_LoraHooks(self.targets, self.scaling, self.rank),)

    def trains(self, name, collection):
        return collection in (modeling.ADAPTERS, modeling.HEAD)

    def served_settings(self):
        bits = sum(2**i for i, name in enumerate(TARGETS) if name in self.targets)
        return {"lora_targets": bits}

    def served_weights(self, weights):
        return {
            name: value * np.float32(self.scaling) if _is_up(name) else value
            for name, value in weights.items()
        }

    def serving_hooks(self, used, own):
        targets = tuple(
            name
            for i, name in enumerate(TARGETS)
            if any(each >> i & 1 for each in used["lora_targets"])
        )
        return (_LoraHooks(targets, unit_mask=own["lora_units"]),)

    @property
    def merged_method(self):
        return head.Head()

    def merge(self, values, weights):
        merged = dict(values)
        for name, value in weights.items():
            scope = name.removesuffix("/lora_B")
            if _is_up(name):
                down = weights[scope + "/lora_A"].astype(np.float64)
                kernel = values[scope + "/kernel"] + self.scaling * (down @ value)
                merged[scope + "/kernel"] = kernel.astype(np.float32)
            elif not name.endswith("/lora_A"):
                merged[name] = value
        return merged


def _is_up(name):
    return name.endswith("/lora_B")


@dataclasses.dataclass(frozen=True)
class _LoraHooks(modeling.LayerHooks):
    targets: tuple[str, ...]
    scaling: float = 1.0
    rank: int = 1  # of new weights
    unit_mask: tf.Tensor | None = None  # bool [B, R], see `Method.serving_hooks`

    def dense(self, x, output):
        scope = tf.get_variable_scope().name
        target = next((n for n, end in TARGETS.items() if scope.endswith(end)), None)
        if target not in self.targets:
            return output
        # Initial values of loralib and peft.
        down, up = (
            modeling.get_variable(name, shape, initializer, (modeling.ADAPTERS,))
            for name, shape, initializer in (
                ("lora_A", [x.shape[-1], self.rank], initializers.KaimingUniform()),
                ("lora_B", [self.rank, output.shape[-1]], initializers.zeros),
            )
        )

        def update(x, down, up):
            inner = tf.matmul(x, down)
            if self.unit_mask is not None:
                inner = tf.where_v2(self.unit_mask[:, tf.newaxis], inner, 0.0)
            return tf.matmul(self.scaling * inner, up)

        added = modeling.apply_weights(update, tf.cast(x, tf.float32), down, up)
        return output + tf.cast(added, output.dtype)
