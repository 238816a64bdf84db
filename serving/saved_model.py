"""A SavedModel of a base and the adapter packages of many tasks.

It holds the base once, and beside it what each task trained; TensorFlow alone loads it.
The signature "serving_default" takes a batch whose rows may be of different tasks:

    input_ids, input_mask, segment_ids   int32 [batch, length], made as in training
    task                                 string [batch], names of the packages' tasks

A request of other shapes or of values out of range is refused with a message that names
the input. The answer is, C being the most labels that any task has:

    scores     float32 [batch, C], probabilities, 0 beyond the task's own labels;
               regression: the score in column 0
    label_id   int32 [batch], the most probable label; regression: 0
    label      string [batch], the same as text; regression: empty

assets/ holds vocab.txt and tasks.json: what a client needs to make the inputs and to
read the outputs.
"""

import contextlib
import json
import os
import tempfile
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import modeling
from errors import UserError
from serving import multitask, requests
from system import files
from weights import adapter_package, bases, checkpoints, variable_shapes

DTYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16}
SIGNATURE = "serving_default"
TASKS_NAME = "tasks.json"
VOCABULARY_NAME = "vocab.txt"
# Where TensorFlow Serving looks for requests to run before it takes any.
WARM_UP_PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")

_WARM_UP_TASKS = 32  # rows of a warm-up request, at most
_SHORT = 16  # word pieces of the short one
_NO_GPU = tf.ConfigProto(device_count={"GPU": 0})


def export(adapters, base, output, frozen_dtype="float32", described=None):
    """Writes the next version of a SavedModel, DIR/1 or the next free number.

    Args:
      adapters: list of FOLDER or NAME=FOLDER, see `multitask.read_package`.
      base: the `bases.Base` that they belong to.
      output: folder of the versions, which is made if need be.
      frozen_dtype: how the base's weights are stored, one of `DTYPES`.
      described: see `multitask.read_package`.

    Returns:
      The version's folder.

    Raises:
      UserError: something cannot be read, does not belong to the rest, or cannot be
        written. `output` then has no new version.
    """
    folder = _next_version(output)
    content = _read(adapters, base, described)
    need = _bytes_of(content, DTYPES[frozen_dtype])
    # TensorFlow Serving takes a name that is not a number for no version.
    with files.atomic_folder(folder, need) as partial:
        _write(partial, content, DTYPES[frozen_dtype])
    logging.info(
        "Wrote %s: %d tasks (%s), %.1f MB.",
        folder,
        len(content.stack.tasks),
        ", ".join(content.stack.tasks),
        _bytes_under(folder) / 1e6,
    )
    return folder


# --- what goes in ---------------------------------------------------------------


class _Content(NamedTuple):
    """All that a SavedModel is made of, checked."""

    bert_config: modeling.BertConfig
    vocab_file: str
    frozen: dict[str, np.ndarray]  # the base's weights, by the variable's name
    base: dict[str, object]  # what `checkpoints.base_fingerprint` gives
    packages: list[adapter_package.AdapterPackage]
    stack: multitask.Stack


def _read(adapters, base, described):
    """Reads and checks the packages, and checks the base.

    Raises:
      UserError: something cannot be read, or does not belong to the rest.
    """
    found = bases.read(base)
    packages = [multitask.read_package(value, described) for value in adapters]
    multitask.check_together(packages)
    for package in packages:
        adapter_package.check_fit(package, found.given)
    logging.info("Read %d adapter packages; reading the base.", len(packages))
    values: dict[str, np.ndarray] = {}
    frozen = variable_shapes.frozen_shapes(found.bert_config)
    fingerprints = {
        tuple(frozen): checkpoints.base_fingerprint(
            base.init_checkpoint, frozen, values
        )
    }
    stack = multitask.stack(
        [
            multitask.completed(package, base.init_checkpoint, fingerprints)
            for package in packages
        ]
    )
    return _Content(
        found.bert_config,
        base.vocab_file,
        values,
        fingerprints[tuple(frozen)],
        packages,
        stack,
    )


# --- where it goes --------------------------------------------------------------


