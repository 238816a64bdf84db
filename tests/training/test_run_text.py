"""Scores in the log of a run."""

import numpy as np
import pytest

import glue_data
from system import console
from training import run_text, scoring

DEV = glue_data.get_task("MRPC").splits[1]
BASELINE = {"f1": 0.8122, "accuracy": 0.6838}


@pytest.mark.parametrize(
    "scores, is_warned",
    [
        ({"f1": 0.81, "accuracy": 0.6838}, True),
        ({"f1": 0.8122, "accuracy": 0.6838}, True),
        ({"f1": 0.70, "accuracy": 0.69}, False),
        ({"f1": 0.82, "accuracy": 0.68}, False),
    ],
)
def test_scores_of_chance_are_warned_of(scores, is_warned, monkeypatch):
    said = []
    monkeypatch.setattr(console, "warn", lambda text, *args: said.append(text % args))
    labels = np.zeros(408)
    scored = scoring.SplitScores(scores, BASELINE, labels, "", {})
    run_text.log_scores(DEV, 778, scored)
    assert len(said) == is_warned
    assert all(each.startswith("dev: no score is above") for each in said)
