"""Config, vocabulary, checkpoint, package and folder, held against each other."""

import os
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import optimization
import tokenization
from errors import UserError
from inputs import features, own_tasks
from model import layer_ranges
from system import console, disk, files, schema
from training import classifier, distribution, flag_checks, run_lock, run_text
from weights import (
    adapter_package,
    checkpoints,
    diagnosis,
    run_package,
    run_record,
    variable_shapes,
)


class Start(NamedTuple):
    """What the weights are that a run starts from."""

    step_reached: int | None  # of the checkpoint in output_dir
    diagnostics: diagnosis.Diagnostics
    training: dict[str, Any]  # settings of their training; of this run's, if it trains


def check_model(flags, task, config, tokenizer, package, variant, is_chief=True):
    """Holds config, vocabulary, checkpoint and output directory against each other.

    Args:
      flags: the program's `absl.flags.FlagValues`.
      task: a `tasks.Task`.
      config: a `modeling.BertConfig`.
      tokenizer: a `tokenization.FullTokenizer`.
      package: the `adapter_package.AdapterPackage` to start from, or None.
      variant: what `variant` gives.
      is_chief: whether this machine writes into the output directory.

    Returns:
      A `Start`.

    Raises:
      UserError: they do not fit.
    """
    if variant.policy.has_adapters:
        config.check_adapter_size(flags.adapter_size)
    features.check_seq_length(flags.max_seq_length, config.max_position_embeddings)
    features.check_vocabulary(
        flags.vocab_file,
        tokenizer.vocab,
        config.vocab_size,
        flags.bert_config_file,
    )
    tokenization.check_case(
        flags.do_lower_case,
        flags["do_lower_case"].present,
        tokenizer.vocab,
        flags.vocab_file,
    )
    # Ablation is for what is computed: folder, record and package are of the whole.
    variables = variable_shapes.of_model(
        config, flags.adapter_size, num_outputs(task), variant.policy
    )
    trained = variables.trained()
    identity = _identity(flags, task, config, package, variant.policy)
    settings = training_settings(flags, task) if flags.do_train else None
    step_reached = run_record.check(
        flags.output_dir,
        identity,
        settings,
        variables.shapes,
        trained,
        flags.checkpoint_content,
    )
    report = None
    if flags.init_checkpoint:
        head_task = task if package is None and step_reached is None else None
        report = _check_base(flags, variables, package, head_task)
    elif step_reached is None and not flags.allow_random_base:
        raise UserError(
            "no --init_checkpoint: BERT would be %s random values; give the "
            "bert_model.ckpt of a pre-trained BERT, or --allow_random_base to go on"
            % (
                "trained from"
                if variant.policy.name == optimization.FULL
                else "frozen at"
            )
        )
    if package is not None:
        _check_package(flags, package, identity)
    counts = checkpoints.parameter_counts(variables.shapes, variables.collections)
    run_text.say_trained(variables, counts, variant.policy)
    if not is_chief:
        record = os.path.join(flags.output_dir, run_record.FILE_NAME)
        distribution.wait_for(record, "record of the chief")
    else:
        _write_record(flags, identity, settings, counts)
    return _start(flags, package, step_reached, report, trained, settings)


def _write_record(flags, identity, settings, counts):
    if flags.do_train:
        adapter_package.check_replaceable(run_package.folder_of(flags.output_dir))
    try:
        with disk.explained(flags.output_dir):
            tf.io.gfile.makedirs(flags.output_dir)
            if flags.do_train:
                run_lock.take(flags.output_dir)
        run_record.write(flags.output_dir, identity, settings, counts)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            "--output_dir=%s cannot be written (%s): give a folder that can"
            % (flags.output_dir, " ".join(str(error).split()))
        ) from None


def _start(flags, package, step_reached, report, trained, settings):
    """The `Start` of a run.

    Args:
      flags: see `check_model`.
      package: see `check_model`.
      step_reached: the step of the checkpoint in `output_dir`, or None.
      report: how --init_checkpoint, if any, fits the model.
      trained: names of the trained variables.
      settings: of this run's training; None if it does not train.
    """
    record = run_record.read(flags.output_dir)
    diagnostics, then = diagnosis.Diagnostics(), None
    if step_reached is not None:
        diagnostics, then = (
            run_record.read_diagnostics(flags.output_dir),
            record.get("training"),
        )
    elif package is not None:
        diagnostics, then = package.diagnostics, package.config["settings"]
    elif not flags.do_train:
        untrained = [n for n in trained if report is None or n not in report.matched]
        if untrained:
            diagnostics = diagnosis.diagnose_untrained(untrained)
    return Start(step_reached, diagnostics, settings or then or {})


