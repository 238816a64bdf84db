"""Flags that `run_classifier.py` and `run_squad.py` share.

`define` is the result of `command_line.flag_definer`.
"""

import copy
import itertools

from absl import flags

import command_line
from errors import UserError
from system import wording
from training import classifier, distribution
from tuning import registry
from weights import checkpoints

flags.disclaim_key_flags()  # A flag belongs to the program that defines it.

# Lengths of compiled batches are multiples of this.
XLA_LENGTHS = 32

TEXTS = {
    "bert_config_file": "bert_config.json of the pre-trained BERT.",
    "vocab_file": "vocab.txt of the pre-trained BERT.",
    "output_dir": "Folder for checkpoints, scores and predictions.",
    "init_checkpoint": "Checkpoint to start from, without file endings: a pre-trained "
    "BERT (.../bert_model.ckpt) or an earlier adapter run.",
    "allow_random_base": "Allow random frozen variables of BERT: no --init_checkpoint, "
    "or one that lacks them.",
    "do_lower_case": "Lower-case text: True for uncased models.",
    "train_policy": "Tuning method, which selects the trained variables: %s."
    % registry.describe_methods(),
    "base_model_name": "Name of the base model in the package, such as that of a model "
    "on Hugging Face's hub; by default that of the folder of --init_checkpoint.",
    "adapters": "Adapter package to evaluate, to predict with or to start training "
    "from, a folder such as OUTPUT_DIR/adapters; --init_checkpoint is its base model. "
    "The tuning method and its settings are the package's.",
    "learning_rate": "Peak learning rate of Adam.",
    "warmup_proportion": "Fraction of the steps for warm-up, 0 to 1.",
    "adam_bias_correction": "Correct Adam's moments for their initialization at zero. "
    "Without it, as in BERT and the original, the first updates are several times too "
    "large: at a learning rate of 1e-3 most runs then learn nothing.",
    "save_checkpoints_steps": "Steps between checkpoints.",
    "checkpoint_content": "Content of checkpoints in --output_dir: all variables, or "
    "trained ones, optimizer slots and step, which need --init_checkpoint too.",
    "eval_steps": "Steps between evaluations on the dev set(s) while training; 0: "
    "none.",
    "keep_best": "Metric of the task: keep, in OUTPUT_DIR/best, checkpoint and package "
    "of the evaluation with the highest score on the (first) dev set; needs "
    "--eval_steps.",
    "early_stopping": "End training after this number of evaluations of "
    "--eval_steps without a better score: of --keep_best, or the task's first metric, "
    "on the (first) dev set; 0: never.",
    "write_graph": "Write the training graph: graph.pbtxt, a .meta file per "
    "checkpoint, and an entry in the event file, some megabytes.",
    "seed": "Seed of weights, dropout and shuffling.",
    "precision": "Precision of products with frozen weights. bfloat16 is fast on TPUs, "
    "new GPUs and CPUs with AMX or AVX512-BF16; float16, with loss scaling, on older "
    "GPUs. Adapters, layer norms, head, softmax, loss, optimizer and checkpoints stay "
    "float32.",
    "xla": "Compile the encoder's layers with XLA; auto: on GPU. Dynamic padding then "
    "pads to multiples of %d, so that few shapes are compiled." % XLA_LENGTHS,
    "gradient_accumulation_steps": "Parts of a training batch that are computed one "
    "after the other: less memory, the same update.",
    "recompute_activations": "Recompute activations in the backward pass from each "
    "layer's input: less memory, 40 % more time on CPU.",
    "distribution_strategy": "Train on one device, on all GPUs of this machine "
    "(mirrored), or on the machines of the environment variable TF_CONFIG "
    "(multi_worker). --train_batch_size is the global batch.",
    "use_tpu": "Run on TPU instead of GPU or CPU.",
    "tpu_name": "Name of the Cloud TPU, or grpc:// address; local on a TPU VM.",
    "tpu_zone": "Zone of the TPU; default: detected.",
    "gcp_project": "Project of the TPU; default: detected.",
    "master": "Address of a TensorFlow master.",
    "num_tpu_cores": "Cores of the TPU, with --use_tpu.",
    "iterations_per_loop": "Steps per call of the TPU.",
}

