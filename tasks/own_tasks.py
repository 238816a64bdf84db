"""Tasks of users, from JSON files.

    {"name": "reviews", "train": "train.csv", "dev": "dev.csv", "text_a": "review",
     "label": "verdict", "metrics": ["macro_f1", "accuracy"]}

`SCHEMA` has all entries; docs/tasks.md explains them.
"""

import collections
import os
import unicodedata

from errors import UserError, explain_value_errors
from inputs import text_rows
from system import files, schema
from tasks import label_texts, task_data, task_type
from tasks.bad_rows import BadRows

MOST_CONFIG_BYTES = 1 << 20
MOST_LABELS = 1000  # A column with more different values holds numbers, or texts.
SUBMISSION_FILE = "test_predictions.tsv"

_REMEDY = "`task_config` wants a JSON file that describes a task; see docs/tasks.md"


def _is_name(value):
    is_printable = schema.PRINTABLE.accepts(value) and value == value.strip()
    return is_printable and not set(value) & set("=,/\\")


_COLUMN = schema.Value(
    lambda value: schema.integer().accepts(value) or schema.LINE.accepts(value),
    "a column's name on one line, or its number from 0",
)


_FILE = schema.Value(
    lambda value: isinstance(value, str) and text_rows.find_kind(value) is not None,
    "a file .tsv, .csv or .jsonl",
)

SCHEMA = schema.Object(
    {
        "name": schema.Value(_is_name, "printable, without any of =,/\\"),
        "text_a": _COLUMN,
    },
    optional={
        "train": _FILE,
        "dev": _FILE,
        "test": _FILE,
        "text_b": _COLUMN,
        "label": _COLUMN,
        "labels": schema.List(schema.PRINTABLE, 2, MOST_LABELS, unique=True),
        # Factors of the losses in training, in the order of "labels".
        "class_weights": schema.List(schema.number(above=0, maximum=1e9)),
        "type": schema.LINE,  # a name in `task_type.TYPES`
        "regression": schema.BOOLEAN,  # true: the same as the type "regression"
        "metrics": schema.List(schema.LINE),
        "max_seq_length": schema.integer(3),
        "header": schema.BOOLEAN,
        "delimiter": text_rows.DELIMITER,
        "encoding": text_rows.ENCODING,
        "dev_share": schema.number(above=0, maximum=0.5),
        "seed": schema.integer(0, 2**31 - 1),
        "test_labels": schema.BOOLEAN,
    },
)
_DEFAULTS = {
    **text_rows.STANDARD._asdict(),
    **{"header": True, "seed": 1, "test_labels": False},
}


def load_task(path, reserved=(), data_dir=None, bad_rows=None):
    """Reads a task file, and the labels from its training set if they are not listed.

    `reserved` are names that the task cannot have; `data_dir` is the folder of its
    files, None: that of `path`; see `task_data.read_examples` for `bad_rows`. Returns a
    `task_data.Task` and the folder.

    Raises:
      UserError: the file cannot be read or describes no task, with the entry to change.
    """
    task = parse_task(files.read_json(path, _REMEDY, MOST_CONFIG_BYTES), path)
    if task_data.plain_name(task.name) in map(task_data.plain_name, reserved):
        raise _wrong(path, "name", task.name, "a name that is none of GLUE's tasks")
    folder = data_dir or os.path.dirname(path) or "."
    if task.type.needs_labels:
        labels = {"labels": _find_labels(task, folder, bad_rows)}
        task = task._replace(type=task.type.from_entries(labels))
        _check_metrics(task)
    return task, folder


def load_tasks(paths, reserved=()):
    """The tasks of several files (or None), by their names; see `load_task`.

    Bad rows of their training sets are left out: packages are used, not trained.
    """
    found = BadRows()
    tasks: dict[str, task_data.Task] = {}
    for path in paths or ():
        task, _ = load_task(path, reserved, None, found)
        if task.name in tasks:
            raise _wrong(path, "name", task.name, "one that no other task file has")
        tasks[task.name] = task
    return tasks


def parse_task(document, source):
    """The `task_data.Task` that a JSON object describes; labels not listed are ().

    `source` is the path of its file, for messages. Raises as `load_task`.
    """
    with explain_value_errors(source):
        SCHEMA.check(document)
    given = {name: value for name, value in document.items() if value is not None}
    values = {**dict.fromkeys(SCHEMA.optional), **_DEFAULTS, **given}
    if not (values["train"] or values["dev"] or values["test"]):
        raise UserError('%s names no file: give "train", "dev" or "test"' % source)
    needs_label = values["train"] or values["dev"] or values["test_labels"]
    if values["label"] is None and needs_label:
        raise UserError(
            '%s: "label" is missing: name the column of the labels' % source
        )
    for entry, allowed in _find_contradictions(values):
        raise _wrong(source, entry, values[entry], allowed)
    splits = {
        name: _make_split(values, name)
        for name in ("train", "dev", "test")
        if values[name] is not None
    }
    if values["dev_share"] is not None:
        train = splits["train"]
        holdout = task_data.Holdout(
            values["dev_share"], values["seed"], is_held_out=False
        )
        splits["train"] = train._replace(holdout=holdout)
        dev_holdout = holdout._replace(is_held_out=True)
        splits["dev"] = train._replace(name="dev", holdout=dev_holdout)
    kind = _read_type(values, source)
    task = task_data.Task(
        name=values["name"],
        title=values["name"],
        type=kind,
        metrics=tuple(dict.fromkeys(values["metrics"] or kind.default_metrics)),
        train=splits.get("train"),
        dev=(splits["dev"],) if "dev" in splits else (),
        test=(splits["test"],) if "test" in splits else (),
        config_file=source,
        max_seq_length=values["max_seq_length"],
    )
    _check_metrics(task)
    return task


