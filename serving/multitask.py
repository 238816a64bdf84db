"""Many tasks on one base model in one graph: each example of a batch names its task.

The trained weights of all tasks are concatenated into tables, and each example gathers
the weights of its task: there is no loop over tasks and no branch. The model is the one
of training, whose variables are replaced by weights by example. Tables have no padding.
Bottlenecks have one row per unit and the head one per output, task after task; all
other variables have one row per task. Tasks whose types have different heads have
tables and a graph for each head; the graphs share the frozen variables.

Adding a task whose package has the same variables as the others leaves their scores
bit-identical: the shapes of all computations depend only on the tasks in the batch.

Axis letters: B batch, S sequence, H hidden size, T tasks; for the tasks of the batch, A
is the size of the largest adapter, L the largest number of outputs.
"""

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from tasks import task_type
from tuning import method as tuning_method
from tuning import registry
from weights import adapter_package, diagnosis


def _find_units(name, head):
    """The axis of a variable whose size differs between tasks, and the sizes' table.

    `head` has the `TaskType.output_variables`. Returns None, None if the variable has
    the same shape in all packages.
    """
    if name in head:
        return 0, "num_outputs"
    cls, axis = registry.find_units(name)
    return axis, cls and cls.name + "_units"


class PackageStack(NamedTuple):
    """The trained weights of several tasks that share a base model and a head."""

    tasks: list[str]  # names; the index is the task's id
    types: tuple[task_type.TaskType, ...]  # of each task
    methods: tuple[tuning_method.Method, ...]  # of each task
    weights: dict[str, np.ndarray]  # float32 [rows, ...], by the variable's name
    # int32 [T], by name: numbers of rows, and settings of the tuning methods
    integers: dict[str, np.ndarray]

    @property
    def signature(self):
        """The signature of all its types."""
        return self.types[0].signature

    def tables(self):
        """The inputs of `build_graph`: dict from name to array."""
        return {**self.weights, **self.integers}

    def graph_key(self):
        """Hashable key of the graph: it depends on this and the tables' values."""
        settings = tuple(sorted(self.used_settings().items()))
        return self.signature, tuple(sorted(self.weights)), settings

    def used_settings(self):
        """Dict from a setting that differs between tasks to a tuple of its values."""
        names = {name for each in self.methods for name in each.served_settings()}
        names.add("task_type")
        return {name: tuple(sorted({*self.integers[name].tolist()})) for name in names}


class Outputs(NamedTuple):
    """The graph's outputs for a batch."""

    scores: tf.Tensor  # float32 [B, L] or other, see `TaskType.compute_scores`
    is_own: tf.Tensor  # bool [B, L], whether an output is one of the example's task
    rows: tf.Tensor  # int32 [B, L], its row in the head's tables


def read_package(value, known_tasks=None):
    """Reads an `adapter_package.AdapterPackage` and shows its warnings.

    Args:
      value: FOLDER, or NAME=FOLDER to give the task another name.
      known_tasks: dict from a task's own name to a `task_data.Task` with its columns
        and metrics; or None.

    A `UserError` is raised if the package is damaged, its name is empty, or it holds
    matrices of the encoder.
    """
    name, equals, folder = value.partition("=")
    if not equals or tf.io.gfile.isdir(value):
        name, folder = None, value
    elif not name:
        raise UserError("%s: a name is needed before the =" % value)
    package = adapter_package.read(folder)
    if package.task in (known_tasks or {}):
        package = adapter_package.update_task(package, known_tasks[package.task])
    matrices = [name for name in package.encoder_weights if name.endswith("/kernel")]
    if matrices:
        raise UserError(
            "the package %s holds matrices of the encoder itself, such as %s, which "
            "a batch of several tasks cannot have: merge it into the base model "
            "(python manage_adapters.py merge %s), and give the merged checkpoint alone"
            % (folder, matrices[0], folder)
        )
    diagnosis.show_warnings(
        ["%s: %s" % (folder, warning) for warning in package.diagnostics.warnings],
        package.config["settings"],
    )
    if name is None:
        return package
    task = dict(package.config["task"], name=name)
    return package._replace(config=dict(package.config, task=task))


def stack_packages(packages, checkpoint):
    """Stacks packages, given the `Checkpoint` of their base model.

    Returns a dict from `TaskType.signature` to the `PackageStack` of its tasks. It has
    a table for each variable that any of the packages holds. For a package without it,
    the table has the values of the base model, or zeros, which do not change hidden
    states, where the base model lacks the variable.

    A `UserError` is raised if a package is of another base model; see also
    `check_compatible`.
    """
    check_compatible(packages)
    groups = {}
    for package in packages:
        base = checkpoint.base_fingerprint(package.variables.frozen())
        given = {"base": base, "base_model": checkpoint.folder_name}
        adapter_package.check_fit(package, given)
        groups.setdefault(package.task_type.signature, []).append(package)
    return {name: _stack_group(group, checkpoint) for name, group in groups.items()}


