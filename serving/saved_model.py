"""A SavedModel of a base model and the adapter packages of many tasks.

It holds the base model once, and the trained weights of each task; TensorFlow alone
loads it. There is a signature for each kind of head, `task_type.TaskType.signature`. It
takes a batch with examples of any of its tasks:

    input_ids, input_mask, segment_ids   int32 [batch, length], made as in training
    task                                 string [batch], names of the packages' tasks

"ids" is the signature of classification and regression; "serving_default" takes texts:

    text_a, text_b   string [batch], in UTF-8; text_b is empty for single texts
    task             string [batch]

Both give, C being the largest number of labels of a task:

    scores     float32 [batch, C], probabilities, 0 beyond the task's own labels;
               regression: the score in column 0
    label_id   int32 [batch], the most probable label; regression: 0
    label      string [batch], the same as text; regression: empty

Tasks with other heads (`tasks.head_form`) have such a pair each, as "ids_first_tanh"
and "texts_first_tanh". "question_answering" gives, for each position:

    start_logits, end_logits   float32 [batch, length]

Without a signature "ids", "serving_default" is the same as the first one.
`multitask.check_inputs` says which requests fail. assets/ holds vocab.txt and
tasks.json, with which a client makes ids and interprets the outputs.
"""

import json
import os
import tempfile
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

import modeling
import tokenization
from errors import UserError
from inputs import features
from model import dependencies
from serving import multitask, text_graph
from system import files
from tasks import head_form
from weights import adapter_package, base_model, model_variables

DTYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16}
DEFAULT_SIGNATURE = "serving_default"
TASKS_NAME = "tasks.json"
VOCABULARY_NAME = "vocab.txt"

_NO_GPU = tf.ConfigProto(device_count={"GPU": 0})


def export(adapters, base, output, frozen_dtype="float32", known_tasks=None):
    """Writes the next version of a SavedModel, OUTPUT/1 or the next free number.

    Args:
      adapters: list of FOLDER or NAME=FOLDER, see `multitask.read_package`.
      base: the `base_model.BaseFiles` that they belong to.
      output: folder of the versions; created if missing.
      frozen_dtype: dtype in which the base model's weights are stored, one of `DTYPES`.
      known_tasks: see `multitask.read_package`.

    Returns the version's folder. After a `UserError`, `output` has no new version.
    """
    folder = _next_version(output)
    content = _read(adapters, base, known_tasks)
    dtype = DTYPES[frozen_dtype]
    stacks = content.stacks.values()
    need = sum(value.nbytes for each in stacks for value in each.weights.values())
    need += sum(value.size for value in content.frozen.values()) * dtype.size
    # The working folder's name is not a number, so TensorFlow Serving does not load it.
    with files.atomic_folder(folder, need) as partial:
        _write(partial, content, dtype)
    names = ", ".join(package.task for package in content.packages)
    logging.info("Wrote %s with the tasks %s, %.1f MB.", folder, names, need / 1e6)
    return folder


class _Content(NamedTuple):
    """The checked content of a SavedModel."""

    bert_config: modeling.BertConfig
    vocab_file: str
    frozen: dict[str, np.ndarray]  # weights of the base model, by variable name
    base: dict[str, object]  # from `checkpoints.Checkpoint.base_fingerprint`
    packages: list[adapter_package.AdapterPackage]
    do_lower_case: bool  # of all packages
    stacks: dict[str, multitask.PackageStack]  # see `multitask.stack_packages`


def _read(adapters, base, known_tasks):
    """Reads and checks packages and base model; returns a `_Content`."""
    found = base_model.read(base)
    packages = [multitask.read_package(value, known_tasks) for value in adapters]
    for package in packages:
        adapter_package.check_fit(package, found.identity)
    logging.info("Read %d adapter packages; reading the base model.", len(packages))
    stacks = multitask.stack_packages(packages, found.checkpoint)
    names = modeling.encoder_variables(found.bert_config, lambda index: ())
    in_all = set.intersection(*(set(each.weights) for each in stacks.values()))
    frozen = sorted(names.keys() - in_all)
    return _Content(
        bert_config=found.bert_config,
        vocab_file=base.vocab_file,
        base=found.checkpoint.base_fingerprint(
            model_variables.frozen_shapes(found.bert_config)
        ),
        packages=packages,
        do_lower_case=packages[0].config["do_lower_case"],
        stacks=stacks,
        frozen=dict(found.checkpoint.iterate_values(frozen)),
    )