def _next_version(output):
    """The path of a version that is not there yet.

    Raises:
      UserError: the folder cannot be one of versions.
    """
    if "://" in output:
        raise UserError(
            "--output=%s: it must be a folder of this machine; copy the finished "
            "version where it is to be served" % output
        )
    if os.path.exists(output) and not os.path.isdir(output):
        raise UserError("--output=%s is a file: give a folder" % output)
    names = os.listdir(output) if os.path.isdir(output) else []
    # TensorFlow Serving takes each folder of this kind for a version.
    versions = [int(name) for name in names if name.isdecimal()]
    return os.path.join(output, str(max(versions, default=0) + 1))


def _bytes_of(content, frozen_dtype):
    """What the weights take, by far the most of a SavedModel."""
    frozen = sum(value.size for value in content.frozen.values())
    trained = sum(value.nbytes for value in content.stack.weights.values())
    return frozen * frozen_dtype.size + trained


def _bytes_under(folder):
    return sum(
        os.path.getsize(os.path.join(path, name))
        for path, _, names in os.walk(folder)
        for name in names
    )


# --- the graph ------------------------------------------------------------------


class _Interface(NamedTuple):
    """The named tensors of the signature."""

    inputs: dict[str, tf.Tensor]
    outputs: dict[str, tf.Tensor]


def _build(content, frozen_dtype):
    """Builds the graph, its variables all zero.

    Returns:
      An `_Interface`.
    """
    stack = content.stack
    inputs = {
        name: tf.placeholder(tf.int32, [None, None], name)
        for name in ("input_ids", "input_mask", "segment_ids")
    }
    inputs["task"] = tf.placeholder(tf.string, [None], "task")
    tables = {
        name: tf.constant(value)
        for name, value in stack.tables().items()
        if name not in stack.weights
    }
    # A scope of their own: they are no variables of a model of one task.
    with tf.variable_scope("tasks", use_resource=True):
        for name, value in stack.weights.items():
            tables[name] = modeling.get_variable(
                name, value.shape, tf.zeros_initializer()
            )
    checked = multitask.checked_inputs(inputs, content.bert_config)
    task_ids = _task_ids(checked["task"], stack.tasks)
    with tf.variable_scope("", custom_getter=_frozen_getter(frozen_dtype)):
        found = multitask.build(
            content.bert_config,
            tables,
            checked["input_ids"],
            checked["input_mask"],
            checked["segment_ids"],
            task_ids,
            stack.used_activations(),
        )
    # One text for each output of each task, as their heads' rows in the tables.
    texts = [text for labels in stack.labels for text in (labels or [""])]
    first = tf.cumsum(tables["num_labels"], exclusive=True)
    label = tf.gather(tf.constant(texts), tf.gather(first, task_ids) + found.predicted)
    outputs = {"scores": found.scores, "label_id": found.predicted, "label": label}
    found.scores.set_shape([None, stack.num_labels.max()])
    return _Interface(
        inputs, {name: tf.identity(value, name) for name, value in outputs.items()}
    )


def _task_ids(names, known):
    """Ids of tasks by name: stable for clients, whatever else is exported beside them.

    A comparison with all names, since a look-up table would have to be initialized by
    whoever loads the model.

    Args:
      names: string [B].
      known: list of the names, in the order of their ids.

    Returns:
      Int32 [B]. An unknown name ends the run with an error that gives it.
    """
    is_task = tf.equal(names[:, tf.newaxis], tf.constant(known)[tf.newaxis])  # [B, T]
    is_known = tf.reduce_any(is_task, axis=1)
    check = tf.Assert(
        tf.reduce_all(is_known),
        [
            "there is no such task in this model:",
            tf.boolean_mask(names, ~is_known),
            "its tasks are:",
            tf.constant(known),
        ],
        summarize=len(known),
    )
    with tf.control_dependencies([check]):
        return tf.argmax(tf.cast(is_task, tf.int32), axis=1, output_type=tf.int32)


