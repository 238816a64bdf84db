"""Files, schemas of JSON, disk space, the terminal, and the import of TensorFlow.

Imports nothing of the project but `errors`. Start reading at `files`.
"""
