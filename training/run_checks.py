"""Checks of the flags of `run_classifier.py`, and of the files that they name."""

import os
from typing import Any, NamedTuple, Optional

import tensorflow.compat.v1 as tf

import command_line
import glue_data
import tokenization
from errors import UserError
from inputs import features, own_tasks
from system import console
from training import classifier, distribution, estimators, run_lock, run_text
from weights import adapter_package, checkpoints, health, run_record

_MOST_EPOCHS = 10_000
_MOST_INT = 2**31 - 1  # TensorFlow counts rows and steps in integers of 32 bits too.
REQUIRED = ("bert_config_file", "vocab_file", "output_dir")


def check_flags(flags):
    """Refuses values that no run can have.

    Args:
      flags: the program's `absl.flags.FlagValues`.

    Raises:
      UserError: naming the flag, its value and what is allowed.
    """
    command_line.check_required(flags, REQUIRED)
    if not flags.do_train and not flags.do_eval and not flags.do_predict:
        raise UserError(
            "At least one of `do_train`, `do_eval` or `do_predict` must be True: say "
            "what to do with --do_train=true, --do_eval=true or --do_predict=true"
        )
    for name in (
        "train_batch_size",
        "eval_batch_size",
        "predict_batch_size",
        "adapter_size",
        "save_checkpoints_steps",
        "iterations_per_loop",
        "num_tpu_cores",
        "gradient_accumulation_steps",
    ):
        if flags[name].value < 1:
            raise UserError("--%s=%d: at least 1 is needed" % (name, flags[name].value))
        # --adapter_size is held against the model.
        if name != "adapter_size" and flags[name].value > _MOST_INT:
            raise UserError(
                "--%s=%.40r: at most %d is allowed"
                % (name, flags[name].value, _MOST_INT)
            )
    for name in ("learning_rate", "num_train_epochs", "adapter_init_scale"):
        if not 0 < flags[name].value < float("inf"):
            raise UserError(
                "--%s=%r: a finite number above 0 is needed" % (name, flags[name].value)
            )
    if flags.num_train_epochs > _MOST_EPOCHS:
        raise UserError(
            "--num_train_epochs=%r: at most %d are allowed; the paper's are 3 to 20"
            % (flags.num_train_epochs, _MOST_EPOCHS)
        )
    if not 0 <= flags.warmup_proportion <= 1:
        raise UserError(
            "--warmup_proportion=%r: a number from 0 to 1 is needed"
            % flags.warmup_proportion
        )
    if not 0 <= flags.seed < 2**31:
        raise UserError(
            "--seed=%d: a whole number from 0 to %d is needed" % (flags.seed, 2**31 - 1)
        )
    parts = flags.gradient_accumulation_steps
    if flags.do_train and flags.train_batch_size % parts:
        raise UserError(
            "--train_batch_size=%d does not divide into "
            "--gradient_accumulation_steps=%d equal parts"
            % (flags.train_batch_size, parts)
        )
    if flags.adapters and not flags.init_checkpoint:
        raise UserError("--adapters needs the base beside it, --init_checkpoint")
    if flags.checkpoint_content == checkpoints.TRAINED and (
        flags.allow_random_base or not flags.init_checkpoint
    ):
        raise UserError(
            "--checkpoint_content=%s needs the base beside it whenever a checkpoint is "
            "used: give --init_checkpoint, and no --allow_random_base"
            % checkpoints.TRAINED
        )
    if flags.use_tpu:
        _check_tpu_flags(flags)
        if flags.distribution_strategy != distribution.NONE:
            raise UserError(
                "--distribution_strategy=%s is for GPUs; --use_tpu=true distributes "
                "by itself" % flags.distribution_strategy
            )


