"""Scores in the log of a run."""

import numpy as np
import pytest

import glue_data
from system import console
from tasks.classification import Classification
from training import run_log, scoring

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
    scored = scoring.SplitScores(778, {}, scores, BASELINE, labels, "", {})
    run_log.log_scores(DEV, scored)
    assert len(said) == is_warned
    assert all(each.startswith("dev: no score is above") for each in said)


def test_labels_that_are_never_predicted_are_warned_of(monkeypatch):
    said, labels = [], np.array([0, 1, 1, 3])
    monkeypatch.setattr(console, "warn", lambda text, *args: said.append(text % args))
    kind = Classification(("a", "b", "c", "d"))
    # "c" has no example.
    for predictions in ([0, 0, 0, 3], [0, 1, 2, 3], [0, 0, 0, 0]):
        diagnosis = kind.check_predictions(labels, predictions)
        report = kind.report(labels, np.array(predictions))
        scored = scoring.SplitScores(
            7, {}, {"f1": 1}, {"f1": 0}, labels, diagnosis, report
        )
        run_log.log_scores(DEV, scored)
    assert said == ["dev: never predicted: 'b'"]
