"""Checks of the flags of `run_classifier.py` against each other and the task."""

import command_line
import glue_data
from errors import UserError
from system import schema
from training import dev_steps, distribution, estimators
from tuning import registry
from weights import adapter_package, checkpoints

_REQUIRED = ("bert_config_file", "vocab_file", "output_dir")
_MAX_INT = 2**31 - 1  # TensorFlow counts some things in integers of 32 bits.
_RANGES = {
    "train_batch_size": schema.integer(1, _MAX_INT),
    "eval_batch_size": schema.integer(1, _MAX_INT),
    "predict_batch_size": schema.integer(1, _MAX_INT),
    "save_checkpoints_steps": schema.integer(1, _MAX_INT),
    "iterations_per_loop": schema.integer(1, _MAX_INT),
    "num_tpu_cores": schema.integer(1, _MAX_INT),
    "gradient_accumulation_steps": schema.integer(1, _MAX_INT),
    "eval_steps": schema.integer(0, _MAX_INT),
    "learning_rate": schema.number(above=0),
    "num_train_epochs": schema.number(above=0, most=10_000),
    "warmup_proportion": schema.number(0, 1),
    "seed": schema.integer(0, _MAX_INT),
    **{
        setting.name: setting.allowed
        for setting in registry.all_settings()
        if setting.allowed
    },
}


def check_flags(flags):
    """Refuses values that no run can have: a `UserError` with flag, value and range."""
    command_line.check_required(flags, _REQUIRED)
    if not flags.do_train and not flags.do_eval and not flags.do_predict:
        raise UserError(
            "At least one of `do_train`, `do_eval` or `do_predict` must be True: give "
            "`do_train`=true, `do_eval`=true or `do_predict`=true"
        )
    for name, allowed in _RANGES.items():
        value = flags[name].value
        if not allowed.accepts(value):
            raise UserError(
                "`%s`=%.40r: it must be %s" % (name, value, allowed.allowed)
            )
    parts = flags.gradient_accumulation_steps
    if flags.do_train and flags.train_batch_size % parts:
        raise UserError(
            "`train_batch_size`=%d does not divide into "
            "`gradient_accumulation_steps`=%d equal parts"
            % (flags.train_batch_size, parts)
        )
    if flags.adapters and not flags.init_checkpoint:
        raise UserError("`adapters` needs its base model, `init_checkpoint`")
    if flags.checkpoint_content == checkpoints.TRAINED and (
        flags.allow_random_base or not flags.init_checkpoint
    ):
        raise UserError(
            "`checkpoint_content`=%s needs the base model whenever a checkpoint is "
            "used: give `init_checkpoint`, and no `allow_random_base`"
            % checkpoints.TRAINED
        )
    _check_dev_evaluation(flags)
    if flags.use_tpu:
        _check_tpu_flags(flags)


def _check_dev_evaluation(flags):
    if flags.keep_best and not flags.eval_steps:
        raise UserError(
            "`keep_best`=%s needs evaluations while training, `eval_steps`"
            % flags.keep_best
        )
    if flags.eval_steps and not flags.do_train:
        raise UserError(
            "`eval_steps`=%d needs `do_train`=true: it evaluates while training"
            % flags.eval_steps
        )
    if flags.eval_steps and flags.distribution_strategy == distribution.MULTI_WORKER:
        raise UserError(
            "`eval_steps`=%d is not possible with `distribution_strategy`=%s: run "
            "`do_eval`=true on a copy of `output_dir`"
            % (flags.eval_steps, distribution.MULTI_WORKER)
        )


def check_keep_best(flags, task):
    """Refuses a `keep_best` that is no metric of the task, or not the folder's."""
    if flags.keep_best and flags.keep_best not in task.metrics:
        raise UserError(
            "`keep_best`=%s: the metrics of %s are %s"
            % (flags.keep_best, task.title, ", ".join(task.metrics))
        )
    dev_steps.check(flags.output_dir, flags.keep_best)


