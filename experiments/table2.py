"""Table 2: further tasks, each described by a file; test sets are scored at the end."""

from experiments import grid, pages, selection

_RATES = ("1e-5", "3e-5", "1e-4", "3e-3")
_EPOCHS = (20, 50, 100)
# For each policy its name, and from the paper the mean test accuracy and the parameters
# for 17 tasks, as a multiple of the base model's.
_LINES = {
    grid.FULL: ("full fine-tuning", "73.7", "17x"),
    grid.TOP_K: ("the best number of top layers", "74.0", "9.9x"),
    grid.ADAPTERS: ("adapters of the best size", "73.3", "1.19x"),
}


def _total_parameters(ratios):
    """Parameters of all tasks as a multiple of the base model's, as text.

    `ratios` has the trained parameters of each task as a multiple; None: not known.
    """
    mean = pages.mean_or_none(ratios)
    if mean is None:
        return pages.NONE
    # Each task has a whole model, or they share one base model.
    return "%.3gx" % (mean * len(ratios) + (0 if mean >= 1 else 1))


def _report(study, page):
    page.text(
        "Settings are selected by the mean on the dev set over seeds; the score is the "
        "mean on the test set of the same runs."
    )
    rows, totals = [], []
    for policy, (name, *paper) in _LINES.items():
        tests, ratios = [], []
        for task in study.tasks:
            jobs = study.select(task=task, kind=policy)
            best, dev = selection.best_setting(jobs, study.results)
            test = selection.summarize_jobs(best, study.results, "test_score")
            trained = selection.parameter_count(best, study.results)
            base = selection.parameter_count(best, study.results, "base")
            tests.append(test and test.mean)
            ratios.append(base and trained and trained / base)
            texts = pages.setting_text(best), *map(pages.mean_text, (dev, test))
            status = pages.status_text(jobs, study.results)
            rows.append([task, name, *texts, pages.count_text(trained), status])
        score = pages.points(pages.mean_or_none(tests))
        totals.append([name, score, _total_parameters(ratios), *paper])
    rows.sort(key=lambda row: study.tasks.index(row[0]))
    page.table(
        ["task", "method", "setting", "dev", "test", "trained", "all runs"], rows
    )
    page.heading("All tasks")
    header = ("", "mean test score", "total parameters", "paper, 17 tasks",
              "paper, total")  # fmt: skip
    page.table(header, totals)
    page.text(
        "Total parameters: the base model once, and what each task trains, heads "
        "included, as a multiple of the base model; of full fine-tuning a whole model "
        "for each task."
    )


_PAPER_METHODS = [
    grid.Method(grid.FULL, _RATES, _EPOCHS),
    *grid.numbered(grid.TOP_K, (1, 2, 3, 5, 7, 9, 11, 12), _RATES, _EPOCHS),
    grid.adapters(_RATES, (2, 4, 8, 16, 32, 64), _EPOCHS),
]
_SMALL_METHODS = [
    grid.Method(grid.FULL, ("1e-4",), is_corrected=True),
    *grid.numbered(grid.TOP_K, (1, 2), ("1e-4",), is_corrected=True),
    grid.small_adapters(sizes=(8, 64)),
]
EXPERIMENT = grid.Experiment(
    title="Table 2: further tasks",
    about="Tasks of --task_configs: full fine-tuning, top layers, adapters.",
    paper=grid.Preset((), 3, _PAPER_METHODS),
    small=grid.Preset((), 2, _SMALL_METHODS),
    report=_report,
)
