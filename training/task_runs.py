"""Training, evaluation and prediction of one task, and the files they write."""

import collections
import json
import os
from typing import Any

import tensorflow.compat.v1 as tf

from inputs.features import TextCounts
from system import console, disk, files, wording
from tasks import data_report
from training import dev_steps, estimators, plots, progress, run_text, scoring
from weights import checkpoints, diagnosis, run_package, run_record


def log_data(run):
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
        console.warn("%s", "\n  ".join(["rows are left out:", *lines]))
    counts = data_report.count_examples(task, (*train, *task.dev), inputs.examples)
    output_dir = run.settings.output_dir
    run_record.write_data(output_dir, counts, skipped and skipped.counts())


def train(model_fn, run, step_reached=None):
    """Trains up to the last step, unless it has been reached, and writes the package.

    `step_reached` is that of the last checkpoint in `output_dir`, or None. Returns the
    `diagnosis.Diagnostics` of the trained weights, and `dev_steps.Evaluation.results`.
    """
    settings, task = run.settings, run.task
    labels = task.type.read_labels(run.inputs.examples[task.train.name])
    losses = []
    if step_reached is not None:
        losses = progress.read_losses(checkpoints.latest(settings.output_dir))
    watch = progress.ProgressHook(
        settings,
        task.type.baseline_loss(labels),
        skips_infinite=run.training["precision"] == "float16",
        losses=losses,
    )

    def evaluate_checkpoint():
        estimator = estimators.make_estimator(model_fn, settings)
        estimators.prepare_evaluation(estimator.eval_dir())
        found = {
            split.name: scoring.evaluate_split(estimator, run, split)
            for split in task.dev
        }
        dev_steps.record(run, found, watch)
        return found

    results, is_complete = {}, (step_reached or 0) >= settings.num_train_steps
    is_complete = is_complete or dev_steps.is_stopped(run, step_reached)
    is_due = dev_steps.is_due(run, step_reached)
    if is_due and (is_complete or settings.devices.use_tpu):
        results = evaluate_checkpoint()
    if is_complete:
        console.say(
            "Training in %s has already reached step %d of %d: nothing to train",
            settings.output_dir,
            step_reached,
            settings.num_train_steps,
        )
        diagnostics = run.diagnostics
        if diagnostics.training is None:
            diagnostics = diagnostics._replace(training=watch.diagnose())
        if tf.io.gfile.exists(run_package.package_folder(settings.output_dir)):
            return diagnostics, results
    else:
        results = _train_from(step_reached, model_fn, run, watch, evaluate_checkpoint)
        diagnostics = diagnosis.Diagnostics(training=watch.diagnose())
    if settings.is_chief:
        run_record.write_diagnostics(settings.output_dir, diagnostics)
        run_package.write(settings.output_dir, run.package, diagnostics)
    return diagnostics, results


def _train_from(step_reached, model_fn, run, watch, evaluate_checkpoint):
    settings, split = run.settings, run.task.train
    input_fn = run.inputs.make_input_fn(split, "train")
    examples = len(run.inputs.examples[split.name])
    features = run.inputs.write_features(split, "train").counts.features
    run_text.log_training(settings, examples, features, run.training)
    if step_reached is not None:
        console.say(
            "Resuming the run in %s from step %d", settings.output_dir, step_reached
        )
    if settings.is_chief:
        run_record.write_diagnostics(settings.output_dir, None)
        # Of checkpoints whose saving was interrupted.
        for path in files.list_folder(settings.output_dir, "model.ckpt-*_temp*"):
            files.remove(path)
        _warn_of_space(settings)
        estimators.prepare_summaries(settings.output_dir, settings.write_graph)
    every, last = run.dev_evaluation.eval_steps, settings.num_train_steps
    if every and settings.devices.use_tpu:
        for stop in dev_steps.stop_steps(every, step_reached or 0, last):
            estimators.train(model_fn, settings, input_fn, watch, stop)
            results = evaluate_checkpoint()
            if dev_steps.is_stopped(run, stop):
                break
        return results
    evaluation = dev_steps.Evaluation(model_fn, run, watch) if every else None
    estimators.train(model_fn, settings, input_fn, watch, last, evaluation)
    return evaluation.results if every else {}


def _warn_of_space(settings):
    """Warns if the run's checkpoints will need more space than is free."""
    record = run_record.read(settings.output_dir)
    counts, content = record["parameters"], record["identity"]["checkpoint_content"]
    saved = "total" if content == checkpoints.ALL else "trained"
    size = 4 * (counts[saved] + 2 * counts["trained"])  # Adam's moments are saved too.
    # At the start, at each interval and at the end; the next one is written before the
    # oldest is deleted.
    written = 2 + (settings.num_train_steps - 1) // settings.save_checkpoints_steps
    count = min(written, estimators.CHECKPOINTS_KEPT + 1)
    there = sum(
        tf.io.gfile.stat(path).length
        for path in files.list_folder(settings.output_dir, "model.ckpt-*")
    )
    disk.warn_about_space(
        settings.output_dir,
        count * size - there,
        "%d checkpoints of %s" % (count, disk.format_size(size)),
    )