_string, _enum, _bool = flags.DEFINE_string, flags.DEFINE_enum, flags.DEFINE_bool
_integer, _float = flags.DEFINE_integer, flags.DEFINE_float
_path = command_line.DEFINE_path


def parse_arguments(arguments, groups, flag_values):
    """Makes flags from the arguments of a program that is called as a function.

    Args:
      arguments: dict from a flag's name to its value; None is the default.
      groups: all flags, see `command_line.print_help`.
      flag_values: the `flags.FlagValues` that define them; unchanged.

    Raises:
      UserError: a name or a value is wrong.
    """
    values = flags.FlagValues()
    for holder in itertools.chain(*groups.values()):
        flag = values[holder.name] = copy.deepcopy(flag_values[holder.name])
        flag.unparse()
    for name in arguments:
        if name not in values:
            text = "unknown argument `%s`%s; the program's flags are the arguments"
            raise UserError(text % (name, wording.suggest(name, values)))
    given = ["--%s=%s" % item for item in arguments.items() if item[1] is not None]
    command_line.parse_flags(["the program's", *given], values)
    if values.check or values.distribution_strategy == distribution.MULTI_WORKER:
        raise UserError(
            "`check` and `distribution_strategy`=%s are only possible on the command "
            "line: leave them out, or run the program" % distribution.MULTI_WORKER
        )
    return values


def define_model(define, flag_values):
    """Defines and returns the flags of the model and its weights, a list."""
    kinds = {int: _integer, float: _float}
    settings = [
        kinds.get(each.type, _string)(
            each.name, each.default, each.help, flag_values=flag_values
        )
        for each in registry.all_settings()
    ]
    return [
        define(_path, "init_checkpoint", has_checkpoint=True),
        define(_bool, "allow_random_base", False),
        define(_bool, "do_lower_case", True),
        define(_string, "train_policy", registry.DEFAULT.text),
        *settings,
        define(_path, "adapters"),
        define(_string, "base_model_name", None),
    ]


def define_actions(define):
    """Defines and returns the flags of what a run does, a list."""
    names = ("do_train", "do_eval", "do_predict", "check")
    return [define(_bool, name, False) for name in names]


def define_training(define):
    """Defines and returns flags of training and evaluation, a list."""
    return [
        define(_float, "learning_rate", 5e-5),
        define(_float, "num_train_epochs", 3.0),
        define(_float, "warmup_proportion", 0.1),
        define(_bool, "adam_bias_correction", False),
        define(_integer, "save_checkpoints_steps", 1000),
        define(_enum, "checkpoint_content", checkpoints.ALL, [*checkpoints.CONTENTS]),
        define(_integer, "eval_steps", 0),
        define(_string, "keep_best", None),
        define(_integer, "early_stopping", 0),
        define(_bool, "write_graph", False),
        define(_integer, "seed", 1),
    ]


def define_computation(define):
    """Defines and returns flags of precision, memory and devices, a dict of groups."""
    return {
        "Speed and memory": (
            define(_enum, "precision", "float32", [*classifier.PRECISIONS]),
            define(_enum, "xla", "auto", classifier.XLA),
            define(_integer, "gradient_accumulation_steps", 1),
            define(_bool, "recompute_activations", False),
        ),
        "Several devices": (
            define(
                *(_enum, "distribution_strategy"),
                *(distribution.NONE, distribution.STRATEGIES),
            ),
        ),
        "Cloud TPU": (
            define(_bool, "use_tpu", False),
            define(_string, "tpu_name", None),
            define(_string, "tpu_zone", None),
            define(_string, "gcp_project", None),
            define(_string, "master", None),
            define(_integer, "num_tpu_cores", 8),
            define(_integer, "iterations_per_loop", 1000),
        ),
    }
