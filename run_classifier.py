"""Tunes BERT with adapters on a task, evaluates it and predicts with it."""

import system.startup  # noqa: F401  (before TensorFlow)

import os
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import glue_data
import modeling
import tokenization
from errors import UserError, reports_user_errors
from inputs import data_report, features, tasks
from model import layer_ranges
from system import console, disk, files
from training import (
    classifier,
    dev_steps,
    distribution,
    estimators,
    flag_checks,
    run_checks,
    run_lock,
    run_text,
    signals,
    task_inputs,
    task_runs,
)
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

# Defined in their groups, so that --help shows each flag in exactly one.
FLAG_GROUPS = {
    "Required": (
        command_line.DEFINE_path(
            "data_dir",
            "Folder of the task's files, such as glue_data/MRPC; with --task_config "
            "that of the file, if not given.",
        ),
        command_line.DEFINE_path(
            "bert_config_file", "bert_config.json of the pre-trained BERT."
        ),
        flags.DEFINE_string(
            "task_name",
            None,
            "Task of GLUE, in any case: %s; help lists them with columns and metrics."
            % ", ".join(glue_data.GLUE_TASKS),
        ),
        command_line.define_task_config(FLAGS),
        command_line.DEFINE_path("vocab_file", "vocab.txt of the pre-trained BERT."),
        command_line.DEFINE_path(
            "output_dir",
            "Folder for checkpoints, scores and predictions.",
            has_checkpoint=True,
        ),
    ),
    "Model": (
        command_line.DEFINE_path(
            "init_checkpoint",
            "Checkpoint to start from, without file endings: a pre-trained BERT "
            "(.../bert_model.ckpt) or an earlier adapter run.",
            has_checkpoint=True,
        ),
        flags.DEFINE_bool(
            "allow_random_base",
            False,
            "Go on where frozen BERT variables would stay at random values, because "
            "there is no --init_checkpoint or it lacks them.",
        ),
        flags.DEFINE_bool(
            "do_lower_case", True, "Lower-case the text: True for uncased models."
        ),
        flags.DEFINE_integer(
            "max_seq_length",
            128,
            "Longest input in word pieces, [CLS] and [SEP] included; the rest is cut.",
        ),
        flags.DEFINE_string(
            "train_policy",
            modeling.ADAPTERS,
            "What trains, the head always: adapters (and layer norms); full, all of "
            "BERT, as google-research/bert tunes it; top_k:N, its N top layers and the "
            "pooler; layer_norm; head. All but the first have no adapters.",
        ),
        flags.DEFINE_integer("adapter_size", 64, "Width of the adapters' bottleneck."),
        flags.DEFINE_string(
            "adapter_layers",
            None,
            "Layers with adapters, counted from 0, such as 8-11 or 0,2-3; all if not "
            "given. What lies below the lowest of them is frozen, layer norms too.",
        ),
        flags.DEFINE_string(
            "ablate_adapter_layers",
            None,
            "Evaluate and predict without the trained adapters of these layers (the "
            "paper's figure 6). The files with the results have the layers in their "
            "names.",
        ),
        flags.DEFINE_float(
            "adapter_init_scale",
            1e-3,
            "Standard deviation of the adapters' initial weights (the paper: 1e-2).",
        ),
        command_line.DEFINE_path(
            "adapters",
            "Adapter package to evaluate, to predict with or to go on training from, a "
            "folder such as OUTPUT_DIR/adapters; --init_checkpoint is its base.",
        ),
    ),
    "What to do": (
        flags.DEFINE_bool("do_train", False, "Train on the task's training set."),
        flags.DEFINE_bool("do_eval", False, "Evaluate on the task's dev set(s)."),
        flags.DEFINE_bool("do_predict", False, "Predict the task's test set(s)."),
        flags.DEFINE_bool(
            "check",
            False,
            "Read all rows of the task, say what they are and what is doubtful about "
            "them, and end. Needs no model; with --vocab_file it counts word pieces.",
        ),
        flags.DEFINE_bool(
            "plots",
            False,
            "Draw the confusion matrix of each set that is scored, as PNG.",
        ),
    ),
    "Training and evaluation": (
        flags.DEFINE_integer("train_batch_size", 32, "Examples in a training batch."),
        flags.DEFINE_integer("eval_batch_size", 8, "Examples in an evaluation batch."),
        flags.DEFINE_integer(
            "predict_batch_size", 8, "Examples in a prediction batch."
        ),
        flags.DEFINE_float("learning_rate", 5e-5, "Peak learning rate of Adam."),
        flags.DEFINE_float("num_train_epochs", 3.0, "Passes over the training set."),
        flags.DEFINE_float(
            "warmup_proportion",
            0.1,
            "Share of the steps with rising learning rate, 0 to 1.",
        ),
        flags.DEFINE_bool(
            "adam_bias_correction",
            False,
            "Correct Adam's moments for their start at zero. Without it, as in BERT "
            "and the original, the first updates are several times too large: at a "
            "learning rate of 1e-3 most trainings then learn nothing.",
        ),
        flags.DEFINE_integer(
            "save_checkpoints_steps", 1000, "Steps between checkpoints."
        ),
        flags.DEFINE_enum(
            "checkpoint_content",
            checkpoints.ALL,
            list(checkpoints.CONTENTS),
            "What checkpoints in --output_dir hold: all variables, or trained ones, "
            "optimizer slots and step, which need --init_checkpoint beside them.",
        ),
        flags.DEFINE_integer(
            "eval_steps",
            0,
            "Evaluate on the dev set(s) each so many training steps, and at the end; "
            "0: not during the training.",
        ),
        flags.DEFINE_string(
            "keep_best",
            None,
            "Metric of the task. The evaluation of --eval_steps with the highest on "
            "the (first) dev set is kept, checkpoint and package, in OUTPUT_DIR/best.",
        ),
        flags.DEFINE_bool(
            "write_graph",
            False,
            "Write the training's graph, for TensorBoard and other tools: graph.pbtxt, "
            "the .meta file of each checkpoint, and an entry in the event file; "
            "megabytes in all.",
        ),
        flags.DEFINE_integer(
            "seed", 1, "Seed of initial weights, dropout and shuffling."
        ),
        flags.DEFINE_bool(
            "dynamic_padding",
            True,
            "Pad a batch to its longest example, not to --max_seq_length, and group "
            "training examples by length. Ignored on TPU, whose shapes are static.",
        ),
    ),
    "Speed and memory": (
        flags.DEFINE_enum(
            "precision",
            "float32",
            list(classifier.PRECISIONS),
            "What frozen weights are multiplied in. bfloat16 is fast on TPUs, newer "
            "GPUs and CPUs with AMX or AVX512-BF16; float16, with loss scaling, is for "
            "older GPUs. Adapters, layer norms, head, softmax, loss, optimizer and "
            "checkpoints stay float32.",
        ),
        flags.DEFINE_bool(
            "xla",
            False,
            "Compile the step with XLA, worth trying on GPU; dynamic padding then goes "
            "by steps of %d, so that there are few shapes to compile." % XLA_LENGTHS,
        ),
        flags.DEFINE_integer(
            "gradient_accumulation_steps",
            1,
            "Compute a training batch in this many parts, one after the other: less "
            "memory, the same update.",
        ),
        flags.DEFINE_bool(
            "recompute_activations",
            False,
            "Keep each layer's input alone for the backward pass and compute the rest "
            "again: less memory, four tenths more time on CPU.",
        ),
    ),
    "Several devices": (
        flags.DEFINE_enum(
            "distribution_strategy",
            distribution.NONE,
            distribution.STRATEGIES,
            "Train on one device, on all GPUs of this machine (mirrored), or on all "
            "machines that the environment variable TF_CONFIG lists (multi_worker). "
            "--train_batch_size is that of all together.",
        ),
    ),
    "Cloud TPU": (
        flags.DEFINE_bool("use_tpu", False, "Run on TPU; otherwise on GPU or CPU."),
        flags.DEFINE_string(
            "tpu_name", None, "Name of the Cloud TPU, or its grpc:// address."
        ),
        flags.DEFINE_string(
            "tpu_zone", None, "Zone of the Cloud TPU; found out if not given."
        ),
        flags.DEFINE_string(
            "gcp_project", None, "Project of the Cloud TPU; found out if not given."
        ),
        flags.DEFINE_string("master", None, "Address of a TensorFlow master."),
        flags.DEFINE_integer("num_tpu_cores", 8, "Cores of the TPU, with --use_tpu."),
        flags.DEFINE_integer(
            "iterations_per_loop", 1000, "Steps of one call of the TPU."
        ),
    ),
}


