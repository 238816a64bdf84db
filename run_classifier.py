"""Tunes BERT with adapters on a task, evaluates it and predicts with it."""

import system.startup  # noqa: F401  (before TensorFlow)

import os
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import glue_data
import modeling
import tokenization
from errors import UserError, reports_user_errors
from inputs import features
from model import layer_ranges
from system import console, disk, files, wording
from tasks import data_report, task_data
from training import (
    classifier,
    dev_steps,
    distribution,
    estimators,
    run_checks,
    run_lock,
    run_text,
    settings,
    signals,
    task_inputs,
    task_runs,
)
from tuning import registry
from weights import adapter_package, checkpoints, diagnosis, run_package

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

# Lengths of compiled batches are multiples of this.
XLA_LENGTHS = 32

_TEXTS = {
    "data_dir": "Folder of the task's files, such as glue_data/MRPC; default with "
    "--task_config: the folder of that file.",
    "bert_config_file": "bert_config.json of the pre-trained BERT.",
    "task_name": "Task of GLUE, in any case: %s; help lists them with columns and "
    "metrics." % ", ".join(glue_data.GLUE_TASKS),
    "vocab_file": "vocab.txt of the pre-trained BERT.",
    "output_dir": "Folder for checkpoints, scores and predictions.",
    "init_checkpoint": "Checkpoint to start from, without file endings: a pre-trained "
    "BERT (.../bert_model.ckpt) or an earlier adapter run.",
    "allow_random_base": "Allow random frozen variables of BERT: no --init_checkpoint, "
    "or one that lacks them.",
    "do_lower_case": "Lower-case text: True for uncased models.",
    "max_seq_length": "Longest input in word pieces, with [CLS] and [SEP]; more is "
    "truncated.",
    "train_policy": "Tuning method, which selects the trained variables: %s."
    % registry.describe_methods(),
    "ablate_adapter_layers": "Evaluate and predict without the trained adapters of "
    "these layers (the paper's figure 6); they are part of the names of result files.",
    "adapters": "Adapter package to evaluate, to predict with or to start training "
    "from, a folder such as OUTPUT_DIR/adapters; --init_checkpoint is its base model.",
    "do_train": "Train on the task's training set.",
    "do_eval": "Evaluate on the task's dev set(s).",
    "do_predict": "Predict the task's test set(s).",
    "check": "Report on the task's examples and what is suspicious about them, and do "
    "nothing else. Needs no model; with --vocab_file it counts word pieces.",
    "plots": "Write confusion matrices as PNG.",
    "train_batch_size": "Examples in a training batch.",
    "eval_batch_size": "Examples in an evaluation batch.",
    "predict_batch_size": "Examples in a prediction batch.",
    "learning_rate": "Peak learning rate of Adam.",
    "num_train_epochs": "Passes over the training set.",
    "warmup_proportion": "Fraction of the steps for warm-up, 0 to 1.",
    "adam_bias_correction": "Correct Adam's moments for their initialization at zero. "
    "Without it, as in BERT and the original, the first updates are several times too "
    "large: at a learning rate of 1e-3 most runs then learn nothing.",
    "save_checkpoints_steps": "Steps between checkpoints.",
    "checkpoint_content": "Content of checkpoints in --output_dir: all variables, or "
    "trained ones, optimizer slots and step, which need --init_checkpoint too.",
    "eval_steps": "Steps between evaluations on the dev set(s) while training; 0: "
    "none.",
    "keep_best": "Metric of the task: keep checkpoint and package of the evaluation "
    "with the highest score on the (first) dev set in OUTPUT_DIR/best.",
    "write_graph": "Write the training graph: graph.pbtxt, a .meta file per "
    "checkpoint, and an entry in the event file, some megabytes.",
    "seed": "Seed of weights, dropout and shuffling.",
    "dynamic_padding": "Pad a batch to its longest example, not to --max_seq_length, "
    "and group training examples by length. Ignored on TPU, whose shapes are static.",
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
    "tpu_name": "Name of the Cloud TPU, or grpc:// address.",
    "tpu_zone": "Zone of the TPU; default: detected.",
    "gcp_project": "Project of the TPU; default: detected.",
    "master": "Address of a TensorFlow master.",
    "num_tpu_cores": "Cores of the TPU, with --use_tpu.",
    "iterations_per_loop": "Steps per call of the TPU.",
}

