"""Every experiment: a module of this package that defines `EXPERIMENT`."""

import importlib
import os
import pkgutil

_HERE = os.path.dirname(os.path.abspath(__file__))

_MODULES = {
    name: importlib.import_module("experiments." + name)
    for _, name, _ in pkgutil.iter_modules([_HERE])
    if name != "catalogue"
}

EXPERIMENTS = {
    name: module.EXPERIMENT
    for name, module in sorted(_MODULES.items())
    if hasattr(module, "EXPERIMENT")
}
