"""Checks before a run: settings against task, files, checkpoint, `output_dir`."""

import os
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from inputs import features
from system import console, disk, files, schema, wording
from tasks import own_tasks
from training import classifier, distribution, periodic_evaluation, run_lock, run_log
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
    training: dict[str, Any]  # settings of training the weights
    base: checkpoints.Checkpoint | None  # `init_checkpoint`
    base_name: str | None  # of the base model


def select_splits(settings, task):
    """The `task_data.Split`s that a run with `settings.Settings` reads.

    A `UserError` is raised if the task lacks one, or the metric `keep_best`.
    """
    run, (eval_steps, keep_best, _) = settings.run, settings.dev_evaluation
    if keep_best and keep_best not in task.metrics:
        raise UserError(
            "`keep_best`=%s: the metrics of %s are %s%s"
            % (
                keep_best,
                task.title,
                ", ".join(task.metrics),
                wording.suggest(keep_best, task.metrics),
            )
        )
    periodic_evaluation.check(run.output_dir, keep_best)
    selected, train = [], (task.train,) if task.train else ()
    eval_field = "do_eval" if run.do_eval else "eval_steps"
    for field, is_selected, splits, entries in (
        ("do_train", run.do_train, train, '"train"'),
        (eval_field, run.do_eval or eval_steps, task.dev, '"dev" or "dev_share"'),
        ("do_predict", run.do_predict, task.test, '"test"'),
    ):
        if is_selected and not splits:
            if task.config_file:
                remedy = "name one in %s, %s" % (task.config_file, entries)
            else:
                remedy = "use `do_predict`=true with the `output_dir` of a run of %s"
                remedy %= task.model_of
            raise UserError(
                "`%s`: task %s has no set for it; %s" % (field, task.title, remedy)
            )
        selected += splits if is_selected else ()
    return selected


def load_initial_state(settings, task, config, tokenizer, package, variant):
    """Checks the model against its files and `output_dir`; returns an `InitialState`.

    The chief locks `output_dir` for training and writes `run.json`; other machines wait
    for it. `package` is None without `adapters`.
    """
    data, run, method = settings.data, settings.run, variant.method
    method.check(config)
    features.check_seq_length(data.max_seq_length, config.max_position_embeddings)
    model, base = settings.model, None
    features.check_vocabulary(
        data.vocab_file, tokenizer.vocab, config.vocab_size, model.bert_config_file
    )
    if model.init_checkpoint:
        base = checkpoints.Checkpoint(model.init_checkpoint)
    # Ablated adapters are still part of the checkpoints and of the package.
    variables = model_variables.model_variables(config, method, task.type)
    identity = _make_identity(settings, task, config, package, method, base)
    training = _training_settings(settings, task, method) if run.do_train else None
    compared = training
    if training is None and any(split.is_held_out for split in task.dev):
        # Of another file, examples that were trained on would be held out.
        compared = _training_rows(data.data_dir, task)
    step_reached = run_record.check(
        run.output_dir,
        identity,
        compared,
        variables.shapes,
        variables.trained(),
        run.checkpoint_content,
    )
    if base is None and step_reached is None and not model.allow_random_base:
        raise UserError(
            "no `init_checkpoint`: BERT would be %s random values; give the "
            "bert_model.ckpt of a pre-trained BERT, or `allow_random_base` to do so"
            % ("frozen at" if variables.frozen() else "trained from")
        )
    if base is not None:
        report = _check_base(
            base, variables, package, task, identity, model.allow_random_base
        )
        uses_head = set(variables.collections[modeling.HEAD]) <= set(report.matched)
        if uses_head and package is None and step_reached is None:
            _check_head(base.path, run.do_train, task)
        _log_base(base, report, variables)
    base_name = model.base_model_name or (base and base.folder_name)
    counts = variables.parameter_counts()
    run_log.log_trained_variables(variables, counts, method)
    if run.is_chief:
        _write_record(run, identity, training, counts, base_name)
    else:
        distribution.wait_for(os.path.join(run.output_dir, run_record.FILE_NAME))
    diagnostics, earlier_training = _read_diagnostics(
        run, step_reached, package, base, variables
    )
    training = training or earlier_training or {}
    return InitialState(step_reached, diagnostics, training, base, base_name)


def _read_diagnostics(run, step_reached, package, base, variables):
    """The `Diagnostics` of the initial weights, and the settings of their training."""
    if step_reached is not None:
        record = run_record.read(run.output_dir)
        return diagnosis.from_json(record.get("health")), record.get("training")
    if package is not None:
        return package.diagnostics, package.config["settings"]
    shapes = base.shapes if base is not None else ()
    untrained = [name for name in variables.trained() if name not in shapes]
    if untrained and not run.do_train:
        return diagnosis.diagnose_untrained(untrained), None
    return diagnosis.Diagnostics(), None


def _write_record(run, identity, training, counts, base_name):
    if run.do_train:
        adapter_package.check_replaceable(run_package.package_folder(run.output_dir))
    try:
        with disk.explain_errors(run.output_dir):
            tf.io.gfile.makedirs(run.output_dir)
            if run.do_train:
                run_lock.take(run.output_dir)
        run_record.write(run.output_dir, identity, training, counts, base_name)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            "`output_dir`=%s cannot be written (%s): give a writable folder"
            % (run.output_dir, " ".join(str(error).split()))
        ) from None


