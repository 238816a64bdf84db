"""Weights from and to checkpoints, outside the Estimator."""

import contextlib
import hashlib
import math
import os
import re
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
import optimization
from errors import UserError
from inputs import text_lines
from system import files

_PATH_REMEDY = (
    "--init_checkpoint wants the path without endings, such as .../bert_model.ckpt for "
    "bert_model.ckpt.index and bert_model.ckpt.data-00000-of-00001"
)

_MOST_INDEX_BYTES = 1 << 26  # BERT-large's has a thousandth of that.

# What a run's own checkpoints hold: all variables, or trained ones, slots and step.
ALL, TRAINED = "all", "trained"
CONTENTS = (ALL, TRAINED)

# What a training adds to the variables of the model.
_TRAINING_STATE = re.compile(
    r"(^(global_step|%s|%s|%s)$|/adam_[mv]$)"
    % (optimization.UPDATES, optimization.LOSS_SCALE, optimization.FINITE_STEPS)
)


class LoadReport(NamedTuple):
    """How a checkpoint fits a model: names of variables, sorted."""

    matched: list[str]
    missing: list[str]  # in the model, not in the checkpoint
    left_over: list[str]  # in the checkpoint, not in the model; no training state

    def lines(self):
        """The report as text, one string a line."""
        return [
            "matched:   %d variables" % len(self.matched),
            "missing:   %s (they start fresh)" % _shorten(self.missing),
            "left over: %s (in the checkpoint, not used)" % _shorten(self.left_over),
        ]


def _shorten(names, most=6):
    if not names:
        return "none"
    shown = ", ".join(names[:most])
    more = ", ..." if len(names) > most else ""
    return "%d variables: %s%s" % (len(names), shown, more)


def _data_files(checkpoint):
    return files.list_with_prefix(checkpoint, ".data-*")


@contextlib.contextmanager
def _reading(checkpoint, remedy):
    """Turns what goes wrong in reading a checkpoint into a `UserError`."""
    try:
        if not tf.io.gfile.exists(checkpoint + ".index"):
            raise UserError("no checkpoint at %s: %s" % (checkpoint, remedy))
        for path in (checkpoint + ".index", *_data_files(checkpoint)):
            text_lines.check_plain_file(path, path)
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            "checkpoint %s cannot be read (%s): %s" % (checkpoint, reason, remedy)
        ) from None


def read_shapes(checkpoint, remedy=_PATH_REMEDY):
    """Names and shapes of all tensors in a checkpoint.

    Args:
      checkpoint: path without file endings.
      remedy: what to do about a checkpoint that cannot be read, for the message.

    Returns:
      Dict from name to list of ints.

    Raises:
      UserError: there is no readable checkpoint.
    """
    with _reading(checkpoint, remedy):
        reader = tf.train.load_checkpoint(checkpoint)
        shapes = reader.get_variable_to_shape_map()
        # A missing or short data file would show only when the weights are loaded.
        types = reader.get_variable_to_dtype_map()
        needed = sum(math.prod(shapes[name]) * types[name].size for name in shapes)
        present = sum(tf.io.gfile.stat(path).length for path in _data_files(checkpoint))
    if present < needed:
        raise UserError(
            "checkpoint %s cannot be read (its .data files hold %d bytes of %d): copy "
            "it again; %s" % (checkpoint, present, needed, remedy)
        )
    return {name: list(shape) for name, shape in shapes.items()}


def latest(folder):
    """The last checkpoint in a folder, a path without file endings; None if none is.

    Raises:
      UserError: the file that names it is damaged.
    """
    path = os.path.join(folder, "checkpoint")
    text_lines.check_plain_file(path, path)
    try:
        return tf.train.latest_checkpoint(folder)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            "%s/checkpoint, the file that names the last checkpoint, is damaged (%s): "
            'write it anew (one line, such as model_checkpoint_path: "model.ckpt-9"), '
            "or delete it if there is none" % (folder, " ".join(str(error).split()))
        ) from None


