"""Tasks: their types, files, columns and labels.

Imports `inputs` and lower layers. Start reading at `task_type` and `task_data`. Every
module of this package is imported, so that the task types register.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module("tasks." + _module.name)
