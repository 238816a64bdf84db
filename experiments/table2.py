"""Table 2: further tasks from task files, with test scores."""

from experiments import grid, reports, selection

_RATES = ("1e-5", "3e-5", "1e-4", "3e-3")
_EPOCHS = (20, 50, 100)
# By policy: its name; the paper's mean test accuracy, and parameters for 17 tasks as a
# multiple of the base model's.
_LINES = {
    grid.FULL: ("full fine-tuning", "73.7", "17x"),
    grid.TOP_K: ("the best number of top layers", "74.0", "9.9x"),
    grid.ADAPTERS: ("adapters of the best size", "73.3", "1.19x"),
}


def _total_parameters(ratios):
    """Formats the parameters of all tasks as a multiple of the base model's.

    `ratios` has the trained parameters of each task as a multiple; None: unknown.
    """
    mean = reports.mean_or_none(ratios)
    if mean is None:
        return reports.NONE
    # Each task has a whole model, or they share one base model.
    return "%.3gx" % (mean * len(ratios) + (0 if mean >= 1 else 1))


def _write_report(study, report):
    report.add_text(
        "Settings are selected by the mean on the dev set over seeds; the score is the "
        "mean on the test set of the same runs."
    )
    rows, totals = [], []
    for policy, (name, *paper) in _LINES.items():
        tests, ratios = [], []
        for task in study.tasks:
            jobs = study.select(task=task, family=policy)
            best, dev = selection.best_setting(jobs, study.results)
            test = selection.summarize_jobs(best, study.results, "test_score")
            trained = selection.parameter_count(best, study.results)
            base = selection.parameter_count(best, study.results, "base")
            tests.append(test and test.mean)
            ratios.append(base and trained and trained / base)
            texts = reports.setting_text(best), *map(reports.mean_text, (dev, test))
            status = reports.status_text(jobs, study.results)
            rows.append([task, name, *texts, reports.count_text(trained), status])
        score = reports.points(reports.mean_or_none(tests))
        totals.append([name, score, _total_parameters(ratios), *paper])
    rows.sort(key=lambda row: study.tasks.index(row[0]))
    report.add_table(
        ["task", "method", "setting", "dev", "test", "trained", "all runs"], rows
    )
    report.add_heading("All tasks")
    header = ("", "mean test score", "total parameters", "paper, 17 tasks",
              "paper, total")  # fmt: skip
    report.add_table(header, totals)
    report.add_text(
        "Total parameters: the base model and the trained parameters of all tasks, "
        "heads included, as a multiple of the base model; for full fine-tuning, one "
        "model per task."
    )


_PAPER_METHODS = [
    grid.Method(grid.FULL, _RATES, _EPOCHS),
    *grid.make_methods(grid.TOP_K, (1, 2, 3, 5, 7, 9, 11, 12), _RATES, _EPOCHS),
    grid.adapters(_RATES, (2, 4, 8, 16, 32, 64), _EPOCHS),
]
_SMALL_METHODS = [
    grid.Method(grid.FULL, ("1e-4",), is_corrected=True),
    *grid.make_methods(grid.TOP_K, (1, 2), ("1e-4",), is_corrected=True),
    grid.small_adapters(sizes=(8, 64)),
]
EXPERIMENT = grid.Experiment(
    title="Table 2: further tasks",
    about="Tasks of --task_configs: full fine-tuning, top layers, adapters.",
    paper=grid.Preset((), 3, _PAPER_METHODS),
    small=grid.Preset((), 2, _SMALL_METHODS),
    write_report=_write_report,
)
