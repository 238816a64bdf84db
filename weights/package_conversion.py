"""Adapter packages from and to full checkpoints."""

import math
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import command_line
import glue_data
import modeling
import tokenization
from errors import UserError, explain_value_errors
from inputs import features
from system import files, schema
from tasks import head_form, own_tasks, task_data, task_type
from tuning import registry
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    diagnosis,
    package_checks,
    run_record,
)

_MERGED = ".adapters"  # of a package, after its checkpoint's path
_CONFIG_REMEDY = (
    "give the bert_config.json that it was trained with, `bert_config_file`"
)


_RESULTS_SCHEMA = schema.Object(
    {
        "global_step": schema.integer(),
        "sets": schema.Object(
            {},
            others=schema.Object(
                {"scores": schema.Object({}, others=schema.NUMBER)},
                optional={"baseline": schema.Object({}, others=schema.NUMBER)},
                others=schema.ANY,
            ),
        ),
    },
    optional={"health": diagnosis.SCHEMA},
    others=schema.ANY,
)


class PackageOptions(NamedTuple):
    """Entries of a package that the user gives; None: from a file, or the default."""

    task: task_data.Task | None = None
    name: str | None = None  # of a task without a `task_data.Task`
    labels: list[str] | None = None  # in the order of the head's outputs
    entries: Mapping[str, Any] = MappingProxyType({})  # see `TaskType.from_entries`
    do_lower_case: bool | None = None
    max_seq_length: int | None = None


def export(checkpoint, output, given, base):
    """Writes the package of a checkpoint of this program or the original.

    Args:
      checkpoint: path without file endings.
      output: folder to make.
      given: `PackageOptions`.
      base: `base_model.BaseFiles`. Its checkpoint is needed if `checkpoint`
        has trained variables only, its other files if there is no run.json.

    Returns the `adapter_package.AdapterPackage`, read back. A `UserError` is raised if
    the checkpoint cannot be read or does not fit what is given, or the output exists.
    """
    if tf.io.gfile.exists(output):
        raise UserError("`output`=%s exists: give a new folder" % output)
    source = checkpoints.Checkpoint(
        checkpoint,
        "`checkpoint` wants the path without endings, such as .../model.ckpt-573 for "
        "model.ckpt-573.index",
    )
    folder = os.path.dirname(checkpoint)
    record = run_record.read(folder)
    with explain_value_errors(os.path.join(folder, run_record.FILE_NAME)):
        config = _make_config(given, base, record or {"identity": {}}, source)
        variables = package_checks.package_variables(config)
    bert_config = modeling.BertConfig.from_dict(config["bert_config"])
    trained, frozen = variables.trained(), variables.frozen()
    holder = _find_base(source, base.init_checkpoint, frozen)
    _check_head(source, trained, config["task"]["name"])
    own = trained if base.init_checkpoint else {**trained, **frozen}
    source.check_fit(own, remedy=_CONFIG_REMEDY)
    base_model.check_shapes(holder, bert_config, _CONFIG_REMEDY)
    results = _read_results(folder, source.step) if record else {}
    config["base_model"] = None if holder is source else holder.folder_name
    for entry in ("base_model", "examples"):
        config[entry] = (record or {}).get(entry) or config[entry]
    sets = results.get("sets", {}).items()
    config |= adapter_package.score_entries(
        {name: each["scores"] for name, each in sets} or None,
        diagnosis.from_json(results.get("health")),
        {name: each["baseline"] for name, each in sets if each.get("baseline")} or None,
    )
    adapter_package.write(
        output,
        config,
        dict(source.iterate_values(trained)),
        holder.base_fingerprint(frozen),
        source.step,
    )
    return adapter_package.read(output)


def _read_results(folder, step):
    """The `eval_results.json` of a step; {} without one."""
    path = os.path.join(folder, "eval_results.json")
    remedy = "evaluate again with `do_eval`=true, or delete it"
    results = files.read_json_if_there(path, remedy, _RESULTS_SCHEMA) or {}
    return results if results.get("global_step") == step else {}


