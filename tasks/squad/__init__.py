"""SQuAD: from questions in a file to windows, answers and scores.

Start reading at `examples`, then `features`, `answers`, `scores`. Figures and behaviour
are those of the original program's `run_squad.py`; the differences stand in the
docstrings.
"""
