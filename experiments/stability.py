"""Stability of training by learning rate, with and without bias correction.

Not in the paper. A seed has learned if its accuracy, or else the primary metric,
exceeds the baseline by 0.05.
"""

from experiments import grid, plots, reports, results, selection

MARGIN = 0.05

_RATES = ("3e-4", "1e-3", "3e-3")
_CORRECTIONS = {False: "without", True: "with"}  # bias correction


def _preset(tasks, seeds, method):
    methods = [method._replace(is_corrected=each) for each in _CORRECTIONS]
    return grid.Preset(tasks, seeds, methods)


def _scores(result):
    """Name, score and baseline of accuracy, or else of the primary metric."""
    metric = result.metric if result.dev_score("accuracy") is None else "accuracy"
    return metric, result.dev_score(metric), result.dev_score(metric, of="baseline")


def _add_task(study, report, task):
    report.add_heading(task)
    rows, fractions, means = [], [], []
    baseline, metric = None, "score"
    for is_corrected, correction in _CORRECTIONS.items():
        name = "%s bias correction" % correction
        fractions.append(plots.Line(name, [], []))
        points = []
        for rate in _RATES:
            jobs = study.select(
                task=task, learning_rate=rate, is_corrected=is_corrected
            )
            done = [job for job in jobs if results.is_done(job, study.results)]
            ended = results.list_results(done, study.results)
            learned, scores = 0, []
            for result in ended:
                if result.score is not None:
                    metric, score, baseline = _scores(result)
                    learned += score > baseline + MARGIN
                    scores.append(score)
            summary = selection.summarize(scores)
            if ended:
                fractions[-1].x.append(float(rate))
                fractions[-1].y.append(learned / len(ended))
            if summary is not None:
                points.append((float(rate), summary))
            counts = "%d of %d" % (learned, len(ended)), str(len(jobs) - len(ended))
            seeds = " ".join(map(reports.points, scores))
            rows.append([rate, correction, *counts, seeds, reports.mean_text(summary)])
        if points:
            means.append(reports.score_line(name, points))
    rows.sort(key=lambda row: _RATES.index(row[0]))
    header = ("learning rate", "bias correction", "seeds that learned", "missing",
              metric, "mean")  # fmt: skip
    report.add_table(header, rows)
    if baseline is None:
        return
    report.add_text("The baseline: %s." % reports.points(baseline))
    panel = "%s on the dev set, times 100" % metric
    panels = {"fraction of seeds that learned": fractions, panel: means}
    figure = plots.lines(panels, "learning rate", "", {panel: 100 * baseline})
    caption = "Fraction of seeds that learned, and mean and standard error over seeds"
    report.add_figure("stability_%s" % task, caption, figure)


def _write_report(study, report):
    report.add_text(
        "A seed has learned if it is more than %g points above the baseline."
        % (100 * MARGIN)
    )
    for task in study.tasks:
        _add_task(study, report, task)


EXPERIMENT = grid.Experiment(
    title="Stability of training",
    about="The fraction of training runs that learn, with and without bias correction.",
    paper=_preset(("mrpc", "rte", "cola"), 5, grid.adapters(_RATES, epochs=(3,))),
    small=_preset(("mrpc",), 3, grid.adapters(_RATES, scale=grid.SMALL_SCALE)),
    write_report=_write_report,
)
