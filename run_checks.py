"""Checks of the flags of `run_classifier.py` against each other."""

import distribution
from errors import UserError

REQUIRED = ("data_dir", "bert_config_file", "task_name", "vocab_file", "output_dir")


def check_flags(flags):
    """Refuses values that no run can have.

    Args:
      flags: the program's `absl.flags.FlagValues`.

    Raises:
      UserError: naming the flag, its value and what is allowed.
    """
    for name in REQUIRED:
        if not flags[name].value:
            raise UserError("--%s is required: %s" % (name, flags[name].help))
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
    for name in ("learning_rate", "num_train_epochs", "adapter_init_scale"):
        if not 0 < flags[name].value < float("inf"):
            raise UserError(
                "--%s=%r: a finite number above 0 is needed" % (name, flags[name].value)
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
    if flags.use_tpu:
        _check_tpu_flags(flags)
        if flags.distribution_strategy != distribution.NONE:
            raise UserError(
                "--distribution_strategy=%s is for GPUs; --use_tpu=true distributes "
                "by itself" % flags.distribution_strategy
            )


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
    for wanted, name in (
        (flags.do_eval, "eval_batch_size"),
        # Scores come from predictions.
        (flags.do_eval or flags.do_predict, "predict_batch_size"),
    ):
        if wanted and flags[name].value % flags.num_tpu_cores:
            raise UserError(
                "--%s=%d does not divide over --num_tpu_cores=%d: give a multiple of it"
                % (name, flags[name].value, flags.num_tpu_cores)
            )


def splits_needed(task, flags):
    """The splits of a task that this run reads.

    Args:
      task: a `glue_data.GlueTask`.
      flags: the program's `absl.flags.FlagValues`.

    Returns:
      A list of `glue_data.Split`.

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
            raise UserError(
                "--%s: task %s has no set for it; it is predicted with the model of %s "
                "(--do_predict=true with the --output_dir of that task)"
                % (flag, task.title, task.model_of)
            )
        needed += splits if wanted else ()
    return needed
