"""One run: head and `model_fn`, Estimator, devices, checks, progress, results.

Imports `weights` and the layers below it. Start reading at `classifier` (the model),
then `runner` (the order of a run), `trainer` (training and resuming), `evaluation`.
"""
