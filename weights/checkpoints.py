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
from errors import UserError, printable
from system import files, wording
from tuning import registry

_PATH_REMEDY = (
    "`init_checkpoint` wants the path without endings, such as .../bert_model.ckpt for "
    "bert_model.ckpt.index and bert_model.ckpt.data-00000-of-00001"
)

_MOST_INDEX_BYTES = 1 << 26  # BERT-large's index has a thousandth of this size.

# Content of a run's checkpoints: all variables, or trained variables, slots and step.
ALL, TRAINED = "all", "trained"
CONTENTS = (ALL, TRAINED)

# Variables of the optimizer and of the Estimator.
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
            "missing:   %s (newly initialized)" % _shorten(self.missing),
            "left over: %s (in the checkpoint, not used)" % _shorten(self.left_over),
        ]


def _shorten(names, most=6):
    if not names:
        return "none"
    shown = ", ".join(names[:most])
    more = ", ..." if len(names) > most else ""
    return "%s: %s%s" % (wording.pluralize(len(names), "variable"), shown, more)


def _data_files(checkpoint):
    return files.list_with_prefix(checkpoint, ".data-*")


class Checkpoint:
    """An open checkpoint, which remembers the tensors that it has checked.

    Attributes:
      path: path of the checkpoint, without file endings.
      shapes: dict from the name of each tensor to its shape, a list of ints.
    """

    def __init__(self, path, remedy=_PATH_REMEDY):
        """Opens a checkpoint, or raises a `UserError` with the remedy."""
        self.path, self._remedy = path, remedy
        self._checked, self._fingerprints = set(), {}
        with self._explain_errors(remedy):
            if not tf.io.gfile.exists(path + ".index"):
                raise UserError("no checkpoint at %s: %s" % (path, remedy))
            for file in (path + ".index", *_data_files(path)):
                files.check_plain_file(file, file)
            self._reader = tf.train.load_checkpoint(path)
            self._dtypes = self._reader.get_variable_to_dtype_map()
            shapes = self._reader.get_variable_to_shape_map()
            self.shapes = {name: list(shape) for name, shape in shapes.items()}
            # A missing or short data file would show only when weights are loaded.
            present = sum(tf.io.gfile.stat(file).length for file in _data_files(path))
        needed = sum(
            math.prod(shape) * self._dtypes[name].size for name, shape in shapes.items()
        )
        if present < needed:
            raise UserError(
                "checkpoint %s cannot be read (its .data files hold %d bytes of %d): "
                "copy it again; %s" % (path, present, needed, remedy)
            )

    @contextlib.contextmanager
    def _explain_errors(self, remedy):
        """Turns an error of TensorFlow's while reading into a `UserError`."""
        try:
            yield
        except (tf.errors.OpError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                "checkpoint %s cannot be read (%s): %s" % (self.path, reason, remedy)
            ) from None

    @property
    def folder_name(self):
        """Name of its folder, for a base model's name; None for the working folder."""
        return printable(os.path.basename(os.path.dirname(self.path))) or None

    @property
    def step(self):
        """The global step; 0 if the checkpoint has none, such as Google's."""
        name = tf.GraphKeys.GLOBAL_STEP
        return int(self.read_value(name)) if name in self.shapes else 0

    def read_value(self, name):
        """One tensor as an array; raises a `UserError` where it is damaged."""
        with self._explain_errors(self._remedy):
            return self._reader.get_tensor(name)

    def iterate_values(self, names):
        """Yields pairs of name and array, one at a time: a base model may be large.

        A `UserError` is raised if a name is missing, or its tensor is damaged.
        """
        if missing := [name for name in names if name not in self.shapes]:
            raise UserError("checkpoint %s lacks %s" % (self.path, _shorten(missing)))
        for name in names:
            yield name, self.read_value(name)

    def _read_finite(self, name, remedy):
        """A weight that has been checked, as an array; see `check_values`."""
        with self._explain_errors(remedy):
            value, dtype = self._reader.get_tensor(name), self._dtypes[name]
        if dtype.is_floating and dtype != tf.float32:
            raise UserError(
                "%s is %s in checkpoint %s, where float32 is needed: %s"
                % (name, dtype.name, self.path, remedy)
            )
        if dtype.is_floating and not np.isfinite(value).all():
            raise UserError(
                "%s is not finite in checkpoint %s, so nothing can be computed with "
                "it: %s" % (name, self.path, remedy)
            )
        self._checked.add(name)
        return value

    def check_values(self, remedy, names=None):
        """Reads tensors, all by default, so that damage is found before anything slow.

        A `UserError` with the remedy is raised if a checksum is wrong, a floating dtype
        is not float32, or a value is not finite.
        """
        names = set(self.shapes) if names is None else set(names)
        for name in sorted(names - self._checked):
            self._read_finite(name, remedy)

    def index_digest(self):
        """SHA-256 of the index file: names, shapes and checksums of all tensors."""
        index = files.read(self.path + ".index", _MOST_INDEX_BYTES, self._remedy)
        return hashlib.sha256(index).hexdigest()

    def base_fingerprint(self, names):
        """Identifies a base model by its frozen variables, which `names` lists.

        Returns a dict: "sha256", over names, shapes and little-endian float32 bytes in
        the order of the names, and "parameters". A `UserError` is raised if a name is
        missing, or a weight is not finite.
        """
        names = tuple(sorted(names))
        if names not in self._fingerprints:
            digest, parameters = hashlib.sha256(), 0
            for name in names:
                value = self._read_finite(
                    name, "copy the base model again, or give another"
                )
                digest.update(("%s %s\n" % (name, list(value.shape))).encode("utf-8"))
                digest.update(np.ascontiguousarray(value, "<f4"))
                parameters += value.size
            found = {"sha256": digest.hexdigest(), "parameters": parameters}
            self._fingerprints[names] = found
        return self._fingerprints[names]

    def check_fit(self, shapes, trained=(), allow_random_base=False, remedy=None):
        """Compares the checkpoint with the model that is to start from it.

        Args:
          shapes: dict from name to shape, all variables of the model.
          trained: names that may be missing; with `allow_random_base` all may.
          remedy: what to do if the checkpoint does not fit, for error messages; None
            for the checkpoint of `init_checkpoint`.

        Returns a `LoadReport`. A `UserError` is raised if the checkpoint has no
        variable of BERT, a shape differs, a weight is an integer, or a frozen variable
        is missing.
        """
        found = self.shapes
        others = found.keys() - shapes
        report = LoadReport(
            matched=sorted(found.keys() & shapes),
            missing=sorted(shapes.keys() - found),
            left_over=sorted(n for n in others if not _TRAINING_STATE.search(n)),
        )

        def refuse(problem, default_remedy):
            text = "checkpoint %s %s: %s"
            raise UserError(text % (self.path, problem, remedy or default_remedy))

        of_bert = [name for name in sorted(shapes) if name.startswith("bert/")]
        # With `train_policy`=head no trained variable belongs to BERT.
        if of_bert and not found.keys() & of_bert:
            refuse(
                "holds no variable of BERT such as %s, but %s"
                % (of_bert[0], _shorten(sorted(found), 3)),
                "give the bert_model.ckpt of a BERT release or a converted one, "
                "`init_checkpoint`",
            )
        for name in report.matched:
            if shapes[name] != found[name]:
                refuse(
                    "has %s of shape %s, this model of %s"
                    % (name, found[name], shapes[name]),
                    _shape_remedy(name),
                )
            if not (dtype := self._dtypes[name]).is_floating:
                raise UserError(
                    "checkpoint %s has %s of dtype %s, where float32 is needed: give "
                    "another checkpoint" % (self.path, name, dtype.name)
                )
        frozen_missing = [name for name in report.missing if name not in set(trained)]
        if frozen_missing and not allow_random_base:
            refuse(
                "lacks frozen variables that `bert_config_file` asks for and that "
                "would stay random: %s" % _shorten(frozen_missing),
                "give the config of this checkpoint, or `allow_random_base` to use it "
                "anyway",
            )
        return report