def _find_method(source, record, num_layers):
    """The `tuning.method.Method` of a checkpoint's run."""
    text = record["identity"].get("train_policy", registry.DEFAULT.text)
    cls, argument = registry.find_class(text)
    if not cls.has_packages:
        raise UserError(
            "`checkpoint`=%s is of `train_policy`=%s: the whole model was trained, "
            "which is no package; use it as `init_checkpoint`" % (source.path, text)
        )
    settings = {**record["identity"], **(record.get("training") or {})}
    try:
        return cls.from_checkpoint(argument, source.shapes, settings, num_layers)
    except ValueError as error:
        raise UserError(
            "`checkpoint`=%s: %s; give one of a run with `train_policy`=%s, such as "
            "OUTPUT_DIR/model.ckpt-573" % (source.path, error, text)
        ) from None


def _make_config(given, base, record, source):
    """The config of the package, see `adapter_package.make_config`."""
    identity = record["identity"]
    bert_config = None
    if config_file := base.bert_config_file:
        bert_config = modeling.BertConfig.from_json_file(config_file).to_dict()
    bert_config = modeling.BertConfig.from_dict(
        _agree(identity, "bert_config", bert_config, "bert_config_file")
    )
    vocabulary = base.vocab_file and files.digest(base.vocab_file)
    vocabulary = _agree(identity, "vocabulary", vocabulary, "vocab_file")
    if base.vocab_file:
        vocab = tokenization.load_vocab(base.vocab_file)
        sizes_from = config_file or run_record.FILE_NAME
        features.check_vocabulary(
            base.vocab_file, vocab, bert_config.vocab_size, sizes_from
        )
    length = _agree(identity, "max_seq_length", given.max_seq_length, default=128)
    features.check_seq_length(length, bert_config.max_position_embeddings)
    return adapter_package.make_config(
        _describe_task(given.task, record),
        bert_config,
        vocabulary,
        _agree(identity, "do_lower_case", given.do_lower_case, default=True),
        length,
        _find_method(source, record, bert_config.num_hidden_layers),
        settings=record.get("training"),
        origin=None if identity else "checkpoint " + os.path.basename(source.path),
    )


def _describe_task(task, record):
    """The package's entry "task" for the given task, or the one in the run's record."""
    identity = record["identity"]
    given = task and (task.model_of or task.name)
    name = _agree(identity, "task", given, "task_name")
    kind = identity.get("type") and task_type.find_type(identity["type"])
    if task is None and identity.get("task_config"):
        task = own_tasks.parse_task(identity["task_config"], run_record.FILE_NAME)
    elif task is None and kind and not kind.has_task_files:
        kind = kind.from_entries(record.get("training") or {})
        return adapter_package.describe_type(kind, name)
    elif task is None:
        task = glue_data.get_task(name)
    labels = list(task.type.labels)
    if given:
        _agree(identity, "labels", labels, "task_name")
    elif identity["labels"] != labels:
        allowed = schema.json_text(labels)
        raise schema.SchemaError("identity.labels", identity["labels"], allowed)
    form = head_form.from_entries(identity)
    task = task._replace(type=task.type.adopt_head(form))
    return adapter_package.describe_task(task, name)


def _agree(identity, entry, given, field=None, default=None):
    """The value that is given, else that in the run's record, else the default.

    A `UserError` is raised if both exist and differ, or there is no value.
    """
    field = field or entry
    value = identity.get(entry, default if given is None else given)
    if value is None:
        raise UserError(
            "`%s` is needed: there is no %s beside `checkpoint` that has it"
            % (field, run_record.FILE_NAME)
        )
    if given is not None and value != given:
        raise UserError(
            "`%s` does not fit the %s beside `checkpoint`: its %s is %s, given is %s; "
            "leave it out"
            % (
                field,
                run_record.FILE_NAME,
                entry,
                *schema.describe_difference(value, given),
            )
        )
    return value


def _find_base(source, init_checkpoint, frozen):
    """The `checkpoints.Checkpoint` that holds the frozen variables."""
    if set(frozen) & set(source.shapes):
        if init_checkpoint:
            raise UserError(
                "`checkpoint`=%s holds the base model too: leave out `init_checkpoint`"
                % source.path
            )
        return source
    if not init_checkpoint:
        raise UserError(
            "`checkpoint`=%s holds trained variables only: give the base model that it "
            "was trained on, `init_checkpoint`" % source.path
        )
    return checkpoints.Checkpoint(init_checkpoint)


