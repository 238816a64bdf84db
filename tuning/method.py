"""The interface of a tuning method."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import modeling
from system import schema

METHODS: dict[str, type["Method"]] = {}  # by name; see `registry`
# Of bottlenecks and ranks. The paper's widest adapters are 2/3 of the hidden size.
MAX_TIMES_HIDDEN_SIZE = 16


def register(cls):
    """Class decorator: makes a `Method` a frozen dataclass, and registers it."""
    if cls.name in METHODS:
        raise ValueError("two tuning methods have the name %r" % cls.name)
    METHODS[cls.name] = dataclasses.dataclass(frozen=True)(cls)
    return METHODS[cls.name]


class Setting(NamedTuple):
    """A setting of a method, with a flag of the same name."""

    name: str
    default: Any  # None: the method's choice
    help: str
    allowed: schema.Value | None = None
    type: type = str  # int, float or str


@dataclasses.dataclass(frozen=True)
class Method:
    """A tuning method with its settings; the default trains the head alone.

    Every method trains the head.
    """

    name: ClassVar[str]
    help: ClassVar[str]  # the trained variables, for help and logs
    argument: ClassVar[str] = ""  # the argument's name in "name:argument"
    settings: ClassVar[tuple[Setting, ...]] = ()

    # Whether a run writes an adapter package.
    has_packages: ClassVar[bool] = True

    # Schema of `entry`; here without adapters.
    entry_schema: ClassVar[schema.Object] = schema.Object(
        {
            "size": schema.one_of(0),
            "layers": schema.List(schema.ANY, 0, 0),
            "init_scale": schema.ANY,
            "activation": schema.ANY,
        }
    )

    # Axes of variables whose size can differ between tasks (their units), by the end
    # of the variable's name.
    unit_axes: ClassVar[dict[str, int]] = {}
    units_setting: ClassVar[str] = "train_policy"  # sets the number of units

    @classmethod
    def parse(cls, argument, settings, num_layers):
        """Makes a method from its argument and the settings of all methods.

        Args:
          argument: text after the colon; "" without `cls.argument`.
          settings: dict from the name of each `Setting` to its value.
          num_layers: number of the encoder's layers.

        Raises:
          ValueError: invalid argument or settings for this model.
        """
        return cls()

    @classmethod
    def syntax(cls):
        """Name and argument's name, such as "top_k:N"."""
        return "%s:%s" % (cls.name, cls.argument) if cls.argument else cls.name

    @property
    def text(self):
        """Name and argument, such as "top_k:2"."""
        return self.name

    @property
    def description(self):
        """The trained variables, as text; like `help`, with layers."""
        return self.help

    def flags(self):
        """Dict of the flags that select this method, without initial values.

        Flags with default values are left out.
        """
        return {"train_policy": self.text}

    def describe_adapters(self, num_layers):
        """The added variables, as text."""
        return "none (`train_policy`=%s)" % self.text

    def check(self, bert_config):
        """Raises a `UserError` for settings that do not suit the model."""

    def entry(self, num_layers):
        """The entry "adapter" of a package, a dict; see `entry_schema`."""
        return {"size": 0, "layers": [], "init_scale": None, "activation": "gelu"}

    @classmethod
    def from_entry(cls, argument, entry, num_layers):
        """Makes a method from an entry that `entry_schema` accepts; see `parse`."""
        return cls.parse(argument, {}, num_layers)

    @classmethod
    def from_checkpoint(cls, argument, shapes, settings, num_layers):
        """Makes a method from a run's checkpoint.

        Args:
          argument, num_layers: see `parse`.
          shapes: dict from name to shape of the checkpoint's tensors.
          settings: the run's `identity` and flags; {}: unknown.

        Raises:
          ValueError: the checkpoint is of another method.
        """
        return cls.parse(argument, {}, num_layers)

    def identity(self, num_layers):
        """Dict of settings that must match to load a run's checkpoint or package.

        Stored in `run.json`.
        """
        entry = self.entry(num_layers)
        return {
            "train_policy": self.text,
            "adapter_layers": entry["layers"],
            "adapter_size": entry["size"],
            "activation": entry["activation"],
        }

    def training_entries(self):
        """Dict of further settings that must match to resume a run."""
        return {}

    def layer_hooks(self, index):
        """The `modeling.LayerHooks` of a layer of the encoder, a tuple."""
        return ()

    def trains(self, name, collection):
        """Whether the method trains a variable; `name` is its base name.

        `collection` is one of `modeling.TRAINED_COLLECTIONS`, or `modeling.OTHER`.
        """
        return collection == modeling.HEAD

    def served_settings(self):
        """Dict of the settings, as ints, that can differ between served packages."""
        return {}

    def served_weights(self, weights):
        """Transforms a package's weights, by name, for `serving_hooks`."""
        return weights

    @property
    def serving_kind(self):
        """Hashable key of the methods that share `serving_hooks`."""
        return self.name

    def serving_hooks(self, used, own):
        """`layer_hooks` with per-example weights.

        Args:
          used: dict from a name of `served_settings` to a tuple of all tasks' values.
          own: dict from the name to int32 [B], the value of each example's task; and
            from "<method>_units" to bool [B, units], the mask of the task's units:
            weights are padded with copies of the last unit.
        """
        return ()

    @property
    def merge_problem(self):
        """The reason why packages cannot be merged into the base model; "": none."""
        return ""

    @property
    def merged_method(self):
        """The method of a package for the merged checkpoint."""
        return self

    def merge(self, values, weights):
        """Merges a package's `weights` into the base model's frozen `values`.

        Both are dicts from name to array. Returns a checkpoint's variables.
        """
        return {**values, **weights}
