"""Encoders and adapters from and to the formats of Hugging Face and AdapterHub.

Imports `weights`, `tasks`, `tuning` and lower layers. Start reading at `conversion`.
"""