def _stack_group(packages, checkpoint):
    """The `PackageStack` of packages whose types have the same signature."""
    methods = tuple(package.method for package in packages)
    types = tuple(package.task_type for package in packages)
    config = packages[0].bert_config
    head = types[0].output_variables
    assert len({type(each).compute_logits for each in types}) == 1
    weights = [package.method.served_weights(package.weights) for package in packages]
    shapes = {name: value.shape for each in weights for name, value in each.items()}
    encoder = modeling.encoder_variables(config, lambda index: ())
    in_base = dict(checkpoint.iterate_values(shapes.keys() & encoder))
    counts = _count_units(packages, head)

    def table_rows(name, task_id):
        value = weights[task_id].get(name, in_base.get(name))
        axis, count = _find_units(name, head)
        if value is None:
            shape = list(shapes[name])
            if count:
                shape[axis] = counts[count][task_id]
            value = np.zeros(shape, np.float32)
        return np.moveaxis(value, axis, 0) if count else value[np.newaxis]

    known = list(task_type.TYPES)  # The index of a type is its id.
    type_ids = np.array([known.index(each.name) for each in types], np.int32)
    return PackageStack(
        tasks=[package.task for package in packages],
        types=types,
        methods=methods,
        weights={
            name: np.concatenate([table_rows(name, i) for i in range(len(packages))])
            for name in sorted(shapes)
        },
        integers={**counts, **_served_settings(methods), "task_type": type_ids},
    )


def _count_units(packages, head):
    """The tables of sizes: dict from name to int32 [T]."""
    counts = {}
    for i, package in enumerate(packages):
        for name, value in package.weights.items():
            axis, count = _find_units(name, head)
            if count:
                sizes = counts.setdefault(count, [1] * len(packages))
                sizes[i] = value.shape[axis]
    return {name: np.array(sizes, np.int32) for name, sizes in counts.items()}


def _served_settings(methods):
    """The tables of settings in which tasks may differ: dict from name to int32 [T]."""
    given = [method.served_settings() for method in methods]
    # A method without the setting takes any value.
    defaults = {name: value for each in given for name, value in each.items()}
    return {
        name: np.array([each.get(name, default) for each in given], np.int32)
        for name, default in defaults.items()
    }


def check_compatible(packages):
    """Refuses packages of the same task name, or that differ in lower-casing.

    A `UserError` is raised if two cannot be loaded together, or none is given.
    """
    if not packages:
        raise UserError("no adapter package is given: give at least one")
    paths = {}
    for package in packages:
        if package.task in paths:
            raise UserError(
                "%s and %s are both of the task %s: give one of them another name, "
                "NAME=%s"
                % (paths[package.task], package.path, package.task, package.path)
            )
        paths[package.task] = package.path
        case, first = package.config["do_lower_case"], packages[0]
        if case != first.config["do_lower_case"]:
            raise UserError(
                "`do_lower_case` is %s in %s and %s in %s: packages of one model need "
                "the same" % (not case, first.path, case, package.path)
            )


def check_inputs(inputs, bert_config):
    """Adds checks of a request's shapes and values to the graph.

    Args:
      inputs: dict: "input_ids", "input_mask" and "segment_ids", int32 [B, S], and
        "task", string [B]. Only their ranks are known.
      bert_config: a `modeling.BertConfig`.

    Returns:
      Dict of the same tensors, which fail with the name of the input where S is 0 or
      too large, shapes do not agree, a value is out of range, or a mask has no 1.
    """
    shape = tf.shape(inputs["input_ids"])
    longest = bert_config.max_position_embeddings
    is_empty = tf.equal(tf.reduce_sum(inputs["input_mask"], axis=1), 0)
    checks = [  # conditions and messages
        (shape[1] > 0, ["input_ids: no word piece; [batch, length] is", shape]),
        (
            shape[1] <= longest,
            ["input_ids: too long; word pieces at most, and given:", longest, shape[1]],
        ),
        (
            ~tf.reduce_any(is_empty),
            ["input_mask: all 0 in the rows, from 0:", tf.where_v2(is_empty)[:, 0]],
        ),
    ]
    shapes = {"input_mask": shape, "segment_ids": shape, "task": shape[:1]}
    for name, expected in shapes.items():
        given = tf.shape(inputs[name])
        text = "%s: its shape, and the one that fits input_ids:" % name
        is_equal = tf.reduce_all(tf.equal(given, expected))
        checks.append((is_equal, [text, given, expected]))
    counts = {"input_ids": bert_config.vocab_size, "input_mask": 2}
    counts["segment_ids"] = bert_config.type_vocab_size
    for name, count in counts.items():
        least, most = tf.reduce_min(inputs[name]), tf.reduce_max(inputs[name])
        text = "%s: values from 0 to %d are allowed; the least and most given:"
        is_allowed = tf.logical_and(least >= 0, most < count)
        checks.append((is_allowed, [text % (name, count - 1), least, most]))
    with tf.control_dependencies([tf.Assert(*check) for check in checks]):
        return {name: tf.identity(value) for name, value in inputs.items()}


