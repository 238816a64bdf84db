"""Whether a trained model is degenerate, judged by its training loss and predictions.

A degenerate model predicts the same class for every text, with the probabilities of the
label frequencies: its scores are those of the majority-class baseline, its loss is the
entropy of the labels. Nothing else in such a run indicates it.
"""

from typing import NamedTuple

import numpy as np

from errors import printable
from system import console, schema, wording

# A training loss above this fraction of the baseline's counts as equal to it: the mean
# over the last tenth of a degenerate run varies by some 1 %.
MAX_LOSS_RATIO = 0.98

# Predicted scores whose deviation is below this fraction of the labels' are constant.
_MIN_SPREAD_RATIO = 0.01

_LONGEST_WARNING = 1000  # characters; it may come from an untrusted package


def baseline_loss(labels, is_regression):
    """The mean loss of the best constant prediction for labels, a 1-D array.

    The entropy of the label frequencies in nats; for regression the labels' variance.
    """
    if is_regression:
        return float(np.var(np.asarray(labels, np.float64)))
    frequencies = np.bincount(labels) / len(labels)
    frequencies = frequencies[frequencies > 0]
    return float(-np.sum(frequencies * np.log(frequencies)))


def check_loss(mean, steps, baseline):
    """Warnings about the mean loss of the last steps, given its `baseline_loss`."""
    if mean < MAX_LOSS_RATIO * baseline:
        return []
    return [
        "training: the mean loss of the last %s is %.4f; predicting the label "
        "frequencies gives %.4f" % (wording.pluralize(steps, "step"), mean, baseline)
    ]


def check_predictions(name, predictions, labels, label_names):
    """Warnings about predictions for a dev set, a list.

    Args:
      name: the set's name.
      predictions: 1-D array, class ids or scores.
      labels: 1-D array of the same kind.
      label_names: label strings in the order of their ids; empty for regression.
    """
    count = len(predictions)
    if not label_names:
        spread, expected = float(np.std(predictions)), float(np.std(labels))
        if count < 2 or expected == 0 or spread >= _MIN_SPREAD_RATIO * expected:
            return []
        return [
            "%s: the %d predicted scores are nearly constant, from %.4f to %.4f; the "
            "labels go from %.4f to %.4f"
            % (
                name,
                count,
                min(predictions),
                max(predictions),
                min(labels),
                max(labels),
            )
        ]
    # Where all labels are the same, predicting a single class may be right.
    if len(set(predictions)) > 1 or len(set(labels)) == 1:
        return []
    return [
        '%s: a single class is predicted for all %d examples, "%s"'
        % (name, count, label_names[predictions[0]])
    ]


def format_scores(scores, baseline):
    """Scores beside those of a constant prediction, as text."""
    return ", ".join(
        "%s %.4f (baseline: %.4f)" % (name, scores[name], baseline[name])
        for name in scores
    )


class Diagnostics(NamedTuple):
    """Warnings about a trained model, texts; None where nothing was checked."""

    training: list[str] | None = None
    evaluation: list[str] | None = None

    @property
    def warnings(self):
        """Warnings of training and evaluation, a list of texts."""
        return [*(self.training or ()), *(self.evaluation or ())]

    def to_json(self):
        """The entry "health" of result files and packages."""
        return {"ok": not self.warnings, **self._asdict()}


_TEXTS = schema.List(schema.TEXT)
SCHEMA = schema.Object(
    {}, optional={"training": _TEXTS, "evaluation": _TEXTS}, others=schema.ANY
)


def from_json(entry):
    """Reads an entry "health"; None, as in older files, gives empty `Diagnostics`.

    Raises:
      ValueError: the entry does not match `SCHEMA`.
    """
    if entry is None:
        return Diagnostics()
    SCHEMA.check(entry, "health")
    return Diagnostics(*(entry.get(name) for name in Diagnostics._fields))


def diagnose_untrained(names):
    """The `Diagnostics` of a model in which the named variables were never trained."""
    return Diagnostics(
        training=[
            "never trained: %s, such as %s, which no checkpoint holds; scores are at "
            "chance level" % (wording.pluralize(len(names), "variable"), names[-1])
        ]
    )


def _advice(settings):
    """What to try after a degenerate run."""

    def previous(name):
        value = settings.get(name)
        return " (it was %g)" % value if schema.is_number(value) else ""

    tries = ["a lower `learning_rate`" + previous("learning_rate")]
    if not settings.get("adam_bias_correction"):
        tries.append("`adam_bias_correction`=true")
    tries += [
        "more steps, with a higher `num_train_epochs`" + previous("num_train_epochs"),
        "a longer `warmup_proportion`" + previous("warmup_proportion"),
        "another `seed`" + previous("seed"),
    ]
    epochs = settings.get("num_train_epochs")
    if schema.is_number(epochs) and epochs < 2:
        tries.insert(0, tries.pop(-3))
    return "try %s; with a new `output_dir`" % ", ".join(tries)


def show_warnings(warnings, settings=None):
    """Shows warnings about a model, if any, with a headline.

    With the run's settings, a dict by flag name, it shows a remedy too.
    """
    if not warnings:
        return
    console.warn("DEGENERATE MODEL, hardly better than its baseline:")
    for text in warnings:
        console.warn("  %s", printable(text, _LONGEST_WARNING))
    if settings:
        console.warn("  What to do: %s.", _advice(settings))