class Plan(NamedTuple):
    """All that is known once the checks have passed."""

    config: modeling.BertConfig
    step_reached: int | None  # of the checkpoint in output_dir
    start_package: adapter_package.AdapterPackage | None  # --adapters
    variant: classifier.Variant
    run: task_inputs.TaskRun


def make_plan():
    """Runs every check and reads every row that this run will need.

    Returns:
      A `Plan`.

    Raises:
      UserError: the first thing that is wrong.
    """
    flag_checks.check_flags(FLAGS)
    strategy = FLAGS.distribution_strategy
    cluster = distribution.take_cluster(strategy)
    distribution.check_batch(
        strategy, cluster, FLAGS.train_batch_size, FLAGS.gradient_accumulation_steps
    )
    is_chief = cluster is None or cluster.is_chief
    tokenization.validate_case_matches_checkpoint(
        FLAGS.do_lower_case, FLAGS.init_checkpoint
    )
    task = flag_checks.find_task(FLAGS)
    flag_checks.check_keep_best(FLAGS, task)
    needed = flag_checks.splits_needed(task, FLAGS)
    config = modeling.BertConfig.from_json_file(FLAGS.bert_config_file)
    tokenizer = tokenization.FullTokenizer(FLAGS.vocab_file, FLAGS.do_lower_case)
    package = adapter_package.read(FLAGS.adapters) if FLAGS.adapters else None
    examples = {
        split.name: tasks.read_examples(task, FLAGS.data_dir, split) for split in needed
    }
    num_train_steps = num_warmup_steps = None
    if FLAGS.do_train:
        count = len(examples[task.train.name])
        num_train_steps = int(count / FLAGS.train_batch_size * FLAGS.num_train_epochs)
        num_warmup_steps = int(num_train_steps * FLAGS.warmup_proportion)
        if num_train_steps < 1:
            raise UserError(
                "no training step: %d examples / --train_batch_size=%d * "
                "--num_train_epochs=%g is below 1"
                % (count, FLAGS.train_batch_size, FLAGS.num_train_epochs)
            )
    variant = run_checks.make_variant(FLAGS, task, config, package)
    start = run_checks.check_model(
        FLAGS, task, config, tokenizer, package, variant, is_chief
    )
    run = task_inputs.TaskRun(
        task=task,
        examples=examples,
        data_dir=FLAGS.data_dir,
        vocab_file=FLAGS.vocab_file,
        do_lower_case=FLAGS.do_lower_case,
        tokenizer=tokenizer,
        max_seq_length=FLAGS.max_seq_length,
        dynamic_padding=FLAGS.dynamic_padding,
        length_multiple=XLA_LENGTHS if FLAGS.xla else 1,
        settings=estimators.RunSettings(
            output_dir=FLAGS.output_dir,
            train_batch_size=FLAGS.train_batch_size,
            eval_batch_size=FLAGS.eval_batch_size,
            predict_batch_size=FLAGS.predict_batch_size,
            save_checkpoints_steps=FLAGS.save_checkpoints_steps,
            num_train_steps=num_train_steps,
            seed=FLAGS.seed,
            use_tpu=FLAGS.use_tpu,
            tpu_name=FLAGS.tpu_name,
            tpu_zone=FLAGS.tpu_zone,
            gcp_project=FLAGS.gcp_project,
            master=FLAGS.master,
            num_tpu_cores=FLAGS.num_tpu_cores,
            iterations_per_loop=FLAGS.iterations_per_loop,
            distribution_strategy=FLAGS.distribution_strategy,
            cluster=cluster,
            shards=flag_checks.shards(FLAGS),
            write_graph=FLAGS.write_graph,
        ),
        package=_package_settings(task, config, package, variant.policy, start.base),
        num_warmup_steps=num_warmup_steps,
        leaves_out_infinite=FLAGS.precision == "float16",
        training=start.training,
        diagnostics=start.diagnostics,
        plots=FLAGS.plots,
        dev_steps=dev_steps.Settings(FLAGS.eval_steps, FLAGS.keep_best),
        written={},
        ablated=layer_ranges.format_layers(variant.ablated_layers),
    )
    return Plan(config, start.step_reached, package, variant, run)


