"""Checks of config, vocabulary, checkpoint, package and folder against each other."""

import os
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import tokenization
from errors import UserError
from inputs import features
from model import layer_ranges
from system import console, disk, files, schema, wording
from tasks import own_tasks
from training import classifier, distribution, flag_checks, run_lock, run_text
from weights import (
    adapter_package,
    checkpoints,
    diagnosis,
    model_variables,
    run_package,
    run_record,
)


class InitialState(NamedTuple):
    """The weights that a run starts from."""

    step_reached: int | None  # of the last checkpoint in output_dir
    diagnostics: diagnosis.Diagnostics
    training: dict[str, Any]  # settings of their training; this run's, if it trains
    base: checkpoints.Checkpoint | None  # `init_checkpoint`


def check_model(flags, task, config, tokenizer, package, variant, is_chief=True):
    """Checks config, vocabulary, checkpoint and output directory against each other.

    Of several machines, only the chief writes. Returns an `InitialState`.
    """
    method = variant.method
    method.check(config)
    features.check_seq_length(flags.max_seq_length, config.max_position_embeddings)
    features.check_vocabulary(
        flags.vocab_file, tokenizer.vocab, config.vocab_size, flags.bert_config_file
    )
    tokenization.check_case(
        flags.do_lower_case,
        flags["do_lower_case"].present,
        tokenizer.vocab,
        flags.vocab_file,
    )
    base = None
    if flags.init_checkpoint:
        base = checkpoints.Checkpoint(flags.init_checkpoint)
    # Ablated adapters too: folder, record and package are those of the whole model.
    variables = model_variables.model_variables(config, method, num_outputs(task))
    identity = _make_identity(flags, task, config, package, method, base)
    settings = training_settings(flags, task) if flags.do_train else None
    step_reached = run_record.check(
        flags.output_dir,
        identity,
        settings,
        variables.shapes,
        variables.trained(),
        flags.checkpoint_content,
    )
    if base is None and step_reached is None and not flags.allow_random_base:
        raise UserError(
            "no `init_checkpoint`: BERT would be %s random values; give the "
            "bert_model.ckpt of a pre-trained BERT, or `allow_random_base` to do so"
            % ("frozen at" if variables.frozen() else "trained from")
        )
    if base is not None:
        report = _check_base(flags, base, variables, package, identity)
        uses_head = set(variables.collections[modeling.HEAD]) <= set(report.matched)
        if uses_head and package is None and step_reached is None:
            _check_head(flags, task)
        _show_base(base, report)
    counts = checkpoints.parameter_counts(variables.shapes, variables.collections)
    run_text.log_trained_variables(variables, counts, method)
    if is_chief:
        _write_record(flags, identity, settings, counts)
    else:
        record = os.path.join(flags.output_dir, run_record.FILE_NAME)
        distribution.wait_for(record)
    diagnostics, previous = diagnosis.Diagnostics(), None
    if step_reached is not None:
        diagnostics = run_record.read_diagnostics(flags.output_dir)
        previous = run_record.read(flags.output_dir).get("training")
    elif package is not None:
        diagnostics, previous = package.diagnostics, package.config["settings"]
    elif not flags.do_train:
        shapes = base.shapes if base is not None else ()
        untrained = [name for name in variables.trained() if name not in shapes]
        if untrained:
            diagnostics = diagnosis.diagnose_untrained(untrained)
    return InitialState(step_reached, diagnostics, settings or previous or {}, base)


def _write_record(flags, identity, settings, counts):
    if flags.do_train:
        adapter_package.check_replaceable(run_package.package_folder(flags.output_dir))
    try:
        with disk.explain_errors(flags.output_dir):
            tf.io.gfile.makedirs(flags.output_dir)
            if flags.do_train:
                run_lock.take(flags.output_dir)
        run_record.write(flags.output_dir, identity, settings, counts)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            "`output_dir`=%s cannot be written (%s): give a folder that can"
            % (flags.output_dir, " ".join(str(error).split()))
        ) from None


def _check_base(flags, base, variables, package, identity):
    """The `checkpoints.LoadReport` of `init_checkpoint`, or a `UserError`."""
    shapes = variables.shapes
    if package is not None:
        shapes = variables.frozen()
    report = base.check_fit(shapes, variables.task_specific(), flags.allow_random_base)
    if package is not None:
        _check_package(package, identity, base)
    base.check_values(
        "copy it again, or give another, `init_checkpoint`", report.matched
    )
    return report


def _show_base(base, report):
    """Logs how `init_checkpoint` fits the model, a `checkpoints.LoadReport`."""
    console.say(
        "Base model: %s, %s, %d newly initialized",
        base.path,
        wording.pluralize(len(report.matched), "variable"),
        len(report.missing),
    )
    for line in report.lines():
        console.detail("  %s", line)
    left_out = [name for name in report.left_over if "/adapters/" in name]
    if left_out:
        console.warn(
            "%s holds adapters that this model does not have, such as %s: they are "
            "left out, and what was trained with them may be worth little",
            base.path,
            left_out[0],
        )


