"""Statistics of a task's examples, and warnings about them, before training.

Nothing here is an error: published benchmarks show some of it. But each warning names
a usual cause of degenerate models and of meaningless scores.
"""

import collections
from typing import NamedTuple

from inputs import tasks, text_rows
from system import console, wording

# Warn above this fraction of [UNK] pieces, or of truncated examples.
MOST_LOST = 0.05

_MOST_NUMBERS = 0.5  # fraction of the texts
_LINES_SHOWN = 5
_LABELS_SHOWN = 10


class SplitReport(NamedTuple):
    """Counts of one split."""

    name: str
    examples: int
    labels: dict[str, int]  # examples per label; {} for regression and without labels


class DataWarning(NamedTuple):
    """Something that may be a mistake."""

    source: str  # a split's name, or "labels"
    text: str  # such as "3 examples have an empty text"
    lines: tuple[int, ...] = ()  # of the examples concerned, in the split's file

    def __str__(self):
        lines = ", ".join(map(str, self.lines[:_LINES_SHOWN]))
        if len(self.lines) > _LINES_SHOWN:
            lines += ", ..."
        number = "line" if len(self.lines) == 1 else "lines"
        shown = " (%s %s)" % (number, lines) if lines else ""
        return "%s: %s%s" % (self.source, self.text, shown)


class Report(NamedTuple):
    """What is known of a task's examples."""

    splits: tuple[SplitReport, ...]
    warnings: tuple[DataWarning, ...]


def examine(task, examples):
    """Counts a task's examples and looks for what may be a mistake.

    Args:
      task: a `tasks.Task`.
      examples: dict from the names of some of its splits to their `InputExample`s,
        each with its `line`.

    Returns:
      A `Report`.
    """
    splits, warnings = [], list(_find_similar_labels(task))
    for split in task.splits:
        if split.name not in examples:
            continue
        found = examples[split.name]
        labels = {}
        if split.has_labels and not task.is_regression:
            labels = collections.Counter(example.label for example in found)
            labels = {label: labels[label] for label in task.labels}
        splits.append(SplitReport(split.name, len(found), labels))
        warnings += _find_text_problems(split.name, found)
        if labels:
            is_trained = split == task.train
            warnings += _find_label_problems(split.name, found, labels, is_trained)
    warnings += _find_overlap(task, examples)
    return Report(tuple(splits), tuple(warnings))


def log_report(report, text_counts, max_seq_length):
    """Logs a report: a line per split, and its warnings.

    Args:
      report: a `Report`.
      text_counts: dict from a split's name to its `features.TextCounts`; None: not
        known.
      max_seq_length: length of the sequences.
    """
    for split in report.splits:
        console.say("Data, %s", describe_split(split))
        if text_counts is not None:
            counts = text_counts[split.name]
            lost = max(counts.unknown_fraction, counts.truncated_fraction)
            log = console.warn if lost > MOST_LOST else console.say
            log("  %s", describe_texts(counts, max_seq_length))
    for warning in report.warnings:
        console.warn("%s", warning)


def describe_split(split):
    """A `SplitReport` as one line."""
    text = "%s: %s" % (split.name, wording.pluralize(split.examples, "example"))
    labels = [
        '%d of "%s" (%.1f %%)' % (count, label, 100 * count / split.examples)
        for label, count in split.labels.items()
    ]
    return ", ".join([text, *labels])


def describe_texts(counts, max_seq_length):
    """The `features.TextCounts` of a split as one line."""
    return (
        "%d word pieces, %.2f %% of them [UNK]; the longest example has %d; %s (%.1f "
        "%%) truncated at max_seq_length %d"
    ) % (
        counts.pieces,
        100 * counts.unknown_fraction,
        counts.longest,
        wording.pluralize(counts.truncated, "example"),
        100 * counts.truncated_fraction,
        max_seq_length,
    )


# --- warnings -------------------------------------------------------------------


def _lines(examples):
    return tuple(example.line for example in examples)


def _list_labels(labels):
    more = ", ..." if len(labels) > _LABELS_SHOWN else ""
    return ", ".join(map(repr, labels[:_LABELS_SHOWN])) + more


def _find_similar_labels(task):
    for group in tasks.similar_labels(task.labels):
        text = "%s differ in case, white space, Unicode form or number format alone"
        yield DataWarning("labels", text % _list_labels(group))
    padded = [label for label in task.labels if label != label.strip()]
    if padded:
        text = "%s with white space at an end" % _list_labels(padded)
        yield DataWarning("labels", text)


def _find_text_problems(name, examples):
    empty = [
        example
        for example in examples
        if text_rows.is_blank(example.text_a)
        or (example.text_b is not None and text_rows.is_blank(example.text_b))
    ]
    if empty:
        text = "%s with an empty text" % wording.pluralize(len(empty), "example")
        yield DataWarning(name, text, _lines(empty))
    for field in ("text_a", "text_b"):
        texts = [getattr(example, field) for example in examples]
        count = sum(text is not None and tasks.is_number(text) for text in texts)
        if count > _MOST_NUMBERS * len(examples):
            text = "%d of %d examples have a number for %s; is that the text's column?"
            yield DataWarning(name, text % (count, len(examples), field))


def _find_label_problems(name, examples, counts, is_trained):
    found = [label for label, count in counts.items() if count]
    if len(found) == 1:
        yield DataWarning(name, "all examples have the label %r" % found[0])
    elif len(found) < len(counts):
        missing = [label for label, count in counts.items() if not count]
        count = wording.pluralize(len(missing), "label")
        text = "%s without an example: %s" % (count, _list_labels(missing))
        yield DataWarning(name, text)
    single = [label for label in found if counts[label] == 1]
    if single and is_trained:
        count = wording.pluralize(len(single), "label")
        text = "%s with a single example: %s" % (count, _list_labels(single))
        lines = _lines(example for example in examples if counts[example.label] == 1)
        yield DataWarning(name, text, lines)
    labels_of = collections.defaultdict(set)
    for example in examples:
        labels_of[example.text_a, example.text_b].add(example.label)
    contradictory = [
        example
        for example in examples
        if len(labels_of[example.text_a, example.text_b]) > 1
    ]
    if contradictory:
        text = "%d examples have the texts of another one, and a different label"
        yield DataWarning(name, text % len(contradictory), _lines(contradictory))


def _find_overlap(task, examples):
    """Finds dev and test examples in train, and test examples in dev."""
    seen = {}
    for kind, splits in (
        ("train", (task.train,) if task.train else ()),
        ("dev", task.dev),
        ("test", task.test),
    ):
        names = [split.name for split in splits if split.name in examples]
        texts = {}
        for name in names:
            texts[name] = [(each.text_a, each.text_b) for each in examples[name]]
            for other, others in seen.items():
                same = [e for e, t in zip(examples[name], texts[name]) if t in others]
                if same:
                    count = wording.pluralize(len(same), "example")
                    text = "%s with the texts of %s examples" % (count, other)
                    yield DataWarning(name, text, _lines(same))
        seen[kind] = set().union(*texts.values())