def check_values(checkpoint, names, remedy):
    """Reads a checkpoint through, so that damage is found before anything slow.

    Args:
      checkpoint: path without file endings.
      names: the tensors' names; None for all.
      remedy: what to do about one that is damaged, for the message.

    Raises:
      UserError: a tensor's bytes are not those that were written, it is a float of
        another kind than float32, or it is not finite.
    """
    with _reading(checkpoint, remedy):
        reader = tf.train.load_checkpoint(checkpoint)
        types = reader.get_variable_to_dtype_map()
        for name in sorted(types) if names is None else names:
            value = reader.get_tensor(name)
            if not types[name].is_floating:
                continue
            if types[name] != tf.float32:
                raise UserError(
                    "%s is %s in checkpoint %s, where float32 is needed: %s"
                    % (name, types[name].name, checkpoint, remedy)
                )
            if not np.isfinite(value).all():
                raise UserError(
                    "%s is not finite in checkpoint %s, so whatever is computed with "
                    "it is no number: %s" % (name, checkpoint, remedy)
                )


def fingerprint(checkpoint):
    """SHA-256 of the checkpoint's index: its names, shapes and tensors' checksums.

    Raises:
      UserError: there is no readable checkpoint.
    """
    with _reading(checkpoint, _PATH_REMEDY):
        index = files.read(checkpoint + ".index", _MOST_INDEX_BYTES, _PATH_REMEDY)
    return hashlib.sha256(index).hexdigest()


def iterate_values(checkpoint, names):
    """Tensors of a checkpoint, one at a time since a base may be large.

    Args:
      checkpoint: path without file endings.
      names: the tensors' names.

    Yields:
      Pairs of name and array, in the order of the names.

    Raises:
      UserError: there is no readable checkpoint, or a name is not in it.
    """
    found = read_shapes(checkpoint)
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError("checkpoint %s lacks %s" % (checkpoint, _shorten(missing)))
    with _reading(checkpoint, _PATH_REMEDY):
        reader = tf.train.load_checkpoint(checkpoint)
        for name in names:
            yield name, reader.get_tensor(name)


def base_fingerprint(checkpoint, names, values=None):
    """What tells one base from another, whatever else is in its checkpoint.

    Args:
      checkpoint: path without file endings.
      names: names of all frozen variables.
      values: dict that gets the arrays by name, for who needs them too; or None.

    Returns:
      Dict: "sha256", over names, shapes and little-endian float32 bytes in the order
      of the names, and "parameters".

    Raises:
      UserError: there is no readable checkpoint, a name is not in it, or a weight is
        not finite.
    """
    digest = hashlib.sha256()
    parameters = 0
    for name, value in iterate_values(checkpoint, sorted(names)):
        if not np.isfinite(value).all():
            raise UserError(
                "%s of checkpoint %s is not finite, so whatever is computed with it is "
                "no number: copy the base again, or give another" % (name, checkpoint)
            )
        digest.update(("%s %s\n" % (name, list(value.shape))).encode("utf-8"))
        digest.update(np.ascontiguousarray(value, "<f4"))
        parameters += value.size
        if values is not None:
            values[name] = value
    return {"sha256": digest.hexdigest(), "parameters": parameters}


def copy(checkpoint, folder):
    """Copies a checkpoint into a folder, as its last one.

    Args:
      checkpoint: path without file endings.
      folder: an empty one.
    """
    name = checkpoint.rpartition("/")[2]
    for path in (checkpoint + ".index", *_data_files(checkpoint)):
        tf.io.gfile.copy(path, "%s/%s" % (folder, path.rpartition("/")[2]))
    with tf.io.gfile.GFile(folder + "/checkpoint", "w") as writer:
        writer.write('model_checkpoint_path: "%s"\n' % name)


