"""Files of a run: checkpoints, adapter packages, its record, diagnostics.

Imports `glue_data`, `tasks`, `tuning`, `inputs`, the model and the optimizer. Start
reading at `adapter_package`.
"""
