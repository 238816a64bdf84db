"""Predictions for a split, and their scores."""

import functools
import itertools
import math
import os
from typing import Any, NamedTuple

import numpy as np

from errors import UserError
from inputs import features
from system import wording
from training import plots
from weights import checkpoints


class SplitScores(NamedTuple):
    """Scores of the predictions for a split with labels."""

    scores: dict[str, float]
    baseline: dict[str, float]  # of the best constant prediction
    labels: np.ndarray  # [examples, ...], see `task_type.TaskType.read_labels`
    diagnosis: str  # what is suspicious of the predictions, or ""
    report: dict[str, Any]  # further entries of reports


def score(run, split, predictions):
    """The `SplitScores` of `predict`; with `run.plots` it draws a matrix too."""
    task_type, names = run.task.type, run.task.metrics
    labels = task_type.read_labels(run.inputs.examples[split.name])
    baseline = task_type.predict_baseline(labels)
    predictions = task_type.parse_predictions(predictions)
    report = task_type.report(labels, predictions)
    if run.plots and "confusion_matrix" in report:
        count = wording.pluralize(len(labels), "example")
        name = run.result_name("confusion_matrix_%s.png" % split.name)
        plots.confusion_matrix(
            os.path.join(run.settings.output_dir, name),
            "%s, %s: %s" % (run.task.title, split.name, count),
            report["labels"],
            report["confusion_matrix"],
        )
    return SplitScores(
        task_type.score(names, labels, predictions),
        task_type.score(names, labels, baseline),
        labels,
        task_type.check_predictions(labels, predictions),
        report,
    )


def predict(estimator, run, split, kind):
    """A list with one prediction per example, see `task_type.TaskType.decode`.

    A `UserError` is raised if one is not finite.
    """
    inputs, examples = run.inputs, run.inputs.examples[split.name]
    count = inputs.write_features(split, kind).counts.features
    input_fn = inputs.make_input_fn(split, kind)
    scores = [
        each["probabilities"]
        for each in itertools.islice(estimator.predict(input_fn), count)
    ]
    assert len(scores) == count
    finite = np.isfinite(scores).reshape(count, -1).all(axis=1)
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
    featurize = functools.partial(inputs.featurize, features.NOT_LOGGED)
    return list(run.task.type.decode(examples, iter(scores), featurize))


def evaluate_split(estimator, run, split, name=None):
    """Evaluates a dev set in the graph, and scores its predictions.

    Returns the Estimator's results, a dict, and a `SplitScores`. `name` is that of the
    folder for TensorBoard; None: the Estimator's default.
    """
    input_fn, steps = run.inputs.make_input_fn(split, "eval"), None
    if run.settings.devices.use_tpu:
        count = run.inputs.write_features(split, "eval").counts.features
        steps = math.ceil(count / run.settings.eval_batch_size)
    result = estimator.evaluate(input_fn=input_fn, steps=steps, name=name)
    return result, score(run, split, predict(estimator, run, split, "eval"))
