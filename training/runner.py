"""A run from its settings to its last file: prepare, train, evaluate, predict."""

import itertools
import os
import signal
import threading
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import tokenization
from errors import UserError, formats_log, names_arguments
from inputs.features import TextCounts
from model import layer_ranges
from system import console, disk, files, wording
from tasks import data_report
from training import (
    classifier,
    estimators,
    evaluation,
    periodic_evaluation,
    run_checks,
    run_flags,
    run_lock,
    run_log,
    scoring,
    signals,
    task_run,
    trainer,
)
from weights import adapter_package, checkpoints, diagnosis, run_package, run_record


class RunResult(NamedTuple):
    """The results of a run, and the files that it wrote."""

    output_dir: str
    global_step: int  # of the last checkpoint; 0: no checkpoint
    # By set, such as "dev"; the baseline is the best constant prediction.
    scores: dict[str, dict[str, float]]
    baseline: dict[str, dict[str, float]]
    predictions: dict[str, list[str]]  # paths of files by set
    package: str | None  # folder of the adapter package, if any
    warnings: list[str]  # about the model, see `weights.diagnosis`

    @property
    def status(self):
        """ "degenerate" if there are warnings, or "ok"."""
        return "degenerate" if self.warnings else "ok"


_running = threading.Lock()  # held by `run`


def prepare(
    settings, task, read_examples, is_case_given, plots=False, skipped_rows=None
):
    """Checks everything and reads all examples; returns the `task_run.TaskRun`.

    Args:
      settings: a `settings.Settings`.
      task: a `task_data.Task`.
      read_examples: function of a `task_data.Split` that returns its examples, a list.
      is_case_given: whether `do_lower_case` was given.
      plots: whether confusion matrices are drawn.
      skipped_rows: the `bad_rows.BadRows` to which `read_examples` adds those that it
        leaves out, or None.

    Raises:
      UserError: the first problem.
    """
    settings.check()
    data, model = settings.data, settings.model
    tokenization.validate_case_matches_checkpoint(
        data.do_lower_case, model.init_checkpoint
    )
    run_settings = settings.run._replace(devices=settings.complete_devices())
    splits = run_checks.select_splits(settings, task)
    config = modeling.BertConfig.from_json_file(model.bert_config_file)
    tokenizer = tokenization.FullTokenizer(data.vocab_file, data.do_lower_case)
    tokenization.check_case(
        data.do_lower_case, is_case_given, tokenizer.vocab, data.vocab_file
    )
    package = adapter_package.read(model.adapters) if model.adapters else None
    if package is not None and package.task_type.name == task.type.name:
        task = task._replace(type=task.type.adopt_head(package.task_type.head))
    examples = {split.name: read_examples(split) for split in splits}
    initial_bias = 0.0
    if run_settings.do_train:
        train_examples = examples[task.train.name]
        run_settings = _add_steps(
            run_settings, settings.optimization, len(train_examples)
        )
        labels = task.type.read_labels(train_examples)
        if run_settings.class_weights:
            task = _weigh_classes(task, run_settings.class_weights, labels)
        initial_bias = task.type.initial_bias(labels)
    settings = settings._replace(run=run_settings)
    variant = run_checks.make_variant(settings, task, config, package)
    initial = run_checks.load_initial_state(
        settings, task, config, tokenizer, package, variant
    )
    if run_settings.is_chief:
        precision = settings.computation.precision
        run_log.log_task(task, config, run_settings.devices, precision)
    variant = variant._replace(
        initial_bias=initial_bias,
        computation=settings.computation._replace(shards=run_settings.devices.shards),
    )
    is_compiled = settings.computation.compile_layers
    multiple = run_flags.XLA_LENGTHS if is_compiled else 1
    inputs = data._replace(length_multiple=multiple)
    return task_run.TaskRun(
        task=task,
        inputs=task_run.TaskInputs(task, examples, tokenizer, inputs, run_settings),
        settings=run_settings,
        model_fn=_make_model_fn(settings, config, package, variant),
        package=_package_settings(settings, task, config, variant.method, initial),
        training=initial.training,
        step_reached=initial.step_reached,
        diagnostics=initial.diagnostics,
        dev_evaluation=settings.dev_evaluation,
        plots=plots,
        skipped_rows=skipped_rows,
        ablated=layer_ranges.format_layers(variant.ablated_layers),
    )


