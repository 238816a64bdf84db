"""Modules of `modeling.py`: configuration, activations, gradients, random seeds.

Imports `errors` and `system`. Start reading at `configuration`, then `modeling.py`.
"""
