"""Adapter packages: what one task adds to a base model, as a folder of small files.

`adapter.safetensors` holds the trained variables by name, in float32.
`adapter_config.json` describes them, see `package_checks.SCHEMA`; its SHA-256 sums
reveal damage to either file. README.md is a `model_card`, which is not read.
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
from errors import UserError, explain_value_errors
from model import configuration
from system import files, schema
from tuning import registry
from weights import diagnosis, model_card, package_checks

VERSION = "1.2.0.dev0"  # of this program

WEIGHTS_NAME = "adapter.safetensors"
CONFIG_NAME = "adapter_config.json"
FOLDER = "adapters"  # of a run, in its output_dir

_REMEDY = (
    "an adapter package is a folder with %s and %s, such as OUTPUT_DIR/%s of a "
    "training run; if it is one, copy it again" % (CONFIG_NAME, WEIGHTS_NAME, FOLDER)
)
_MOST_READS = 5  # of a package that is being replaced


class AdapterPackage(NamedTuple):
    """A package that has been read and checked."""

    path: str
    config: dict[str, Any]  # the entries of `package_checks.SCHEMA`
    weights: dict[str, np.ndarray]  # variable name -> float32 array
    file_bytes: int  # length of weights and config together

    @property
    def bert_config(self):
        """The `modeling.BertConfig` of the base model."""
        return modeling.BertConfig.from_dict(self.config["bert_config"])

    @property
    def task(self):
        """Name of the task."""
        return self.config["task"]["name"]

    @property
    def labels(self):
        """Labels in the order of their ids; [] if the task has no list of them."""
        return self.config["task"]["labels"]

    @property
    def task_type(self):
        """The `task_type.TaskType` of the task."""
        return package_checks.package_task_type(self.config)

    @property
    def text_columns(self):
        """The entry "text_columns" of `package_checks.TASK_SCHEMA`; None: not known."""
        return self.config["task"].get("text_columns")

    @property
    def takes_pairs(self):
        """Whether an example has two texts; None if that is not known."""
        return None if self.text_columns is None else self.text_columns[1] is not None

    @property
    def diagnostics(self):
        """Warnings about the model, a `diagnosis.Diagnostics`."""
        return diagnosis.from_json(self.config["health"])

    @property
    def method(self):
        """The `tuning.method.Method` of its training run."""
        return package_checks.package_method(self.config)

    @property
    def variables(self):
        """The `model_variables.VariableSet` of its model."""
        return package_checks.package_variables(self.config)

    @property
    def encoder_weights(self):
        """Names of weights that are not adapters, layer norms or head, sorted."""
        return sorted(set(self.weights) - set(self.variables.task_specific()))

    @property
    def adapter_size(self):
        """Size of the bottleneck; 0 without adapters."""
        return self.config["adapter"]["size"]


def make_config(
    task,
    bert_config,
    vocabulary,
    do_lower_case,
    max_seq_length,
    method=registry.DEFAULT,
    **optional,
):
    """The entries of `package_checks.SCHEMA` that do not depend on the weights, a dict.

    `task` is a dict, see `describe_task`; `vocabulary` is the SHA-256 of its file;
    `optional` can have "settings", "selection", "origin" and "base_model".
    """
    return {
        "format": package_checks.FORMAT,
        "format_version": package_checks.FORMAT_VERSION,
        "program_version": VERSION,
        "task": task,
        "bert_config": bert_config.to_dict(),
        "adapter": method.entry(bert_config.num_hidden_layers),
        "train_policy": method.text,
        "vocabulary": vocabulary,
        "do_lower_case": do_lower_case,
        "max_seq_length": max_seq_length,
        **dict.fromkeys(package_checks.SCHEMA.optional),
        **optional,
    }


def describe_task(task, name=None):
    """The entries of `package_checks.TASK_SCHEMA` of a `task_data.Task`, a dict.

    They have its name, unless another is given.
    """
    return {
        **describe_type(task.type, name or task.name),
        "metrics": list(task.metrics),
        "text_columns": list(task.text_columns),
    }


def describe_type(task_type, name):
    """The same of a task of which only name and `task_type.TaskType` are known."""
    columns = None if task_type.has_task_files else list(task_type.text_columns)
    return {
        "name": name,
        **task_type.package_entries(),
        "metrics": list(task_type.default_metrics),
        "text_columns": columns,
    }


def check_task(task):
    """Refuses a `task_data.Task` that a package cannot hold: a `UserError`."""
    entries = describe_task(task)
    source = task.config_file or task.name
    size, most = len(json.dumps(entries)), package_checks.MOST_TASK_BYTES
    if size > most:
        raise UserError(
            "%s: its %d labels, metrics and columns take %d bytes in an adapter "
            "package, at most %d are allowed: shorten the labels"
            % (source, len(task.type.labels), size, most)
        )
    with explain_value_errors(source):
        package_checks.TASK_SCHEMA.check(entries, "task")


def score_entries(dev_scores, diagnostics, baseline=None):
    """The entries of `package_checks.SCHEMA` that an evaluation gives, a dict.

    Args:
      dev_scores: dict from dev set to dict from metric to float, or None.
      diagnostics: a `diagnosis.Diagnostics`, or None.
      baseline: the baseline's scores, as `dev_scores`.
    """
    return {
        "dev_scores": _without_nan(dev_scores),
        "baseline": _without_nan(baseline),
        "health": diagnostics and diagnostics.to_json(),
    }


def write(folder, config, weights, base, global_step):
    """Writes a package atomically; an earlier one in the folder is replaced.

    Args:
      folder: its path.
      config: the result of `make_config`, with `score_entries` if there are some.
      weights: dict from variable name to float32 array, exactly the trained variables.
      base: fingerprint of the base model, see
        `checkpoints.Checkpoint.base_fingerprint`.
      global_step: the step of the weights.

    Raises:
      UserError: a weight is not finite, or the folder cannot be written or holds
        other files.
    """
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise UserError(
                "%s is not finite: training diverged, no adapter package is "
                "written to %s; try a smaller `learning_rate`" % (name, folder)
            )
    parameters = sum(value.size for value in weights.values())
    config = dict(config, global_step=global_step, parameters=parameters, base=base)
    _write(folder, config, weights)


def update_task(package, task):
    """An `AdapterPackage` with the text columns and metrics of its `task_data.Task`.

    A `UserError` is raised if the task is of another type, or has other labels.
    """
    if task.type.name != package.task_type.name:
        raise UserError(
            "`task_config`=%s describes a task of the type %s, the package %s is of "
            "the type %s: give the file that it was trained with"
            % (task.config_file, task.type.name, package.path, package.task_type.name)
        )
    task = task._replace(type=task.type.adopt_head(package.task_type.head))
    entries = describe_task(task, package.task)
    if package.labels != entries["labels"]:
        raise UserError(
            "`task_config`=%s has the labels %s, the package %s of this task has %s: "
            "give the file that it was trained with"
            % (
                task.config_file,
                schema.json_text(entries["labels"]),
                package.path,
                schema.json_text(package.labels),
            )
        )
    return package._replace(config=dict(package.config, task=entries))


def add_license(package, text):
    """Writes a package again with the name of its license, a line; or a `UserError`."""
    if not schema.LINE.accepts(text):
        raise UserError("`license`=%s: give %s" % (text, schema.LINE.allowed))
    _write(package.path, {**package.config, "license": text}, package.weights)


def add_scores(package, dev_scores, diagnostics, baseline=None):
    """Writes a package again with its `score_entries`."""
    scores = score_entries(dev_scores, diagnostics, baseline)
    _write(package.path, {**package.config, **scores}, package.weights)


def _without_nan(scores):
    """Scores by dev set, or None, in JSON, which has no NaN."""

    def replace(value):
        return None if value is None or not math.isfinite(value) else value

    return scores and {
        name: {metric: replace(value) for metric, value in found.items()}
        for name, found in scores.items()
    }


def _write(folder, config, weights):
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(weights[name], "<f4") for name in sorted(weights)}
    )
    digest = package_checks.DIGEST
    weights_entry = {"bytes": len(data), digest: hashlib.sha256(data).hexdigest()}
    config = dict(config, weights=weights_entry)
    config[digest] = package_checks.config_digest(config)
    # `read` must accept the files.
    with explain_value_errors("the adapter package %s cannot be written" % folder):
        text = json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"
        config = json.loads(text)
        package_checks.check_config(config)
        variables = package_checks.package_variables(config)
        package_checks.check_weights(weights, variables.trained())
    contents = {WEIGHTS_NAME: data, CONFIG_NAME: text.encode("utf-8")}
    card = model_card.format_card(AdapterPackage(folder, config, weights, 0))
    contents[model_card.FILE_NAME] = card.encode("utf-8")
    need = sum(map(len, contents.values()))
    with files.atomic_folder(folder, need, _is_package) as partial:
        for name, content in contents.items():
            with tf.io.gfile.GFile(os.path.join(partial, name), "wb") as writer:
                writer.write(content)


def check_replaceable(folder):
    """Refuses a folder of other files, which `write` would not replace."""
    files.check_replaceable(folder, _is_package)


def _is_package(names):
    return names <= {WEIGHTS_NAME, CONFIG_NAME, model_card.FILE_NAME}


def read(folder):
    """Reads an `AdapterPackage`, also while another program replaces it.

    A `UserError` names the file that is missing, damaged or of another program.
    """
    for _ in range(_MOST_READS - 1):
        # The two files may be of two packages, the one before and the one after.
        with contextlib.suppress(UserError):
            return _read(folder)
    return _read(folder)


def find_packages(folder):
    """The folders of packages, or links to them, in a folder and below it, sorted."""
    walk, exists = tf.io.gfile.walk, tf.io.gfile.exists
    if "://" not in folder:  # TensorFlow fails on names that are not UTF-8.
        walk, exists = os.walk, os.path.exists
    found = []
    for path, inner, _ in walk(folder):
        paths = [os.path.join(path, name) for name in inner]
        found += [path, *filter(os.path.islink, paths)]  # Links are not walked.
    return sorted(each for each in found if exists(os.path.join(each, CONFIG_NAME)))


def _read(folder):
    path = files.find_stored_folder(folder)
    config_path = os.path.join(path, CONFIG_NAME)
    weights_path = os.path.join(path, WEIGHTS_NAME)
    config_data = files.read(config_path, package_checks.MOST_CONFIG_BYTES, _REMEDY)
    config = package_checks.parse_config(config_data, config_path)
    data = files.read(weights_path, config["weights"]["bytes"], _REMEDY)
    weights = package_checks.parse_weights(data, config, weights_path)
    return AdapterPackage(folder, config, weights, len(config_data) + len(data))


# Entries of a bert_config that weights depend on; dropout is none.
_MATCHED = (*configuration.CONFIG_SIZES, "hidden_act")
# The fields of settings that give entries of other names.
FIELDS = {
    "bert_config": "bert_config_file",
    "vocabulary": "vocab_file",
    "activation": "adapter_activation",
    "labels": "task_name",
    "base": "init_checkpoint",
}


def check_fit(package, given):
    """Raises a `UserError` for the first of `find_mismatches`."""
    for mismatch in find_mismatches(package, given):
        raise UserError("the package %s does not fit: %s" % (package.path, mismatch))


def find_mismatches(package, given):
    """Differences between a package and given settings.

    Args:
      package: an `AdapterPackage`.
      given: dict with any of "base" (see `checkpoints.Checkpoint.base_fingerprint`),
        "base_model" (its name, for messages), "bert_config" (dict), "vocabulary"
        (SHA-256), "do_lower_case", "labels" (list) and the entries of
        `tuning.method.Method.identity`. Others are ignored.

    Returns:
      List of texts, each with both values and the field to change.
    """
    config = package.config
    expected = {
        **{key: config[key] for key in ("bert_config", "vocabulary", "do_lower_case")},
        **package.method.identity(config["bert_config"]["num_hidden_layers"]),
        "labels": package.labels,
        "base": config["base"],
    }
    mismatches = []
    for key, ours in expected.items():
        theirs = given.get(key, ours)
        if isinstance(ours, dict):
            keys = (package_checks.DIGEST,) if key == "base" else _MATCHED
            ours, theirs = ({k: d.get(k) for k in keys} for d in (ours, theirs))
        if ours != theirs:
            texts = schema.describe_difference(ours, theirs)
            if key == "base":
                names = config["base_model"], given.get("base_model")
                texts = ["%s (%s)" % t if t[1] else t[0] for t in zip(texts, names)]
            mismatches.append(
                "its %s is %s, given is %s; give the one that it was trained with, `%s`"
                % (key, *texts, FIELDS.get(key, key))
            )
    return mismatches
