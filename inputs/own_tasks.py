"""Tasks of one's own: a JSON file says what `glue_data.GLUE_TASKS` says of GLUE's.

    {"name": "reviews", "train": "train.csv", "dev": "dev.csv", "text_a": "review",
     "label": "verdict", "metrics": ["macro_f1", "accuracy"]}

`ENTRIES` lists all that it may hold. Files are found beside it, or in `--data_dir`.
"""

import collections
import os
from typing import Any, NamedTuple

from errors import UserError
from inputs import metrics, tasks, text_rows
from system import files

MOST_CONFIG_BYTES = 1 << 20
SUBMISSION_FILE = "test_predictions.tsv"

_REMEDY = "--task_config wants a JSON file that describes a task; see docs/tasks.md"
_COLUMN = "a column's name, or its number from 0"
_MOST_SHARE = 0.5


class _Entry(NamedTuple):
    """One entry of the file."""

    kinds: tuple[type, ...]
    about: str
    default: Any = None


ENTRIES = {
    "name": _Entry((str,), "the task's name"),
    "train": _Entry((str,), "file of the training rows: .tsv, .csv or .jsonl"),
    "dev": _Entry((str,), "file of the rows that are scored"),
    "test": _Entry((str,), "file of the rows that are predicted"),
    "text_a": _Entry((str, int), "the text: " + _COLUMN),
    "text_b": _Entry((str, int), "the second text of a pair: " + _COLUMN),
    "label": _Entry((str, int), "the label: " + _COLUMN),
    "labels": _Entry((list,), "all labels; not given: those of the training rows"),
    "regression": _Entry((bool,), "whether the label is a number", False),
    "metrics": _Entry((list,), "scores, the headline first"),
    "max_seq_length": _Entry((int,), "longest input in word pieces"),
    "header": _Entry((bool,), "whether the first line has the columns' names", True),
    "dev_share": _Entry((float, int), "share of the training rows that become dev"),
    "seed": _Entry((int,), "of the drawing of these rows", 1),
    "test_labels": _Entry((bool,), "whether the test file has the label too", False),
}


def load_task(path, reserved=(), data_dir=None):
    """Reads a task's file, and its labels where they are those of the training rows.

    Args:
      path: the file, local or `gs://`.
      reserved: names that the task cannot have.
      data_dir: folder of its files; None: that of `path`.

    Returns:
      A `tasks.Task` and the folder of its files.

    Raises:
      UserError: the file cannot be read or describes no task, with the entry to change.
    """
    document = files.read_json(path, _REMEDY, MOST_CONFIG_BYTES)
    task = parse_task(document, path)
    if task.name in reserved:
        raise _wrong(path, "name", task.name, "a name that is none of GLUE's tasks")
    # A package holds the names as texts of one line.
    for entry in ("text_a", "text_b", "label"):
        name = document.get(entry)
        if isinstance(name, str) and not name.isprintable():
            raise _wrong(path, entry, name, "a printable name: rename the column")
    folder = data_dir or os.path.dirname(path) or "."
    if not task.labels and not task.is_regression:
        task = task._replace(labels=_labels_of(task, folder))
        task = task._replace(metrics=_metrics(document, task, path))
    return task, folder


def load_tasks(paths, reserved=()):
    """The tasks of several files, a dict from their names; see `load_task`.

    Args:
      paths: list of files, or None.
      reserved: names that no task can have.
    """
    found = [load_task(path, reserved)[0] for path in paths or ()]
    return {task.name: task for task in found}


