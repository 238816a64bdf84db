"""Scores, computed on the host from labels and predictions.

Each metric is a function of two 1-D arrays of the same length, labels first: class ids
(int) for classification, scores (float) for regression.

A score that is undefined because the labels or the predictions are constant is 0.0.
Correlations with predictions that are not finite are NaN, so that a run that diverged
does not look degenerate.
"""

import functools

import numpy as np
import scipy.stats
import sklearn.metrics


def _is_constant(values):
    return bool(np.all(values == values[0]))


def f1(labels, predictions):
    """F1 of class 1, in [0, 1]."""
    # With average="binary" scikit-learn would refuse a set with other classes.
    return sklearn.metrics.f1_score(
        labels, predictions, labels=[1], average="macro", zero_division=0
    )


def matthews(labels, predictions):
    """Matthews correlation in [-1, 1]; R_3, the benchmark's, with three classes."""
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return sklearn.metrics.matthews_corrcoef(labels, predictions)


def _correlate(function, labels, predictions):
    # In float64: in float32, predictions that differ in their last bits alone would
    # lose their variance to rounding.
    labels = np.asarray(labels, np.float64)
    predictions = np.asarray(predictions, np.float64)
    if not (np.all(np.isfinite(labels)) and np.all(np.isfinite(predictions))):
        return float("nan")
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return function(labels, predictions)[0]


def _average_classes(function, labels, predictions):
    """The mean over the classes that occur in labels or predictions, in [0, 1]."""
    return function(labels, predictions, average="macro", zero_division=0)


CLASSIFICATION = {
    "accuracy": sklearn.metrics.accuracy_score,
    "f1": f1,
    "macro_f1": functools.partial(_average_classes, sklearn.metrics.f1_score),
    "macro_precision": functools.partial(
        _average_classes, sklearn.metrics.precision_score
    ),
    "macro_recall": functools.partial(_average_classes, sklearn.metrics.recall_score),
    "matthews": matthews,
}
REGRESSION = {
    "pearson": functools.partial(_correlate, scipy.stats.pearsonr),
    "spearman": functools.partial(_correlate, scipy.stats.spearmanr),
}


def class_report(labels, predictions, C):
    """Scores of each class, and the confusion matrix.

    `labels` and `predictions` are arrays [N] of ids of C classes. Returns a dict of
    "precision", "recall" and "f1", lists of C floats, and of "confusion_matrix", C
    lists of C counts; row: the label, column: the prediction.
    """
    classes = np.arange(C)
    precision, recall, f1_scores, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=classes, average=None, zero_division=0
    )
    matrix = sklearn.metrics.confusion_matrix(labels, predictions, labels=classes)
    return {
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1_scores.tolist(),
        "confusion_matrix": matrix.tolist(),
    }
