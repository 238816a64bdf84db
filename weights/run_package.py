"""The adapter package of a run: the one it starts from, and the one it writes."""

import atexit
import contextlib
import os
import shutil
import tempfile
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from system import console, files
from weights import adapter_package, checkpoints, package_checks, run_record


class PackageSettings(NamedTuple):
    """The content of a run's package besides the weights."""

    config: dict[str, Any]  # see `adapter_package.make_config`
    # Checkpoint with the frozen weights; None: the run's own.
    base_checkpoint: checkpoints.Checkpoint | None
    has_package: bool = True  # whether the tuning method has packages


def package_folder(output_dir):
    """The folder of a run's own package."""
    return os.path.join(output_dir, adapter_package.FOLDER)


def write(output_dir, settings, diagnostics, dev_scores=None):
    """Writes the package of a folder's last checkpoint, with its `PackageSettings`.

    The folder has a `run.json`. No package is written if the tuning method has none.
    See also `adapter_package.write`.
    """
    checkpoint = checkpoints.latest(output_dir)
    scores = adapter_package.score_entries(dev_scores, diagnostics)
    config = {**settings.config, **_examples(output_dir), **scores}
    if not settings.has_package:
        console.say(
            "No adapter package: `train_policy`=%s trains the whole model. The "
            "checkpoint %s is a BERT with a head, which can be given as "
            "`init_checkpoint`",
            config["train_policy"],
            checkpoint,
        )
        return
    checkpoint = checkpoints.Checkpoint(checkpoint)
    variables = package_checks.package_variables(config)
    adapter_package.write(
        package_folder(output_dir),
        config,
        dict(checkpoint.iterate_values(variables.trained())),
        (settings.base_checkpoint or checkpoint).base_fingerprint(variables.frozen()),
        checkpoint.step,
    )


def add_scores(output_dir, task_type, global_step, dev_scores, diagnostics, baseline):
    """Adds the dev scores of a step to the run's own package, if it is of that step.

    They are left out if the package's `task_type.TaskType` decodes otherwise.
    """
    folder = package_folder(output_dir)
    if tf.io.gfile.exists(files.find_stored_folder(folder)):
        package = adapter_package.read(folder)
        package.config.update(_examples(output_dir))
        if package.task_type.package_entries() != task_type.package_entries():
            console.warn(
                "%s has other settings than this evaluation, and keeps its scores",
                folder,
            )
        elif package.config["global_step"] == global_step:
            adapter_package.add_scores(package, dev_scores, diagnostics, baseline)


def _examples(output_dir):
    """The entry "examples" of a folder's record, a dict."""
    return {"examples": run_record.read(output_dir).get("examples")}


def write_checkpoint(package, output_dir, use_tpu):
    """Writes a package's weights as a checkpoint, removed when the program ends.

    Returns the path without file endings; in `output_dir`, the only folder that a TPU
    can read, if it is used.
    """
    if use_tpu:
        stack = contextlib.ExitStack()
        path = os.path.join(output_dir, "adapters_at_start")
        folder = stack.enter_context(files.working_folder(path))
        atexit.register(stack.close)
    else:
        folder = temporary_folder()
    prefix = os.path.join(folder, "adapters.ckpt")
    checkpoints.write(prefix, package.weights)
    return prefix


def temporary_folder():
    """A local folder that is removed when the program ends."""
    folder = tempfile.mkdtemp(prefix="adapter_bert_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
