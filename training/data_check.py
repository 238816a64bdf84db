"""`--check`: reads a task's files and reports on them, without a model."""

from inputs import data_report, features, tasks
from system import console, wording


def check_task(task, data_dir, tokenizer, max_seq_length):
    """Reads all files of a task and logs what is in them.

    Args:
      task: a `tasks.Task`.
      data_dir: the folder of its files.
      tokenizer: a `tokenization.FullTokenizer`; None: lengths are counted in words.
      max_seq_length: length of the sequences.

    Raises:
      UserError: the first row that cannot be read.
    """
    examples = {
        split.name: tasks.read_examples(task, data_dir, split) for split in task.splits
    }
    console.say("Task %s: %s", task.title, describe(task))
    counts = None
    if tokenizer is not None:
        counts = {
            name: features.count_texts(found, tokenizer, max_seq_length)
            for name, found in examples.items()
        }
    report = data_report.examine(task, examples)
    data_report.log_report(report, counts, max_seq_length)
    if tokenizer is None:
        for name, found in examples.items():
            longest = max(len(_words(example)) for example in found)
            words = wording.pluralize(longest, "word")
            console.say("%s: the longest example has %s", name, words)
        console.say("Give --vocab_file to count word pieces and truncated examples")
    if not task.dev:
        console.say("No dev set: nothing will be scored")
    if not task.test:
        console.say("No test set: nothing will be predicted by --do_predict")


def _words(example):
    return (example.text_a + " " + (example.text_b or "")).split()


def describe(task):
    """A task on one line: its columns, labels and metrics."""
    first = task.splits[0]
    columns = [repr(c) for c in (first.text_a, first.text_b) if c is not None]
    label = next((split.label for split in task.splits if split.has_labels), None)
    parts = ["text%s %s" % ("s" if columns[1:] else "", " and ".join(columns))]
    if label is not None:
        parts.append("label %r" % (label,))
    if task.is_regression:
        parts.append("a number")
    elif task.labels:
        parts.append("%d labels (%s)" % (len(task.labels), tasks.format_labels(task)))
    return "; ".join([*parts, "scored by " + ", ".join(task.metrics)])


def print_tasks(rows):
    """Prints tasks, one a line."""
    for task in rows:
        print("%-6s %s" % (task.name, describe(task)))
