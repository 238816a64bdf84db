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
    """The `method.Method` of a text such as "full" or "top_k:2"; see `Method.parse`.

    Settings that are None or missing are those of `package_method`, the method of the
    package that a run starts from, or have their defaults. A `ValueError` is raised if
    there is no such method or setting of it.
    """
    cls, argument = find_class(text)
    of_package = package_method.flags() if type(package_method) is cls else {}
    chosen = {}
    for other in METHODS.values():
        for name, default, *_ in other.settings:
            value = settings.get(name)
            # Numbers are ignored, so that runs of several methods can share flags.
            if other is not cls and isinstance(value, str) and value != default:
                raise ValueError(
                    "`%s`=%.80s is a setting of %s, not of %s; leave one of the two out"
                    % (name, value, other.form(), text)
                )
            chosen[name] = of_package.get(name, default) if value is None else value
    return cls.parse(argument, chosen, num_layers)


def from_entry(text, entry, num_layers):
    """The `method.Method` of a package's entries "train_policy" and "adapter".

    A `ValueError` is raised if there is no such method, package or entry.
    """
    cls, argument = find_class(text)
    if not cls.has_packages:
        raise ValueError("train_policy is %s, of which there are no packages" % text)
    cls.entry_schema.check(entry, "adapter")
    return cls.from_entry(argument, entry, num_layers)


def find_class(text):
    """The class of a method's text, and its argument; or an `UnknownMethodError`."""
    name, colon, argument = text.partition(":")
    if name not in METHODS or bool(colon) != bool(METHODS[name].argument):
        raise UnknownMethodError(
            "there is no policy %.80r, there are %s"
            % (text, ", ".join(cls.form() for cls in METHODS.values()))
        )
    return METHODS[name], argument


def find_units(name):
    """The class that has the units of a variable, and their axis; or None, None."""
    for cls in METHODS.values():
        for end, axis in cls.unit_axes.items():
            if name.endswith(end):
                return cls, axis
    return None, None


def describe_methods():
    """All methods with what they train, as text."""
    return "; ".join("%s, %s" % (cls.form(), cls.help) for cls in METHODS.values())