def _shape_remedy(name):
    if name.startswith(("output_", "head/")):
        return (
            "its head has another number of labels; give a checkpoint of the same "
            "task, or one without a head, `init_checkpoint`"
        )
    method, _ = registry.find_units(name)
    if method is not None:
        text = "give the size that the checkpoint was trained with, `%s`"
        return text % method.units_setting
    return "give the bert_config.json of this checkpoint, `bert_config_file`"


def latest(folder):
    """The last checkpoint in a folder, a path without file endings, or None.

    A `UserError` is raised if the file that names it is damaged.
    """
    path = os.path.join(folder, "checkpoint")
    files.check_plain_file(path, path)
    try:
        return tf.train.latest_checkpoint(folder)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            "%s/checkpoint, the file that names the last checkpoint, is damaged (%s): "
            'write it anew (one line, such as model_checkpoint_path: "model.ckpt-9"), '
            "or delete it if there is none" % (folder, " ".join(str(error).split()))
        ) from None


def copy(checkpoint, folder):
    """Copies a checkpoint, a path without file endings, into an empty folder."""
    name = checkpoint.rpartition("/")[2]
    for path in (checkpoint + ".index", *_data_files(checkpoint)):
        tf.io.gfile.copy(path, "%s/%s" % (folder, path.rpartition("/")[2]))
    with tf.io.gfile.GFile(folder + "/checkpoint", "w") as writer:
        writer.write('model_checkpoint_path: "%s"\n' % name)


