"""Predictions for a split, and their scores."""

import os
from typing import Any, NamedTuple

import numpy as np

from errors import UserError
from inputs import metrics
from system import wording
from training import plots
from weights import checkpoints


class SplitScores(NamedTuple):
    """Scores of the predictions for a split with labels."""

    scores: dict[str, float]
    baseline: dict[str, float]  # of the majority class; regression: of the mean
    labels: np.ndarray  # class ids int [examples], or scores float
    predictions: np.ndarray  # of the same kind
    by_class: dict[str, Any]  # entries of reports; {} for regression


def score(run, split, probabilities):
    """The `SplitScores` of predictions; with `run.plots` it draws a matrix too."""
    task = run.task
    labels = read_labels(task, run.inputs.examples[split.name])
    predictions = decide(task, probabilities)
    if task.is_regression:
        constant = np.full_like(labels, labels.mean())
        by_class = {}
    else:
        constant = np.full_like(labels, np.bincount(labels).argmax())
        by_class = _score_by_class(run, split, labels, predictions)
    return SplitScores(
        metrics.compute(task.metrics, labels, predictions),
        metrics.compute(task.metrics, labels, constant),
        labels,
        predictions,
        by_class,
    )


def predict(estimator, run, split, kind):
    """Predictions for the examples of a split, without padding examples.

    Returns:
      Float array [examples, C] of probabilities; [examples] of scores for regression.

    Raises:
      UserError: one is not finite.
    """
    count = len(run.inputs.examples[split.name])
    rows = []
    for prediction in estimator.predict(run.inputs.make_input_fn(split, kind)):
        rows.append(prediction["probabilities"])
        if len(rows) == count:
            break
    if len(rows) != count:
        raise RuntimeError("%d predictions for %d examples" % (len(rows), count))
    probabilities = np.array(rows)
    finite = np.isfinite(probabilities).reshape(count, -1).all(axis=1)
    if not finite.all():
        raise UserError(
            "%d of %s for %s are not finite, so nothing is written: nothing can be "
            "computed with the weights of %s; train again with a lower `learning_rate`"
            % (
                np.sum(~finite),
                wording.pluralize(count, "prediction"),
                split.name,
                checkpoints.latest(run.settings.output_dir) or "`init_checkpoint`",
            )
        )
    return probabilities


def evaluate_split(estimator, run, split, name=None):
    """Evaluates a dev set in the graph, and scores its predictions.

    Returns the Estimator's results, a dict, and a `SplitScores`. `name` is that of the
    folder for TensorBoard; None: the Estimator's default.
    """
    input_fn, steps = run.inputs.make_input_fn(split, "eval"), None
    if run.settings.devices.use_tpu:
        count = run.inputs.write_features(split, "eval").count
        steps = count // run.settings.eval_batch_size
    result = estimator.evaluate(input_fn=input_fn, steps=steps, name=name)
    return result, score(run, split, predict(estimator, run, split, "eval"))


def decide(task, probabilities):
    """Class ids int [examples]; for regression the scores themselves."""
    return probabilities if task.is_regression else np.argmax(probabilities, axis=-1)


def read_labels(task, examples):
    """The labels of examples: class ids int [examples], or scores float."""
    if task.is_regression:
        return np.array([float(example.label) for example in examples])
    return np.array([task.labels.index(example.label) for example in examples])


def _score_by_class(run, split, labels, predictions):
    names = list(run.task.labels)
    table = metrics.class_report(labels, predictions, len(names))
    if run.plots:
        path = os.path.join(
            run.settings.output_dir,
            run.result_name("confusion_matrix_%s.png" % split.name),
        )
        count = wording.pluralize(len(labels), "example")
        title = "%s, %s: %s" % (run.task.title, split.name, count)
        plots.confusion_matrix(path, title, names, table["confusion_matrix"])
    return {"labels": names, **table}