def _weigh_classes(task, weights, labels):
    """The task with weights of classes, see `TaskType.weigh_classes`."""
    if task.type.training_entries().get("class_weights"):
        raise UserError(
            '`class_weights` and "class_weights" in %s: leave one of the two out'
            % task.config_file
        )
    try:
        weighted = task.type.weigh_classes(weights, labels)
    except ValueError as error:
        raise UserError("`class_weights`: %s; leave it out" % error) from None
    return task._replace(type=weighted)


def _add_steps(run_settings, optimization, examples):
    """The `settings.Run` with the steps of training on a number of examples."""
    batch_size, epochs = run_settings.train_batch_size, optimization.num_train_epochs
    steps = int(examples / batch_size * epochs)
    if steps < 1:
        raise UserError(
            "no training step: %s / `train_batch_size`=%d * `num_train_epochs`=%g is "
            "below 1: lower the batch size or raise the epochs"
            % (wording.pluralize(examples, "example"), batch_size, epochs)
        )
    warmup_steps = int(steps * optimization.warmup_proportion)
    return run_settings._replace(num_train_steps=steps, num_warmup_steps=warmup_steps)


def _package_settings(settings, task, config, method, initial):
    """The `run_package.PackageSettings` of the package that this run writes."""
    package_config = adapter_package.make_config(
        adapter_package.describe_task(task),
        config,
        files.digest(settings.data.vocab_file),
        settings.data.do_lower_case,
        settings.data.max_seq_length,
        method,
        settings=initial.training if settings.run.do_train else None,
        base_model=initial.base_name,
    )
    # Checkpoints with all variables hold the base model too.
    is_trained = settings.run.checkpoint_content == checkpoints.TRAINED
    base = initial.base if is_trained else None
    return run_package.PackageSettings(package_config, base, method.has_packages)


def _make_model_fn(settings, config, package, variant):
    """The `model_fn` of a run that starts from `package`, if it is not None."""
    run, adapters_checkpoint = settings.run, None
    use_tpu = run.devices.use_tpu
    if package is not None:
        with disk.explain_errors(run.output_dir):
            adapters_checkpoint = run_package.write_checkpoint(
                package, run.output_dir, use_tpu
            )
    return classifier.model_fn_builder(
        bert_config=config,
        num_labels=variant.task_type.num_outputs,
        init_checkpoint=settings.model.init_checkpoint,
        learning_rate=settings.optimization.learning_rate,
        num_train_steps=run.num_train_steps,
        num_warmup_steps=run.num_warmup_steps,
        use_tpu=use_tpu,
        use_one_hot_embeddings=use_tpu,
        variant=variant,
        training=classifier.Training(
            bias_correction=settings.optimization.adam_bias_correction,
            adapters_checkpoint=adapters_checkpoint,
            checkpoint_content=run.checkpoint_content,
            summary_dir=run.output_dir,
        ),
    )


def execute(prepare_run, output_dir):
    """Executes the `task_run.TaskRun` that a function prepares; a signal exits."""
    with signals.exit_on_signal():
        _execute(prepare_run, output_dir)


