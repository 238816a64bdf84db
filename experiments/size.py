"""Figures 1, 3 and 4: trained parameters against quality."""

from typing import NamedTuple

import modeling
import optimization
from experiments import pages, plots, selection
from experiments.grid import (
    GLUE,
    PAPER,
    PAPER_EPOCHS,
    PAPER_RATES,
    SMALL,
    Experiment,
    Method,
    adapters,
    small_adapters,
    sweep,
    title,
)

_ADAPTERS, _TOP, _NORMS = "adapters", "top layers", "layer norms"
_FAMILIES = {
    _ADAPTERS: modeling.ADAPTERS,
    _TOP: optimization.TOP_K,
    _NORMS: modeling.LAYER_NORM,
}


def _methods(preset):
    if preset == SMALL:
        rest = (("1e-4",), (), (0,), "", True)
        norms = Method(modeling.LAYER_NORM, ("1e-3",), is_corrected=True)
        by_adapters, layers = small_adapters(sizes=(1, 8, 64, 256)), (1, 2, 3)
    else:
        rest = (PAPER_RATES, PAPER_EPOCHS)
        norms = Method(modeling.LAYER_NORM, *rest)
        sizes = tuple(2**n for n in range(10))
        by_adapters = adapters(PAPER_RATES, sizes, PAPER_EPOCHS)
        layers = tuple(range(1, 13))
    top = (Method("%s:%d" % (optimization.TOP_K, k), *rest) for k in layers)
    return Method(optimization.FULL, *rest), *top, norms, by_adapters


def _jobs(study):
    return sweep(study, _methods(study.preset))


def _variants(study, task, family):
    """The jobs of each size or number of layers, dict from its name to jobs."""
    found: dict = {}
    for job in study.jobs:
        kind, _, layers = job.policy.partition(":")
        if job.task == task and kind == _FAMILIES[family]:
            name = {_ADAPTERS: job.adapter_size, _TOP: layers}.get(family, "")
            found.setdefault(("%s %s" % (family, name)).strip(), []).append(job)
    return found


class _Point(NamedTuple):
    """A size, or a number of layers, for one task."""

    name: str
    trained: int  # parameters
    summary: selection.Summary  # of the best setting
    runs: str  # what all runs came to, in words


def _points(study, task, family):
    """The `_Point` of each variant that has scores."""
    for name, jobs in _variants(study, task, family).items():
        best = selection.best_cell(jobs, study.results)
        trained = selection.parameters(best, study.results)
        if trained is not None:
            summary = selection.summary(best, study.results)
            runs = pages.counts_text(jobs, study.results)
            yield _Point(name, trained, summary, runs)


def _jobs_of_full(study, task):
    return [j for j in study.jobs if j.task == task and j.policy == optimization.FULL]


def _full(study, task):
    jobs = _jobs_of_full(study, task)
    best = selection.best_cell(jobs, study.results)
    return selection.summary(best, study.results)


def _across_tasks(study, page):
    """Figures 1 and 3: the score minus that of full fine-tuning, over all tasks."""
    apart: dict = {}
    tasks = [task for task in study.tasks if _full(study, task) is not None]
    for task in tasks:
        full = _full(study, task)
        for family in _FAMILIES:
            for point in _points(study, task, family):
                difference = 100 * (point.summary.mean - full.mean)
                found = apart.setdefault((family, point.name), [])
                found.append((point.trained, difference))
    # A percentile over other tasks than its neighbour's says nothing.
    whole = {key: each for key, each in apart.items() if len(each) == len(tasks)}
    lines, rows = [], []
    for family in _FAMILIES:
        x, bands = [], []
        for (of, name), found in whole.items():
            if of == family:
                # Heads differ a little from task to task.
                x.append(sum(trained for trained, _ in found) / len(found))
                bands.append(selection.percentiles([d for _, d in found]))
                texts = ["%+.1f" % value for value in bands[-1]]
                rows.append([name, pages.count(x[-1]), *texts])
        if x:
            low, middle, high = zip(*bands)
            lines.append(plots.Line(family, x, middle, None, low, high))
    if not lines:
        return
    page.heading("All tasks (figures 1 and 3)")
    panel = ", ".join(map(title, tasks)) if len(tasks) < 4 else "%d tasks" % len(tasks)
    page.figure(
        "size_all_tasks",
        "Score minus that of full fine-tuning: 20th, 50th, 80th percentile of tasks",
        plots.lines(
            {panel: lines},
            "trained parameters for each task",
            "score minus full fine-tuning, points",
            {panel: 0},
            "full fine-tuning",
        ),
    )
    names = ["%dth" % p for p in selection.PERCENTILES]
    page.table(["", "trained", *names], rows)


def _by_task(study, page):
    """Figure 4: each task for itself."""
    page.heading("Each task (figure 4)")
    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        name_of_task = title(task)
        full = _full(study, task)
        row = [name_of_task, "full fine-tuning", pages.NONE, pages.spread(full), "0"]
        jobs = _jobs_of_full(study, task)
        rows.append([*row, pages.counts_text(jobs, study.results)])
        panel = []
        for family in _FAMILIES:
            found = list(_points(study, task, family))
            for point in found:
                apart = selection.difference(point.summary, full)
                row = [name_of_task, point.name, pages.count(point.trained)]
                row += [pages.spread(point.summary), pages.spread(apart, sign=True)]
                rows.append([*row, point.runs])
            if found:
                panel.append(
                    plots.Line(
                        family,
                        [point.trained for point in found],
                        [100 * point.summary.mean for point in found],
                        [100 * (point.summary.error or 0) for point in found],
                    )
                )
        if panel:
            panels[name_of_task] = panel
        if full is not None:
            baselines[name_of_task] = 100 * full.mean
    if panels:
        page.figure(
            "size_by_task",
            "Score on the dev set, mean and standard error over seeds",
            plots.lines(
                panels, "trained parameters", "score, times 100",
                baselines, "full fine-tuning",
            ),
        )  # fmt: skip
    page.table(["task", "", "trained", "score", "minus full", "all runs"], rows)
    page.text(
        "The paper, MNLI-m, BERT-base: top layer alone (9M parameters) 77.8, adapters "
        "of size 64 (2M) 83.7, full fine-tuning 84.4. Layer norms alone (40k): about "
        "3.5 points below full fine-tuning on CoLA, 4 on MNLI."
    )


def _report(study):
    page = pages.start_report(study, "Size against quality: figures 1, 3 and 4")
    page.text(
        "For each size, and each number of layers, the setting with the highest mean "
        "on the dev set."
    )
    _across_tasks(study, page)
    _by_task(study, page)
    return page


EXPERIMENT = Experiment(
    about="Adapter sizes, top layers and layer norms against full fine-tuning.",
    base="BERT-base",
    tasks={PAPER: GLUE, SMALL: ("mrpc", "cola")},
    seeds={PAPER: (1, 2, 3), SMALL: (1, 2)},
    jobs=_jobs,
    report=_report,
)
