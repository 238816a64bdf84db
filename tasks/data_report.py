"""Reports on a task's examples before training, and warns of suspicious ones.

Nothing that is warned of is an error: published benchmarks show some of it. But each is
a usual cause of degenerate models and of meaningless scores.
"""

import collections
import difflib
import itertools

import tokenization
from inputs import features, text_rows
from system import console
from system.wording import list_names, pluralize
from tasks import label_texts

# Warn above this fraction of [UNK] pieces, or of truncated examples.
MOST_LOST = 0.05

_MOST_NUMBERS = 0.5  # fraction of the texts
_LINES_SHOWN = 5

# A label that is similar to another one, which occurs so many times as often, may be a
# misspelling of it. The similarity is that of `difflib`.
_SIMILARITY, _TIMES_AS_OFTEN = 0.85, 20


def check_task(task, examples, vocab_file, do_lower_case, max_seq_length):
    """Reports on all examples of a task, without a model.

    See `log_report` for other arguments. Without `vocab_file`, None, lengths are
    counted in words.
    """
    console.say("Task %s: %s", task.title, describe_task(task))
    counts = None
    if vocab_file:
        tokenizer = tokenization.FullTokenizer(vocab_file, do_lower_case)
        counts = {
            name: _count_texts(task, found, tokenizer, max_seq_length)
            for name, found in examples.items()
        }
    log_report(task, examples, counts, max_seq_length)
    if counts is None:
        for name, found in examples.items():
            words = [("%s %s" % (e.text_a, e.text_b or "")).split() for e in found]
            longest = pluralize(max(map(len, words), default=0), "word")
            console.say("%s: the longest example has %s", name, longest)
        console.say("Give `vocab_file` to count word pieces and truncated examples")
    if not task.dev:
        console.say("No dev set: nothing will be scored")
    if not task.test:
        console.say("No test set: nothing will be predicted by `do_predict`")


def _count_texts(task, examples, tokenizer, max_seq_length):
    counts = features.TextCounts()
    for example in examples:
        counts.features += len(
            task.type.featurize(
                features.NOT_LOGGED, example, max_seq_length, tokenizer, counts
            )
        )
    return counts


def describe_task(task):
    """The columns, labels and metrics of a task as one line."""
    columns = [repr(column) for column in task.text_columns if column is not None]
    parts = ["text%s %s" % ("s" if columns[1:] else "", " and ".join(columns))]
    label = next((split.label for split in task.splits if split.has_labels), None)
    if label is not None:
        parts.append("label %r" % (label,))
    return "; ".join(
        [*parts, task.type.describe(), "scored by " + ", ".join(task.metrics)]
    )


def log_report(task, examples, text_counts, max_seq_length):
    """Logs a line per split, and warnings.

    `examples` are the `InputExample`s of some splits of the `task_data.Task`, or others
    with the same fields, by the splits' names; `text_counts` has the splits'
    `features.TextCounts`, or is None.
    """
    for split in (split for split in task.splits if split.name in examples):
        found = examples[split.name]
        parts = ["Data, %s: %s" % (split.name, pluralize(len(found), "example"))]
        for label, count in _count_labels(task, split, found).items():
            percentage = 100 * count / len(found)
            parts.append('%d of "%s" (%.1f %%)' % (count, label, percentage))
        console.say("%s", ", ".join(parts))
        if text_counts is not None:
            _log_texts(task, text_counts[split.name], max_seq_length)
    for warning in find_problems(task, examples):
        console.warn("%s", warning)


def _log_texts(task, counts, max_seq_length):
    lost = max(counts.unknown_fraction, counts.truncated_fraction)
    log = console.warn if lost > MOST_LOST else console.say
    log(
        "  %d word pieces, %.2f %% of them [UNK]; the longest example has %d; %s",
        counts.pieces,
        100 * counts.unknown_fraction,
        counts.longest,
        task.type.describe_truncation(counts, max_seq_length),
    )


def _count_labels(task, split, examples):
    """Examples per label of the type; {} without labels."""
    if not split.has_labels:
        return {}
    counts = collections.Counter(example.label for example in examples)
    return {label: counts[label] for label in task.type.labels}


