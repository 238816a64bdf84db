"""Tunes BERT with adapters on a task, evaluates it and predicts with it."""

import system.startup  # noqa: F401  (before TensorFlow)

import functools

from absl import flags

import command_line
import glue_data
from errors import UserError, reports_user_errors
from inputs import features
from system import console
from tasks import bad_rows, data_report, task_data, task_type
from training import (
    classifier,
    distribution,
    run_flags,
    runner,
    settings,
)
from weights import adapter_package

# Names that the original program exposes here, beside its flags and `main`.
InputExample = features.InputExample
InputFeatures = features.InputFeatures
PaddingInputExample = features.PaddingInputExample
convert_single_example = features.convert_single_example
file_based_convert_examples_to_features = (
    features.file_based_convert_examples_to_features
)
file_based_input_fn_builder = features.input_fn_builder
DataProcessor = glue_data.DataProcessor
ColaProcessor = glue_data.ColaProcessor
MnliProcessor = glue_data.MnliProcessor
MrpcProcessor = glue_data.MrpcProcessor
create_model = classifier.create_model
model_fn_builder = classifier.model_fn_builder

FLAGS = flags.FLAGS

_TEXTS = {
    **run_flags.TEXTS,
    "data_dir": "Folder of the task's files, such as glue_data/MRPC; default with "
    "--task_config: the folder of that file.",
    "task_name": "Task of GLUE, in any case: %s; help lists them with columns and "
    "metrics. --task_config is for other tasks." % ", ".join(glue_data.GLUE_TASKS),
    "max_seq_length": "Longest input in word pieces, with [CLS] and [SEP]; more is "
    "truncated.",
    "ablate_adapter_layers": "Evaluate and predict without the trained adapters of "
    "these layers (the paper's figure 6); they are part of the names of result files.",
    "do_train": "Train on the task's training set.",
    "do_eval": "Evaluate on the task's dev set(s).",
    "do_predict": "Predict the task's test set(s).",
    "check": "Report on the task's examples, with warnings and the rows that cannot be "
    "used, and do nothing else. Needs no model; with --vocab_file it counts word "
    "pieces.",
    "skip_bad_rows": "Leave out rows of training and dev files that cannot be used, "
    "such as rows without a label; run.json has their number. A test file has to be "
    "whole, because its predictions are identified by their row.",
    "class_weights": "balanced: each class contributes equally to the training loss, "
    "whatever the number of its examples. A task file can list weights instead.",
    "plots": "Write confusion matrices as PNG.",
    "train_batch_size": "Examples in a training batch.",
    "eval_batch_size": "Examples in an evaluation batch.",
    "predict_batch_size": "Examples in a prediction batch.",
    "num_train_epochs": "Passes over the training set.",
    "dynamic_padding": "Pad a batch to its longest example, not to --max_seq_length, "
    "and group training examples by length. Ignored on TPU, whose shapes are static.",
}

_path = command_line.DEFINE_path
_string, _bool = flags.DEFINE_string, flags.DEFINE_bool
_integer, _enum = flags.DEFINE_integer, flags.DEFINE_enum
_define = command_line.flag_definer(_TEXTS, FLAGS)

# Defined in their groups, so that --help shows each flag in exactly one.
FLAG_GROUPS = {
    "Required": (
        _define(_path, "data_dir"),
        _define(_path, "bert_config_file"),
        _define(_string, "task_name", None),
        command_line.define_task_config(FLAGS),
        _define(_path, "vocab_file"),
        _define(_path, "output_dir", has_checkpoint=True),
    ),
    "Model": (
        *run_flags.define_model(_define, FLAGS),
        _define(_string, "ablate_adapter_layers", None),
        _define(_integer, "max_seq_length", 128),
    ),
    "What to do": (
        *run_flags.define_actions(_define),
        _define(_bool, "skip_bad_rows", False),
        _define(_bool, "plots", False),
    ),
    "Training and evaluation": (
        _define(_enum, "class_weights", None, [task_type.BALANCED]),
        _define(_integer, "train_batch_size", 32),
        _define(_integer, "eval_batch_size", 8),
        _define(_integer, "predict_batch_size", 8),
        *run_flags.define_training(_define),
        _define(_bool, "dynamic_padding", True),
    ),
    **run_flags.define_computation(_define),
}


def set_task_flags(values, required=(), found=None):
    """Sets --data_dir and --max_seq_length to the values of --task_config, if any.

    `values` are the flags, `required` names of other flags that have to be given;
    `found` is a `bad_rows.BadRows`, or None. Returns the `task_data.Task`; raises a
    `UserError` if there is none.
    """
    task_flags = () if values.task_config else ("task_name", "data_dir")
    command_line.check_required(values, [*task_flags, *required])
    task, folder = glue_data.select_task(
        values.task_name, values.task_config, values.data_dir, found
    )
    adapter_package.check_task(task)
    values.data_dir = folder
    if task.max_seq_length and not values["max_seq_length"].present:
        values.max_seq_length = task.max_seq_length
    return task


def prepare_run(values):
    """Checks all flags, and reads all examples, into a `task_run.TaskRun`."""
    skipped = bad_rows.BadRows() if values.skip_bad_rows else None
    required = ("bert_config_file", "vocab_file", "output_dir")
    task = set_task_flags(values, required, skipped)

    def read_examples(split):
        found = None if split in task.test else skipped
        return task_data.read_examples(task, values.data_dir, split, found)

    return runner.prepare(
        settings.from_flags(settings.Settings, values),
        task,
        read_examples,
        values["do_lower_case"].present,
        values.plots,
        skipped,
    )


def run(**arguments):
    """Trains, evaluates and predicts, as the program does with flags of these names.

    Returns a `runner.RunResult`, see `runner.run`; raises a `UserError`.
    """
    return runner.run(prepare_run, arguments, FLAG_GROUPS, FLAGS)


@reports_user_errors(FLAGS)
def main(argv):
    console.start(FLAGS.verbosity)
    if FLAGS.task_name == "help":
        for task in glue_data.GLUE_TASKS.values():
            print("%-6s %s" % (task.name, data_report.describe_task(task)))
    elif FLAGS.check:
        _check_data()
    else:
        runner.execute(functools.partial(prepare_run, FLAGS), FLAGS.output_dir)


def _check_data():
    """Checks the data, without a model."""
    found = bad_rows.BadRows()
    task = set_task_flags(FLAGS, found=found)
    features.check_seq_length(FLAGS.max_seq_length)
    examples = {
        split.name: task_data.read_examples(task, FLAGS.data_dir, split, found)
        for split in task.splits
    }
    data_report.check_task(
        task, examples, FLAGS.vocab_file, FLAGS.do_lower_case, FLAGS.max_seq_length
    )
    if any(found.counts().values()):
        remedy = "correct them; `skip_bad_rows` leaves out those of train and dev files"
        raise UserError("some rows cannot be used: " + remedy, *found.describe())


def _run_process(argv):
    # `main` reports errors itself, because this can end the process.
    with distribution.process_exit(FLAGS.distribution_strategy):
        main(argv)


if __name__ == "__main__":
    command_line.run_program(
        _run_process, "python run_classifier.py: " + __doc__, FLAG_GROUPS, FLAGS
    )