def _next_version(output):
    """The path of the next version."""
    if "://" in output:
        raise UserError(
            "`output`=%s: it must be a local folder; copy the finished version to the "
            "server" % output
        )
    if os.path.exists(output) and not os.path.isdir(output):
        raise UserError("`output`=%s is a file: give a folder" % output)
    names = os.listdir(output) if os.path.isdir(output) else []
    # TensorFlow Serving takes folders with numeric names as versions.
    versions = [int(name) for name in names if name.isdecimal()]
    return os.path.join(output, str(max(versions, default=0) + 1))


def _build_signatures(content, stack, frozen_dtype):
    """Builds a stack's graph; returns pairs of inputs and outputs by signature."""
    task = tf.placeholder(tf.string, [None], "task")
    task_ids = _look_up_tasks(task, stack.tasks)
    texts, inputs = {}, {}
    if all(each.takes_plain_text() for each in stack.types):
        texts = {
            name: tf.placeholder(tf.string, [None], name)
            for name in ("text_a", "text_b")
        }
        encoded = _encode_texts(content, stack, {**texts, "task": task}, task_ids)
    for name in features.SEQUENCES:
        # Ids that are fed are not computed.
        inputs[name] = (
            tf.placeholder_with_default(encoded[name], [None, None], name)
            if texts
            else tf.placeholder(tf.int32, [None, None], name)
        )
    inputs["task"] = task
    zeros = tf.zeros_initializer()
    # A separate scope: these are not the variables of a single-task model.
    with tf.variable_scope("tasks/" + stack.signature, use_resource=True):
        tables = {
            name: modeling.get_variable(name, value.shape, zeros)
            if name in stack.weights
            else tf.constant(value)
            for name, value in stack.tables().items()
        }
    checked = multitask.check_inputs(inputs, content.bert_config)
    del checked["task"]
    # The signatures share the frozen variables.
    getter = _frozen_getter(frozen_dtype)
    with tf.variable_scope("", custom_getter=getter, reuse=tf.AUTO_REUSE):
        model = multitask.build_graph(
            content.bert_config,
            stack,
            tables,
            **checked,
            task_ids=task_ids,
        )
    # One text per output of each task, as the rows of the head's tables.
    labels = [t for each in stack.types for t in each.labels or [""] * each.num_outputs]
    outputs = stack.types[0].serving_outputs(
        model.scores,
        model.is_own,
        tf.gather(tf.constant(labels), model.rows),
        stack.integers["num_outputs"].max(),
    )
    outputs = {name: tf.identity(value, name) for name, value in outputs.items()}
    signatures = {stack.signature: (inputs, outputs)}
    if texts:
        name = stack.signature.replace("ids", "texts", 1)
        if stack.types[0].head == head_form.DEFAULT:
            name = DEFAULT_SIGNATURE
        signatures[name] = {**texts, "task": task}, outputs
    return signatures


def _encode_texts(content, stack, inputs, task_ids):
    """Adds the tokenization to the graph, see `text_graph.TextEncoder.encode`.

    It fails if the shapes of the inputs, "text_a", "text_b" and "task", differ, or
    where a task of pairs gets one text, or another one two.
    """
    packages = {package.task: package for package in content.packages}
    packages = [packages[name] for name in stack.tasks]
    tokenizer = tokenization.FullTokenizer(content.vocab_file, content.do_lower_case)
    checks = []
    for name, value in inputs.items():
        shapes = tf.shape(value), tf.shape(inputs["text_a"])
        message = ["%s: its shape, and that of text_a:" % name, *shapes]
        checks.append(tf.Assert(tf.reduce_all(tf.equal(*shapes)), message))
    lengths = tf.constant([package.config["max_seq_length"] for package in packages])
    with tf.control_dependencies(checks):
        lengths = tf.gather(lengths, task_ids)
    encoder = text_graph.TextEncoder(tokenizer)
    encoded = encoder.encode(inputs["text_a"], inputs["text_b"], lengths)
    is_pair = tf.reduce_max(encoded["segment_ids"], axis=1) > 0
    allowed = tf.constant(
        [[p.takes_pairs is not True, p.takes_pairs is not False] for p in packages]
    )
    allowed = tf.gather(allowed, task_ids)  # bool [B, 2]: one text, two texts
    is_wrong = ~tf.where_v2(is_pair, allowed[:, 1], allowed[:, 0])
    message = "text_b: pairs need it, single texts must not have it; rows, from 0:"
    check = tf.Assert(~tf.reduce_any(is_wrong), [message, tf.where_v2(is_wrong)[:, 0]])
    with tf.control_dependencies([check]):
        return {name: tf.identity(value) for name, value in encoded.items()}


