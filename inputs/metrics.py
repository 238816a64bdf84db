"""Metrics, computed on the host.

Each metric is a function of labels and predictions, arrays [N]: class ids (int) for
classification, scores (float) for regression.

Scores that are undefined for constant labels or predictions are 0.0. Correlations with
non-finite predictions are NaN, so that a diverged run does not look degenerate.
"""

import functools

import numpy as np
import scipy.stats
import sklearn.metrics


def _is_constant(values):
    return bool(np.all(values == values[0]))


def matthews(labels, predictions):
    """Matthews correlation in [-1, 1]; for three classes R_3, as in GLUE."""
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0  # without scikit-learn's warning
    return sklearn.metrics.matthews_corrcoef(labels, predictions)


def _correlate(function, labels, predictions):
    # In float32 the variance of nearly equal predictions is lost to rounding.
    labels = np.asarray(labels, np.float64)
    predictions = np.asarray(predictions, np.float64)
    if not (np.all(np.isfinite(labels)) and np.all(np.isfinite(predictions))):
        return float("nan")
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return function(labels, predictions)[0]


# Over the classes in labels or predictions.
_MACRO = {"average": "macro", "zero_division": 0}
CLASSIFICATION = {
    "accuracy": sklearn.metrics.accuracy_score,
    # Of class 1; average="binary" refuses further classes.
    "f1": functools.partial(sklearn.metrics.f1_score, labels=[1], **_MACRO),
    "macro_f1": functools.partial(sklearn.metrics.f1_score, **_MACRO),
    "macro_precision": functools.partial(sklearn.metrics.precision_score, **_MACRO),
    "macro_recall": functools.partial(sklearn.metrics.recall_score, **_MACRO),
    "matthews": matthews,
}
REGRESSION = {
    "pearson": functools.partial(_correlate, scipy.stats.pearsonr),
    "spearman": functools.partial(_correlate, scipy.stats.spearmanr),
}


def class_report(labels, predictions, C):
    """Scores of each of C classes, and the confusion matrix.

    Returns a dict of "precision", "recall" and "f1", lists of C floats, and
    "confusion_matrix", C lists of C counts; row: label, column: prediction.
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