def _package_settings(task, config, start, policy, base):
    """The `run_package.PackageSettings` of what this run trains."""
    description = adapter_package.Description(
        task_name=task.name,
        labels=list(task.labels),
        is_regression=task.is_regression,
        metrics=list(task.metrics),
        bert_config=config.to_dict(),
        adapter_size=FLAGS.adapter_size,
        vocabulary=files.digest(FLAGS.vocab_file),
        do_lower_case=FLAGS.do_lower_case,
        max_seq_length=FLAGS.max_seq_length,
        adapter_init_scale=FLAGS.adapter_init_scale,
        settings=run_checks.training_settings(FLAGS, task) if FLAGS.do_train else None,
        text_columns=list(task.text_columns),
        policy=policy,
    )
    if start is not None:
        description = description._replace(
            activation=start.activation,
            adapter_init_scale=start.config["adapter"].get("init_scale"),
        )
    # Checkpoints that hold all variables hold the base too.
    is_trained = FLAGS.checkpoint_content == checkpoints.TRAINED
    return run_package.PackageSettings(description, base if is_trained else None)


def make_model_fn(plan):
    """The `model_fn` of this run."""
    run = plan.run
    mean_label = 0.0
    if run.task.is_regression and FLAGS.do_train:
        rows = run.examples[run.task.train.name]
        mean_label = float(np.mean([float(row.label) for row in rows]))
    adapters_checkpoint = None
    if plan.start_package is not None:
        adapters_checkpoint = run_package.write_checkpoint(
            plan.start_package, FLAGS.output_dir, FLAGS.use_tpu
        )
    return classifier.model_fn_builder(
        bert_config=plan.config,
        num_labels=run_checks.num_outputs(run.task),
        init_checkpoint=FLAGS.init_checkpoint,
        learning_rate=FLAGS.learning_rate,
        num_train_steps=run.settings.num_train_steps,
        num_warmup_steps=run.num_warmup_steps,
        use_tpu=FLAGS.use_tpu,
        use_one_hot_embeddings=FLAGS.use_tpu,
        variant=plan.variant._replace(
            initial_score=mean_label,
            computation=classifier.Computation(
                precision=FLAGS.precision,
                xla=FLAGS.xla,
                recompute_activations=FLAGS.recompute_activations,
                gradient_accumulation_steps=FLAGS.gradient_accumulation_steps,
                shards=run.settings.shards,
            ),
        ),
        training=classifier.Training(
            bias_correction=FLAGS.adam_bias_correction,
            adapters_checkpoint=adapters_checkpoint,
            checkpoint_content=FLAGS.checkpoint_content,
            summary_dir=FLAGS.output_dir,
        ),
    )


