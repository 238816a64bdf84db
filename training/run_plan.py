"""A run from its settings to its last file: checks, training, scores, predictions."""

import itertools
import os
import signal
import threading
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import tokenization
from errors import UserError, formats_log, names_arguments
from model import layer_ranges
from system import console, disk, files, wording
from training import (
    classifier,
    dev_steps,
    estimators,
    run_checks,
    run_flags,
    run_lock,
    run_text,
    scoring,
    settings,
    signals,
    task_inputs,
    task_runs,
)
from weights import adapter_package, checkpoints, diagnosis, run_package


class Plan(NamedTuple):
    """A run that has passed every check."""

    settings: settings.Settings
    config: modeling.BertConfig
    initial: run_checks.InitialState
    package: adapter_package.AdapterPackage | None  # `adapters`
    variant: classifier.Variant
    run: task_inputs.TaskRun


class RunResult(NamedTuple):
    """The results of a run, and the files that it wrote."""

    output_dir: str
    global_step: int  # of the last checkpoint; 0: there is none
    # Set, such as "dev" -> its scores, and those of the best constant prediction.
    scores: dict[str, dict[str, float]]
    baseline: dict[str, dict[str, float]]
    predictions: dict[str, list[str]]  # by set: paths of files
    package: str | None  # folder of the adapter package, if there is one
    warnings: list[str]  # about the model, see `weights.diagnosis`

    @property
    def status(self):
        """ "degenerate" if there are warnings, or "ok"."""
        return "degenerate" if self.warnings else "ok"


_running = threading.Lock()  # held by `run`


def make_plan(
    given, task, read_examples, is_case_given, plots=False, skipped_rows=None
):
    """Checks everything, and reads all examples that a run needs, into a `Plan`.

    Args:
      given: a `settings.Settings`.
      task: a `task_data.Task`.
      read_examples: function of a `task_data.Split` that returns its examples, a list.
      is_case_given: whether `do_lower_case` was given.
      plots: whether confusion matrices are drawn.
      skipped_rows: the `bad_rows.BadRows` to which `read_examples` adds those that it
        leaves out, or None.

    Raises:
      UserError: the first problem.
    """
    given.check()
    data, model = given.data, given.model
    tokenization.validate_case_matches_checkpoint(
        data.do_lower_case, model.init_checkpoint
    )
    run_settings = given.run._replace(devices=given.complete_devices())
    needed = run_checks.select_splits(given, task)
    config = modeling.BertConfig.from_json_file(model.bert_config_file)
    tokenizer = tokenization.FullTokenizer(data.vocab_file, data.do_lower_case)
    tokenization.check_case(
        data.do_lower_case, is_case_given, tokenizer.vocab, data.vocab_file
    )
    package = adapter_package.read(model.adapters) if model.adapters else None
    if package is not None and package.task_type.name == task.type.name:
        task = task._replace(type=task.type.adopt_head(package.task_type.head))
    examples = {split.name: read_examples(split) for split in needed}
    if run_settings.do_train:
        count = len(examples[task.train.name])
        run_settings = _add_steps(run_settings, given.optimization, count)
        if run_settings.class_weights:
            weights = run_settings.class_weights
            task = _weigh_classes(task, weights, examples[task.train.name])
    given = given._replace(run=run_settings)
    variant = run_checks.make_variant(given, task, config, package)
    initial = run_checks.check_model(given, task, config, tokenizer, package, variant)
    is_compiled = given.computation.compile_layers
    multiple = run_flags.XLA_LENGTHS if is_compiled else 1
    inputs = data._replace(length_multiple=multiple)
    run = task_inputs.TaskRun(
        task=task,
        inputs=task_inputs.TaskInputs(task, examples, tokenizer, inputs, run_settings),
        settings=run_settings,
        package=_package_settings(given, task, config, variant.method, initial),
        training=initial.training,
        diagnostics=initial.diagnostics,
        dev_evaluation=given.dev_evaluation,
        plots=plots,
        skipped_rows=skipped_rows,
        ablated=layer_ranges.format_layers(variant.ablated_layers),
    )
    return Plan(given, config, initial, package, variant, run)


def _weigh_classes(task, weights, examples):
    """The task with weights of classes, see `TaskType.weigh_classes`."""
    if task.type.training_entries().get("class_weights"):
        raise UserError(
            '`class_weights` and "class_weights" in %s: leave one of the two out'
            % task.config_file
        )
    try:
        weighted = task.type.weigh_classes(weights, task.type.read_labels(examples))
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
            "below 1" % (wording.pluralize(examples, "example"), batch_size, epochs)
        )
    warmup_steps = int(steps * optimization.warmup_proportion)
    return run_settings._replace(num_train_steps=steps, num_warmup_steps=warmup_steps)


