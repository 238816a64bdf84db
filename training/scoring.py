"""Predictions of a set of rows, and their scores."""

import os
from typing import Any, NamedTuple

import numpy as np

from errors import UserError
from inputs import metrics
from training import plots
from training.task_inputs import make_input_fn
from weights import checkpoints


class Scored(NamedTuple):
    """A set whose labels were held against its predictions."""

    scores: dict[str, float]
    baseline: dict[str, float]  # of always giving one answer
    gold: np.ndarray  # class ids int [examples], or scores float
    answers: np.ndarray  # the same, as predicted
    classes: dict[str, Any]  # what tells classes apart; {} for regression


def score(run, split, probabilities):
    """Holds the labels of a split against its predictions; draws what is to be drawn.

    Args:
      run: a `task_inputs.TaskRun`.
      split: a `tasks.Split` with labels.
      probabilities: what `predict` gives.

    Returns:
      A `Scored`.
    """
    task = run.task
    gold, answers = gold_of(task, run.examples[split.name]), decide(task, probabilities)
    return Scored(
        metrics.compute(task.metrics, gold, answers),
        metrics.compute(task.metrics, gold, _one_answer(task, gold)),
        gold,
        answers,
        _classes(run, split, gold, answers),
    )


def predict(estimator, run, split, kind):
    """Predictions for the real examples of a split.

    Returns:
      Float array [examples, C] of probabilities; [examples] of scores for regression.

    Raises:
      UserError: one is not finite.
    """
    settings = run.settings
    input_fn, _ = make_input_fn(run, split, kind, settings.predict_batch_size)
    count = len(run.examples[split.name])
    rows = []
    for prediction in estimator.predict(input_fn=input_fn):
        rows.append(prediction["probabilities"])
        if len(rows) == count:
            break
    if len(rows) != count:
        raise RuntimeError("%d predictions for %d examples" % (len(rows), count))
    probabilities = np.array(rows)
    if not np.isfinite(probabilities).all():
        raise UserError(
            "%d of %d predictions for %s are not finite, so nothing is written: the "
            "weights of %s give no numbers; train anew with a lower --learning_rate"
            % (
                np.sum(~np.isfinite(probabilities).reshape(count, -1).all(axis=1)),
                count,
                split.name,
                checkpoints.latest(settings.output_dir) or "--init_checkpoint",
            )
        )
    return probabilities


def score_dev(estimator, run, split, name=None):
    """Evaluates a dev set in the graph, and scores its predictions.

    Args:
      estimator: the Estimator.
      run: a `task_inputs.TaskRun`.
      split: one of its dev sets.
      name: of the evaluation's folder; None: the usual one.

    Returns:
      What the Estimator gives, a dict, and a `Scored`.
    """
    settings = run.settings
    input_fn, count = make_input_fn(run, split, "eval", settings.eval_batch_size)
    steps = count // settings.eval_batch_size if settings.use_tpu else None
    result = estimator.evaluate(input_fn=input_fn, steps=steps, name=name)
    return result, score(run, split, predict(estimator, run, split, "eval"))


def decide(task, probabilities):
    """Class ids int [examples], or the scores themselves for regression."""
    return probabilities if task.is_regression else np.argmax(probabilities, axis=-1)


def gold_of(task, examples):
    """The labels of examples: class ids int [examples], or scores float."""
    if task.is_regression:
        return np.array([float(example.label) for example in examples])
    return np.array([task.labels.index(example.label) for example in examples])


def _classes(run, split, gold, answers):
    """The entries of a report that tell classes apart; {} for regression."""
    if run.task.is_regression:
        return {}
    labels = list(run.task.labels)
    table = metrics.class_report(gold, answers, len(labels))
    if run.plots:
        path = os.path.join(
            run.settings.output_dir,
            run.result_name("confusion_matrix_%s.png" % split.name),
        )
        title = "%s, %s: %d rows" % (run.task.title, split.name, len(gold))
        plots.confusion_matrix(path, title, labels, table["confusion_matrix"])
    return {"labels": labels, **table}


def _one_answer(task, gold):
    """The baseline: the labels' mean, or the most frequent label, for each row."""
    if task.is_regression:
        return np.full_like(gold, gold.mean())
    return np.full_like(gold, np.bincount(gold).argmax())
