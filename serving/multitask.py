"""Many tasks on one base: one graph in which each row of a batch names its task.

What a task trained is small, so the trained weights of all tasks are kept side by side
in tables, and each row of a batch gathers its own task's from them: there is no loop
over tasks and no branch. A table has no padding. Layer norms and the adapters' last
biases have one row a task; a bottleneck has one row a unit, and the head one row a
label, each task's rows one after the other.

Adding a task changes no bit of the other tasks' scores: what is computed has the shape
that the batch's own tasks ask for, whichever tasks stand in the tables beside them.

Axis letters: B batch, S sequence, H hidden size, P positions computed (S, or 1 in the
last layer), T tasks, A the widest bottleneck of the batch's tasks, L their most labels.
"""

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from model import activations
from weights import adapter_package, checkpoints, diagnosis, variable_shapes

# Tables hold an activation as its place in here.
ACTIVATIONS = tuple(sorted(activations.ADAPTER_ACTIVATIONS))

_SIZE_TABLES = ("num_labels", "is_regression", "adapter_sizes", "activations")


class Stack(NamedTuple):
    """The trained weights of several tasks that share a base."""

    tasks: list[str]  # names; a task's id is its place here
    labels: list[list[str]]  # of each task, in the order of their ids; [] in regression
    weights: dict[str, np.ndarray]  # float32 [rows, ...], by the variable's name
    num_labels: np.ndarray  # int32 [T]; regression: 1
    is_regression: np.ndarray  # bool [T]
    adapter_sizes: np.ndarray  # int32 [T]
    activations: np.ndarray  # int32 [T], places in `ACTIVATIONS`

    def tables(self):
        """All that `build` gathers from: dict from name to array, weights included."""
        return dict(
            self.weights, **{name: getattr(self, name) for name in _SIZE_TABLES}
        )

    def used_activations(self):
        """Names of the activations that some task has, sorted."""
        return tuple(ACTIVATIONS[i] for i in sorted(set(self.activations.tolist())))


class Outputs(NamedTuple):
    """What the graph gives for a batch; C is the most labels that any task has."""

    # float32 [B, C]: probabilities, 0 where a task has no such label; regression: the
    # score in column 0
    scores: tf.Tensor
    predicted: tf.Tensor  # int32 [B], the most probable label's id; regression: 0


def read_package(value, described=None):
    """Reads an adapter package, under its own task's name or another.

    What is known against it is said.

    Args:
      value: FOLDER or NAME=FOLDER, as flags give it.
      described: dict from a task's own name to the `tasks.Task` that says more of it
        than the package may; or None.

    Returns:
      An `adapter_package.AdapterPackage`.

    Raises:
      UserError: it is damaged, the name is empty, or it holds weights that are not
        adapters, layer norms or head.
    """
    name, equals, folder = value.partition("=")
    if not equals or tf.io.gfile.isdir(value):
        name, folder = None, value
    elif not name:
        raise UserError("--adapters=%s: a name is needed before the =" % value)
    package = adapter_package.read(folder)
    if package.task in (described or {}):
        package = adapter_package.described(package, described[package.task])
    if package.encoder_weights:
        raise UserError(
            "--adapters=%s holds weights of the encoder itself, such as %s, which "
            "tasks on one base model cannot share: evaluate and predict with python "
            "run_classifier.py --adapters=%s --train_policy=%s"
            % (value, package.encoder_weights[0], folder, package.policy.text)
        )
    diagnosis.show_warnings(
        ["%s: %s" % (folder, finding) for finding in package.diagnostics.warnings],
        package.config["settings"],
    )
    if name is None:
        return package
    task = dict(package.config["task"], name=name)
    return package._replace(config=dict(package.config, task=task))


def completed(package, init_checkpoint, fingerprints):
    """A package with the weights that its policy leaves to the base.

    Layer norms that it did not train are the base's. Adapters that it does not have are
    zeros, which change nothing; where it has none they are of size 1.

    Args:
      package: an `adapter_package.AdapterPackage`.
      init_checkpoint: path of the base without file endings.
      fingerprints: dict that keeps what was read of the base from one call to the
        next: names of frozen variables -> what `checkpoints.base_fingerprint` gives.

    Returns:
      An `adapter_package.AdapterPackage` with adapters and layer norms in all layers.

    Raises:
      UserError: it belongs to another base.
    """
    frozen = variable_shapes.frozen_shapes(package.bert_config, package.policy)
    key = tuple(frozen)
    if key not in fingerprints:
        fingerprints[key] = checkpoints.base_fingerprint(init_checkpoint, frozen)
    adapter_package.check_fit(package, {"base": fingerprints[key]})
    shapes = variable_shapes.trained_shapes(
        package.bert_config, package.adapter_size or 1, len(package.labels) or 1
    )
    kept = [name for name in shapes if name in frozen]  # layer norms
    found = dict(checkpoints.iterate_values(init_checkpoint, kept))
    found.update(package.weights)
    weights = {
        name: found[name] if name in found else np.zeros(shape, np.float32)
        for name, shape in shapes.items()
    }
    return package._replace(weights=weights)


