"""Tasks, examples, features and batches; downloads; metrics.

Imports `tokenization` and lower layers. Start reading at `tasks`, then `features`.
"""
