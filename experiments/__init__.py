"""The paper's experiments: grids of runs, what is chosen from them, tables and plots.

Imports what is below it; the runs themselves are processes of `run_classifier.py`.
Start reading at `grid`, then `table1`; `catalogue` finds every experiment by itself.
"""