def count_examples(task, splits, examples):
    """Examples of those splits that were read: dict from split to a list of ints.

    By label; or of all, where there is no list of labels. See `log_report`.
    """
    return {
        split.name: [*_count_labels(task, split, found).values()] or [len(found)]
        for split in splits
        if (found := examples.get(split.name))
    }


def find_problems(task, examples):
    """Yields what may be a mistake, as texts; arguments as of `log_report`."""
    for group in label_texts.similar_labels(task.type.labels):
        text = "labels: %s differ in case, white space, Unicode or number format alone"
        yield text % list_names(group)
    padded = [label for label in task.type.labels if label != label.strip()]
    if padded:
        yield "labels: %s with white space at an end" % list_names(padded)
    for split in task.splits:
        found = examples.get(split.name, ())
        problems = [*_find_text_problems(found)]
        counts = _count_labels(task, split, found)
        if found and counts:
            problems += _find_label_problems(found, counts, split == task.train)
        yield from ("%s: %s" % (split.name, problem) for problem in problems)
    yield from _find_overlap(task, examples)


def _list_lines(examples):
    """The lines of the first examples; their guids where they have no lines."""
    shown = examples[:_LINES_SHOWN]
    names = ", ".join(str(each.line or each.guid) for each in shown)
    more = ", ..." if len(examples) > _LINES_SHOWN else ""
    what = "line" if examples[0].line else "id"
    return "(%s%s %s%s)" % (what, "s" if len(examples) > 1 else "", names, more)


def _find_text_problems(examples):
    empty = [
        example
        for example in examples
        if any(
            text is not None and text_rows.is_blank(text)
            for text in (example.text_a, example.text_b)
        )
    ]
    if empty:
        count = pluralize(len(empty), "example")
        yield "%s with an empty text %s" % (count, _list_lines(empty))
    for field in ("text_a", "text_b"):
        texts = [getattr(example, field) or "" for example in examples]
        count = sum(map(label_texts.is_number, texts))
        if count > _MOST_NUMBERS * len(examples):
            text = "%d of %d examples have a number for %s; is that the text's column?"
            yield text % (count, len(examples), field)


def _find_label_problems(examples, counts, is_trained):
    missing = [label for label, count in counts.items() if not count]
    single = [example for example in examples if counts[example.label] == 1]
    if len(missing) == len(counts) - 1:
        yield "all examples have the label %r" % examples[0].label
    elif missing:
        count = pluralize(len(missing), "label")
        yield "%s without an example: %s" % (count, list_names(missing))
    if single and is_trained:
        count = pluralize(len(single), "label")
        labels = list_names([example.label for example in single])
        yield "%s with one example: %s %s" % (count, labels, _list_lines(single))
    for label in filter(counts.get, counts) if is_trained else ():
        often = counts[label] * _TIMES_AS_OFTEN
        known = [each for each in counts if counts[each] >= often]
        similar = difflib.get_close_matches(label, known, 1, _SIMILARITY)
        if similar:
            lines = _list_lines([each for each in examples if each.label == label])
            yield "is the label %r %s a misspelling of %r?" % (label, lines, *similar)
    labels_of = collections.defaultdict(set)
    for example in examples:
        labels_of[example.text_a, example.text_b].add(example.label)
    ambiguous = [e for e in examples if len(labels_of[e.text_a, e.text_b]) > 1]
    if ambiguous:
        text = "%d examples whose texts occur with another label too %s"
        yield text % (len(ambiguous), _list_lines(ambiguous))


def _find_overlap(task, examples):
    """Finds dev and test examples in train, and test examples in dev."""
    train = [task.train] if task.train else []
    for first, second in (
        *itertools.product(train, (*task.dev, *task.test)),
        *itertools.product(task.dev, task.test),
    ):
        if first == second:
            continue
        seen = {(e.text_a, e.text_b) for e in examples.get(first.name, ())}
        found = examples.get(second.name, ())
        same = [e for e in found if (e.text_a, e.text_b) in seen]
        if same:
            text = "%s: %s with the texts of %s examples %s"
            count = pluralize(len(same), "example")
            yield text % (second.name, count, first.name, _list_lines(same))
