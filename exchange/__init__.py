"""Encoders and adapters from and to the formats of Hugging Face and AdapterHub.

Imports `training`, `weights` and the layers below them. Start reading at `conversion`.
"""
