"""The interface of a tuning method."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import modeling
from system import schema

METHODS: dict[str, type["Method"]] = {}  # by name; see `registry`


def register(cls):
    """Class decorator: makes a `Method` a frozen dataclass, and known by its name."""
    if cls.name in METHODS:
        raise ValueError("two tuning methods have the name %r" % cls.name)
    METHODS[cls.name] = dataclasses.dataclass(frozen=True)(cls)
    return METHODS[cls.name]


class Setting(NamedTuple):
    """A setting of a method, and the flag of the same name."""

    name: str
    default: Any  # int, float; or None for a text that is not given
    help: str
    allowed: schema.Value | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A tuning method with its settings; by default the encoder stays as it is.

    The head is trained by every method.
    """

    name: ClassVar[str]
    help: ClassVar[str]  # the trained variables, in words, for help and logs
    argument: ClassVar[str] = ""  # its name, if the method is written "name:argument"
    settings: ClassVar[tuple[Setting, ...]] = ()

    # Whether the trained variables make an adapter package.
    has_packages: ClassVar[bool] = True

    # Schema of `entry`, which here is that of no adapters.
    entry_schema: ClassVar[schema.Object] = schema.Object(
        {
            "size": schema.one_of(0),
            "layers": schema.List(schema.ANY, 0, 0),
            "init_scale": schema.ANY,
            "activation": schema.ANY,
        }
    )

    # Variables that have units, of which each task may have another number: from the
    # end of a variable's name to the axis of the units.
    unit_axes: ClassVar[dict[str, int]] = {}
    units_setting: ClassVar[str] = "train_policy"  # the setting with their number

    @classmethod
    def parse(cls, argument, settings, num_layers):
        """A method from its argument and the settings of all methods.

        Args:
          argument: text after the colon; "" without `cls.argument`.
          settings: dict from the name of each `Setting` to its value.
          num_layers: number of the encoder's layers.

        A `ValueError` is raised if the model has no such method.
        """
        return cls()

    @classmethod
    def form(cls):
        """How the method is written, such as "top_k:N"."""
        return "%s:%s" % (cls.name, cls.argument) if cls.argument else cls.name

    @property
    def text(self):
        """Name and argument."""
        return self.name

    @property
    def description(self):
        """The trained variables, in words; with layers, where `help` has none."""
        return self.help

    def flags(self):
        """Flags that select this method, where they differ from the defaults, a dict.

        From name to value; none of them is about initial values.
        """
        return {"train_policy": self.text}

    def describe_adapters(self, num_layers):
        """The added variables of a model with `num_layers`, as text."""
        return "none (--train_policy=%s)" % self.text

    def merged_flags(self):
        """`flags` for the checkpoint that `merge` makes."""
        return self.flags()

    def check(self, bert_config):
        """Refuses settings that do not suit a model: a `UserError`."""

    def entry(self, num_layers):
        """The entry "adapter" of a package: dict, see `entry_schema`."""
        return {"size": 0, "layers": [], "init_scale": None, "activation": "gelu"}

    @classmethod
    def from_entry(cls, argument, entry, num_layers):
        """Reverses `text` and `entry`; a `ValueError` if the model has no such method.

        The schema of the entry has been checked.
        """
        return cls.parse(argument, {}, num_layers)

    @classmethod
    def from_checkpoint(cls, argument, shapes, settings, num_layers):
        """A method from a run's checkpoint.

        Args:
          argument, num_layers: see `parse`.
          shapes: dict from name to shape of the checkpoint's tensors.
          settings: the run's settings, of `identity` and by flag name; {}: not known.

        A `ValueError` is raised if the checkpoint is of another method.
        """
        return cls.parse(argument, {}, num_layers)

    def identity(self, num_layers):
        """Entries of `run.json` that must agree to use a run's checkpoints, a dict.

        They are named like settings. A package must agree with them too.
        """
        entry = self.entry(num_layers)
        return {
            "train_policy": self.text,
            "adapter_layers": entry["layers"],
            "adapter_size": entry["size"],
            "activation": entry["activation"],
        }

    def training_entries(self):
        """Further entries of `run.json` that must agree to resume a run, a dict."""
        return {}

    def layer_hooks(self, index):
        """The `modeling.LayerHooks` of a layer of the encoder, a tuple."""
        return ()

    def trains(self, name, collection):
        """Whether a variable of this base name is trained.

        `collection` is one of `modeling.TRAINED_COLLECTIONS`, or `modeling.OTHER`.
        """
        return collection == modeling.HEAD

    def served_settings(self):
        """Settings in which packages served together may differ: dict, name to int."""
        return {}

    def served_weights(self, weights):
        """A package's weights, by name, as `serving_hooks` take them."""
        return weights

    @property
    def serving_kind(self):
        """Methods of one kind, which is hashable, have the same `serving_hooks`."""
        return self.name

    def serving_hooks(self, used, own):
        """`layer_hooks` where each example has a task of its own.

        Args:
          used: dict from a name of `served_settings` to a tuple of the values of all
            tasks.
          own: dict from the name to int32 [B], the value of each example's task; and
            from "<method>_units" to bool [B, units]: rows of weights beyond a task's
            own units repeat the last one.
        """
        return ()

    @property
    def merge_problem(self):
        """Why base model and package cannot be one checkpoint; "" if they can."""
        return ""

    @property
    def merged(self):
        """The method of whose package a merged checkpoint is the base model."""
        return self

    def merge(self, values, weights):
        """The variables of a checkpoint that computes as base model and package do.

        Takes dicts from name to array: the base model's frozen `values`, and the
        package's `weights`.
        """
        return {**values, **weights}