_path = command_line.DEFINE_path
_string, _enum, _bool = flags.DEFINE_string, flags.DEFINE_enum, flags.DEFINE_bool
_integer, _float = flags.DEFINE_integer, flags.DEFINE_float
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
        _define(_path, "init_checkpoint", has_checkpoint=True),
        _define(_bool, "allow_random_base", False),
        _define(_bool, "do_lower_case", True),
        _define(_integer, "max_seq_length", 128),
        _define(_string, "train_policy", registry.DEFAULT.text),
        *command_line.define_settings(registry.all_settings(), FLAGS),
        _define(_string, "ablate_adapter_layers", None),
        _define(_path, "adapters"),
    ),
    "What to do": (
        _define(_bool, "do_train", False),
        _define(_bool, "do_eval", False),
        _define(_bool, "do_predict", False),
        _define(_bool, "check", False),
        _define(_bool, "plots", False),
    ),
    "Training and evaluation": (
        _define(_integer, "train_batch_size", 32),
        _define(_integer, "eval_batch_size", 8),
        _define(_integer, "predict_batch_size", 8),
        _define(_float, "learning_rate", 5e-5),
        _define(_float, "num_train_epochs", 3.0),
        _define(_float, "warmup_proportion", 0.1),
        _define(_bool, "adam_bias_correction", False),
        _define(_integer, "save_checkpoints_steps", 1000),
        _define(_enum, "checkpoint_content", checkpoints.ALL, [*checkpoints.CONTENTS]),
        _define(_integer, "eval_steps", 0),
        _define(_string, "keep_best", None),
        _define(_bool, "write_graph", False),
        _define(_integer, "seed", 1),
        _define(_bool, "dynamic_padding", True),
    ),
    "Speed and memory": (
        _define(_enum, "precision", "float32", [*classifier.PRECISIONS]),
        _define(_enum, "xla", "auto", classifier.XLA),
        _define(_integer, "gradient_accumulation_steps", 1),
        _define(_bool, "recompute_activations", False),
    ),
    "Several devices": (
        _define(
            _enum, "distribution_strategy", distribution.NONE, distribution.STRATEGIES
        ),
    ),
    "Cloud TPU": (
        _define(_bool, "use_tpu", False),
        _define(_string, "tpu_name", None),
        _define(_string, "tpu_zone", None),
        _define(_string, "gcp_project", None),
        _define(_string, "master", None),
        _define(_integer, "num_tpu_cores", 8),
        _define(_integer, "iterations_per_loop", 1000),
    ),
}


class Plan(NamedTuple):
    """A run that has passed every check."""

    config: modeling.BertConfig
    initial: run_checks.InitialState
    package: adapter_package.AdapterPackage | None  # --adapters
    variant: classifier.Variant
    run: task_inputs.TaskRun


def set_task_flags():
    """Sets --data_dir and --max_seq_length to the values of --task_config, if any.

    Returns the `task_data.Task`; raises a `UserError` if there is none.
    """
    task, folder = glue_data.select_task(
        FLAGS.task_name, FLAGS.task_config, FLAGS.data_dir
    )
    if not folder:
        command_line.check_required(FLAGS, ["data_dir"])
    adapter_package.check_task(task)
    FLAGS.data_dir = folder
    if task.max_seq_length and not FLAGS["max_seq_length"].present:
        FLAGS.max_seq_length = task.max_seq_length
    return task


def make_plan():
    """Checks everything, and reads all examples that the run needs, into a `Plan`."""
    command_line.check_required(FLAGS, ["bert_config_file", "vocab_file", "output_dir"])
    task = set_task_flags()
    given = settings.from_flags(settings.Settings, FLAGS)
    given.check()
    tokenization.validate_case_matches_checkpoint(
        FLAGS.do_lower_case, FLAGS.init_checkpoint
    )
    run_settings = given.run._replace(devices=given.complete_devices())
    needed = run_checks.select_splits(given, task)
    config = modeling.BertConfig.from_json_file(FLAGS.bert_config_file)
    tokenizer = tokenization.FullTokenizer(FLAGS.vocab_file, FLAGS.do_lower_case)
    is_given = FLAGS["do_lower_case"].present
    tokenization.check_case(
        FLAGS.do_lower_case, is_given, tokenizer.vocab, FLAGS.vocab_file
    )
    package = adapter_package.read(FLAGS.adapters) if FLAGS.adapters else None
    examples = {
        split.name: task_data.read_examples(task, FLAGS.data_dir, split)
        for split in needed
    }
    if FLAGS.do_train:
        run_settings = _add_steps(run_settings, len(examples[task.train.name]))
    given = given._replace(run=run_settings)
    variant = run_checks.make_variant(given, task, config, package)
    initial = run_checks.check_model(given, task, config, tokenizer, package, variant)
    is_compiled = given.computation.compile_layers
    inputs = given.data._replace(length_multiple=XLA_LENGTHS if is_compiled else 1)
    run = task_inputs.TaskRun(
        task=task,
        inputs=task_inputs.TaskInputs(task, examples, tokenizer, inputs, run_settings),
        settings=run_settings,
        package=_package_settings(task, config, variant.method, initial),
        training=initial.training,
        diagnostics=initial.diagnostics,
        dev_evaluation=given.dev_evaluation,
        plots=FLAGS.plots,
        ablated=layer_ranges.format_layers(variant.ablated_layers),
    )
    return Plan(config, initial, package, variant, run)


