"""The machine below: files, disk space, the terminal, and how TensorFlow starts.

Imports nothing of the project but `errors`. Start reading at `files`.
"""