def remove_unfinished(folder):
    """Removes what a program that was killed while it saved has left in a folder."""
    for path in files.list_folder(folder, "model.ckpt-*_temp*"):
        files.remove(path)


def write(prefix, values):
    """Writes a checkpoint and reads it back.

    Args:
      prefix: path without file endings.
      values: dict from name to array.

    Raises:
      UserError: what is read is not what was written.
    """
    names = sorted(values)
    with tf.Graph().as_default():
        # Fed, because constants of a large model would not fit into one graph.
        inputs = [
            tf.placeholder(tf.as_dtype(values[name].dtype), values[name].shape)
            for name in names
        ]
        save = tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=inputs,
        )
        with tf.Session(config=tf.ConfigProto(device_count={"GPU": 0})) as session:
            session.run(save, {p: values[n] for p, n in zip(inputs, names)})
    remedy = "write it again, on a disk that is in order"
    if sorted(read_shapes(prefix, remedy)) != names:
        raise UserError("checkpoint %s was not written whole: %s" % (prefix, remedy))
    for name, value in iterate_values(prefix, names):
        if not np.array_equal(value, values[name]):
            raise UserError(
                "%s of checkpoint %s reads otherwise than it was written: %s"
                % (name, prefix, remedy)
            )


def check_fit(checkpoint, shapes, trained, allow_random_base=False, remedy=None):
    """Compares a checkpoint with the model that is to start from it.

    Args:
      checkpoint: path without file endings.
      shapes: dict from name to shape, all variables of the model.
      trained: names of the trained variables; only these may be missing.
      allow_random_base: whether frozen variables may be missing too.
      remedy: what to do about one that does not fit, for the messages; None for one
        that `--init_checkpoint` gave.

    Returns:
      A `LoadReport`.

    Raises:
      UserError: nothing of BERT is in the checkpoint, a shape differs, or a frozen
        variable is missing.
    """
    found = read_shapes(checkpoint, remedy or _PATH_REMEDY)
    report = LoadReport(
        matched=sorted(name for name in shapes if name in found),
        missing=sorted(name for name in shapes if name not in found),
        left_over=sorted(
            name
            for name in found
            if name not in shapes and not _TRAINING_STATE.search(name)
        ),
    )
    # Of --train_policy=head the trained variables are none of BERT's.
    if not any(name.startswith("bert/") for name in report.matched) and any(
        name.startswith("bert/") for name in shapes
    ):
        raise UserError(
            "checkpoint %s holds no variable of BERT: expected names such as %s, "
            "found %s; %s"
            % (
                checkpoint,
                sorted(shapes)[0],
                _shorten(sorted(found), 3),
                remedy
                or "give the bert_model.ckpt of a BERT release or a converted one, "
                "--init_checkpoint",
            )
        )
    for name in report.matched:
        if shapes[name] != found[name]:
            raise UserError(
                "%s has shape %s in checkpoint %s but %s in this model: %s"
                % (
                    name,
                    found[name],
                    checkpoint,
                    shapes[name],
                    remedy or _remedy(name),
                )
            )
    frozen_missing = [name for name in report.missing if name not in set(trained)]
    if frozen_missing and not allow_random_base:
        raise UserError(
            "checkpoint %s lacks frozen variables that --bert_config_file asks for, "
            "they would stay random: %s; %s"
            % (
                checkpoint,
                _shorten(frozen_missing),
                remedy
                or "give the config of this checkpoint, or --allow_random_base to go "
                "on anyway",
            )
        )
    return report


def _remedy(name):
    if name.startswith("output_"):
        return (
            "its head has another number of labels; give a checkpoint of the same "
            "task, or one without a head, --init_checkpoint"
        )
    if "/adapters/" in name:
        return "give the size that the checkpoint was trained with, --adapter_size"
    return "give the bert_config.json of this checkpoint, --bert_config_file"


