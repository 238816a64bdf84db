"""What `modeling.py` is made of: configuration, activations, reproducible random bits.

Imports `errors` and `system`. Start reading at `configuration`, then `modeling.py`.
"""
