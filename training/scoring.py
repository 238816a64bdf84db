"""Predictions for a split, and their scores."""

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import features
from system import wording
from weights import checkpoints

# The graph collection of the scores that an evaluation computes, float32 [B, ...].
SCORES = "scores"


class SplitScores(NamedTuple):
    """Scores of the predictions for a split with labels."""

    scores: dict[str, float]
    baseline: dict[str, float]  # of the best constant prediction
    labels: np.ndarray  # [examples, ...], see `task_type.TaskType.read_labels`
    diagnosis: str  # what is suspicious of the predictions, or ""
    report: dict[str, Any]  # further entries of reports


def score(run, split, predictions):
    """The `SplitScores` of the predictions for a split."""
    task_type, names = run.task.type, run.task.metrics
    labels = task_type.read_labels(run.inputs.examples[split.name])
    baseline = task_type.predict_baseline(labels)
    predictions = task_type.parse_predictions(predictions)
    return SplitScores(
        task_type.score(names, labels, predictions),
        task_type.score(names, labels, baseline),
        labels,
        task_type.check_predictions(labels, predictions),
        task_type.report(labels, predictions),
    )


def predict(estimator, run, split, kind):
    """A list with one prediction per example, see `decode`."""
    count = run.inputs.write_features(split, kind).counts.features
    predicted = estimator.predict(run.inputs.make_input_fn(split, kind))
    scores = [each["probabilities"] for each in itertools.islice(predicted, count)]
    assert len(scores) == count
    return decode(run, split, scores)


def decode(run, split, scores):
    """Predictions from a list of features' scores, see `task_type.TaskType.decode`.

    A `UserError` is raised if one is not finite.
    """
    count, examples = len(scores), run.inputs.examples[split.name]
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
    featurize = functools.partial(run.inputs.featurize, features.NOT_LOGGED)
    return list(run.task.type.decode(examples, iter(scores), featurize))


def evaluate_split(estimator, run, split, name=None):
    """Evaluates a dev set in the graph, and scores its predictions.

    Returns the Estimator's results, a dict, and a `SplitScores`. `name` is that of the
    folder for TensorBoard; None: the Estimator's default.
    """
    input_fn = run.inputs.make_input_fn(split, "eval")
    if run.settings.devices.use_tpu:
        steps = count_batches(run, split)
        result = estimator.evaluate(input_fn=input_fn, steps=steps, name=name)
        predictions = predict(estimator, run, split, "eval")
    else:
        hook = _ScoresHook()
        result = estimator.evaluate(input_fn=input_fn, hooks=[hook], name=name)
        predictions = decode(run, split, hook.scores)
    return result, score(run, split, predictions)


def count_batches(run, split):
    """The number of batches in which a dev set is evaluated."""
    count = run.inputs.write_features(split, "eval").counts.features
    return math.ceil(count / run.settings.eval_batch_size)


class _ScoresHook(tf.train.SessionRunHook):
    """Collects the scores of an evaluation, whose forward pass computes them anyway."""

    def begin(self):
        (self._fetch,), self.scores = tf.get_collection(SCORES), []

    def before_run(self, run_context):
        del run_context
        return tf.train.SessionRunArgs(self._fetch)

    def after_run(self, run_context, run_values):
        del run_context
        self.scores.extend(run_values.results)
