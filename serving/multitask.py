"""Many tasks on one base model in one graph: each example of a batch names its task.

The trained weights of all tasks are concatenated into tables, and each example gathers
the weights of its task: there is no loop over tasks and no branch. Tables have no
padding. Layer norms and the last biases of adapters have one row per task; bottlenecks
have one row per unit and the head one per label, task after task.

Adding a task does not change a bit of the others' scores: the shapes of all
computations depend only on the tasks in the batch.

Axis letters: B batch, S sequence, H hidden size, P positions computed (S, or 1 in the
last layer), T tasks; for the tasks of the batch, A is the size of the largest adapter,
L the largest number of labels.
"""

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from model import activations
from weights import adapter_package, diagnosis, variable_shapes

# In tables an activation is its index here.
ACTIVATIONS = tuple(sorted(activations.ADAPTER_ACTIVATIONS))


class PackageStack(NamedTuple):
    """The trained weights of several tasks that share a base model."""

    tasks: list[str]  # names; the index is the task's id
    labels: list[list[str]]  # of each task, in the order of their ids; [] in regression
    weights: dict[str, np.ndarray]  # float32 [rows, ...], by the variable's name
    num_labels: np.ndarray  # int32 [T]; regression: 1
    is_regression: np.ndarray  # bool [T]
    adapter_sizes: np.ndarray  # int32 [T]
    activations: np.ndarray  # int32 [T], indices into `ACTIVATIONS`

    def tables(self):
        """The inputs of `build_graph`: dict from name to array, weights included."""
        sizes = ("num_labels", "is_regression", "adapter_sizes", "activations")
        return dict(self.weights, **{name: getattr(self, name) for name in sizes})

    def used_activations(self):
        """Names of the activations that some task has, sorted."""
        return tuple(ACTIVATIONS[i] for i in sorted(set(self.activations.tolist())))


class Outputs(NamedTuple):
    """The graph's outputs for a batch; C is the largest number of labels of a task."""

    # float32 [B, C]: probabilities, 0 where a task has no such label; regression: the
    # score in column 0
    scores: tf.Tensor
    predicted: tf.Tensor  # int32 [B], the most probable label's id; regression: 0


def read_package(value, known_tasks=None):
    """Reads an adapter package and shows its warnings.

    Args:
      value: FOLDER, or NAME=FOLDER to give the task another name.
      known_tasks: dict from a task's own name to a `task_data.Task` with its columns
        and metrics; or None.

    Returns:
      An `adapter_package.AdapterPackage`.

    Raises:
      UserError: the package is damaged, its name is empty, or it holds weights other
        than adapters, layer norms and head.
    """
    name, equals, folder = value.partition("=")
    if not equals or tf.io.gfile.isdir(value):
        name, folder = None, value
    elif not name:
        raise UserError("%s: a name is needed before the =" % value)
    package = adapter_package.read(folder)
    if package.task in (known_tasks or {}):
        package = adapter_package.update_task(package, known_tasks[package.task])
    if package.encoder_weights:
        raise UserError(
            "the package %s holds weights of the encoder itself, such as %s, which "
            "tasks on one base model cannot share: evaluate and predict with python "
            "run_classifier.py --adapters=%s --train_policy=%s"
            % (folder, package.encoder_weights[0], folder, package.policy.text)
        )
    diagnosis.show_warnings(
        ["%s: %s" % (folder, warning) for warning in package.diagnostics.warnings],
        package.config["settings"],
    )
    if name is None:
        return package
    task = dict(package.config["task"], name=name)
    return package._replace(config=dict(package.config, task=task))


def fill_missing_weights(package, checkpoint):
    """Adds the adapters and layer norms that a package lacks.

    Missing layer norms are those of the base model. Missing adapters are zeros, which
    do not change hidden states; their size is 1 in a package without adapters.

    Args:
      package: an `adapter_package.AdapterPackage`.
      checkpoint: the `checkpoints.Checkpoint` of the base model.

    Raises:
      UserError: the package was trained on another base model.
    """
    frozen = variable_shapes.frozen_shapes(package.bert_config, package.policy)
    base = checkpoint.base_fingerprint(frozen)
    adapter_package.check_fit(package, {"base": base})
    shapes = variable_shapes.trained_shapes(
        package.bert_config, package.adapter_size or 1, len(package.labels) or 1
    )
    layer_norms = [name for name in shapes if name in frozen]
    found = dict(checkpoint.iterate_values(layer_norms), **package.weights)
    weights = {
        name: found[name] if name in found else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }
    return package._replace(weights=weights)


def stack_packages(packages):
    """Concatenates the weights of several tasks.

    Args:
      packages: list of `adapter_package.AdapterPackage` from `fill_missing_weights`.

    Returns:
      A `PackageStack`, its tasks in the order of the packages.

    Raises:
      UserError: see `check_compatible`.
    """
    check_compatible(packages)
    activation_ids = [ACTIVATIONS.index(package.activation) for package in packages]
    return PackageStack(
        tasks=[package.task for package in packages],
        labels=[package.labels for package in packages],
        weights={
            name: np.concatenate([_table_rows(name, p.weights[name]) for p in packages])
            for name in packages[0].weights
        },
        num_labels=np.array([len(p.labels) or 1 for p in packages], np.int32),
        is_regression=np.array([p.is_regression for p in packages], bool),
        adapter_sizes=np.array([p.adapter_size or 1 for p in packages], np.int32),
        activations=np.array(activation_ids, np.int32),
    )