def warm_start(init_checkpoint, use_tpu, adapters_checkpoint=None):
    """Starts the current graph's variables from checkpoints, where names agree.

    Args:
      init_checkpoint: path without file endings, or None for nothing.
      use_tpu: on TPU the values are assigned in a scaffold function.
      adapters_checkpoint: the same as `init_checkpoint`; goes before it.

    Returns:
      The scaffold function for `TPUEstimatorSpec`, or None.
    """
    if not init_checkpoint:
        return None
    # Those of other dtypes start by themselves: see `content_scope`.
    variables = [
        v for v in tf.trainable_variables() if v.dtype.base_dtype == tf.float32
    ]

    def initialize():
        left = variables
        for checkpoint in (adapters_checkpoint, init_checkpoint):
            if checkpoint:
                assignment, found = modeling.get_assignment_map_from_checkpoint(
                    left, checkpoint
                )
                tf.train.init_from_checkpoint(checkpoint, assignment)
                left = [v for v in left if modeling.base_name(v) not in found]

    if not use_tpu:
        initialize()
        return None

    def scaffold_fn():
        initialize()
        return tf.train.Scaffold()

    return scaffold_fn


def content_scope(
    content,
    kernel_dtype=tf.float32,
    init_checkpoint=None,
    policy=optimization.ADAPTER_TUNING,
):
    """The variable scope in which a model's own checkpoints come to hold this content.

    Args:
      content: one of `CONTENTS`.
      kernel_dtype: dtype that frozen kernels are kept in where the content leaves them
        out; in checkpoints they are float32.
      init_checkpoint: the base, path without file endings; for another dtype, since
        `tf.train.init_from_checkpoint` casts nothing.
      policy: the `optimization.TrainPolicy`, which says what is frozen.

    Returns:
      A context manager.
    """

    def cast_from_base(name):
        def initial(shape, dtype, partition_info=None):
            del partition_info
            (value,) = tf.raw_ops.RestoreV2(
                prefix=init_checkpoint,
                tensor_names=[name],
                shape_and_slices=[""],
                dtypes=[tf.float32],
            )
            return tf.reshape(tf.cast(value, dtype), shape)

        return initial

    def frozen_are_local(getter, name, *args, **kwargs):
        collections = set(modeling.TRAINED_COLLECTIONS).intersection(
            kwargs["collections"]
        )
        if not policy.trains(name, *(collections or {modeling.OTHER})):
            # Local variables are not saved, and start anew whenever a session does.
            kwargs["collections"] = [tf.GraphKeys.LOCAL_VARIABLES]
            if kernel_dtype != tf.float32 and name.endswith("/kernel"):
                kwargs.update(dtype=kernel_dtype, initializer=cast_from_base(name))
        return getter(name, *args, **kwargs)

    return tf.variable_scope(
        tf.get_variable_scope(),
        custom_getter=frozen_are_local if content == TRAINED else None,
        use_resource=True,
    )


def checkpoint_bytes(counts, content):
    """About what a training's checkpoint takes.

    Args:
      counts: what `parameter_counts` gives.
      content: one of `CONTENTS`.
    """
    slots = 2 * counts["trained"]
    return 4 * (counts["total" if content == ALL else "trained"] + slots)


def parameter_counts(shapes: dict[str, list[int]], collections: dict[str, list[str]]):
    """Numbers of parameters.

    Args:
      shapes: dict from name to shape, all variables of the model.
      collections: dict from a trained collection to its variables' names.

    Returns:
      Dict: one entry a collection, "trained", "total", "base" (all but adapters and
      head, as in the paper's table 1) and "share" (trained / base).
    """

    def count(names):
        total = 0
        for name in names:
            size = 1
            for dimension in shapes[name]:
                size *= dimension
            total += size
        return total

    counts = {collection: count(names) for collection, names in collections.items()}
    trained = sum(counts.values())
    total = count(shapes)
    base = total - counts[modeling.ADAPTERS] - counts[modeling.HEAD]
    return dict(counts, trained=trained, total=total, base=base, share=trained / base)
