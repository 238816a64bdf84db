"""Training, evaluation and prediction of one task, and the files they write."""

import json
import os
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from inputs import data_report, features, submission_file
from system import console, disk, files
from training import dev_steps, estimators, progress, run_text, scoring
from training.task_inputs import make_input_fn, write_features
from weights import checkpoints, diagnosis, run_package, run_record


def say_data(run):
    """Writes the features of all splits and says what the rows are."""
    task, settings = run.task, run.settings
    kinds = (
        ("train", (task.train,) if task.train else (), settings.train_batch_size),
        ("eval", task.dev, settings.eval_batch_size),
        ("predict", task.test, settings.predict_batch_size),
    )
    text_counts: dict[str, features.TextCounts] = {}
    for kind, splits, batch_size in kinds:
        for split in splits:
            if split.name in run.examples:
                counts = write_features(run, split, kind, batch_size)[2]
                text_counts[split.name] = counts
    data_report.log_report(task, run.examples, text_counts, run.max_seq_length)


def train(model_fn, run, step_reached=None):
    """Trains up to the last step, if it has not been reached.

    The chief writes the adapter package.

    Returns:
      The diagnostics of the weights, a `diagnosis.Diagnostics`.
    """
    settings = run.settings
    rows = run.examples[run.task.train.name]
    labels = scoring.gold_of(run.task, rows)
    progress_settings = progress.ProgressSettings(
        settings.train_batch_size,
        settings.num_train_steps,
        run.num_warmup_steps,
        diagnosis.baseline_loss(labels, run.task.is_regression),
        run.leaves_out_infinite,
    )
    losses = []
    if step_reached is not None:
        losses = progress.read_losses(checkpoints.latest(settings.output_dir))
    watch = progress.ProgressHook(progress_settings, losses=losses)

    def diagnose():
        return diagnosis.check_loss(watch.last_loss(), progress_settings.baseline_loss)

    if dev_steps.is_due(run, step_reached):
        _evaluate_step(model_fn, run, diagnose())
    if step_reached is not None and step_reached >= settings.num_train_steps:
        console.say(
            "Training in %s has already reached step %d of %d: nothing to train",
            settings.output_dir,
            step_reached,
            settings.num_train_steps,
        )
        diagnostics = run.diagnostics
        if diagnostics.training is None:
            diagnostics = diagnostics._replace(training=diagnose())
        if tf.io.gfile.exists(run_package.package_folder(settings.output_dir)):
            return diagnostics
    else:
        _train_on(model_fn, run, step_reached, watch, diagnose)
        diagnostics = diagnosis.Diagnostics(training=diagnose())
    if settings.is_chief:
        run_record.write_diagnostics(settings.output_dir, diagnostics)
        run_package.write(settings.output_dir, run.package, diagnostics)
    return diagnostics


def _train_on(model_fn, run, step_reached, watch, diagnose):
    """Trains from a step on."""
    settings = run.settings
    rows = run.examples[run.task.train.name]
    input_fn, _ = make_input_fn(run, run.task.train, "train", settings.train_batch_size)
    run_text.say_training(settings, run.num_warmup_steps, len(rows), run.training)
    if step_reached is not None:
        console.say(
            "Resuming the run in %s from step %d", settings.output_dir, step_reached
        )
    if settings.is_chief:
        run_record.write_diagnostics(settings.output_dir, None)
        checkpoints.remove_unfinished(settings.output_dir)
        _warn_of_space(settings)
        estimators.prepare_summaries(settings.output_dir, settings.write_graph)
    reached = step_reached or 0
    for stop in dev_steps.stops(run.dev_steps, reached, settings.num_train_steps):
        estimators.train(model_fn, settings, input_fn, watch, stop)
        if run.dev_steps.every:
            _evaluate_step(model_fn, run, diagnose())
    for finding in diagnose() or ():
        console.warn("%s", finding)


def _evaluate_step(model_fn, run, findings):
    """Scores the dev sets with the last checkpoint of a training that goes on."""
    estimator = estimators.make_estimator(model_fn, run.settings)
    estimators.prepare_summaries(estimator.eval_dir(), write_graph=False)
    dev_steps.evaluate(estimator, run, diagnosis.Diagnostics(training=findings))