def _look_up_tasks(names, known):
    """Ids, int32 [B], of tasks by names, string [B]; `known`: all task names, by id.

    The graph fails with the names that are not known.
    """
    is_task = tf.equal(names[:, tf.newaxis], tf.constant(known)[tf.newaxis])  # [B, T]
    is_known = tf.reduce_any(is_task, axis=1)
    unknown = tf.boolean_mask(names, ~is_known)
    text = "this signature has no such task:"
    message = [text, unknown, "its tasks are:", tf.constant(known)]
    check = tf.Assert(tf.reduce_all(is_known), message, summarize=len(known))
    with tf.control_dependencies([check]):
        return tf.argmax(tf.cast(is_task, tf.int32), axis=1, output_type=tf.int32)


class _StoredTable:
    """An embedding table of another dtype; only the rows looked up are cast."""

    def __init__(self, variable):
        self._variable = variable

    def sparse_read(self, indices, name=None):
        """Float32 [..., E]; `tf.gather` calls this."""
        return tf.cast(self._variable.sparse_read(indices, name), tf.float32)


def _frozen_getter(dtype):
    """A custom getter: variables are stored in the dtype and read as float32."""

    casts = []

    def get(getter, name, *args, **kwargs):
        last = tf.get_default_graph().get_operations()[-1:]
        kwargs.update(dtype=dtype, initializer=tf.zeros_initializer())
        variable = getter(name, *args, **kwargs)
        if dtype == tf.float32:
            return variable
        if name.endswith("/word_embeddings"):
            return _StoredTable(variable)
        # Delay the cast until the graph needs it: otherwise all weights are cast at the
        # start of a run, and are in memory twice.
        outputs = [each for op in last for each in op.outputs]
        with dependencies.wait_for([*outputs, *casts[-1:]]):
            casts.append(tf.cast(variable, tf.float32))
        return casts[-1]

    return get


def _write(folder, content, frozen_dtype):
    with (
        tempfile.TemporaryDirectory() as assets,
        tf.Graph().as_default() as graph,
        tf.Session(graph=graph, config=_NO_GPU) as session,
    ):
        signatures = {
            name: tf.saved_model.predict_signature_def(*tensors)
            for stack in content.stacks.values()
            for name, tensors in _build_signatures(content, stack, frozen_dtype).items()
        }
        signatures.setdefault(DEFAULT_SIGNATURE, next(iter(signatures.values())))
        for path in _write_assets(assets, content):
            tf.add_to_collection(tf.GraphKeys.ASSET_FILEPATHS, tf.constant(path))
        _load_weights(session, content)
        logging.info("Writing the model.")
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.tag_constants.SERVING],
            signature_def_map=signatures,
            assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS),
            main_op=tf.tables_initializer(),
            strip_default_attrs=True,
        )
        builder.save()


def _write_assets(folder, content):
    """Writes the assets; returns their paths."""
    tasks = [
        {
            "name": package.task,
            **package.task_type.package_entries(),
            "signature": package.task_type.signature,
            "metrics": package.config["task"]["metrics"],
            "text_columns": package.text_columns,
            "dev_scores": package.config["dev_scores"],
            "adapter_size": package.adapter_size,
            "max_seq_length": package.config["max_seq_length"],
            "weights_sha256": package.config["weights"]["sha256"],
        }
        for package in content.packages
    ]
    entries = {"do_lower_case": content.do_lower_case}
    entries.update(base=content.base, tasks=tasks)
    tasks_path = os.path.join(folder, TASKS_NAME)
    with open(tasks_path, "w", encoding="utf-8") as writer:
        writer.write(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    vocabulary_path = os.path.join(folder, VOCABULARY_NAME)
    tf.io.gfile.copy(content.vocab_file, vocabulary_path)
    return [tasks_path, vocabulary_path]


def _load_weights(session, content):
    """Sets all variables."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    values = {
        "tasks/%s/%s" % (signature, name): value
        for signature, stack in content.stacks.items()
        for name, value in stack.weights.items()
    }
    values.update(content.frozen)
    feed = {}
    for name, variable in variables.items():
        value = values.pop(name)  # Only one copy of each is kept.
        dtype = variable.dtype.base_dtype.as_numpy_dtype
        feed[variable.initializer.inputs[1]] = value.astype(dtype, copy=False)
    session.run([variable.initializer for variable in variables.values()], feed)