def task_entries(task):
    """The entries of a task, its labels among them: `parse_task` reads them again."""
    first = task.splits[0]
    entries = {
        "name": task.name,
        **{s.name: s.filename for s in task.splits if not s.is_held_out},
        "text_a": first.text_a,
        "text_b": first.text_b,
        "label": next((s.label for s in task.splits if s.has_labels), None),
        **task.type.task_file_entries(),
        "metrics": list(task.metrics),
        "max_seq_length": task.max_seq_length,
        "header": first.has_header,
        "test_labels": any(split.has_labels for split in task.test),
    }
    for name, value in first.dialect._asdict().items():
        if value != _DEFAULTS[name]:
            entries[name] = value
    if first.holdout is not None:
        entries.update(dev_share=first.holdout.fraction, seed=first.holdout.seed)
    return {name: value for name, value in entries.items() if value is not None}


def _read_type(values, source):
    name = "regression" if values["regression"] else values["type"] or "classification"
    with explain_value_errors(source):
        kind = task_type.find_type(name)
        if not kind.has_task_files:
            names = [n for n, each in task_type.TYPES.items() if each.has_task_files]
            allowed = "a type that reads one example per row: %s"
            allowed %= " or ".join(sorted(names))
            raise schema.SchemaError("type", name, allowed)
        kind, weights = kind.from_entries(values), values["class_weights"]
        return kind.weigh_classes(weights) if weights else kind


def _wrong(source, entry, value, allowed):
    return UserError("%s: %s" % (source, schema.SchemaError(entry, value, allowed)))


def _find_contradictions(values):
    """Yields the entries that others contradict, each with what is allowed."""
    filenames = [values[name] for name in ("train", "dev", "test") if values[name]]
    jsonl = [name for name in filenames if text_rows.find_kind(name) == text_rows.JSONL]
    for entry in ("text_a", "text_b", "label"):
        if isinstance(values[entry], str) and not values["header"]:
            yield entry, 'a number, since "header" is false'
        if isinstance(values[entry], int) and jsonl:
            yield entry, "a name, since columns of %s have no numbers" % jsonl[0]
    for entry in ("text_a", "text_b"):
        if values[entry] is not None and values[entry] == values["label"]:
            yield entry, 'another column than "label"'
    if values["delimiter"] != _DEFAULTS["delimiter"] and not any(
        text_rows.find_kind(name) == text_rows.CSV for name in filenames
    ):
        yield "delimiter", "left out, since no file is .csv"
    if values["type"] and values["regression"]:
        yield "type", 'left out, since "regression" is true'
    if values["dev_share"] is not None and (values["dev"] or not values["train"]):
        yield "dev_share", 'given with "train" and without "dev"'


def _check_metrics(task):
    if problem := task.type.find_metrics_problem(task.metrics):
        given = schema.json_text(task.metrics)
        raise UserError("%s: metrics is %s: %s" % (task.config_file, given, problem))


def _make_split(values, name):
    has_label = name != "test" or values["test_labels"]
    label = values["label"] if has_label else None
    return task_data.Split(
        *(name, values[name], 0, values["text_a"], values["text_b"], label),
        has_header=values["header"],
        dialect=text_rows.Dialect(values["delimiter"], values["encoding"]),
        submission_file=SUBMISSION_FILE if name == "test" else "",
    )


def _find_labels(task, folder, bad_rows):
    """The labels of the training set, sorted; as numbers if all are numbers."""
    if task.train is None:
        raise UserError(
            '%s names no "train" to find the labels in: give "labels"'
            % task.config_file
        )
    path = os.path.join(folder, task.train.filename)
    lines: dict[str, list[int]] = collections.defaultdict(list)
    for example in task_data.iterate_examples(task, folder, task.train, bad_rows):
        lines[example.label].append(example.line)
    for group in label_texts.similar_labels(lines):
        if bad_rows is not None:
            usual = max(group, key=lambda label: len(lines[label]))
            for label in group:
                problem = "label: %.80r is a rarer form of %.80r" % (label, usual)
                for line in lines.pop(label) if label != usual else ():
                    bad_rows.add(path, "label", line, problem)
            continue
        look_alike = len({unicodedata.normalize("NFC", label) for label in group}) == 1
        quote = ascii if look_alike else repr
        text = "%.80s (%d, first on line %d)"
        counts = ", ".join(
            text % (quote(label), len(lines[label]), lines[label][0]) for label in group
        )
        raise UserError(
            "%s: labels that differ in case, white space, Unicode or number format "
            "alone: %s. Write them alike; if they are different classes, list all "
            'labels in %s, "labels"' % (path, counts, task.config_file)
        )
    if not 2 <= len(lines) <= MOST_LABELS:
        raise UserError(
            '%s: the column %r, the "label" of %s, has %d different values; allowed '
            'are 2 to %d ("regression": true is for numbers)'
            % (path, task.train.label, task.config_file, len(lines), MOST_LABELS)
        )
    if all(map(label_texts.is_number, lines)):
        return tuple(sorted(lines, key=lambda label: (float(label), label)))
    return tuple(sorted(lines))
