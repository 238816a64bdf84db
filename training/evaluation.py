"""Evaluation and prediction after training, and the files they write."""

import collections
import json
import os
from typing import Any

from system import console, files, wording
from training import estimators, plots, run_log, scoring
from weights import run_package, run_record


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
        run_log.log_scores(split, step, scored)
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
    run_log.log_scores(split, step, scored)
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