def stack(packages):
    """Puts the weights of several tasks side by side.

    Args:
      packages: list of `adapter_package.AdapterPackage`, at least one, all `completed`.

    Returns:
      A `Stack`, its tasks in the order of the packages.

    Raises:
      UserError: two packages are of different bases, vocabularies or case, or of tasks
        of the same name.
    """
    check_together(packages)
    names = packages[0].weights
    return Stack(
        tasks=[package.task for package in packages],
        labels=[package.labels for package in packages],
        weights={
            name: np.concatenate([_rows(name, p.weights[name]) for p in packages])
            for name in names
        },
        num_labels=np.array([len(p.labels) or 1 for p in packages], np.int32),
        is_regression=np.array([p.is_regression for p in packages], bool),
        adapter_sizes=np.array([p.adapter_size or 1 for p in packages], np.int32),
        activations=np.array(
            [ACTIVATIONS.index(p.activation) for p in packages], np.int32
        ),
    )


def check_together(packages):
    """Refuses packages that cannot be loaded together; see `stack`."""
    if not packages:
        raise UserError("no adapter package is given: give at least one, --adapters")
    paths = {}
    for package in packages:
        if package.task in paths:
            raise UserError(
                "%s and %s are both of the task %s: call one of them otherwise, "
                "--adapters=NAME=%s"
                % (paths[package.task], package.path, package.task, package.path)
            )
        paths[package.task] = package.path
        _check_shared(packages[0], package)


def _check_shared(first, package):
    keys = ["bert_config", "vocabulary", "do_lower_case"]
    # The digest is that of the frozen variables, and they differ by policy.
    frozen, of_first = (
        variable_shapes.frozen_shapes(p.bert_config, p.policy) for p in (package, first)
    )
    if set(frozen) == set(of_first):
        keys.append("base")
    try:
        adapter_package.check_fit(package, {key: first.config[key] for key in keys})
    except UserError as error:
        raise UserError(
            "%s and %s do not share a base, so they cannot be loaded together: %s"
            % (first.path, package.path, error)
        ) from None


def _rows(name, value):
    """One task's rows of a table: the variable as it is, or along its trained axis."""
    if name.endswith("/weights1"):
        return value.T  # [A, H]: a row a unit, as in weights2
    if name.endswith("/biases1"):
        return value[0]  # [A]
    if name.endswith(("/weights2", "output_weights", "output_bias")):
        return value
    return value.reshape(1, -1)  # [1, H]


def checked_inputs(inputs, bert_config):
    """A batch from strangers: used once its shapes and values are found sound.

    Args:
      inputs: dict: "input_ids", "input_mask" and "segment_ids", int32 [B, S], and
        "task", string [B]. Only their ranks are known.
      bert_config: a `modeling.BertConfig`.

    Returns:
      Dict of the same. What depends on them ends the run with an error that names the
      input, where S is 0 or too large, a shape is another, a value is out of range, or
      a mask has no 1.
    """
    shape = tf.shape(inputs["input_ids"])
    longest = bert_config.max_position_embeddings
    checks = [
        tf.Assert(
            shape[1] > 0,
            ["input_ids: no word piece; [batch, length] is", shape],
        ),
        tf.Assert(
            shape[1] <= longest,
            ["input_ids: too long; word pieces at most, and given:", longest, shape[1]],
        ),
    ]
    for name, expected in (
        ("input_mask", shape),
        ("segment_ids", shape),
        ("task", shape[:1]),
    ):
        given = tf.shape(inputs[name])
        text = "%s: its shape, and the one that fits input_ids:" % name
        checks.append(
            tf.Assert(tf.reduce_all(tf.equal(given, expected)), [text, given, expected])
        )
    for name, count in (
        ("input_ids", bert_config.vocab_size),
        ("input_mask", 2),
        ("segment_ids", bert_config.type_vocab_size),
    ):
        value = inputs[name]
        # Empty ones have no least value, and are refused above.
        least, most = tf.reduce_min(value), tf.reduce_max(value)
        text = "%s: values from 0 to %d are allowed; the least and most given:"
        checks.append(
            tf.Assert(
                tf.logical_and(least >= 0, most < count),
                [text % (name, count - 1), least, most],
            )
        )
    is_empty = tf.equal(tf.reduce_sum(inputs["input_mask"], axis=1), 0)
    checks.append(
        tf.Assert(
            ~tf.reduce_any(is_empty),
            ["input_mask: all 0 in the rows, from 0:", tf.where_v2(is_empty)[:, 0]],
        )
    )
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in inputs.items()}