def _check_head(source, trained, task_name):
    wanted = trained.get("output_bias")
    found = source.shapes.get("output_bias", wanted)
    if wanted and found != wanted:
        raise UserError(
            "`checkpoint`=%s has a head of %d outputs, task %s needs %d: give the task "
            "that it was trained on, `task_name`"
            % (source.path, math.prod(found), task_name, *wanted)
        )


def find_base_mismatches(package, base):
    """Differences between a package and the `checkpoints.Checkpoint` of a base model.

    Returns a list of texts, see `adapter_package.find_mismatches`.
    """
    remedy = "give the base model that it was trained on"
    try:
        base_model.check_shapes(base, package.bert_config, remedy)
        fingerprint = base.base_fingerprint(package.variables.frozen())
    except UserError as error:
        return [str(error)]
    given = {"base": fingerprint, "base_model": base.folder_name}
    return adapter_package.find_mismatches(package, given)


def merge(folder, init_checkpoint, output):
    """Writes base model and package as one checkpoint, without optimizer slots.

    A package of which the checkpoint is the base model is written beside it, see
    `find_packages`.

    Checkpoints are given by their paths without file endings. Returns the
    `adapter_package.AdapterPackage` in `folder`.

    A `UserError` is raised if they do not fit each other, a checkpoint cannot hold the
    package, or the output exists.
    """
    _check_output(output)
    package = adapter_package.read(folder)
    problem = package.method.merge_problem
    if package.task_type.head.entries():
        problem = "its head is %s, and those of checkpoints are linear, on the pooler"
        problem %= package.task_type.head.describe()
    if problem:
        raise UserError(
            "%s cannot be merged: %s; use the package itself" % (folder, problem)
        )
    base = checkpoints.Checkpoint(init_checkpoint)
    for mismatch in find_base_mismatches(package, base):
        raise UserError("%s does not fit: %s" % (folder, mismatch))
    frozen = dict(base.iterate_values(package.variables.frozen()))
    merged = package.method.merge(frozen, package.weights)
    merged[tf.GraphKeys.GLOBAL_STEP] = np.array(package.config["global_step"], np.int64)
    need = sum(value.nbytes for value in merged.values()) + package.file_bytes
    with files.working_folder(output, need) as folder:
        prefix = os.path.join(folder, os.path.basename(output))
        checkpoints.write(prefix, merged)
        _write_merged_package(package, checkpoints.Checkpoint(prefix), prefix + _MERGED)
        # Sorted: the index comes last, and without it there is no checkpoint.
        for path in files.list_folder(folder):
            name = os.path.basename(path)
            tf.io.gfile.rename(path, os.path.join(os.path.dirname(output), name))
    return package


def _write_merged_package(package, merged, folder):
    method, num_layers = (
        package.method.merged_method,
        package.bert_config.num_hidden_layers,
    )
    entries = {"train_policy": method.text, "adapter": method.entry(num_layers)}
    config = {**package.config, **entries}
    variables = package_checks.package_variables(config)
    adapter_package.write(
        folder,
        config,
        dict(merged.iterate_values(variables.trained())),
        merged.base_fingerprint(variables.frozen()),
        config["global_step"],
    )


def find_packages(adapters, init_checkpoint):
    """The given packages, a list; without any, the one beside a merged checkpoint.

    `init_checkpoint` is the checkpoint's path without file endings. Beside another
    checkpoint there is no package, and the list is empty.
    """
    merged = (init_checkpoint or "") + _MERGED
    if not adapters and tf.io.gfile.exists(merged):
        return [merged]
    return adapters or []


def _check_output(prefix):
    command_line.check_no_pattern("`output`=%s" % prefix, prefix)
    if not os.path.basename(prefix) or tf.io.gfile.isdir(prefix):
        raise UserError(
            "`output`=%s is a folder: give a checkpoint's path in it, such as %s"
            % (prefix, os.path.join(prefix, "model.ckpt"))
        )
    for path in files.list_with_prefix(prefix, ".[aid]*"):
        raise UserError("`output`=%s: %s exists; give a new path" % (prefix, path))