def parse_task(document, source):
    """The task that a JSON object describes.

    Args:
      document: dict, with entries of `ENTRIES`.
      source: where it stands, for messages.

    Returns:
      A `tasks.Task`; its labels are () where the file does not list them.

    Raises:
      UserError: see `load_task`.
    """
    values = _checked(document, source)
    labels = _checked_labels(values, source)
    test = _split(values, "test", source)
    if test is not None and not values["test_labels"]:
        test = test._replace(label=None)
    train, dev = _split(values, "train", source), _split(values, "dev", source)
    if values["dev_share"] is not None:
        train, dev = _parts(values, train, dev, source)
    if not (train or dev or test):
        raise UserError('%s names no file: give "train", "dev" or "test"' % source)
    task = tasks.Task(
        name=values["name"],
        title=values["name"],
        labels=labels,
        metrics=(),
        train=train,
        dev=(dev,) if dev else (),
        test=(test,) if test else (),
        is_regression=values["regression"],
        config_file=source,
        max_seq_length=values["max_seq_length"],
    )
    return task._replace(metrics=_metrics(document, task, source))


def task_entries(task):
    """The entries of a task, its labels among them: `parse_task` reads them again."""
    named = {split.name: split for split in task.splits}
    first = task.splits[0]
    holdout = first.holdout
    record = {
        "name": task.name,
        **{name: split.filename for name, split in named.items() if not split.holdout},
        "text_a": first.text_a,
        "text_b": first.text_b,
        "label": next((s.label for s in task.splits if s.has_labels), None),
        "labels": list(task.labels) or None,
        "regression": task.is_regression,
        "metrics": list(task.metrics),
        "max_seq_length": task.max_seq_length,
        "header": first.has_header,
        "test_labels": "test" in named and named["test"].has_labels,
    }
    if holdout is not None:
        record.update(
            train=first.filename, dev_share=holdout.fraction, seed=holdout.seed
        )
    return {name: value for name, value in record.items() if value is not None}


# --- entries --------------------------------------------------------------------


def _wrong(source, entry, value, allowed):
    text = '%s: "%s" is %.80r; it must be %s'
    return UserError(text % (source, entry, value, allowed))


def _checked(document, source):
    """All entries, each of its kind or its default."""
    unknown = [name for name in document if name not in ENTRIES]
    if unknown:
        raise UserError(
            '%s has the entry "%.80s", which is not known; there are %s'
            % (source, unknown[0], ", ".join(ENTRIES))
        )
    values = {}
    for name, entry in ENTRIES.items():
        value = document.get(name)
        if value is None:
            value = entry.default
        elif type(value) not in entry.kinds:
            raise _wrong(source, name, value, entry.about)
        values[name] = value
    for name in ("name", "text_a"):
        if values[name] in (None, ""):
            raise UserError('%s lacks "%s", %s' % (source, name, ENTRIES[name].about))
    name = values["name"]
    if not name.isprintable() or name != name.strip() or set(name) & set("=,/\\"):
        raise _wrong(source, "name", name, "printable, without any of =,/\\")
    for column in ("text_a", "text_b", "label"):
        value = values[column]
        if isinstance(value, int) and value < 0:
            raise _wrong(source, column, value, _COLUMN)
        if isinstance(value, str) and not values["header"]:
            allowed = 'a number, since "header" is false'
            raise _wrong(source, column, value, allowed)
    length = values["max_seq_length"]
    if length is not None and length < 3:
        raise _wrong(source, "max_seq_length", length, "at least 3")
    if not 0 <= values["seed"] < 2**31:
        raise _wrong(source, "seed", values["seed"], "from 0 to %d" % (2**31 - 1))
    return values


def _checked_labels(values, source):
    labels = values["labels"]
    if labels is None:
        return ()
    if values["regression"]:
        raise _wrong(source, "labels", labels, 'left out, since "regression" is true')
    for label in labels:
        if not isinstance(label, str) or not label or not label.isprintable():
            raise _wrong(source, "labels", labels, "printable texts")
    if len(set(labels)) != len(labels) or not 2 <= len(labels) <= tasks.MOST_LABELS:
        allowed = "2 to %d different texts" % tasks.MOST_LABELS
        raise _wrong(source, "labels", labels, allowed)
    return tuple(labels)