def evaluate(estimator, run, diagnostics, results):
    """Scores the dev sets; writes `eval_results.txt` and `eval_results.json`.

    `results` are those of `train`; if {}, the last checkpoint is evaluated. Returns the
    `diagnosis.Diagnostics`, with the warnings of the evaluation unless adapters are
    ablated, and the dict "sets" of `eval_results.json`.
    """
    task = run.task
    lines: dict[str, Any] = {}
    report: dict[str, Any] = {}
    warnings: list[str] = []
    folder = run.result_name("")[1:] or None  # for TensorBoard
    estimators.prepare_evaluation(estimator.eval_dir(folder))
    points: dict[str, float] = {}
    for split in task.dev:
        # Results from training come without predictions that could be written.
        is_written = run.settings.do_predict and split in task.test
        if split.name in results and not is_written:
            result, scored = results[split.name]
        else:
            result, scored = scoring.evaluate_split(
                estimator, run, split, folder, is_written
            )
            points.update(scoring.curve_points(split, result, scored))
        step = lines["global_step"] = result.pop("global_step")
        for key, value in [*result.items(), *scored.scores.items()]:
            lines[key + split.suffix] = value
        report[split.name] = {
            **_report_entries(scored),
            **{key: float(value) for key, value in result.items()},
        }
        run_text.log_scores(split, step, scored)
        if scored.predictions is not None:
            scoring.write_dev_predictions(run, split, scored.predictions)
        _draw_matrix(run, split, scored)
        if scored.diagnosis:
            scores = [
                "%s %.4f (baseline: %.4f)" % (name, score, scored.baseline[name])
                for name, score in scored.scores.items()
            ]
            text = "%s: %s; %s" % (split.name, scored.diagnosis, ", ".join(scores))
            warnings.append(text)
    estimators.write_scalars(estimator.eval_dir(folder), int(step), points)
    if task.note:
        console.say("Note: %s", task.note)
    evaluated = diagnostics._replace(evaluation=warnings)
    _write_results(run, int(step), lines, report, evaluated)
    return (diagnostics if run.ablated else evaluated), report


def _report_entries(scored):
    return {
        "examples": len(scored.labels),
        "scores": scored.scores,
        "baseline": scored.baseline,
        **scored.report,
    }


def _draw_matrix(run, split, scored):
    """Draws the confusion matrix of a classification, with `run.plots`."""
    if not run.plots or "confusion_matrix" not in scored.report:
        return
    path = os.path.join(
        run.settings.output_dir, run.result_name("confusion_matrix_%s.png" % split.name)
    )
    count = wording.pluralize(len(scored.labels), "example")
    scores = ", ".join("%s %.4f" % each for each in scored.scores.items())
    title = "%s, %s: %s\n%s" % (run.task.title, split.name, count, scores)
    report = scored.report
    plots.confusion_matrix(path, title, report["labels"], report["confusion_matrix"])


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
    _write_json(run, "eval_results.json", record)
    if run.ablated:
        return  # `run.json` and the package describe the model without ablation.
    run_record.write_diagnostics(output_dir, diagnostics)
    scores, baseline = (
        {name: entry[key] for name, entry in report.items()}
        for key in ("scores", "baseline")
    )
    run_package.add_scores(output_dir, step, scores, diagnostics, baseline)


def write_predictions(estimator, run):
    """Predicts the test sets; writes their files, and scores those with labels.

    Dev sets that `evaluate` has written the predictions of are left out. Returns the
    entries of `test_scores.json` by split, a dict.
    """
    task, report = run.task, {}
    for split in task.test:
        is_dev = split in task.dev
        if is_dev and run.settings.do_eval:
            continue
        predictions = scoring.predict(
            estimator, run, split, "eval" if is_dev else "predict"
        )
        predictions = scoring.write_predictions(run, split, predictions)
        if split.has_labels:
            report[split.name] = _score_test(run, split, predictions)
        else:
            collections.deque(predictions, maxlen=0)
    return report


def _score_test(run, split, predictions):
    """Scores a test set that has labels; writes `test_scores.json`."""
    scored = scoring.score(run, split, predictions)
    step = scoring.read_step(run)
    run_text.log_scores(split, step, scored)
    _draw_matrix(run, split, scored)
    entries = _report_entries(scored)
    record = {"task": run.task.name, "global_step": step, **entries}
    _write_json(run, "test_scores.json", record)
    return entries


def _write_json(run, name, record):
    files.write_whole(
        os.path.join(run.settings.output_dir, run.result_name(name)),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )
