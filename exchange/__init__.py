"""Hugging Face's encoders and AdapterHub's adapters, both ways.

Imports all rooms but `serving`. Start reading at `packages`.
"""