@reports_user_errors
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
    task = flag_checks.find_task(FLAGS)
    tokenizer = None
    if FLAGS.vocab_file:
        tokenizer = tokenization.FullTokenizer(FLAGS.vocab_file, FLAGS.do_lower_case)
    data_report.check_task(task, FLAGS.data_dir, tokenizer, FLAGS.max_seq_length)


def _run(plan):
    """Does what a `Plan` says."""
    run = plan.run
    if run.settings.is_chief:
        console.log_to(os.path.join(FLAGS.output_dir, console.LOG_NAME))
        run_text.say_task(run.task, plan.config, run.settings, FLAGS.precision)
        if run.ablated:
            console.say("Without the adapters of layers %s", run.ablated)
        task_runs.say_data(run)
    model_fn = make_model_fn(plan)
    diagnostics = run.diagnostics
    if FLAGS.do_train:
        diagnostics = task_runs.train(model_fn, run, plan.step_reached)
    if not run.settings.is_chief:
        return
    estimator = estimators.make_estimator(model_fn, run.settings)
    if FLAGS.do_eval:
        diagnostics = task_runs.evaluate(estimator, run, diagnostics)
    if FLAGS.do_predict:
        task_runs.write_predictions(estimator, run)
    run_text.say_best(dev_steps.read_best(FLAGS.output_dir), FLAGS.output_dir)
    run_text.say_files(FLAGS.output_dir, run.task, run.result_name)
    diagnosis.show_warnings(diagnostics.warnings, run.training)


def _run_process(argv):
    with distribution.process_exit(FLAGS.distribution_strategy):
        main(argv)


if __name__ == "__main__":
    command_line.run_program(
        _run_process, "python run_classifier.py: " + __doc__, FLAG_GROUPS, FLAGS
    )
