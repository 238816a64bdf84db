"""What a task's rows are, and what is doubtful about them: to be said before training.

Nothing here is an error: a benchmark's own rows show some of it. But each is what a
training that learns nothing, or scores that mean nothing, often come from.
"""

from typing import NamedTuple

from inputs import tasks

# Above this share of [UNK] pieces, or of texts that are cut, a warning is due.
DOUBTFUL_SHARE = 0.05

_LINES_SHOWN = 5
_MOST_NUMBERS = 0.5  # share of the texts


class SplitReport(NamedTuple):
    """The rows of one split."""

    name: str
    rows: int
    labels: dict[str, int]  # rows of each label; {} for regression and without labels


class Doubt(NamedTuple):
    """Something that may be a mistake."""

    split: str
    what: str  # such as "3 rows have an empty text"
    count: int  # how many rows
    lines: tuple[int, ...]  # lines of the first of them in the split's file

    def __str__(self):
        text = "%s: %s" % (self.split, self.what)
        if not self.lines:
            return text
        more = ", ..." if self.count > len(self.lines) else ""
        lines = ", ".join(map(str, self.lines))
        return "%s (line %s%s)" % (text, lines, more)


class Report(NamedTuple):
    """All splits, and all doubts in their order."""

    splits: tuple[SplitReport, ...]
    doubts: tuple[Doubt, ...]


def examine(train, dev, test, labels):
    """Looks at the rows of a task.

    Args:
      train: dict from a split's name to its list of `InputExample`s, whose `line` is
        known; {} without training.
      dev: the same, for the splits that are scored.
      test: the same, for the splits whose labels mean nothing.
      labels: the task's label strings; () for regression.

    Returns:
      A `Report`.
    """
    splits, doubts = [], []
    for part in (train, dev, test):
        for name, examples in part.items():
            counts = {} if part is test else _label_counts(examples, labels)
            splits.append(SplitReport(name, len(examples), counts))
            doubts += _empty_texts(name, examples)
            doubts += _numbers(name, examples)
            if part is not test:
                doubts += _one_label(name, examples, counts)
    for name, examples in dev.items():
        doubts += _rows_in_train(name, examples, train)
    reports = {split.name: split for split in splits}
    doubts += _unseen_labels(reports, train, dev)
    return Report(tuple(splits), tuple(doubts))


def _label_counts(examples, labels):
    counts = dict.fromkeys(labels, 0)
    if labels:
        for example in examples:
            counts[example.label] += 1
    return counts


def _doubts(split, what, examples):
    """A list of the `Doubt` about these rows; [] if there are none."""
    if not examples:
        return []
    lines = tuple(example.line for example in examples[:_LINES_SHOWN])
    return [Doubt(split, what % len(examples), len(examples), lines)]


def _empty_texts(name, examples):
    empty = [
        example
        for example in examples
        if not example.text_a.strip()
        or (example.text_b is not None and not example.text_b.strip())
    ]
    return _doubts(name, "%d rows have an empty text", empty)


def _numbers(name, examples):
    """Doubts about a column of numbers in the place of one of texts."""
    for which in ("text_a", "text_b"):
        texts = [getattr(example, which) for example in examples]
        count = sum(text is not None and tasks.is_number(text) for text in texts)
        if count > _MOST_NUMBERS * len(examples):
            what = "%d of %d rows have a number for %s; is that the text's column?"
            yield Doubt(name, what % (count, len(examples), which), 0, ())


def _one_label(name, examples, counts):
    found = [label for label, count in counts.items() if count]
    if len(found) != 1:
        return []
    (label,) = found
    return [Doubt(name, "all rows have the label %r" % label, len(examples), ())]


def _rows_in_train(name, examples, train):
    seen = {
        (example.text_a, example.text_b) for rows in train.values() for example in rows
    }
    same = [example for example in examples if (example.text_a, example.text_b) in seen]
    return _doubts(name, "%d rows have the texts of a row of train", same)


def _unseen_labels(reports, train, dev):
    """Doubts about labels that no row of `train` has."""
    for name in train:
        for label, count in reports[name].labels.items():
            if count:
                continue
            elsewhere = [
                "%s has %d" % (other, reports[other].labels[label]) for other in dev
            ]
            what = "no row has the label %r; %s" % (label, ", ".join(elsewhere))
            yield Doubt(name, what.rstrip("; "), 0, ())


def describe_split(split):
    """A `SplitReport` as one line: rows, and each label's number and share."""
    text = "%s: %d rows" % (split.name, split.rows)
    shares = [
        '%d of "%s" (%.1f %%)' % (count, label, 100 * count / split.rows)
        for label, count in split.labels.items()
    ]
    return ", ".join([text, *shares])


def describe_texts(counts, max_seq_length):
    """A split's `features.TextCounts` as one line."""
    return (
        "%d word pieces, %.2f %% of them [UNK]; the longest row has %d; %d rows (%.1f "
        "%%) are cut at --max_seq_length=%d"
    ) % (
        counts.pieces, 100 * counts.unknown_share, counts.longest, counts.cut,
        100 * counts.cut_share, max_seq_length,
    )  # fmt: skip


def are_doubtful(counts):
    """Whether too much of a split's texts is lost; see `DOUBTFUL_SHARE`."""
    return max(counts.unknown_share, counts.cut_share) > DOUBTFUL_SHARE