class _TableIndex(NamedTuple):
    """The rows of a table that each example needs, n at most."""

    rows: tf.Tensor  # int32 [B, n]; beyond an example's own count, its last row again
    is_own: tf.Tensor  # bool [B, n]


def _index_table(counts, task_ids):
    """The `_TableIndex` of a table with `counts`, int32 [T], rows per task."""
    count = tf.gather(counts, task_ids)[:, tf.newaxis]
    start = tf.gather(tf.cumsum(counts, exclusive=True), task_ids)[:, tf.newaxis]
    # An empty batch has no largest count.
    steps = tf.range(tf.maximum(tf.reduce_max(count), 1))[tf.newaxis]
    return _TableIndex(start + tf.minimum(steps, count - 1), steps < count)


def build_graph(
    bert_config, stack, tables, input_ids, input_mask, segment_ids, task_ids
):
    """Builds the graph, with variables for the frozen weights.

    Args:
      bert_config: a `modeling.BertConfig`.
      stack: a `PackageStack`; the graph serves all stacks of equal `graph_key`.
      tables: dict from name to tensor, see `PackageStack.tables`. First dimensions may
        be unknown, and differ between calls.
      input_ids, input_mask, segment_ids: int32 [B, S].
      task_ids: int32 [B], each from 0 to T - 1.

    Returns the `Outputs`.
    """
    used, first_type = stack.used_settings(), stack.types[0]
    head = first_type.output_variables
    units = {
        name: _index_table(tables[name], task_ids)
        for name in stack.integers.keys() - used
    }
    own = {name: tf.gather(tables[name], task_ids) for name in used}
    own.update((name, index.is_own) for name, index in units.items())

    def get_own_weights(getter, name, *args, **kwargs):
        """A variable, or weights by example, see `modeling.apply_weights`."""
        if name not in stack.weights:
            return getter(name, *args, **kwargs)
        axis, count = _find_units(name, head)
        if count is None:
            value = tf.gather(tables[name], task_ids)
            return value[:, tf.newaxis] if value.shape.rank == 2 else value
        rows = tf.gather(tables[name], units[count].rows)  # [B, units, ...]
        if rows.shape.rank == 2:
            return rows[:, tf.newaxis]
        return rows if axis == 0 else tf.linalg.matrix_transpose(rows)

    # Once for each kind: a layer of other hooks would be traced anew.
    kinds = {method.serving_kind: method for method in stack.methods}
    hooks = {kind: method.serving_hooks(used, own) for kind, method in kinds.items()}

    def layer_hooks(index):
        there = {m.serving_kind for m in stack.methods if m.layer_hooks(index)}
        return tuple(hook for kind in hooks if kind in there for hook in hooks[kind])

    with tf.variable_scope(
        tf.get_variable_scope(), custom_getter=get_own_weights, use_resource=True
    ):
        model = modeling.BertModel(
            bert_config,
            False,
            input_ids,
            input_mask,
            segment_ids,
            scope="bert",
            options=modeling.Options(
                pooled_output_only=not first_type.uses_sequence_output,
                layer_hooks=layer_hooks,
            ),
        )
        logits = first_type.compute_logits(first_type.select_output(model), False)
    rows, is_own = units["num_outputs"]
    scores = tf.zeros_like(logits)
    for type_id, each in enumerate(task_type.TYPES.values()):
        if type_id in used["task_type"]:
            is_scored = tf.equal(own["task_type"], type_id)
            is_scored = tf.reshape(is_scored, [-1] + [1] * (logits.shape.rank - 1))
            found = each.compute_scores(logits, is_own)
            scores = tf.where_v2(is_scored, found, scores)
    return Outputs(scores, is_own, rows)
