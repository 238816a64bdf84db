"""The paper's experiments: grids of jobs, selection, reports and plots.

A job is a process of `run_classifier.py` or `run_squad.py`. Start reading at `grid`,
then `table1`; `catalogue` lists the experiments.
"""