def run(prepare_run, arguments, groups, flag_values):
    """Executes the `task_run.TaskRun` that a function prepares from flags.

    For the other arguments see `run_flags.parse_arguments`. Runs of several threads
    wait for each other. A signal that stops training is raised again after the
    checkpoint: Ctrl-C is a `KeyboardInterrupt`. TensorFlow keeps the behavior of
    version 1 after the call.

    Returns a `RunResult`; raises a `UserError`.
    """
    names = [holder.name for holder in itertools.chain(*groups.values())]
    with (
        names_arguments(names),
        _running,
        console.logging_to_screen(),
        formats_log(()),
    ):
        values = run_flags.parse_arguments(arguments, groups, flag_values)
        tf.disable_v2_behavior()
        try:
            with tf.Graph().as_default():
                return _execute(lambda: prepare_run(values), values.output_dir)
        except signals.StoppedBySignal as stopped:
            console.say("%s", stopped)
            signal.raise_signal(stopped.number)
            raise


def _execute(prepare_run, output_dir):
    """The `RunResult`; None on machines other than the chief."""
    estimators.keep_freed_memory()
    try:
        run = prepare_run()
        with disk.explain_errors(output_dir):
            return _execute_run(run)
    finally:
        tf.summary.FileWriterCache.clear()  # A path can name another folder later.
        if output_dir:
            run_lock.release(output_dir)


def _execute_run(run):
    output_dir = run.settings.output_dir
    if run.settings.is_chief:
        console.log_to(os.path.join(output_dir, console.LOG_NAME))
        if run.ablated:
            console.say("Without the adapters of layers %s", run.ablated)
        _log_data(run)
    diagnostics, results, report = run.diagnostics, {}, {}
    if run.settings.do_train:
        diagnostics, results = trainer.train(run)
    if not run.settings.is_chief:
        return None
    estimator = estimators.make_estimator(run.model_fn, run.settings)
    if run.settings.do_eval:
        diagnostics, report = evaluation.evaluate(estimator, run, diagnostics, results)
    if run.settings.do_predict:
        report = {**report, **evaluation.predict_test_sets(estimator, run)}
    periodic_evaluation.log_best(output_dir)
    run_log.log_files(output_dir, run.task, run.result_name)
    diagnosis.show_warnings(diagnostics.warnings, run.training)
    return _make_result(run, report, diagnostics.warnings)


def _log_data(run):
    """Writes the features of all splits, and reports on their examples.

    `run.json` gets the numbers of training and dev examples, and of skipped rows.
    """
    task, inputs = run.task, run.inputs
    text_counts: dict[str, TextCounts] = {}
    train = (task.train,) if task.train else ()
    # The features of a dev set that is predicted too have one file.
    test = [split for split in task.test if split not in task.dev]
    for kind, splits in (("train", train), ("eval", task.dev), ("predict", test)):
        for split in splits:
            if split.name in inputs.examples:
                text_counts[split.name] = inputs.write_features(split, kind).counts
    max_seq_length = inputs.settings.max_seq_length
    data_report.log_report(task, inputs.examples, text_counts, max_seq_length)
    skipped = run.skipped_rows
    if skipped and (lines := list(skipped.describe())):
        console.warn("%s", "\n  ".join(["rows are skipped:", *lines]))
    counts = data_report.count_examples(task, (*train, *task.dev), inputs.examples)
    output_dir = run.settings.output_dir
    run_record.write_data(output_dir, counts, skipped and skipped.counts())


def _make_result(run, report: dict[str, Any], warnings):
    output_dir, task_type = run.settings.output_dir, run.task.type
    predictions, package = {}, run_package.package_folder(output_dir)
    if run.settings.do_eval and task_type.has_task_files:
        predictions = {
            each.name: [scoring.dev_predictions_file(each)] for each in run.task.dev
        }
    if run.settings.do_predict:
        for split in run.task.test:
            predictions[split.name] = list(task_type.prediction_files(split))
    return RunResult(
        output_dir,
        scoring.read_step(checkpoints.latest(output_dir)),
        {name: entries["scores"] for name, entries in report.items()},
        {name: entries["baseline"] for name, entries in report.items()},
        {
            name: [run.result_path(each) for each in names]
            for name, names in predictions.items()
        },
        package if tf.io.gfile.exists(package) else None,
        warnings,
    )
