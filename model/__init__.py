"""What `modeling.py` is made of: configuration, activations, reproducible random bits.

Imports `errors` and `system`; the rest of the model is `modeling.py`.
"""