def _check_base(base, variables, package, task, identity, allow_random_base):
    """The `checkpoints.LoadReport` of `init_checkpoint`, or a `UserError`."""
    shapes = variables.shapes if package is None else variables.frozen()
    report = base.check_fit(shapes, variables.task_specific(), allow_random_base)
    if package is not None:
        _check_package(package, task, identity, base)
    base.check_values(
        "copy it again, or give another, `init_checkpoint`", report.matched
    )
    return report


def _log_base(base, report, variables):
    """Logs the `checkpoints.LoadReport` of `init_checkpoint`.

    Variables that are loaded from a package are not part of it.
    """
    console.say(
        "Base model: %s, %s, %d newly initialized",
        base.path,
        wording.pluralize(len(report.matched), "variable"),
        len(report.missing),
    )
    for line in report.lines():
        console.detail("  %s", line)
    ignored = [
        name
        for name in report.left_over
        if name not in variables.shapes and name.startswith("bert/encoder/")
    ]
    if ignored:
        console.warn(
            "%s has encoder variables that this model lacks, such as %s: they are "
            "ignored, and other variables that were trained with them may be useless",
            base.path,
            ignored[0],
        )


def _check_head(init_checkpoint, is_trained, task):
    """Refuses a head of `init_checkpoint` that was trained with other labels.

    The labels of its outputs are in the `run.json` beside the checkpoint, if any.
    """
    record = run_record.read(os.path.dirname(init_checkpoint))
    if record is None:
        return
    head, labels = record["identity"], list(task.type.labels)
    if head["labels"] != labels:
        remedy = "give a checkpoint of the same labels, or one without a head"
        if task.config_file and sorted(head["labels"]) == sorted(labels):
            order = 'write "labels" in that order into %s' % task.config_file
            remedy = "%s, or %s" % (order, remedy)
        raise UserError(
            "`init_checkpoint`=%s has the head of task %s, whose outputs are the "
            "labels %s (run.json beside it); those of task %s are %s: %s"
            % (
                init_checkpoint,
                head["task"],
                schema.json_text(head["labels"]),
                task.title,
                schema.json_text(labels),
                remedy,
            )
        )
    if is_trained:
        console.say("Training starts from the head of task %s", head["task"])
    elif head["task"] != (task.model_of or task.name):
        console.warn(
            "the head of `init_checkpoint` was trained on task %s, not on %s",
            head["task"],
            task.title,
        )


def _check_package(package, task, identity, base):
    """Checks `adapters` against the task and the base model, and logs its origin."""
    # Hashing the base model takes longer, so it is checked last.
    model = {key: value for key, value in identity.items() if key != "base"}
    adapter_package.check_fit(package, model)
    if package.task_type.name != task.type.name:
        raise UserError(
            "`adapters`=%s is a package of the task type %s; give one of %s"
            % (package.path, package.task_type.name, task.type.name)
        )
    fingerprint = base.base_fingerprint(package.variables.frozen())
    base_model = {"base": fingerprint, "base_model": base.folder_name}
    adapter_package.check_fit(package, base_model)
    console.say(
        "Trained variables (%s) come from %s: task %s, step %d",
        package.method.description,
        package.path,
        package.task,
        package.config["global_step"],
    )


def make_variant(settings, task, config, package):
    """The `classifier.Variant` of a run; arguments as in `load_initial_state`."""
    tuning, num_layers = settings.tuning, config.num_hidden_layers
    method = tuning.parse_method(num_layers, package and package.method)
    if package is not None:
        if not method.has_packages:
            raise UserError(
                "`train_policy`=%s trains all of BERT and cannot start from a package, "
                "`adapters`=%s: give `init_checkpoint` alone"
                % (method.text, settings.model.adapters)
            )
        adapter_package.check_fit(package, method.identity(num_layers))
        method = package.method
    return classifier.Variant(
        task_type=task.type,
        method=method,
        ablated_layers=tuning.parse_ablated_layers(method, num_layers),
    )


def _make_identity(settings, task, config, package, method, base):
    identity = {
        "task": task.model_of or task.name,
        "type": task.type.name,
        **task.type.head.entries(),
        "labels": list(task.type.labels),
        **method.identity(config.num_hidden_layers),
        "bert_config": config.to_dict(),
        "vocabulary": files.digest(settings.data.vocab_file),
        "do_lower_case": settings.data.do_lower_case,
        "max_seq_length": settings.data.max_seq_length,
        "checkpoint_content": settings.run.checkpoint_content,
    }
    if task.config_file:
        identity["task_config"] = own_tasks.task_entries(task)
    if base is not None:
        identity["base"] = base.index_digest()
    if package is not None:
        identity["adapters"] = package.config["weights"]["sha256"]
    return identity


def _training_settings(settings, task, method):
    """Settings that must agree to resume a run; the hash of the training file."""
    return {
        **task.type.training_entries(),
        **settings.optimization._asdict(),
        "train_batch_size": settings.run.train_batch_size,
        **method.training_entries(),
        "precision": settings.computation.precision,
        "seed": settings.run.seed,
        **_training_rows(settings.data.data_dir, task),
    }


def _training_rows(data_dir, task):
    """The hash of the training file, an entry of `_training_settings`."""
    rows = files.digest(os.path.join(data_dir, task.train.filename))
    return {"train_rows" if data_dir else "train_file": rows}
