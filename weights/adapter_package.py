"""Adapter packages: what one task adds to a base, as two small files in a folder.

`adapter.safetensors` holds the trained variables (adapters, layer norms and head, or
what else the policy trains) under their names, float32. `adapter_config.json` says what
they belong to, and holds the SHA-256 of the weights' file and of itself, so that damage
to either is found.
"""

import contextlib
import hashlib
import json
import math
import os
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import tensorflow.compat.v1 as tf

import modeling
import optimization
from errors import UserError
from system import files
from weights import diagnosis, package_checks, variable_shapes

VERSION = "1.1.0"  # of this program

WEIGHTS_NAME = "adapter.safetensors"
CONFIG_NAME = "adapter_config.json"
FOLDER = "adapters"  # of a run, in its output_dir

_REMEDY = (
    "an adapter package is a folder with %s and %s, such as OUTPUT_DIR/%s of a "
    "training; if it is one, copy it again" % (CONFIG_NAME, WEIGHTS_NAME, FOLDER)
)


_MOST_READS = 5  # of a package that is being replaced


class AdapterPackage(NamedTuple):
    """A package that has been read and found whole."""

    path: str
    config: dict[str, Any]  # adapter_config.json
    weights: dict[str, np.ndarray]  # float32, by the variable's name
    file_bytes: int  # length of both files together

    @property
    def bert_config(self):
        """The `modeling.BertConfig` of the base."""
        return modeling.BertConfig.from_dict(self.config["bert_config"])

    @property
    def task(self):
        """Name of the task."""
        return self.config["task"]["name"]

    @property
    def labels(self):
        """Label strings in the order of their ids; [] for regression."""
        return self.config["task"]["labels"]

    @property
    def is_regression(self):
        """Whether the label is a number."""
        return self.config["task"]["is_regression"]

    @property
    def text_columns(self):
        """Columns of the task's two texts in its files, names or numbers.

        None where they are not known; the second is None where it takes one text.
        """
        return self.config["task"].get("text_columns")

    @property
    def takes_pairs(self):
        """Whether a row has two texts; None where that is not known."""
        return None if self.text_columns is None else self.text_columns[1] is not None

    @property
    def diagnostics(self):
        """Warnings about its weights, a `diagnosis.Diagnostics`."""
        return diagnosis.from_json(self.config.get("health"))

    @property
    def policy(self):
        """The `optimization.TrainPolicy`: what it holds."""
        return package_checks.package_policy(self.config)

    @property
    def encoder_weights(self):
        """Names of weights that are not adapters, layer norms or head, sorted."""
        variables = variable_shapes.model_variables(self.bert_config, 1, 1, self.policy)
        return sorted(set(self.weights) - set(variables.new()))

    @property
    def adapter_size(self):
        """The bottleneck's width; 0 without adapters."""
        return self.config["adapter"]["size"]

    @property
    def activation(self):
        """The adapters' activation, one of `activations.ADAPTER_ACTIVATIONS`."""
        return self.config["adapter"]["activation"]


class Description(NamedTuple):
    """What a package's weights belong to."""

    task_name: str
    labels: list[str]
    is_regression: bool
    metrics: list[str]
    bert_config: dict[str, Any]
    adapter_size: int  # without adapters any
    vocabulary: str  # SHA-256 of the vocabulary's file
    do_lower_case: bool
    max_seq_length: int
    adapter_init_scale: float | None = None  # where it is known
    activation: str = "gelu"
    settings: dict[str, Any] | None = None  # of the training
    text_columns: list | None = None  # of the two texts, where they are known
    selection: str | None = None  # which of a training's steps, if not the last
    origin: str | None = None  # where the weights were trained, if not here
    policy: optimization.TrainPolicy = optimization.ADAPTER_TUNING


# --- writing --------------------------------------------------------------------