class _StoredTable:
    """An embedding table of another dtype: only rows that are looked up are cast."""

    def __init__(self, variable):
        self._variable = variable

    def sparse_read(self, indices, name=None):
        """What `tf.gather` calls: float32 [..., E]."""
        return tf.cast(self._variable.sparse_read(indices, name), tf.float32)


def _frozen_getter(dtype):
    """For a variable scope: variables of the given dtype, read as float32."""

    def getter(getter, name, *args, **kwargs):
        built = tf.get_default_graph().get_operations()
        kwargs.update(dtype=dtype, initializer=tf.zeros_initializer())
        variable = getter(name, *args, **kwargs)
        if dtype == tf.float32:
            return variable
        if name.endswith("/word_embeddings"):
            return _StoredTable(variable)
        # Not before the graph has come to here: else all weights would be cast at the
        # start of a run, and be in memory twice.
        with tf.control_dependencies(built[-1:]):
            return tf.cast(variable, tf.float32)

    return getter


# --- what comes out -------------------------------------------------------------


def _write(folder, content, frozen_dtype):
    """Writes the SavedModel: graph, weights, assets, requests to warm up with."""
    with contextlib.ExitStack() as cleanup:
        assets = cleanup.enter_context(tempfile.TemporaryDirectory())
        paths = _write_assets(assets, content)
        graph = cleanup.enter_context(tf.Graph().as_default())
        interface = _build(content, frozen_dtype)
        for path in paths:
            tf.add_to_collection(tf.GraphKeys.ASSET_FILEPATHS, tf.constant(path))
        session = cleanup.enter_context(tf.Session(graph=graph, config=_NO_GPU))
        _load_weights(session, content)
        logging.info("Writing the model.")
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.tag_constants.SERVING],
            signature_def_map={
                SIGNATURE: tf.saved_model.predict_signature_def(
                    interface.inputs, interface.outputs
                )
            },
            assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS),
            strip_default_attrs=True,
        )
        builder.save()
    _write_warm_up(os.path.join(folder, WARM_UP_PATH), content)


def _write_assets(folder, content):
    """Writes the files of the assets; returns their paths."""
    tasks = [
        {
            "name": package.task,
            "labels": package.labels,
            "is_regression": package.is_regression,
            "metrics": package.config["task"]["metrics"],
            "text_columns": package.text_columns,
            "dev_scores": package.config["dev_scores"],
            "adapter_size": package.adapter_size,
            "max_seq_length": package.config["max_seq_length"],
            "weights_sha256": package.config["weights"]["sha256"],
        }
        for package in content.packages
    ]
    described = {
        # The packages agree in these.
        "do_lower_case": content.packages[0].config["do_lower_case"],
        "base": content.base,
        "tasks": tasks,
    }
    tasks_path = os.path.join(folder, TASKS_NAME)
    with open(tasks_path, "w", encoding="utf-8") as writer:
        writer.write(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    vocabulary_path = os.path.join(folder, VOCABULARY_NAME)
    tf.io.gfile.copy(content.vocab_file, vocabulary_path)
    return [tasks_path, vocabulary_path]


def _load_weights(session, content):
    """Sets all variables."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    values = {"tasks/" + name: v for name, v in content.stack.weights.items()}
    values.update(content.frozen)
    feed = {}
    for name, variable in variables.items():
        value = values.pop(name)  # Only one copy of each is kept.
        dtype = variable.dtype.base_dtype.as_numpy_dtype
        feed[variable.initializer.inputs[1]] = value.astype(dtype, copy=False)
    session.run([variable.initializer for variable in variables.values()], feed)


def _write_warm_up(path, content):
    """Writes two requests, a short and a long one, with a row for each task."""
    tasks = content.stack.tasks[:_WARM_UP_TASKS]
    longest = max(package.config["max_seq_length"] for package in content.packages)
    os.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for length in (min(_SHORT, longest), longest):
            ones = np.ones([len(tasks), length], np.int32)
            inputs = {
                "input_ids": ones,
                "input_mask": ones,
                "segment_ids": np.zeros_like(ones),
                "task": tasks,
            }
            request = requests.prediction_log(SIGNATURE, inputs)
            writer.write(request.SerializeToString())
