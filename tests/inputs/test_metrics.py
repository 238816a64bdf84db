"""Scores against values worked out by hand, and where they are undefined."""

import math
import warnings

import numpy as np
import pytest

from inputs import metrics
from tasks.classification import Classification
from tasks.regression import Regression

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 1])
PREDICTIONS = np.array([1, 1, 0, 0, 0, 1, 0, 1])  # tp 3, fn 1, fp 1, tn 3


def test_classification_scores_by_hand():
    scores = Classification().score(["matthews", "f1", "accuracy"], LABELS, PREDICTIONS)
    assert list(scores) == ["matthews", "f1", "accuracy"]
    assert all(type(value) is float for value in scores.values())
    assert scores["accuracy"] == pytest.approx(6 / 8)
    assert scores["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert scores["matthews"] == pytest.approx((3 * 3 - 1 * 1) / 16)


def test_f1_is_of_class_one():
    labels = np.array([1, 0, 0, 0])
    predictions = np.array([1, 1, 0, 0])
    # Class 1: tp 1, fp 1, fn 0. Class 0 would give 0.8, their mean 0.733.
    assert metrics.CLASSIFICATION["f1"](labels, predictions) == pytest.approx(2 / 3)


def test_matthews_of_three_classes():
    # R_3 (Gorodkin 2004) of this confusion: (c s - sum t p) / sqrt(...), by hand.
    labels = np.array([0, 0, 1, 1, 2, 2])
    predictions = np.array([0, 1, 1, 1, 2, 0])
    c, s, t, p = 4, 6, (2, 2, 2), (2, 3, 1)
    tp = sum(a * b for a, b in zip(t, p))
    expected = (c * s - tp) / math.sqrt(
        (s * s - sum(a * a for a in p)) * (s * s - sum(a * a for a in t))
    )
    got = metrics.matthews(labels, predictions)
    assert got == pytest.approx(expected)


def test_correlations_tell_order_from_line():
    labels = np.array([0.0, 1.0, 2.0, 3.0])
    predictions = np.array([0.0, 1.0, 4.0, 9.0], np.float32)
    scores = Regression().score(["pearson", "spearman"], labels, predictions)
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["pearson"] == pytest.approx(15 / math.sqrt(5 * 49))


@pytest.mark.parametrize(
    ("task_type", "names", "labels", "predictions"),
    [
        (
            Regression(),
            ["pearson", "spearman"],
            np.array([0.5, 2.0, 4.0]),
            np.full(3, 2.7),
        ),
        (Regression(), ["pearson", "spearman"], np.array([0.5]), np.array([1.0])),
        (
            Classification(),
            ["matthews", "f1"],
            np.array([0, 1, 0, 1]),
            np.zeros(4, np.int64),
        ),
        (
            Classification(),
            ["matthews", "f1"],
            np.zeros(4, np.int64),
            np.zeros(4, np.int64),
        ),
    ],
)
def test_undefined_scores_are_zero_and_silent(task_type, names, labels, predictions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = task_type.score(names, labels, predictions)
    assert list(scores.values()) == [0.0] * len(names)


def test_diverged_predictions_are_not_zero():
    labels = np.array([0.5, 2.0, 4.0])
    predictions = np.array([0.5, np.nan, 4.0])
    scores = Regression().score(["pearson", "spearman"], labels, predictions)
    assert all(math.isnan(value) for value in scores.values())