def write(prefix, values):
    """Writes a dict from name to array to a path without endings, and reads it back."""
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
    for name, value in Checkpoint(prefix, remedy).iterate_values(names):
        if not np.array_equal(value, values[name]):
            raise UserError(
                "%s of checkpoint %s differs from what was written: %s"
                % (name, prefix, remedy)
            )


def warm_start(init_checkpoint, use_tpu, adapters_checkpoint=None):
    """Initializes the current graph's variables from checkpoints, by name.

    Args:
      init_checkpoint: path without file endings, or None for nothing.
      use_tpu: whether to return the scaffold function for `TPUEstimatorSpec` that
        assigns the values, instead of None.
      adapters_checkpoint: path; takes precedence over `init_checkpoint`.
    """
    if not init_checkpoint:
        return None
    # Variables of other dtypes are initialized by `content_scope`.
    variables = [
        v for v in tf.trainable_variables() if v.dtype.base_dtype == tf.float32
    ]

    def initialize():
        left = variables
        for checkpoint in filter(None, (adapters_checkpoint, init_checkpoint)):
            assignment, found = modeling.get_assignment_map_from_checkpoint(
                left, checkpoint
            )
            tf.train.init_from_checkpoint(checkpoint, assignment)
            left = [v for v in left if modeling.base_name(v) not in found]
        return tf.train.Scaffold()

    if use_tpu:
        return initialize
    initialize()
    return None


def content_scope(
    content, kernel_dtype=tf.float32, init_checkpoint=None, method=registry.DEFAULT
):
    """The variable scope for a model whose own checkpoints have one of `CONTENTS`.

    With `TRAINED`, frozen kernels are stored in `kernel_dtype`. If that is not float32,
    they are read from `init_checkpoint`, since `tf.train.init_from_checkpoint` does not
    cast.
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

    def make_frozen_local(getter, name, *args, **kwargs):
        collections = set(modeling.TRAINED_COLLECTIONS).intersection(
            kwargs["collections"]
        )
        if not method.trains(name, *(collections or {modeling.OTHER})):
            # Local variables are not saved; each session initializes them.
            kwargs["collections"] = [tf.GraphKeys.LOCAL_VARIABLES]
            if kernel_dtype != tf.float32 and name.endswith("/kernel"):
                kwargs.update(dtype=kernel_dtype, initializer=cast_from_base(name))
        return getter(name, *args, **kwargs)

    return tf.variable_scope(
        tf.get_variable_scope(),
        custom_getter=make_frozen_local if content == TRAINED else None,
        use_resource=True,
    )
