"""Table 2: further tasks, each described by a file; test rows are scored at the end."""

import optimization
from experiments import pages, selection
from experiments.grid import (
    PAPER,
    SMALL,
    Experiment,
    Method,
    adapters,
    small_adapters,
    sweep,
)

_RATES = ("1e-5", "3e-5", "1e-4", "3e-3")
_EPOCHS = (20, 50, 100)
_TOP = (1, 2, 3, 5, 7, 9, 11, 12)


def _top(layers, *rest):
    return tuple(Method("%s:%d" % (optimization.TOP_K, k), *rest) for k in layers)


_METHODS = {
    PAPER: (
        Method(optimization.FULL, _RATES, _EPOCHS),
        *_top(_TOP, _RATES, _EPOCHS),
        adapters(_RATES, (2, 4, 8, 16, 32, 64), _EPOCHS),
    ),
    SMALL: (
        Method(optimization.FULL, ("1e-4",), is_corrected=True),
        *_top((1, 2), ("1e-4",), (), (0,), "", True),
        small_adapters(sizes=(8, 64)),
    ),
}
# Mean test accuracy, and total parameters of 17 tasks in models.
_PAPER = {
    "full": ("73.7", "17x"),
    "top_k": ("74.0", "9.9x"),
    "adapters": ("73.3", "1.19x"),
}
_NAMES = {
    "full": "full fine-tuning",
    "top_k": "the best number of top layers",
    "adapters": "adapters of the best size",
}


def _jobs(study):
    return sweep(study, _METHODS[study.preset])


def _report(study):
    page = pages.start_report(study, "Table 2: further tasks")
    page.text(
        "Settings are chosen by the mean on the dev set over seeds; the score is the "
        "mean on the test set of the same runs."
    )
    rows, tests, sizes = [], {}, {}
    for task in study.tasks:
        for kind, name in _NAMES.items():
            jobs = [
                job
                for job in study.jobs
                if job.task == task and job.policy.partition(":")[0] == kind
            ]
            best = selection.best_cell(jobs, study.results)
            dev = selection.summary(best, study.results)
            test = selection.summary(best, study.results, lambda r: r.test_score)
            tests.setdefault(kind, []).append(test and test.mean)
            trained = selection.parameters(best, study.results)
            base = selection.parameters(best, study.results, "base")
            sizes.setdefault(kind, []).append(base and trained and trained / base)
            rows.append(
                [
                    task,
                    name,
                    pages.setting_text(best[0]) if best else pages.NONE,
                    pages.spread(dev),
                    pages.spread(test),
                    pages.count(trained),
                    pages.counts_text(jobs, study.results),
                ]
            )
    page.table(
        ["task", "method", "setting", "dev", "test", "trained", "all runs"], rows
    )
    page.heading("All tasks")
    rows = []
    for kind, name in _NAMES.items():
        score = pages.mean_of(tests.get(kind, ()))
        share = pages.mean_of(sizes.get(kind, ()))
        times = pages.NONE
        if share is not None:
            # A model of its own for each task, or one base and what each task trained.
            total = share * len(study.tasks) + (0 if share >= 1 else 1)
            times = "%.3gx" % total
        rows.append([name, pages.points(score), times, *_PAPER[kind]])
    page.table(
        ["", "mean test score", "total parameters", "paper, 17 tasks", "paper, total"],
        rows,
    )
    page.text(
        "Total parameters: the base once, and what each task trains, heads included, "
        "as a multiple of the base; of full fine-tuning a whole model for each task."
    )
    return page


EXPERIMENT = Experiment(
    about="Tasks of --task_configs: full fine-tuning, top layers, adapters.",
    base="BERT-base",
    tasks={PAPER: (), SMALL: ()},
    seeds={PAPER: (1, 2, 3), SMALL: (1, 2)},
    jobs=_jobs,
    report=_report,
)