def _check_base(flags, variables, package, head_task):
    """Holds --init_checkpoint against the model and says what it gives.

    Args:
      flags: see `check_model`.
      variables: a `variable_shapes.VariableSet`.
      package: see `check_model`.
      head_task: the `tasks.Task` that its head is used for; None: it is not used.

    Returns:
      A `checkpoints.LoadReport`.
    """
    trained = variables.trained()
    shapes = variables.shapes
    if package is not None:
        shapes = {name: shapes[name] for name in shapes if name not in set(trained)}
    report = checkpoints.check_fit(
        flags.init_checkpoint, shapes, variables.new(), flags.allow_random_base
    )
    if head_task is not None:
        _check_head(flags, head_task, variables.collections[modeling.HEAD], report)
    checkpoints.check_values(
        flags.init_checkpoint,
        report.matched,
        "copy it again, or give another, --init_checkpoint",
    )
    console.say(
        "Base: %s, %d variables; %d new ones start fresh",
        flags.init_checkpoint,
        len(report.matched),
        len(report.missing),
    )
    for line in report.lines():
        console.detail("  %s", line)
    left_out = [name for name in report.left_over if "/adapters/" in name]
    if left_out:
        console.warn(
            "%s holds adapters that this model has none of, such as %s: they are left "
            "out, and what was trained with them may be worth little",
            flags.init_checkpoint,
            left_out[0],
        )
    return report


def _check_head(flags, task, head, report):
    """Refuses the head of --init_checkpoint where its labels are others.

    A checkpoint knows the outputs of its head by position only; the `run.json` beside
    it, if there is one, has their labels.

    Args:
      flags: see `check_model`.
      task: a `tasks.Task`.
      head: names of the head's variables.
      report: a `checkpoints.LoadReport` of --init_checkpoint.
    """
    if not set(head) <= set(report.matched):
        return
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
            "--init_checkpoint=%s has the head of task %s, whose outputs are the "
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
            "the head of --init_checkpoint was trained on task %s, not on %s",
            there["task"],
            task.title,
        )


def _check_package(flags, package, identity):
    """Holds --adapters against the task and the base, and logs what it is."""
    frozen = variable_shapes.frozen_shapes(package.bert_config, package.policy)
    given = {key: identity[key] for key in identity if key != "base"}
    # What needs no reading of the base first.
    adapter_package.check_fit(package, given)
    base = checkpoints.base_fingerprint(flags.init_checkpoint, frozen)
    adapter_package.check_fit(package, {"base": base})
    console.say(
        "What was trained (%s) comes from %s: task %s, step %d",
        package.policy.description,
        package.path,
        package.task,
        package.config["global_step"],
    )


def num_outputs(task):
    """Outputs of a task's head."""
    return 1 if task.is_regression else len(task.labels)


def variant(flags, task, config, package):
    """The `classifier.Variant` that the flags ask for.

    Args:
      flags: the program's `absl.flags.FlagValues`.
      task: a `tasks.Task`.
      config: a `modeling.BertConfig`.
      package: the `adapter_package.AdapterPackage` to start from, or None.

    Raises:
      UserError: what is to be trained, or left out, cannot be.
    """
    policy = flag_checks.parse_policy(
        flags.train_policy, flags.adapter_layers, config.num_hidden_layers
    )
    if package is not None and policy.name == optimization.FULL:
        raise UserError(
            "--train_policy=full starts from no package, --adapters=%s: all of BERT is "
            "trained, so give a checkpoint alone, --init_checkpoint" % flags.adapters
        )
    activation = {} if package is None else {"activation": package.activation}
    return classifier.Variant(
        adapter_fn=classifier.adapter_function(
            flags.adapter_size, flags.adapter_init_scale, **activation
        ),
        is_regression=task.is_regression,
        policy=policy,
        ablated_layers=_ablated_layers(flags, policy, config.num_hidden_layers),
    )


def _ablated_layers(flags, policy, num_layers):
    if not flags.ablate_adapter_layers:
        return ()
    name, text = "ablate_adapter_layers", flags.ablate_adapter_layers
    if flags.do_train:
        raise UserError(
            "--%s=%s takes trained adapters out for evaluation and prediction; train "
            "first, or without some with --adapter_layers" % (name, text)
        )
    layers = layer_ranges.parse_layers(name, text, num_layers)
    there = policy.layers_with_adapters(num_layers)
    if not set(layers) <= set(there):
        raise UserError(
            "--%s=%s: there are adapters in layers %s alone (--train_policy=%s)"
            % (name, text, layer_ranges.format_layers(there) or "none", policy.text)
        )
    return layers


def _identity(flags, task, config, package, policy):
    identity = {
        "task": task.model_of or task.name,
        "labels": list(task.labels),
        "train_policy": policy.text,
        "adapter_layers": policy.layers_with_adapters(config.num_hidden_layers),
        "adapter_size": flags.adapter_size if policy.has_adapters else 0,
        "bert_config": config.to_dict(),
        "vocabulary": files.digest(flags.vocab_file),
        "do_lower_case": flags.do_lower_case,
        "max_seq_length": flags.max_seq_length,
        "checkpoint_content": flags.checkpoint_content,
        "activation": package.activation if package else "gelu",
    }
    if task.config_file:
        identity["task_config"] = own_tasks.task_entries(task)
    # Where one is not given, the checkpoint in output_dir holds what it would.
    if flags.init_checkpoint:
        identity["base"] = checkpoints.fingerprint(flags.init_checkpoint)
    if package is not None:
        identity["adapters"] = package.config["weights"]["sha256"]
    return identity


def training_settings(flags, task):
    """What must agree to go on with a training: settings by their flags, and rows."""
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
