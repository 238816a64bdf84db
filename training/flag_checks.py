"""What the flags of `run_classifier.py` ask for, and which values they cannot have."""

import command_line
import glue_data
import optimization
from errors import UserError
from model import layer_ranges
from training import dev_steps, distribution, estimators
from weights import adapter_package, checkpoints

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
    _check_dev_steps(flags)
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


def _check_dev_steps(flags):
    """Refuses evaluations within a training that there cannot be.

    Raises:
      UserError: naming the flag.
    """
    if not 0 <= flags.eval_steps <= _MOST_INT:
        raise UserError(
            "--eval_steps=%.40r: 0 for none, or at most %d, is needed"
            % (flags.eval_steps, _MOST_INT)
        )
    if flags.keep_best and not flags.eval_steps:
        raise UserError(
            "--keep_best=%s needs the evaluations to choose from, --eval_steps"
            % flags.keep_best
        )
    if flags.eval_steps and not flags.do_train:
        raise UserError(
            "--eval_steps=%d is of a training: give --do_train=true, or leave it out"
            % flags.eval_steps
        )
    if flags.eval_steps and flags.distribution_strategy == distribution.MULTI_WORKER:
        raise UserError(
            "--eval_steps=%d: several machines do not stop for an evaluation; run one "
            "with --do_eval=true on a copy of --output_dir" % flags.eval_steps
        )


def check_keep_best(flags, task):
    """Refuses a --keep_best that is no metric of the task, or not that of the folder.

    Raises:
      UserError: saying which are.
    """
    if flags.keep_best and flags.keep_best not in task.metrics:
        raise UserError(
            "--keep_best=%s: the metrics of %s are %s"
            % (flags.keep_best, task.title, ", ".join(task.metrics))
        )
    dev_steps.check(flags.output_dir, flags.keep_best)


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
    batch_sizes += [flags[name].value for name in _batches_without_training(flags)]
    return estimators.cpu_shards(batch_sizes)


def _batches_without_training(flags):
    """The names of the batch flags that evaluation and prediction will use."""
    if flags.do_eval or flags.eval_steps:
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
    train, dev, test = '"train"', '"dev" or "dev_share"', '"test"'
    for wanted, flag, splits, entries in (
        (flags.do_train, "do_train", (task.train,) if task.train else (), train),
        (flags.do_eval, "do_eval", task.dev, dev),
        (flags.eval_steps and not flags.do_eval, "eval_steps", task.dev, dev),
        (flags.do_predict, "do_predict", task.test, test),
    ):
        if wanted and not splits:
            if task.config_file:
                remedy = "name one in %s, %s" % (task.config_file, entries)
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


def parse_policy(train_policy, adapter_layers, num_layers):
    """The policy that two flags ask for.

    Args:
      train_policy: value of --train_policy.
      adapter_layers: value of --adapter_layers, or None.
      num_layers: the encoder's.

    Returns:
      An `optimization.TrainPolicy`.

    Raises:
      UserError: the flags are wrong, or do not fit each other or the model.
    """
    layers = adapter_layers and layer_ranges.parse_layers(
        "adapter_layers", adapter_layers, num_layers
    )
    try:
        return optimization.parse_policy(train_policy, layers, num_layers)
    except ValueError as error:
        raise UserError("--train_policy=%.80s: %s" % (train_policy, error)) from None
