"""Whether a training learned anything: told from its loss and from its answers.

A model that has collapsed gives every text the same answer, with the probabilities of
the labels' frequencies: its scores are those of the baseline, its loss is the labels'
entropy. Nothing else in a run looks wrong, so this has to be looked for.
"""

from typing import NamedTuple

import numpy as np

from errors import printable
from system import console, schema

# A loss that is not below this share of the best constant answer's counts as equal to
# it: the mean over the last tenth of a collapsed training moves by some 1 %.
LEARNED_BELOW = 0.98

# Scores that spread less than this share of the labels' spread are one answer.
CONSTANT_SPREAD = 0.01

# Letters of a finding, which may come from a stranger's package.
_MOST_SHOWN = 1000


class TrainingLoss(NamedTuple):
    """What the loss was at the end of a training."""

    mean: float  # over `steps`
    steps: int  # at most the last tenth of all steps


def constant_loss(labels, is_regression):
    """The mean loss of the best answer that does not look at the text.

    Args:
      labels: 1-D array, class ids (int) or scores (float).
      is_regression: whether they are scores.

    Returns:
      The entropy of the labels' frequencies in nats; for regression their variance.
    """
    if is_regression:
        return float(np.var(np.asarray(labels, np.float64)))
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)))


def of_training(loss: TrainingLoss | None, baseline_loss):
    """What the end of a training's loss tells.

    Args:
      loss: a `TrainingLoss`, or None if it was not seen.
      baseline_loss: what `constant_loss` gives for the training labels.

    Returns:
      List of findings, texts; empty for a sound training; None if no loss was seen.
    """
    if loss is None:
        return None
    if loss.mean < LEARNED_BELOW * baseline_loss:
        return []
    return [
        "training: the mean loss of the last %d steps, %.4f, is not clearly below "
        "%.4f, that of answering with the labels' frequencies"
        % (loss.steps, loss.mean, baseline_loss)
    ]


def of_answers(name, answers, labels, label_names, is_regression):
    """What the answers for a dev set tell.

    Args:
      name: the set's name.
      answers: 1-D array, class ids or scores.
      labels: 1-D array of the same kind.
      label_names: label strings in the order of their ids.
      is_regression: whether they are scores.

    Returns:
      List of findings, texts; empty for sound answers.
    """
    count = len(answers)
    if is_regression:
        spread, expected = float(np.std(answers)), float(np.std(labels))
        if count < 2 or expected == 0 or spread >= CONSTANT_SPREAD * expected:
            return []
        return [
            "%s: all %d scores are nearly the same, from %.4f to %.4f, where the "
            "labels go from %.4f to %.4f"
            % (name, count, min(answers), max(answers), min(labels), max(labels))
        ]
    # One label in the set too: its own answer is the right one.
    if len(set(answers)) > 1 or len(set(labels)) == 1:
        return []
    return [
        '%s: all %d answers are the same, "%s"' % (name, count, label_names[answers[0]])
    ]


def score_line(scores, baseline):
    """Scores beside those of a model that always gives one answer, as text."""
    return ", ".join(
        "%s %.4f (one answer for all: %.4f)" % (name, scores[name], baseline[name])
        for name in scores
    )


class Health(NamedTuple):
    """What is known against a model's weights: findings, texts.

    None where nothing was looked at, [] where nothing was found.
    """

    training: list[str] | None = None
    evaluation: list[str] | None = None

    @property
    def findings(self):
        """All of them."""
        return [*(self.training or ()), *(self.evaluation or ())]

    def as_json(self):
        """The entry "health" of result files and packages."""
        return {"ok": not self.findings, **self._asdict()}


_TEXTS = schema.List(schema.Value(lambda value: isinstance(value, str), "a text"))
SCHEMA = schema.Object(
    {}, optional={"training": _TEXTS, "evaluation": _TEXTS}, others=schema.ANY
)


def from_json(entry):
    """The `Health` of such an entry; of None, as in older files, one without findings.

    Raises:
      ValueError: it is no such entry.
    """
    if entry is None:
        return Health()
    SCHEMA.check(entry, "health")
    return Health(*(entry.get(name) for name in Health._fields))


def never_trained(names):
    """The `Health` of a model whose trained variables start fresh, and stay so.

    Args:
      names: the variables' names.
    """
    return Health(
        training=[
            "%d variables, %s among them, were never trained: neither --output_dir nor "
            "--init_checkpoint holds them; scores are those of chance"
            % (len(names), names[-1])
        ]
    )


def _advice(settings):
    """What to try after a training that learned nothing."""

    def now(name):
        return " (it was %g)" % settings[name] if name in settings else ""

    tries = ["a lower --learning_rate" + now("learning_rate")]
    if not settings.get("adam_bias_correction"):
        tries.append("--adam_bias_correction=true")
    tries.append("a longer --warmup_proportion" + now("warmup_proportion"))
    tries.append("another --seed" + now("seed"))
    return "try %s; with a new --output_dir" % ", ".join(tries)


def say(findings, settings=None):
    """Says findings so that nobody misses them.

    Args:
      findings: list of texts; [] says nothing.
      settings: the training's settings by their flags' names, where they are known.
    """
    if not findings:
        return
    console.warn("THIS MODEL HAS LEARNED NOTHING, or next to nothing:")
    for finding in findings:
        console.warn("  %s", printable(finding, _MOST_SHOWN))
    if settings:
        console.warn("  What to do: %s.", _advice(settings))
