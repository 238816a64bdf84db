"""All experiments: modules of this package that define `EXPERIMENT`."""

import importlib
import pkgutil

import experiments

_NAMES = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
_MODULES = {name: importlib.import_module("experiments." + name) for name in _NAMES}
EXPERIMENTS = {
    name: module.EXPERIMENT
    for name, module in _MODULES.items()
    if hasattr(module, "EXPERIMENT")
}