def write(
    folder, description, weights, base, global_step, dev_scores=None, diagnostics=None
):
    """Writes a package, whole or not at all; an earlier one there is replaced.

    Args:
      folder: its path.
      description: a `Description`.
      weights: dict from name to float32 array, exactly the trained variables.
      base: what `checkpoints.base_fingerprint` gives.
      global_step: updates that the weights have seen.
      dev_scores: dict from dev set to dict from metric to float, or None.
      diagnostics: a `diagnosis.Diagnostics`, or None.

    Raises:
      UserError: a weight is not finite, or the folder cannot be written or holds
        something else.
    """
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise UserError(
                "%s is not finite: the training diverged, no adapter package is "
                "written to %s; try a smaller --learning_rate" % (name, folder)
            )
    policy = description.policy
    num_layers = description.bert_config["num_hidden_layers"]
    config = {
        "format": package_checks.FORMAT,
        "format_version": package_checks.FORMAT_VERSION,
        "program_version": VERSION,
        "task": {
            "name": description.task_name,
            "labels": list(description.labels),
            "is_regression": description.is_regression,
            "metrics": list(description.metrics),
            "text_columns": description.text_columns,
        },
        "bert_config": description.bert_config,
        "adapter": {
            "size": description.adapter_size if policy.has_adapters else 0,
            "layers": policy.layers_with_adapters(num_layers),
            "init_scale": description.adapter_init_scale
            if policy.has_adapters
            else None,
            "activation": description.activation,
        },
        "train_policy": policy.text,
        "vocabulary": description.vocabulary,
        "do_lower_case": description.do_lower_case,
        "max_seq_length": description.max_seq_length,
        "settings": description.settings,
        "origin": description.origin,
        "selection": description.selection,
        "global_step": int(global_step),
        "dev_scores": _as_json(dev_scores),
        "health": diagnostics.to_json() if diagnostics else None,
        "parameters": sum(value.size for value in weights.values()),
        "base": base,
    }
    _write(folder, config, weights)


def update_task(package, task):
    """A package whose task's columns and metrics are those of a row.

    Args:
      package: an `AdapterPackage`.
      task: a `tasks.Task` of the same name.

    Raises:
      UserError: it has other labels.
    """
    if package.labels != list(task.labels):
        raise UserError(
            "--task_config=%s has the labels %s, the package %s of this task has %s: "
            "give the file that it was trained with"
            % (
                task.config_file,
                json.dumps(list(task.labels), ensure_ascii=False),
                package.path,
                json.dumps(package.labels, ensure_ascii=False),
            )
        )
    entries = dict(
        package.config["task"],
        text_columns=list(task.text_columns),
        metrics=list(task.metrics),
    )
    return package._replace(config=dict(package.config, task=entries))


def add_scores(package, dev_scores, diagnostics):
    """Writes a package anew with its dev scores and diagnostics; see `write`."""
    config = dict(
        package.config, dev_scores=_as_json(dev_scores), health=diagnostics.to_json()
    )
    _write(package.path, config, package.weights)


def _as_json(dev_scores):
    """JSON has no NaN, which is the score of predictions that are no numbers."""
    if dev_scores is None:
        return None
    return {
        name: {
            metric: value if math.isfinite(value) else None
            for metric, value in scores.items()
        }
        for name, scores in dev_scores.items()
    }


def _write(folder, config, weights):
    folder = folder.rstrip("/")
    weights_path = os.path.join(folder, WEIGHTS_NAME)
    config_path = os.path.join(folder, CONFIG_NAME)
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(weights[name], "<f4") for name in sorted(weights)}
    )
    digest = package_checks.DIGEST
    config = {key: value for key, value in config.items() if key != digest}
    config["weights"] = {"bytes": len(data), digest: hashlib.sha256(data).hexdigest()}
    config[digest] = package_checks.config_digest(config)
    text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
    # What is written can be read.
    config = package_checks.parse_config(text.encode("utf-8"), config_path)
    trained, frozen = _shapes(config)
    package_checks.check_counts(config, trained, frozen, config_path)
    package_checks.check_weights(weights, trained, weights_path)
    contents = {WEIGHTS_NAME: data, CONFIG_NAME: text.encode("utf-8")}
    need = sum(map(len, contents.values()))
    with files.atomic_folder(folder, need, _is_package) as partial:
        for name, content in contents.items():
            with tf.io.gfile.GFile(os.path.join(partial, name), "wb") as writer:
                writer.write(content)


def check_task(task):
    """Refuses a task that a package cannot hold.

    Args:
      task: a `tasks.Task`.

    Raises:
      UserError: naming the entry and the file of the task.
    """
    entries = _task_entries(task)
    source = task.config_file or task.name
    size, most = len(json.dumps(entries)), package_checks.MOST_TASK_BYTES
    if size > most:
        raise UserError(
            "%s: its %d labels, metrics and columns take %d bytes in an adapter "
            "package, at most %d are allowed: shorten the labels"
            % (source, len(task.labels), size, most)
        )
    try:
        package_checks.TASK_SCHEMA.check(entries, "task")
    except ValueError as error:
        raise UserError("%s: %s" % (source, error)) from None


