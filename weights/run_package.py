"""The adapter package of a run: what it starts from, and what it leaves behind."""

import atexit
import os
import shutil
import tempfile
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import optimization
from system import console, files
from weights import adapter_package, checkpoints, variable_shapes


class PackageSettings(NamedTuple):
    """What the package of a training is made of, beside its weights."""

    description: adapter_package.Description
    # With the frozen weights; None: the run's own checkpoint.
    base_checkpoint: checkpoints.Checkpoint | None


def package_folder(output_dir):
    """Where a run's own package lies."""
    return os.path.join(output_dir, adapter_package.FOLDER)


def write(output_dir, settings, diagnostics, dev_scores=None):
    """Writes the package of the last checkpoint; says so where there is none.

    Args:
      output_dir: the run's folder.
      settings: a `PackageSettings`.
      diagnostics: a `diagnosis.Diagnostics`.
      dev_scores: dict from dev set to dict from metric to float, where they are known.

    Raises:
      UserError: a weight is not finite, or the folder cannot be written.
    """
    checkpoint = checkpoints.latest(output_dir)
    description = settings.description
    config = modeling.BertConfig.from_dict(description.bert_config)
    policy = description.policy
    if policy.name == optimization.FULL:
        console.say(
            "No adapter package: --train_policy=full trains the whole model, and the "
            "checkpoint %s is what it leaves; it is a BERT with a head, to be given as "
            "--init_checkpoint",
            checkpoint,
        )
        return
    outputs = 1 if description.is_regression else len(description.labels)
    names = variable_shapes.trained_shapes(
        config, description.adapter_size, outputs, policy
    )
    checkpoint = checkpoints.Checkpoint(checkpoint)
    adapter_package.write(
        package_folder(output_dir),
        description,
        dict(checkpoint.iterate_values(names)),
        (settings.base_checkpoint or checkpoint).base_fingerprint(
            variable_shapes.frozen_shapes(config, policy)
        ),
        int(checkpoint.read_value(tf.GraphKeys.GLOBAL_STEP)),
        dev_scores,
        diagnostics,
    )


def add_scores(output_dir, global_step, dev_scores, diagnostics):
    """Adds dev scores to the run's own package, where it is of the same step.

    Args:
      output_dir: the run's folder.
      global_step: the step whose weights were scored.
      dev_scores: dict from dev set to dict from metric to float.
      diagnostics: a `diagnosis.Diagnostics`.

    Raises:
      UserError: the package is damaged.
    """
    folder = package_folder(output_dir)
    if not tf.io.gfile.exists(files.stored_at(folder)):
        return
    package = adapter_package.read(folder)
    if package.config["global_step"] == global_step:
        adapter_package.add_scores(package, dev_scores, diagnostics)


def write_checkpoint(package, output_dir, use_tpu):
    """Writes a package's weights as a checkpoint, which ends with the program.

    Args:
      package: an `adapter_package.AdapterPackage`.
      output_dir: the run's folder; a TPU can read from there alone.
      use_tpu: whether the graph is to run on TPU.

    Returns:
      The path without file endings.
    """
    if use_tpu:
        folder = os.path.join(output_dir, "adapters_at_start")
        tf.io.gfile.makedirs(folder)
        atexit.register(tf.io.gfile.rmtree, folder)
    else:
        folder = temporary_folder()
    prefix = os.path.join(folder, "adapters.ckpt")
    checkpoints.write(prefix, package.weights)
    return prefix


def temporary_folder():
    """A folder of this machine that ends with the program."""
    folder = tempfile.mkdtemp(prefix="adapter_bert_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
