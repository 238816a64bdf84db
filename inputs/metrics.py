"""Every reported score, computed on the host from labels and predictions.

Each function takes two 1-D arrays of the same length, labels first: class ids (int)
for accuracy, F1 and Matthews, scores (float) for the two correlations.

Where a score is undefined because nothing varies (a classifier that answers one class
only, a regression that answers one number only), it is 0.0, the value of a model that
knows nothing. Where a prediction is not a finite number the correlations are NaN: a
model that diverged must not look like one that learned nothing.
"""

import numpy as np
import scipy.stats
import sklearn.metrics


def _is_constant(values):
    return bool(np.all(values == values[0]))


def accuracy(labels, predictions):
    """The share of predictions that equal their label, in [0, 1]."""
    return float(sklearn.metrics.accuracy_score(labels, predictions))


def f1(labels, predictions):
    """F1 of class 1, in [0, 1]; 0.0 where class 1 occurs on neither side."""
    # Asking for class 1 by name, not "binary" averaging, so that a set in which other
    # classes are missing or added is scored by the same formula.
    return float(
        sklearn.metrics.f1_score(
            labels, predictions, labels=[1], average="macro", zero_division=0
        )
    )


def matthews(labels, predictions):
    """Matthews correlation in [-1, 1], for any number of classes.

    0.0 where the labels or the predictions are all of one class. With three classes
    it is the R_3 that the benchmark uses for its diagnostic set.
    """
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return float(sklearn.metrics.matthews_corrcoef(labels, predictions))


def _correlation(function, labels, predictions):
    # In double precision: float32 predictions that differ in their last bits only
    # would otherwise lose their variance to rounding.
    labels = np.asarray(labels, np.float64)
    predictions = np.asarray(predictions, np.float64)
    if not (np.all(np.isfinite(labels)) and np.all(np.isfinite(predictions))):
        return float("nan")
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return float(function(labels, predictions)[0])


def pearson(labels, predictions):
    """Pearson correlation in [-1, 1]; 0.0 if either side is constant."""
    return _correlation(scipy.stats.pearsonr, labels, predictions)


def spearman(labels, predictions):
    """Spearman rank correlation in [-1, 1]; 0.0 if either side is constant."""
    return _correlation(scipy.stats.spearmanr, labels, predictions)


def _macro(function):
    def score(labels, predictions):
        classes = np.union1d(labels, predictions)
        return float(
            function(
                labels, predictions, labels=classes, average="macro", zero_division=0
            )
        )

    return score


# Means over the classes that occur on either side, each in [0, 1].
macro_f1 = _macro(sklearn.metrics.f1_score)
macro_precision = _macro(sklearn.metrics.precision_score)
macro_recall = _macro(sklearn.metrics.recall_score)

OF_CLASSES = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "macro_precision": macro_precision,
    "macro_recall": macro_recall,
    "matthews": matthews,
}
OF_NUMBERS = {"pearson": pearson, "spearman": spearman}
METRICS = {**OF_CLASSES, **OF_NUMBERS}


def class_report(labels, predictions, count):
    """What each class's rows were taken for.

    Args:
      labels: 1-D array `[N]` of class ids (int).
      predictions: the same.
      count: number of classes, C.

    Returns:
      Dict: "precision", "recall" and "f1", lists of C floats, and "confusion_matrix",
      C lists of C counts; row: the label, column: the prediction.
    """
    classes = np.arange(count)
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


def compute(names, labels, predictions):
    """Computes several scores of one set of predictions.

    Args:
      names: names of `METRICS`, in the order wanted.
      labels: 1-D array `[N]`, class ids (int) or scores (float); N > 0.
      predictions: 1-D array `[N]` of the same kind.

    Returns:
      A dict from name to Python float, in the order of `names`.

    Raises:
      ValueError: an unknown name, or arrays that are empty, not 1-D or of different
        lengths.
    """
    labels = np.asarray(labels)
    predictions = np.asarray(predictions)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(
            "unknown metrics %s; known: %s"
            % (", ".join(unknown), ", ".join(sorted(METRICS)))
        )
    if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
        raise ValueError(
            "labels and predictions must be 1-D, of one length and not empty; got "
            "shapes %s and %s" % (labels.shape, predictions.shape)
        )
    return {name: METRICS[name](labels, predictions) for name in names}
