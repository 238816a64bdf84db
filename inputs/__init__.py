"""Rows of text, features and batches; downloads; metrics.

Imports `tokenization` and lower layers. Start reading at `features`.
"""
