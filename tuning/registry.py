"""Finds the tuning methods, which are the other modules of this package."""

import importlib
import pkgutil

import tuning
from tuning import adapters
from tuning.method import METHODS

for _module in pkgutil.iter_modules(tuning.__path__, "tuning."):
    importlib.import_module(_module.name)

DEFAULT = adapters.Adapters()  # the original's


class UnknownMethodError(ValueError):
    """No tuning method has the name."""


def all_settings():
    """The `method.Setting`s of all methods, a list."""
    return [setting for cls in METHODS.values() for setting in cls.settings]


def parse(text, settings, num_layers, package_method=None):
    """Parses a method such as "full" or "top_k:2"; see `Method.parse`.

    Missing settings come from `package_method`, the method of a run's initial package,
    or have their defaults.

    Raises:
      ValueError: no such method, or a setting of another method.
    """
    cls, argument = find_class(text)
    package_flags = package_method.flags() if type(package_method) is cls else {}
    values = {}
    for other in METHODS.values():
        for name, default, *_ in other.settings:
            value = settings.get(name)
            if other is not cls and value not in (None, default):
                raise ValueError(
                    "`%s`=%.80s is a setting of %s, not of %s; leave one of the two out"
                    % (name, value, other.syntax(), text)
                )
            values[name] = package_flags.get(name, default) if value is None else value
    return cls.parse(argument, values, num_layers)


def from_entry(text, entry, num_layers):
    """Makes a method from a package's entries "train_policy" and "adapter".

    Raises:
      ValueError: unknown method, method without packages, or invalid entry.
    """
    cls, argument = find_class(text)
    if not cls.has_packages:
        raise ValueError("train_policy is %s, of which there are no packages" % text)
    cls.entry_schema.check(entry, "adapter")
    return cls.from_entry(argument, entry, num_layers)


def find_class(text):
    """The class and the argument of a method's text; or an `UnknownMethodError`."""
    name, colon, argument = text.partition(":")
    if name not in METHODS or bool(colon) != bool(METHODS[name].argument):
        raise UnknownMethodError(
            "unknown tuning method %.80r: one of %s"
            % (text, ", ".join(cls.syntax() for cls in METHODS.values()))
        )
    return METHODS[name], argument


def find_units(name):
    """The `Method` class and the axis of a variable's units; or None, None."""
    for cls in METHODS.values():
        for end, axis in cls.unit_axes.items():
            if name.endswith(end):
                return cls, axis
    return None, None


def describe_methods():
    """All methods and their trained variables, as text."""
    return "; ".join(
        "%s (trains %s)" % (cls.syntax(), cls.help) for cls in METHODS.values()
    )
