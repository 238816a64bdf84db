"""One run: head and `model_fn`, Estimator, devices, checks, progress, results.

Imports `weights` and what is below it. Start reading at `classifier`, then `task_runs`.
"""
