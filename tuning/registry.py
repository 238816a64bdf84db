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


def parse(text, settings, num_layers):
    """The `method.Method` of a text such as "full" or "top_k:2"; see `Method.parse`.

    A `ValueError` is raised if there is no such method or setting of it.
    """
    cls, argument = find_class(text)
    for other in METHODS.values():
        for setting in other.settings:
            value = settings.get(setting.name)
            if other is not cls and setting.default is None and value:
                raise ValueError(
                    "%s has no adapters, and `%s` is %.80s; leave one of the two out"
                    % (text, setting.name, value)
                )
    return cls.parse(argument, settings, num_layers)


def from_entry(text, entry, num_layers):
    """The `method.Method` of a package's entries "train_policy" and "adapter".

    A `ValueError` is raised if there is no such method, package or entry.
    """
    cls, argument = find_class(text)
    if not cls.has_packages:
        raise ValueError("train_policy is %s, of which there are no packages" % text)
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


def describe_methods():
    """All methods with what they train, as text."""
    return "; ".join("%s, %s" % (cls.form(), cls.help) for cls in METHODS.values())
