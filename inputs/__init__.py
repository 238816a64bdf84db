"""From files to batches: the rows of tasks, features, downloads, and the metrics.

Imports the model's floor (`tokenization`) and the ground. Start reading at `tasks`,
then `features`.
"""
