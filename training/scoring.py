"""Predictions for a split, their scores, and the files of predictions."""

import contextlib
import functools
import itertools
import math
import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import features, text_rows
from system import console, files, wording
from weights import checkpoints

# The graph collection of the scores that an evaluation computes, float32 [B, ...].
SCORES = "scores"


class SplitScores(NamedTuple):
    """Scores of the predictions for a split with labels."""

    step: int  # of the checkpoint
    metrics: dict[str, float]  # of the Estimator, such as "eval_loss"
    scores: dict[str, float]
    baseline: dict[str, float]  # scores of the best constant prediction
    labels: np.ndarray  # [examples, ...], see `task_type.TaskType.read_labels`
    diagnosis: str  # warning about the predictions, or ""
    report: dict[str, Any]  # see `task_type.TaskType.report`
    table: str = ""  # see `task_type.TaskType.format_table`
    predictions: list | None = None  # by example; None if there are no task files


def score(run, split, predictions, metrics):
    """The `SplitScores` of the predictions for a split.

    `metrics` are the results of `Estimator.evaluate`: "global_step" and others.
    """
    task_type, names = run.task.type, run.task.metrics
    labels = task_type.read_labels(run.inputs.examples[split.name])
    baseline = task_type.predict_baseline(labels)
    if task_type.has_task_files:
        predictions = list(predictions)
    parsed = task_type.parse_predictions(predictions)
    return SplitScores(
        int(metrics["global_step"]),
        {key: value for key, value in metrics.items() if key != "global_step"},
        task_type.score(names, labels, parsed),
        task_type.score(names, labels, baseline),
        labels,
        task_type.check_predictions(labels, parsed),
        task_type.report(labels, parsed),
        task_type.format_table(labels, parsed),
        predictions if task_type.has_task_files else None,
    )


def summary_values(split, scored):
    """The scalars of an evaluation for TensorBoard: dict from tag to float.

    The loss has the tag of the training loss, so that both share a plot.
    """
    values = dict(scored.scores)
    if "eval_loss" in scored.metrics:
        values["loss"] = float(scored.metrics["eval_loss"])
    return {tag + split.suffix: value for tag, value in values.items()}


def write_dev_predictions(run, split, predictions):
    """Writes a CSV file with line, texts, label and prediction of each example."""
    task, name = run.task, run.result_name(dev_predictions_file(split))
    texts = [
        field
        for field, column in zip(("text_a", "text_b"), task.text_columns)
        if column is not None
    ]
    rows = [["line", *texts, "gold", *task.type.prediction_columns()]]
    for example, prediction in zip(run.inputs.examples[split.name], predictions):
        row = [example.line, *(getattr(example, text) for text in texts), example.label]
        for value in task.type.prediction_fields(prediction).values():
            row += value.values() if isinstance(value, dict) else [value]
        rows.append(["%.7g" % v if isinstance(v, float) else str(v) for v in row])
    path = os.path.join(run.settings.output_dir, name)
    lines = [text_rows.format_fields(text_rows.CSV, row) for row in rows]
    files.write_whole(path, b"".join(lines))
    console.say(
        "Predictions for %s of %s%s: %s",
        wording.pluralize(len(predictions), "example"),
        split.filename,
        " (held out by `dev_share`)" if split.is_held_out else "",
        name,
    )


def dev_predictions_file(split):
    """The name of the file of `write_dev_predictions`."""
    return "dev_predictions%s.csv" % split.suffix


def predict(estimator, run, split, kind, checkpoint=None):
    """Yields a prediction per example from a checkpoint, by default the last.

    See also `decode`.
    """
    count = run.inputs.write_features(split, kind).counts.features
    input_fn = run.inputs.make_input_fn(split, kind)
    # The generator's graph is the default graph until the generator is closed.
    predicted = estimator.predict(input_fn, checkpoint_path=checkpoint)
    with contextlib.closing(predicted):
        scores = (item["probabilities"] for item in itertools.islice(predicted, count))
        yield from decode(run, split, scores, count)


def decode(run, split, scores, count):
    """Yields predictions from features' scores, see `task_type.TaskType.decode`.

    `count` is the number of features. A `UserError` is raised if a score is not finite.
    """
    scores = _check_finite(iter(scores), count, split.name, run.settings.output_dir)
    featurize = functools.partial(run.inputs.featurize, features.NOT_LOGGED)
    yield from run.task.type.decode(run.inputs.examples[split.name], scores, featurize)


def _check_finite(scores, count, split_name, output_dir):
    """Yields `count` arrays; raises a `UserError` if one is not finite."""
    num_yielded = 0
    for score in scores:
        if not np.isfinite(score).all():
            others = sum(not np.isfinite(other).all() for other in scores)
            raise UserError(
                "%d of %s for %s are not finite, so no file is written: the weights of "
                "%s are unusable; train again with a lower `learning_rate`"
                % (
                    1 + others,
                    wording.pluralize(count, "prediction"),
                    split_name,
                    checkpoints.latest(output_dir) or "`init_checkpoint`",
                )
            )
        num_yielded += 1
        yield score
    assert num_yielded == count


def write_predictions(run, split, predictions):
    """Writes predictions to the files of their task type, and yields each again."""
    task_type, folder, count = run.task.type, run.settings.output_dir, 0
    names = [run.result_name(name) for name in task_type.prediction_files(split)]
    paths = [os.path.join(folder, name) for name in names]
    for prediction in task_type.write_predictions(predictions, paths):
        count += 1
        yield prediction
    console.say(
        "Predicted %s of %s: %s",
        wording.pluralize(count, "example"),
        split.name,
        ", ".join(names),
    )


def evaluate_split(
    estimator, run, split, name=None, writes_predictions=False, checkpoint=None
):
    """The `SplitScores` of a checkpoint, by default the last, on a dev set.

    `name` is the Estimator's name of the evaluation.
    """
    evaluate = functools.partial(
        estimator.evaluate,
        input_fn=run.inputs.make_input_fn(split, "eval"),
        name=name,
        checkpoint_path=checkpoint,
    )
    if not run.task.type.has_dev_loss:
        checkpoint = checkpoint or checkpoints.latest(run.settings.output_dir)
        metrics = {"global_step": read_step(checkpoint)}
        predictions = predict(estimator, run, split, "eval", checkpoint)
    elif run.settings.devices.use_tpu:
        metrics = evaluate(steps=count_batches(run, split))
        predictions = predict(estimator, run, split, "eval", checkpoint)
    else:
        hook = _ScoresHook()
        metrics = evaluate(hooks=[hook])
        predictions = decode(run, split, hook.scores, len(hook.scores))
    if writes_predictions:
        predictions = write_predictions(run, split, predictions)
    return score(run, split, predictions, metrics)


def read_step(checkpoint):
    """The global step of the checkpoint of a path; 0 if it is None."""
    return checkpoints.Checkpoint(checkpoint).step if checkpoint else 0


def count_batches(run, split):
    """The number of evaluation batches of a dev set."""
    count = run.inputs.write_features(split, "eval").counts.features
    return math.ceil(count / run.settings.eval_batch_size)


class _ScoresHook(tf.train.SessionRunHook):
    """Collects the scores that the forward pass of an evaluation computes."""

    def begin(self):
        (self._fetch,), self.scores = tf.get_collection(SCORES), []

    def before_run(self, run_context):
        del run_context
        return tf.train.SessionRunArgs(self._fetch)

    def after_run(self, run_context, run_values):
        del run_context
        self.scores.extend(run_values.results)
