"""Whether a trained model is degenerate, judged by its training loss and predictions.

A degenerate model predicts the same class for every text, with the probabilities of the
label frequencies: its scores are those of the majority-class baseline, its loss is the
entropy of the labels. Nothing else in such a run indicates it.
"""

from typing import NamedTuple

from errors import printable
from system import console, schema, wording

# A training loss above this fraction of the baseline's counts as equal to it: the mean
# over the last tenth of a degenerate run varies by some 1 %.
MAX_LOSS_RATIO = 0.98

_LONGEST_WARNING = 1000  # characters; it may come from an untrusted package


def check_loss(mean, steps, baseline):
    """Warnings about the mean loss of the last steps; `baseline` is a constant's."""
    if mean < MAX_LOSS_RATIO * baseline:
        return []
    return [
        "training: the mean loss of the last %s is %.4f; a constant prediction "
        "gives %.4f" % (wording.pluralize(steps, "step"), mean, baseline)
    ]


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

    A `ValueError` is raised if it does not match `SCHEMA`.
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
    """Remedies for a degenerate run."""

    def previous(name):
        value = settings.get(name)
        return " (it was %g)" % value if schema.is_number(value) else ""

    tries = ["a lower `learning_rate`" + previous("learning_rate")]
    if not settings.get("adam_bias_correction"):
        tries.append("`adam_bias_correction`=true")
    tries += [
        "more steps, with a higher `num_train_epochs`" + previous("num_train_epochs"),
        "a higher `warmup_proportion`" + previous("warmup_proportion"),
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