def check_compatible(packages):
    """Refuses packages of the same task name, or that differ in base model or case.

    Raises:
      UserError: two packages cannot be loaded together, or none is given.
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
        keys = ["bert_config", "vocabulary", "do_lower_case"]
        # The digest is over the frozen variables, which differ by policy.
        first, frozen = packages[0], variable_shapes.frozen_shapes
        if set(frozen(first.bert_config, first.policy)) == set(
            frozen(package.bert_config, package.policy)
        ):
            keys.append("base")
        try:
            adapter_package.check_fit(package, {key: first.config[key] for key in keys})
        except UserError as error:
            raise UserError(
                "%s and %s do not share a base model, so they cannot be loaded "
                "together: %s" % (first.path, package.path, error)
            ) from None


def _table_rows(name, value):
    """One task's rows of a table: per unit, per label, or one."""
    if name.endswith("/weights1"):
        return value.T  # [A, H], as weights2
    if name.endswith("/biases1"):
        return value[0]  # [A]
    if name.endswith(("/weights2", "output_weights", "output_bias")):
        return value
    return value.reshape(1, -1)  # [1, H]


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
    bert_config, tables, input_ids, input_mask, segment_ids, task_ids, used_activations
):
    """Builds the graph, with variables for the frozen weights.

    Args:
      bert_config: a `modeling.BertConfig`.
      tables: dict from name to tensor, see `PackageStack.tables`. First dimensions may
        be unknown, and differ between calls.
      input_ids, input_mask, segment_ids: int32 [B, S].
      task_ids: int32 [B], each from 0 to T - 1.
      used_activations: see `PackageStack`; each is computed for all examples.

    Returns:
      An `Outputs`.
    """
    batch = tf.shape(task_ids)[0]
    H = bert_config.hidden_size
    units = _index_table(tables["adapter_sizes"], task_ids)
    activation = tf.gather(tables["activations"], task_ids)[:, tf.newaxis, tf.newaxis]

    def split_examples(x):
        # A -1 for the positions would be ambiguous in an empty batch.
        positions = tf.size(x) // tf.maximum(batch * H, 1)
        return tf.reshape(x, [batch, positions, H])

    def get_own_layer_norms(getter, name, *args, **kwargs):
        # [B, 1, H] instead of [H]: each example is normalized with its task's weights.
        if name in tables:
            return tf.gather(tables[name], task_ids)[:, tf.newaxis]
        return getter(name, *args, **kwargs)

    def layer_norm(x):
        return tf.reshape(modeling.layer_norm(split_examples(x)), tf.shape(x))

    def adapter(x):
        scope = tf.get_variable_scope().name + "/adapters/"

        def table(name, index):
            return tf.gather(tables[scope + name], index)

        def activate(inner):  # [B, P, A]
            inner = _activate(inner, activation, used_activations)
            return tf.where_v2(units.is_own[:, tf.newaxis], inner, 0.0)

        # The table has one row per unit: [B, A, H].
        down = tf.linalg.matrix_transpose(table("weights1", units.rows))
        output = modeling.bottleneck(
            split_examples(x),
            (down, table("biases1", units.rows)[:, tf.newaxis]),
            (table("weights2", units.rows), table("biases2", task_ids)[:, tf.newaxis]),
            activate,
        )
        return tf.reshape(output, tf.shape(x))

    with tf.variable_scope(
        tf.get_variable_scope(), custom_getter=get_own_layer_norms, use_resource=True
    ):
        model = modeling.BertModel(
            bert_config,
            False,
            input_ids,
            input_mask,
            segment_ids,
            scope="bert",
            adapter_fn=adapter,
            options=modeling.Options(layer_norm_fn=layer_norm, pooled_output_only=True),
        )
    return _head(tables, model.get_pooled_output(), task_ids)


def _activate(x, index, names):
    """Applies to float [B, P, A] the activation of each example's task.

    `index`, int32 [B, 1, 1], has indices into `ACTIVATIONS` of some of the `names`.
    """
    output = activations.ADAPTER_ACTIVATIONS[names[0]](x)
    for name in names[1:]:
        is_own = tf.equal(index, ACTIVATIONS.index(name))
        output = tf.where_v2(is_own, activations.ADAPTER_ACTIVATIONS[name](x), output)
    return output


def _head(tables, pooled, task_ids):
    """The `Outputs` for pooled output, float [B, H]."""
    own = _index_table(tables["num_labels"], task_ids)
    is_regression = tf.gather(tables["is_regression"], task_ids)[:, tf.newaxis]
    weights = tf.gather(tables["output_weights"], own.rows)  # [B, L, H]
    logits = tf.squeeze(
        tf.matmul(pooled[:, tf.newaxis], weights, transpose_b=True), axis=1
    ) + tf.gather(tables["output_bias"], own.rows)
    # -inf, not a large negative number: where weights overflow, the result is NaN
    # instead of a label of another task.
    probabilities = tf.nn.softmax(tf.where_v2(own.is_own, logits, -np.inf))
    scores = tf.where_v2(is_regression & own.is_own, logits, probabilities)  # [B, L]
    most = tf.reduce_max(tables["num_labels"])
    return Outputs(
        scores=tf.pad(scores, [[0, 0], [0, most - tf.shape(scores)[1]]]),
        predicted=tf.argmax(probabilities, axis=-1, output_type=tf.int32),
    )