def _warn_of_space(settings):
    """Compares what the training's checkpoints will take with what is free."""
    record = run_record.read(settings.output_dir)
    size = checkpoints.checkpoint_bytes(
        record["parameters"], record["identity"]["checkpoint_content"]
    )
    # At the start, at each interval and at the end; one is deleted after the next.
    written = 2 + (settings.num_train_steps - 1) // settings.save_checkpoints_steps
    count = min(written, estimators.CHECKPOINTS_KEPT + 1)
    there = sum(
        tf.io.gfile.stat(path).length
        for path in files.list_folder(settings.output_dir, "model.ckpt-*")
    )
    disk.warn_of_space(
        settings.output_dir,
        count * size - there,
        "%d checkpoints of %s" % (count, disk.size_text(size)),
    )


def evaluate(estimator, run, diagnostics):
    """Scores the dev sets; writes `eval_results.txt` and `eval_results.json`.

    Args:
      estimator: the Estimator.
      run: a `task_inputs.TaskRun`.
      diagnostics: a `diagnosis.Diagnostics`.

    Returns:
      What is known now; ablation says nothing against weights.
    """
    task = run.task
    lines: dict[str, Any] = {}
    report: dict[str, Any] = {}
    findings: list[str] = []
    # The folder of the curves.
    name = run.result_name("")[1:] or None
    estimators.prepare_summaries(estimator.eval_dir(name), write_graph=False)
    for split in task.dev:
        result, scored = scoring.score_dev(estimator, run, split, name)
        step = result.pop("global_step")
        count = len(run.examples[split.name])
        lines["global_step"] = step
        for key, value in [*result.items(), *scored.scores.items()]:
            lines[key + split.suffix] = value
        report[split.name] = {
            "examples": count,
            "scores": scored.scores,
            "baseline": scored.baseline,
            **scored.classes,
            **{key: float(value) for key, value in result.items()},
        }
        run_text.say_scores(split, step, count, scored.scores, scored.baseline)
        problems = diagnosis.check_predictions(
            split.name, scored.answers, scored.gold, task.labels, task.is_regression
        )
        beside = diagnosis.format_scores(scored.scores, scored.baseline)
        findings += ["%s; %s" % (problem, beside) for problem in problems]
    if task.note:
        console.say("Note: %s", task.note)
    found = diagnostics._replace(evaluation=findings)
    _write_results(run, int(step), lines, report, found)
    return diagnostics if run.ablated else found


def _write_results(run, step, lines, report, diagnostics):
    output_dir = run.settings.output_dir
    files.write_whole(
        os.path.join(output_dir, run.result_name("eval_results.txt")),
        "".join("%s = %s\n" % (key, lines[key]) for key in sorted(lines)),
    )
    record = {
        "task": run.task.name,
        "global_step": step,
        "sets": report,
        "health": diagnostics.to_json(),
    }
    if run.ablated:
        record["ablated_adapter_layers"] = run.ablated
    files.write_whole(
        os.path.join(output_dir, run.result_name("eval_results.json")),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )
    if run.ablated:
        return  # Record and package are of all adapters.
    run_record.write_diagnostics(output_dir, diagnostics)
    scores = {name: entry["scores"] for name, entry in report.items()}
    run_package.add_scores(output_dir, step, scores, diagnostics)


def write_predictions(estimator, run):
    """Predicts the test sets; writes `test_results.tsv` and the server's files."""
    settings = run.settings
    task = run.task
    for split in task.test:
        probabilities = scoring.predict(estimator, run, split, "predict")
        name = run.result_name("test_results%s.tsv" % split.suffix)
        rows = probabilities[:, np.newaxis] if task.is_regression else probabilities
        files.write_whole(
            os.path.join(settings.output_dir, name),
            "".join("\t".join(str(p) for p in row) + "\n" for row in rows),
        )
        submission = run.result_name(split.submission_file)
        submission_file.write_submission(
            task,
            split,
            scoring.decide(task, probabilities),
            os.path.join(settings.output_dir, submission),
        )
        console.say(
            "Predicted %d rows of %s: %s, %s",
            len(run.examples[split.name]),
            split.name,
            name,
            submission,
        )
        if split.has_labels:
            _score_test(estimator, run, split, probabilities)


def _score_test(estimator, run, split, probabilities):
    """Scores a test set that has labels; writes `test_scores.json`."""
    scored = scoring.score(run, split, probabilities)
    count = len(run.examples[split.name])
    step = int(estimator.get_variable_value(tf.GraphKeys.GLOBAL_STEP))
    run_text.say_scores(split, step, count, scored.scores, scored.baseline)
    record = {
        "task": run.task.name,
        "global_step": step,
        "examples": count,
        "scores": scored.scores,
        "baseline": scored.baseline,
        **scored.classes,
    }
    files.write_whole(
        os.path.join(run.settings.output_dir, run.result_name("test_scores.json")),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )
