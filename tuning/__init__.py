"""Tuning methods, one per module: the encoder's trained and added variables.

Imports `modeling`, `model` and lower layers. `method` has the interface; `registry`
finds the modules.
"""