def _metrics(document, task, source):
    """The metrics of a task, its own or those that fit it."""
    if task.is_regression:
        allowed, usual = metrics.OF_NUMBERS, ("spearman", "pearson")
    else:
        allowed, usual = metrics.OF_CLASSES, ("accuracy", "macro_f1")
    names = document.get("metrics") or usual
    for name in names:
        if not isinstance(name, str) or name not in allowed:
            raise _wrong(source, "metrics", names, "of %s" % ", ".join(allowed))
    if "f1" in names and len(task.labels) not in (0, 2):
        allowed = "without f1, that of the second of two labels; there is macro_f1"
        raise _wrong(source, "metrics", names, allowed)
    return tuple(dict.fromkeys(names))


def _split(values, name, source):
    """The `tasks.Split` of one file; None if there is none."""
    filename = values[name]
    if filename is None:
        return None
    if values["label"] is None and (name != "test" or values["test_labels"]):
        raise UserError('%s lacks "label", %s' % (source, ENTRIES["label"].about))
    kind = text_rows.KINDS.get(os.path.splitext(filename)[1].lower())
    if kind is None:
        raise _wrong(source, name, filename, "a file .tsv, .csv or .jsonl")
    columns = (values["text_a"], values["text_b"], values["label"])
    if kind == text_rows.JSONL and any(isinstance(each, int) for each in columns):
        raise UserError(
            "%s: columns of %s, a .jsonl file, have names and no numbers: name them"
            % (source, filename)
        )
    return tasks.Split(
        name,
        filename,
        0,
        *columns,
        guid_set=name,
        kind=kind,
        has_header=values["header"],
        submission_file=SUBMISSION_FILE if name == "test" else "",
    )


def _parts(values, train, dev, source):
    """Training and dev set from one file."""
    share = values["dev_share"]
    if not 0 < share <= _MOST_SHARE:
        raise _wrong(source, "dev_share", share, "above 0, at most %g" % _MOST_SHARE)
    if dev is not None or train is None:
        remedy = 'left out, since there is "dev"' if dev else 'beside "train"'
        raise _wrong(source, "dev_share", share, remedy)
    holdout = tasks.Holdout(share, values["seed"], is_held_out=False)
    held_out = holdout._replace(is_held_out=True)
    return (
        train._replace(holdout=holdout),
        train._replace(name="dev", guid_set="dev", holdout=held_out),
    )


def _labels_of(task, folder):
    """The labels of the training rows, sorted; as numbers, where all are."""
    if task.train is None:
        raise UserError(
            '%s names no "train" to find the labels in: give "labels"'
            % task.config_file
        )
    path = os.path.join(folder, task.train.filename)
    counts: dict[str, int] = collections.Counter()
    first_lines: dict[str, int] = {}
    for example in tasks.iterate_examples(task, folder, task.train):
        label = example.label
        if not label.strip() or not label.isprintable():
            raise UserError(
                "%s, line %d: the label is %.80r; it must be a printable text"
                % (path, example.line, label)
            )
        counts[label] += 1
        first_lines.setdefault(label, example.line)
    for group in tasks.similar_labels(counts):
        shown = [
            "%.80r (%d, first on line %d)" % (label, counts[label], first_lines[label])
            for label in group
        ]
        raise UserError(
            "%s: labels that differ in case, white space, Unicode form or number "
            "format alone: %s. Write them alike; if they are different classes, list "
            'all labels in %s, "labels"' % (path, ", ".join(shown), task.config_file)
        )
    if not 2 <= len(counts) <= tasks.MOST_LABELS:
        raise UserError(
            '%s: column %r, the "label", has %d different values in %s; a task has 2 '
            'to %d labels ("regression": true is for numbers)'
            % (
                task.config_file,
                task.train.label,
                len(counts),
                task.train.filename,
                tasks.MOST_LABELS,
            )
        )
    if all(map(tasks.is_number, counts)):
        return tuple(sorted(counts, key=lambda label: (float(label), label)))
    return tuple(sorted(counts))
