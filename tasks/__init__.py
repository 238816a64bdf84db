"""Tasks: their files, columns, labels and scores.

Imports `inputs` and lower layers. Start reading at `task_data`.
"""