def _add_steps(run_settings, examples):
    """The `settings.Run` with the steps of training on a number of examples."""
    steps = int(examples / FLAGS.train_batch_size * FLAGS.num_train_epochs)
    if steps < 1:
        count = wording.pluralize(examples, "example")
        raise UserError(
            "no training step: %s / --train_batch_size=%d * --num_train_epochs=%g is "
            "below 1" % (count, FLAGS.train_batch_size, FLAGS.num_train_epochs)
        )
    return run_settings._replace(
        num_train_steps=steps, num_warmup_steps=int(steps * FLAGS.warmup_proportion)
    )


def _package_settings(task, config, method, initial):
    """The `run_package.PackageSettings` of the package that this run writes."""
    package_config = adapter_package.make_config(
        adapter_package.describe_task(task),
        config,
        files.digest(FLAGS.vocab_file),
        FLAGS.do_lower_case,
        FLAGS.max_seq_length,
        method,
        settings=initial.training if FLAGS.do_train else None,
    )
    # Checkpoints with all variables hold the base model too.
    is_trained = FLAGS.checkpoint_content == checkpoints.TRAINED
    base = initial.base if is_trained else None
    return run_package.PackageSettings(package_config, base, method.has_packages)


def make_model_fn(plan):
    """The `model_fn` of this run."""
    run, initial_bias, adapters_checkpoint = plan.run, 0.0, None
    if FLAGS.do_train:
        labels = run.task.type.read_labels(run.inputs.examples[run.task.train.name])
        initial_bias = run.task.type.initial_bias(labels)
    if plan.package is not None:
        adapters_checkpoint = run_package.write_checkpoint(
            plan.package, FLAGS.output_dir, FLAGS.use_tpu
        )
    return classifier.model_fn_builder(
        bert_config=plan.config,
        num_labels=run.task.type.num_outputs,
        init_checkpoint=FLAGS.init_checkpoint,
        learning_rate=FLAGS.learning_rate,
        num_train_steps=run.settings.num_train_steps,
        num_warmup_steps=run.settings.num_warmup_steps,
        use_tpu=FLAGS.use_tpu,
        use_one_hot_embeddings=FLAGS.use_tpu,
        variant=plan.variant._replace(
            initial_bias=initial_bias,
            computation=settings.from_flags(
                classifier.Computation, FLAGS, shards=run.settings.devices.shards
            ),
        ),
        training=settings.from_flags(
            classifier.Training,
            FLAGS,
            bias_correction=FLAGS.adam_bias_correction,
            adapters_checkpoint=adapters_checkpoint,
            summary_dir=FLAGS.output_dir,
        ),
    )


@reports_user_errors(FLAGS)
def main(argv):
    console.start(FLAGS.verbosity)
    tf.logging.set_verbosity(tf.logging.INFO)
    if FLAGS.task_name == "help":
        for task in glue_data.GLUE_TASKS.values():
            print("%-6s %s" % (task.name, data_report.describe_task(task)))
        return
    if FLAGS.check:
        _check_data()
        return
    estimators.keep_freed_memory()
    with signals.exit_on_signal():
        try:
            plan = make_plan()
            with disk.explain_errors(FLAGS.output_dir):
                _run(plan)
        finally:
            if FLAGS.output_dir:
                run_lock.release(FLAGS.output_dir)


def _check_data():
    """Does what --check says."""
    task = set_task_flags()
    tokenizer = None
    if FLAGS.vocab_file:
        tokenizer = tokenization.FullTokenizer(FLAGS.vocab_file, FLAGS.do_lower_case)
    data_report.check_task(task, FLAGS.data_dir, tokenizer, FLAGS.max_seq_length)


def _run(plan):
    """Trains, evaluates and predicts."""
    run = plan.run
    if run.settings.is_chief:
        console.log_to(os.path.join(FLAGS.output_dir, console.LOG_NAME))
        run_text.log_task(run.task, plan.config, run.settings.devices, FLAGS.precision)
        if run.ablated:
            console.say("Without the adapters of layers %s", run.ablated)
        task_runs.log_data(run)
    model_fn = make_model_fn(plan)
    diagnostics, results = run.diagnostics, {}
    if FLAGS.do_train:
        diagnostics, results = task_runs.train(model_fn, run, plan.initial.step_reached)
    if not run.settings.is_chief:
        return
    estimator = estimators.make_estimator(model_fn, run.settings)
    if FLAGS.do_eval:
        diagnostics = task_runs.evaluate(estimator, run, diagnostics, results)
    if FLAGS.do_predict:
        task_runs.write_predictions(estimator, run)
    dev_steps.log_best(FLAGS.output_dir)
    run_text.log_files(FLAGS.output_dir, run.task, run.result_name)
    diagnosis.show_warnings(diagnostics.warnings, run.training)


def _run_process(argv):
    # `main` reports errors itself, because this can end the process.
    with distribution.process_exit(FLAGS.distribution_strategy):
        main(argv)


if __name__ == "__main__":
    command_line.run_program(
        _run_process, "python run_classifier.py: " + __doc__, FLAG_GROUPS, FLAGS
    )