def find_task(flags):
    """The task that the flags name; sets the flags that its file speaks for.

    Args:
      flags: the program's `absl.flags.FlagValues`; of a task with a file `data_dir` and
        `max_seq_length` are set where they are not given.

    Returns:
      A `tasks.Task`.

    Raises:
      UserError: there is no such task, or its file describes none.
    """
    task, folder = glue_data.given_task(
        flags.task_name, flags.task_config, flags.data_dir
    )
    if not folder:
        command_line.check_required(flags, ["data_dir"])
    flags.data_dir = folder
    if task.max_seq_length and not flags["max_seq_length"].present:
        flags.max_seq_length = task.max_seq_length
    return task


def lanes(flags):
    """The lanes of this run's batches: `estimators.cpu_lanes`, if nothing rules it out.

    XLA compiles for all cores, and replicas are side by side already.

    Args:
      flags: the program's `absl.flags.FlagValues`, checked.

    Returns:
      The number of lanes; 1: none.
    """
    if flags.use_tpu or flags.xla or flags.distribution_strategy != distribution.NONE:
        return 1
    batch_sizes = []
    if flags.do_train:
        batch_sizes += [flags.train_batch_size // flags.gradient_accumulation_steps]
    batch_sizes += [flags[name].value for name in _batches_without_training(flags)]
    return estimators.cpu_lanes(batch_sizes)


def _batches_without_training(flags):
    """The names of the batch flags that evaluation and prediction will use."""
    if flags.do_eval:
        return ["eval_batch_size", "predict_batch_size"]  # Scores need predictions.
    return ["predict_batch_size"] if flags.do_predict else []


def _check_tpu_flags(flags):
    """Refuses what a TPU cannot do.

    Raises:
      UserError: no TPU is named, or a batch does not divide over its cores.
    """
    if not flags.tpu_name and not flags.master:
        raise UserError(
            "--use_tpu=true needs the TPU: its name, --tpu_name, or address, --master"
        )
    if flags.precision == "float16":
        raise UserError("--precision=float16: a TPU has no float16; give bfloat16")
    parts = flags.num_tpu_cores * flags.gradient_accumulation_steps
    if flags.do_train and flags.train_batch_size % parts:
        raise UserError(
            "--train_batch_size=%d does not divide over --num_tpu_cores=%d, in "
            "--gradient_accumulation_steps=%d parts each: give a multiple of %d"
            % (
                flags.train_batch_size,
                flags.num_tpu_cores,
                flags.gradient_accumulation_steps,
                parts,
            )
        )
    for name in _batches_without_training(flags):
        if flags[name].value % flags.num_tpu_cores:
            raise UserError(
                "--%s=%d does not divide over --num_tpu_cores=%d: give a multiple of it"
                % (name, flags[name].value, flags.num_tpu_cores)
            )


def splits_needed(task, flags):
    """The splits of a task that this run reads.

    Args:
      task: a `tasks.Task`.
      flags: the program's `absl.flags.FlagValues`.

    Returns:
      A list of `tasks.Split`.

    Raises:
      UserError: the task has no such set.
    """
    needed = []
    for wanted, flag, splits in (
        (flags.do_train, "do_train", (task.train,) if task.train else ()),
        (flags.do_eval, "do_eval", task.dev),
        (flags.do_predict, "do_predict", task.test),
    ):
        if wanted and not splits:
            if task.config_file:
                remedy = 'name one in %s ("train", "dev" or "dev_share", "test")'
                remedy %= task.config_file
            else:
                remedy = (
                    "it is predicted with the model of %s (--do_predict=true with the "
                    "--output_dir of that task)" % task.model_of
                )
            raise UserError(
                "--%s: task %s has no set for it; %s" % (flag, task.title, remedy)
            )
        needed += splits if wanted else ()
    return needed


class Start(NamedTuple):
    """What the weights are that a run starts from."""

    step_reached: Optional[int]  # of the checkpoint in output_dir
    known: health.Health  # what is known against them
    training: dict[str, Any]  # settings of their training; of this run's, if it trains


def check_model(flags, task, config, tokenizer, package, is_chief=True):
    """Holds config, vocabulary, checkpoint and output directory against each other.

    Args:
      flags: the program's `absl.flags.FlagValues`.
      task: a `tasks.Task`.
      config: a `modeling.BertConfig`.
      tokenizer: a `tokenization.FullTokenizer`.
      package: the `adapter_package.AdapterPackage` to start from, or None.
      is_chief: whether this machine writes into the output directory.

    Returns:
      A `Start`.

    Raises:
      UserError: they do not fit.
    """
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
    variables = classifier.variable_set(
        config, num_outputs(task), adapter_fn(flags, package), task.is_regression
    )
    trained = variables.trained()
    identity = _identity(flags, task, config, package)
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
        report = _check_base(flags, variables, package)
    elif step_reached is None and not flags.allow_random_base:
        raise UserError(
            "no --init_checkpoint: BERT would be frozen at random values; give the "
            "bert_model.ckpt of a pre-trained BERT, or --allow_random_base to go on"
        )
    if package is not None:
        _check_package(flags, package, identity)
    counts = checkpoints.parameter_counts(variables.shapes, variables.collections)
    run_text.say_trained(variables, counts)
    if not is_chief:
        record = os.path.join(flags.output_dir, run_record.FILE_NAME)
        distribution.wait_for(record, "record of the chief")
    else:
        _write_record(flags, identity, settings, counts)
    return _start(flags, package, step_reached, report, trained, settings)


def _write_record(flags, identity, settings, counts):
    try:
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
    known, then = health.Health(), None
    if step_reached is not None:
        known, then = run_record.read_health(flags.output_dir), record["training"]
    elif package is not None:
        known, then = package.health, package.config["settings"]
    elif not flags.do_train:
        untrained = [n for n in trained if report is None or n not in report.matched]
        if untrained:
            known = health.never_trained(untrained)
    return Start(step_reached, known, settings or then or {})


def _check_base(flags, variables, package):
    """Holds --init_checkpoint against the model and says what it gives.

    Returns:
      A `checkpoints.LoadReport`.
    """
    trained = variables.trained()
    shapes = variables.shapes
    if package is not None:
        shapes = {name: shapes[name] for name in shapes if name not in set(trained)}
    report = checkpoints.check_fit(
        flags.init_checkpoint, shapes, trained, flags.allow_random_base
    )
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
    return report


def _check_package(flags, package, identity):
    """Holds --adapters against the task and the base, and logs what it is."""
    frozen = adapter_package.frozen_shapes(package.bert_config)
    given = {key: identity[key] for key in identity if key != "base"}
    # What needs no reading of the base first.
    adapter_package.check_fit(package, given)
    base = checkpoints.base_fingerprint(flags.init_checkpoint, frozen)
    adapter_package.check_fit(package, {"base": base})
    console.say(
        "Adapters, layer norms and head come from %s: task %s, step %d",
        package.path,
        package.task,
        package.config["global_step"],
    )


def num_outputs(task):
    """Outputs of a task's head."""
    return 1 if task.is_regression else len(task.labels)


def adapter_fn(flags, package):
    """The adapter that the flags and the package, or None, ask for."""
    activation = {} if package is None else {"activation": package.activation}
    return classifier.adapter_function(
        flags.adapter_size, flags.adapter_init_scale, **activation
    )


def _identity(flags, task, config, package):
    identity = {
        "task": task.model_of or task.name,
        "labels": list(task.labels),
        "adapter_size": flags.adapter_size,
        "bert_config": config.to_dict(),
        "vocabulary": features.file_digest(flags.vocab_file),
        "do_lower_case": flags.do_lower_case,
        "max_seq_length": flags.max_seq_length,
        "checkpoint_content": flags.checkpoint_content,
        "activation": package.activation if package else "gelu",
    }
    if task.config_file:
        identity["task_config"] = own_tasks.as_record(task)
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
    return {**settings, "train_rows": features.file_digest(rows)}