class _Places(NamedTuple):
    """Which rows of the tables a batch needs; n of them at most for one example."""

    index: tf.Tensor  # int32 [B, n]; past an example's own count, its last row again
    is_own: tf.Tensor  # bool [B, n]


def _places(counts, task_ids):
    """The rows of tasks that have `counts`, int32 [T], of them one after the other."""
    count = tf.gather(counts, task_ids)[:, tf.newaxis]
    start = tf.gather(tf.cumsum(counts, exclusive=True), task_ids)[:, tf.newaxis]
    # An empty batch has no largest count.
    steps = tf.range(tf.maximum(tf.reduce_max(count), 1))[tf.newaxis]
    return _Places(start + tf.minimum(steps, count - 1), steps < count)


def build(
    bert_config,
    tables,
    input_ids,
    input_mask,
    segment_ids,
    task_ids,
    activations=ACTIVATIONS,
):
    """The graph; it makes the frozen variables and reads the trained ones from tables.

    Args:
      bert_config: a `modeling.BertConfig`.
      tables: dict from name to tensor, see `Stack.tables`. First dimensions need not be
        known, and may change from run to run.
      input_ids: int32 [B, S].
      input_mask: int32 [B, S].
      segment_ids: int32 [B, S].
      task_ids: int32 [B], each from 0 to T - 1.
      activations: names of those that some task may have, of `ACTIVATIONS`; all of them
        are computed wherever there is more than one.

    Returns:
      An `Outputs`.
    """
    batch = tf.shape(task_ids)[0]
    H = bert_config.hidden_size
    units = _places(tables["adapter_sizes"], task_ids)
    activation = tf.gather(tables["activations"], task_ids)[:, tf.newaxis, tf.newaxis]

    def by_example(x):
        # Not -1 for the positions, which are not known of an empty batch.
        positions = tf.size(x) // tf.maximum(batch * H, 1)
        return tf.reshape(x, [batch, positions, H])

    def own_layer_norms(getter, name, *args, **kwargs):
        # [B, 1, H] in the place of [H]: each example is normalized by its own task's.
        if name in tables:
            return tf.gather(tables[name], task_ids)[:, tf.newaxis]
        return getter(name, *args, **kwargs)

    def layer_norm(x):
        return tf.reshape(modeling.layer_norm(by_example(x)), tf.shape(x))

    def adapter(x):
        scope = tf.get_variable_scope().name + "/adapters/"

        def table(name, index):
            return tf.gather(tables[scope + name], index)

        def activate(inner):  # [B, P, A]
            inner = _activate(inner, activation, activations)
            return tf.where_v2(units.is_own[:, tf.newaxis], inner, 0.0)

        # A row a unit: [B, A, H].
        down = tf.linalg.matrix_transpose(table("weights1", units.index))
        output = modeling.bottleneck(
            by_example(x),
            (down, table("biases1", units.index)[:, tf.newaxis]),
            (table("weights2", units.index), table("biases2", task_ids)[:, tf.newaxis]),
            activate,
        )
        return tf.reshape(output, tf.shape(x))

    with tf.variable_scope(
        tf.get_variable_scope(), custom_getter=own_layer_norms, use_resource=True
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


def _activate(x, which, names):
    """Activation by example.

    Args:
      x: float [B, P, A].
      which: int32 [B, 1, 1], places in `ACTIVATIONS`.
      names: the names that these may stand for.

    Returns:
      Float [B, P, A].
    """
    output = activations.ADAPTER_ACTIVATIONS[names[0]](x)
    for name in names[1:]:
        chosen = tf.equal(which, ACTIVATIONS.index(name))
        output = tf.where_v2(chosen, activations.ADAPTER_ACTIVATIONS[name](x), output)
    return output


def _head(tables, pooled, task_ids):
    """The `Outputs` for pooled output, float [B, H]."""
    own = _places(tables["num_labels"], task_ids)
    is_regression = tf.gather(tables["is_regression"], task_ids)[:, tf.newaxis]
    weights = tf.gather(tables["output_weights"], own.index)  # [B, L, H]
    logits = tf.squeeze(
        tf.matmul(pooled[:, tf.newaxis], weights, transpose_b=True), axis=1
    ) + tf.gather(tables["output_bias"], own.index)
    # Infinity, so that weights which overflow give NaN and not another task's label.
    probabilities = tf.nn.softmax(tf.where_v2(own.is_own, logits, -np.inf))
    scores = tf.where_v2(is_regression & own.is_own, logits, probabilities)  # [B, L]
    most = tf.reduce_max(tables["num_labels"])
    return Outputs(
        scores=tf.pad(scores, [[0, 0], [0, most - tf.shape(scores)[1]]]),
        predicted=tf.argmax(probabilities, axis=-1, output_type=tf.int32),
    )