def _task_entries(task):
    return {
        "name": task.name,
        "labels": list(task.labels),
        "is_regression": task.is_regression,
        "metrics": list(task.metrics),
        "text_columns": list(task.text_columns),
    }


def check_replaceable(folder):
    """Refuses a folder of other files, which `write` would not replace."""
    files.check_replaceable(folder, _is_package)


def _is_package(names):
    return names <= {WEIGHTS_NAME, CONFIG_NAME}


# --- reading --------------------------------------------------------------------


def read(folder):
    """Reads a package, also while another program replaces it.

    Returns:
      An `AdapterPackage`.

    Raises:
      UserError: naming the file that is missing, damaged or of another program.
    """
    for _ in range(_MOST_READS - 1):
        # The two files may be of two packages, the one before and the one after.
        with contextlib.suppress(UserError):
            return _read(folder)
    return _read(folder)


def _read(folder):
    found_in = files.stored_at(folder)
    config_path = os.path.join(found_in, CONFIG_NAME)
    config_data = files.read(config_path, package_checks.MOST_CONFIG_BYTES, _REMEDY)
    config = package_checks.parse_config(config_data, config_path)
    trained, frozen = _shapes(config)
    package_checks.check_counts(config, trained, frozen, config_path)
    weights_path = os.path.join(found_in, WEIGHTS_NAME)
    data = files.read(weights_path, config["weights"]["bytes"], _REMEDY)
    weights = package_checks.parse_weights(data, config, trained, weights_path)
    return AdapterPackage(folder, config, weights, len(config_data) + len(data))


def _shapes(config):
    """Trained and frozen variables of a config that has been checked."""
    bert_config = modeling.BertConfig.from_dict(config["bert_config"])
    task = config["task"]
    outputs = 1 if task["is_regression"] else len(task["labels"])
    policy = package_checks.package_policy(config)
    return (
        variable_shapes.trained_shapes(
            bert_config, config["adapter"]["size"], outputs, policy
        ),
        variable_shapes.frozen_shapes(bert_config, policy),
    )


# --- fitting --------------------------------------------------------------------

# The rest of a bert_config, such as dropout, does not decide whether weights fit.
_FITTING = (*modeling.CONFIG_SIZES, "hidden_act")


def check_fit(package, given):
    """Refuses a package that does not belong to what a run was given.

    Args:
      package: an `AdapterPackage`.
      given: see `find_mismatches`.

    Raises:
      UserError: what differs, with both values and the flag to change.
    """
    for misfit in find_mismatches(package, given):
        raise UserError("--adapters=%s does not fit: %s" % (package.path, misfit))


def find_mismatches(package, given):
    """How a package differs from what it is to be used with.

    Args:
      package: an `AdapterPackage`.
      given: dict with any of "base" (what `checkpoints.base_fingerprint` gives),
        "bert_config" (dict), "vocabulary" (SHA-256), "do_lower_case", "train_policy",
        "adapter_layers" (list), "adapter_size", "labels" (list; [] for regression).

    Returns:
      List of texts, each with both values and the flag to change.
    """
    config = package.config
    wanted = {
        "bert_config": (config["bert_config"], "bert_config_file"),
        "vocabulary": (config["vocabulary"], "vocab_file"),
        "do_lower_case": (config["do_lower_case"], "do_lower_case"),
        "train_policy": (config["train_policy"], "train_policy"),
        "adapter_layers": (config["adapter"]["layers"], "adapter_layers"),
        "adapter_size": (package.adapter_size, "adapter_size"),
        "labels": (package.labels, "task_name"),
        "base": (config["base"], "init_checkpoint"),
    }
    found = []
    for key, (expected, flag) in wanted.items():
        value = given.get(key, expected)
        if isinstance(expected, dict):
            keys = ("sha256",) if key == "base" else _FITTING
            differ = [k for k in keys if expected.get(k) != value.get(k)]
            expected = {k: expected.get(k) for k in differ}
            value = {k: value.get(k) for k in differ}
        if value != expected:
            found.append(
                "its %s is %s, given is %s; give the one that it was trained with, --%s"
                % (
                    key,
                    json.dumps(expected, sort_keys=True),
                    json.dumps(value, sort_keys=True),
                    flag,
                )
            )
    return found
