"""Tuning methods, one per module: what of an encoder is trained, and what is added.

Imports `modeling`, `model` and lower layers. `method` has the interface; `registry`
finds the modules.
"""
