"""Many tasks on one base in one graph: `Predictor`, and a SavedModel for servers.

Imports `weights` and what is below it. Start reading at `multitask`.
"""