def _package_settings(given, task, config, method, initial):
    """The `run_package.PackageSettings` of the package that this run writes."""
    package_config = adapter_package.make_config(
        adapter_package.describe_task(task),
        config,
        files.digest(given.data.vocab_file),
        given.data.do_lower_case,
        given.data.max_seq_length,
        method,
        settings=initial.training if given.run.do_train else None,
        base_model=initial.base_name,
    )
    # Checkpoints with all variables hold the base model too.
    is_trained = given.run.checkpoint_content == checkpoints.TRAINED
    base = initial.base if is_trained else None
    return run_package.PackageSettings(package_config, base, method.has_packages)


def make_model_fn(plan):
    """The `model_fn` of a run."""
    run, given, initial_bias = plan.run, plan.settings, 0.0
    adapters_checkpoint = None
    if run.settings.do_train:
        labels = run.task.type.read_labels(run.inputs.examples[run.task.train.name])
        initial_bias = run.task.type.initial_bias(labels)
    use_tpu, output_dir = run.settings.devices.use_tpu, run.settings.output_dir
    if plan.package is not None:
        adapters_checkpoint = run_package.write_checkpoint(
            plan.package, output_dir, use_tpu
        )
    computation = given.computation._replace(shards=run.settings.devices.shards)
    return classifier.model_fn_builder(
        bert_config=plan.config,
        num_labels=run.task.type.num_outputs,
        init_checkpoint=given.model.init_checkpoint,
        learning_rate=given.optimization.learning_rate,
        num_train_steps=run.settings.num_train_steps,
        num_warmup_steps=run.settings.num_warmup_steps,
        use_tpu=use_tpu,
        use_one_hot_embeddings=use_tpu,
        variant=plan.variant._replace(
            initial_bias=initial_bias, computation=computation
        ),
        training=classifier.Training(
            bias_correction=given.optimization.adam_bias_correction,
            adapters_checkpoint=adapters_checkpoint,
            checkpoint_content=run.settings.checkpoint_content,
            summary_dir=output_dir,
        ),
    )


def execute(make_plan, output_dir):
    """Runs a program, of a function that makes a `Plan`: a signal exits."""
    with signals.exit_on_signal():
        _execute(make_plan, output_dir)


def run(make_plan, arguments, groups, flag_values):
    """Trains, evaluates and predicts by a function that makes a `Plan` from flags.

    They are those of `run_flags.parse_arguments`, which has the other arguments. Runs
    of several threads wait for each other. A signal that stops training is raised again
    after the checkpoint: Ctrl-C is a `KeyboardInterrupt`. TensorFlow keeps the behavior
    of version 1 after the call.

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
                return _execute(lambda: make_plan(values), values.output_dir)
        except signals.StoppedBySignal as stopped:
            console.say("%s", stopped)
            signal.raise_signal(stopped.number)
            raise


def _execute(make_plan, output_dir):
    """The `RunResult`; None on machines other than the chief."""
    estimators.keep_freed_memory()
    try:
        plan = make_plan()
        with disk.explain_errors(output_dir):
            return _execute_plan(plan)
    finally:
        if output_dir:
            run_lock.release(output_dir)


def _execute_plan(plan):
    run, output_dir = plan.run, plan.run.settings.output_dir
    if run.settings.is_chief:
        console.log_to(os.path.join(output_dir, console.LOG_NAME))
        precision = plan.settings.computation.precision
        run_text.log_task(run.task, plan.config, run.settings.devices, precision)
        if run.ablated:
            console.say("Without the adapters of layers %s", run.ablated)
        task_runs.log_data(run)
    model_fn = make_model_fn(plan)
    diagnostics, results, report = run.diagnostics, {}, {}
    if run.settings.do_train:
        diagnostics, results = task_runs.train(model_fn, run, plan.initial.step_reached)
    if not run.settings.is_chief:
        return None
    estimator = estimators.make_estimator(model_fn, run.settings)
    if run.settings.do_eval:
        diagnostics, report = task_runs.evaluate(estimator, run, diagnostics, results)
    if run.settings.do_predict:
        report = {**report, **task_runs.write_predictions(estimator, run)}
    dev_steps.log_best(output_dir)
    run_text.log_files(output_dir, run.task, run.result_name)
    diagnosis.show_warnings(diagnostics.warnings, run.training)
    return _make_result(run, report, diagnostics.warnings)


def _make_result(run, report: dict[str, Any], warnings):
    output_dir, task_type = run.settings.output_dir, run.task.type
    predictions, package = {}, run_package.package_folder(output_dir)
    if run.settings.do_eval and task_type.has_task_files:
        predictions = {each.name: [scoring.dev_file(each)] for each in run.task.dev}
    if run.settings.do_predict:
        for split in run.task.test:
            predictions[split.name] = list(task_type.prediction_files(split))
    return RunResult(
        output_dir,
        scoring.read_step(run),
        {name: entries["scores"] for name, entries in report.items()},
        {name: entries["baseline"] for name, entries in report.items()},
        {
            name: [os.path.join(output_dir, run.result_name(each)) for each in found]
            for name, found in predictions.items()
        },
        package if tf.io.gfile.exists(package) else None,
        warnings,
    )