def _check_head(flags, task):
    """Refuses a head of `init_checkpoint` that was trained with other labels.

    In the checkpoint the head's outputs have positions only; the `run.json` beside it,
    if there is one, has their labels.
    """
    record = run_record.read(os.path.dirname(flags.init_checkpoint))
    if record is None:
        return
    there, labels = record["identity"], list(task.labels)
    if there["labels"] != labels:
        remedy = "give a checkpoint of the same labels, or one without a head"
        if task.config_file and sorted(there["labels"]) == sorted(labels):
            remedy = 'write "labels" in that order into %s, or %s' % (
                task.config_file,
                remedy,
            )
        raise UserError(
            "`init_checkpoint`=%s has the head of task %s, whose outputs are the "
            "labels %s (%s beside it); those of task %s are %s: %s"
            % (
                flags.init_checkpoint,
                there["task"],
                schema.json_text(there["labels"]),
                run_record.FILE_NAME,
                task.title,
                schema.json_text(labels),
                remedy,
            )
        )
    if flags.do_train:
        console.say("Training starts from the head of task %s", there["task"])
    elif there["task"] != (task.model_of or task.name):
        console.warn(
            "the head of `init_checkpoint` was trained on task %s, not on %s",
            there["task"],
            task.title,
        )


def _check_package(package, identity, base):
    """Checks `adapters` against the task and the base model, and logs its origin."""
    given = {key: identity[key] for key in identity if key != "base"}
    # What the package alone shows is checked before the base model is read.
    adapter_package.check_fit(package, given)
    fingerprint = base.base_fingerprint(package.variables.frozen())
    adapter_package.check_fit(package, {"base": fingerprint})
    console.say(
        "Trained variables (%s) come from %s: task %s, step %d",
        package.method.description,
        package.path,
        package.task,
        package.config["global_step"],
    )


def num_outputs(task):
    """Number of outputs of a task's head."""
    return 1 if task.is_regression else len(task.labels)


def make_variant(flags, task, config, package):
    """The `classifier.Variant` of the flags; arguments as in `check_model`."""
    num_layers = config.num_hidden_layers
    method = flag_checks.parse_method(flags, num_layers)
    if package is not None:
        if not method.has_packages:
            raise UserError(
                "`train_policy`=%s starts from no package, `adapters`=%s: all of BERT "
                "is trained, so give a checkpoint alone, `init_checkpoint`"
                % (method.text, flags.adapters)
            )
        adapter_package.check_fit(package, method.identity(num_layers))
        method = package.method
    return classifier.Variant(
        is_regression=task.is_regression,
        method=method,
        ablated_layers=_ablated_layers(flags, method, num_layers),
    )


def _ablated_layers(flags, method, num_layers):
    if not flags.ablate_adapter_layers:
        return ()
    name, text = "ablate_adapter_layers", flags.ablate_adapter_layers
    if flags.do_train:
        raise UserError(
            "`%s`=%s removes trained adapters for evaluation and prediction; train "
            "first, or without some with `adapter_layers`" % (name, text)
        )
    layers = layer_ranges.parse_layers(name, text, num_layers)
    there = [layer for layer in range(num_layers) if method.layer_hooks(layer)]
    if not set(layers) <= set(there):
        raise UserError(
            "`%s`=%s: only layers %s have adapters (`train_policy`=%s)"
            % (name, text, layer_ranges.format_layers(there) or "none", method.text)
        )
    return layers


def _make_identity(flags, task, config, package, method, base):
    identity = {
        "task": task.model_of or task.name,
        "labels": list(task.labels),
        **method.identity(config.num_hidden_layers),
        "bert_config": config.to_dict(),
        "vocabulary": files.digest(flags.vocab_file),
        "do_lower_case": flags.do_lower_case,
        "max_seq_length": flags.max_seq_length,
        "checkpoint_content": flags.checkpoint_content,
    }
    if task.config_file:
        identity["task_config"] = own_tasks.task_entries(task)
    if base is not None:
        identity["base"] = base.index_digest()
    if package is not None:
        identity["adapters"] = package.config["weights"]["sha256"]
    return identity


def training_settings(flags, task):
    """Settings that must agree to resume a run, by flag, and the training file."""
    names = (
        "train_batch_size",
        "learning_rate",
        "num_train_epochs",
        "warmup_proportion",
        "adam_bias_correction",
        "adapter_init_scale",
        "precision",
        "seed",
    )
    rows = os.path.join(flags.data_dir, task.train.filename)
    settings = {name: flags[name].value for name in names}
    return {**settings, "train_rows": files.digest(rows)}