def set_task_flags(flags):
    """Sets `data_dir` and `max_seq_length` to the values of `task_config`, if any.

    Returns the `task_data.Task`; raises a `UserError` if there is none.
    """
    task, folder = glue_data.select_task(
        flags.task_name, flags.task_config, flags.data_dir
    )
    if not folder:
        command_line.check_required(flags, ["data_dir"])
    adapter_package.check_task(task)
    flags.data_dir = folder
    if task.max_seq_length and not flags["max_seq_length"].present:
        flags.max_seq_length = task.max_seq_length
    return task


def count_shards(flags):
    """The number of intra-batch shards, see `estimators.cpu_shards`.

    XLA uses all cores for one batch; replicas run in parallel already.
    """
    if flags.use_tpu or flags.xla or flags.distribution_strategy != distribution.NONE:
        return 1
    batch_sizes = []
    if flags.do_train:
        batch_sizes += [flags.train_batch_size // flags.gradient_accumulation_steps]
    batch_sizes += [flags[name].value for name in _inference_batches(flags)]
    return estimators.cpu_shards(batch_sizes)


def _inference_batches(flags):
    """Names of the batch flags of evaluation and prediction."""
    if flags.do_eval or flags.eval_steps:
        return ["eval_batch_size", "predict_batch_size"]  # Scores need predictions.
    return ["predict_batch_size"] if flags.do_predict else []


def _check_tpu_flags(flags):
    """Refuses flags that do not go with a TPU."""
    if flags.distribution_strategy != distribution.NONE:
        raise UserError(
            "`distribution_strategy`=%s is for GPUs; `use_tpu`=true needs none"
            % flags.distribution_strategy
        )
    if not flags.tpu_name and not flags.master:
        raise UserError(
            "`use_tpu`=true needs the TPU: its name, `tpu_name`, or address, `master`"
        )
    if flags.precision == "float16":
        raise UserError("`precision`=float16: a TPU has no float16; give bfloat16")
    parts = flags.num_tpu_cores * flags.gradient_accumulation_steps
    if flags.do_train and flags.train_batch_size % parts:
        raise UserError(
            "`train_batch_size`=%d does not divide over `num_tpu_cores`=%d, in "
            "`gradient_accumulation_steps`=%d parts each: give a multiple of %d"
            % (
                flags.train_batch_size,
                flags.num_tpu_cores,
                flags.gradient_accumulation_steps,
                parts,
            )
        )
    for name in _inference_batches(flags):
        if flags[name].value % flags.num_tpu_cores:
            raise UserError(
                "`%s`=%d does not divide over `num_tpu_cores`=%d: give a multiple of it"
                % (name, flags[name].value, flags.num_tpu_cores)
            )


def select_splits(task, flags):
    """The `task_data.Split`s that a run reads; a `UserError` if the task lacks one."""
    selected = []
    train, dev, test = '"train"', '"dev" or "dev_share"', '"test"'
    for wanted, flag, splits, entries in (
        (flags.do_train, "do_train", (task.train,) if task.train else (), train),
        (flags.do_eval, "do_eval", task.dev, dev),
        (flags.eval_steps and not flags.do_eval, "eval_steps", task.dev, dev),
        (flags.do_predict, "do_predict", task.test, test),
    ):
        if not wanted:
            continue
        if not splits:
            if task.config_file:
                remedy = "name one in %s, %s" % (task.config_file, entries)
            else:
                remedy = (
                    "use the model of %s (`do_predict`=true with the `output_dir` of "
                    "that task)" % task.model_of
                )
            raise UserError(
                "`%s`: task %s has no set for it; %s" % (flag, task.title, remedy)
            )
        selected += splits
    return selected


def parse_method(flags, num_layers):
    """The `tuning.method.Method` of the flags, or a `UserError`."""
    settings = {each.name: flags[each.name].value for each in registry.all_settings()}
    try:
        return registry.parse(flags.train_policy, settings, num_layers)
    except UserError:
        raise
    except ValueError as error:
        text = "`train_policy`=%.80s: %s" % (flags.train_policy, error)
        raise UserError(text) from None
