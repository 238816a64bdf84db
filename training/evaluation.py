"""Evaluation and prediction after training, and the files they write."""

from typing import Any

from system import console, files, wording
from training import estimators, plots, run_log, scoring
from weights import checkpoints, diagnosis, run_package, run_record


def evaluate(estimator, run, diagnostics, results):
    """Scores the dev sets; writes `eval_results.txt` and `eval_results.json`.

    `results` come from `trainer.train`; dev sets that are not in it are evaluated.
    Returns the `diagnosis.Diagnostics`, with the warnings of the evaluation unless
    adapters are ablated, and the dict "sets" of `eval_results.json`.
    """
    lines: dict[str, Any] = {}
    report: dict[str, Any] = {}
    warnings: list[str] = []
    summaries: dict[str, float] = {}
    name = "without_" + run.ablated if run.ablated else None
    # One for all sets, also while another process trains.
    checkpoint = checkpoints.latest(run.settings.output_dir)
    estimators.prepare_evaluation(estimator.eval_dir(name))
    for split in run.task.dev:
        # `results` have no predictions that could be written.
        writes_predictions = run.settings.do_predict and split in run.task.test
        if split.name in results and not writes_predictions:
            scored = results[split.name]
        else:
            scored = scoring.evaluate_split(
                estimator, run, split, name, writes_predictions, checkpoint
            )
            summaries.update(scoring.summary_values(split, scored))
        step = lines["global_step"] = scored.step
        for key, value in [*scored.metrics.items(), *scored.scores.items()]:
            lines[key + split.suffix] = value
        report[split.name] = _report_entries(scored)
        _log_scores(run, split, scored)
        if scored.predictions is not None:
            scoring.write_dev_predictions(run, split, scored.predictions)
        if scored.diagnosis:
            scores = [
                "%s %.4f (baseline: %.4f)" % (metric, score, scored.baseline[metric])
                for metric, score in scored.scores.items()
            ]
            text = "%s: %s; %s" % (split.name, scored.diagnosis, ", ".join(scores))
            warnings.append(text)
    estimators.write_scalars(estimator.eval_dir(name), step, summaries)
    if run.task.note:
        console.say("Note: %s", run.task.note)
    if not run.settings.do_train:  # Another process may have trained meanwhile.
        health = run_record.read(run.settings.output_dir).get("health")
        now = diagnosis.from_json(health).training
        diagnostics = diagnostics._replace(training=now or diagnostics.training)
    evaluated = diagnostics._replace(evaluation=warnings)
    _write_results(run, step, lines, report, evaluated)
    return (diagnostics if run.ablated else evaluated), report


def _report_entries(scored):
    return {
        "examples": len(scored.labels),
        "scores": scored.scores,
        "baseline": scored.baseline,
        **scored.report,
        **{key: float(value) for key, value in scored.metrics.items()},
    }


def _log_scores(run, split, scored):
    """Logs the scores of a split; with `run.plots`, draws its confusion matrix."""
    run_log.log_scores(split, scored)
    if not run.plots or "confusion_matrix" not in scored.report:
        return
    path = run.result_path("confusion_matrix_%s.png" % split.name)
    count = wording.pluralize(len(scored.labels), "example")
    scores = ", ".join("%s %.4f" % item for item in scored.scores.items())
    title = "%s, %s: %s\n%s" % (run.task.title, split.name, count, scores)
    report = scored.report
    plots.confusion_matrix(path, title, report["labels"], report["confusion_matrix"])


def _write_results(run, step, lines, report, diagnostics):
    output_dir = run.settings.output_dir
    files.write_whole(
        run.result_path("eval_results.txt"),
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
        return  # `run.json` and the package describe the whole model.
    run_record.write_diagnostics(output_dir, diagnostics)
    scores, baseline = (
        {name: entry[key] for name, entry in report.items()}
        for key in ("scores", "baseline")
    )
    run_package.add_scores(
        output_dir, run.task.type, step, scores, diagnostics, baseline
    )


def predict_test_sets(estimator, run):
    """Predicts the test sets, writes their files, and scores sets that have labels.

    Skips dev sets whose predictions `evaluate` has written. Returns a dict from split
    to the entries of `test_scores.json`.
    """
    task, report = run.task, {}
    checkpoint = checkpoints.latest(run.settings.output_dir)  # as in `evaluate`
    for split in task.test:
        is_dev = split in task.dev
        if is_dev and run.settings.do_eval:
            continue
        predictions = scoring.predict(
            estimator, run, split, "eval" if is_dev else "predict", checkpoint
        )
        predictions = scoring.write_predictions(run, split, predictions)
        if split.has_labels:
            report[split.name] = _score_test(run, split, predictions, checkpoint)
        else:
            for _ in predictions:
                pass  # They are written as they are read.
    return report


def _score_test(run, split, predictions, checkpoint):
    """Scores a test set that has labels; writes `test_scores.json`."""
    step = scoring.read_step(checkpoint)
    scored = scoring.score(run, split, predictions, {"global_step": step})
    _log_scores(run, split, scored)
    entries = _report_entries(scored)
    record = {"task": run.task.name, "global_step": step, **entries}
    _write_json(run, "test_scores.json", record)
    return entries


def _write_json(run, name, record):
    files.write_whole(run.result_path(name), files.format_json(record))
