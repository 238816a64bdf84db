"""Figures 1, 3 and 4: trained parameters against quality."""

from typing import NamedTuple

import numpy as np

import modeling
import optimization
from experiments import grid, pages, plots, selection

_PERCENTILES = (20, 50, 80)  # of tasks, the lines of figures 1 and 3
_ADAPTERS, _TOP, _NORMS = "adapters", "top layers", "layer norms"
_FAMILIES = {
    _ADAPTERS: modeling.ADAPTERS,
    _TOP: optimization.TOP_K,
    _NORMS: modeling.LAYER_NORM,
}


def _methods(preset):
    if preset == grid.SMALL:
        rest = (("1e-4",), (), (0,), "", True)
        norms = grid.Method(modeling.LAYER_NORM, ("1e-3",), is_corrected=True)
        adapters, layers = grid.small_adapters(sizes=(1, 8, 64, 256)), (1, 2, 3)
    else:
        rest = (grid.PAPER_RATES, grid.PAPER_EPOCHS)
        norms = grid.Method(modeling.LAYER_NORM, *rest)
        sizes = tuple(2**n for n in range(10))
        adapters = grid.adapters(grid.PAPER_RATES, sizes, grid.PAPER_EPOCHS)
        layers = tuple(range(1, 13))
    top = grid.top_layers(layers, *rest)
    return grid.Method(optimization.FULL, *rest), *top, norms, adapters


def _jobs(study):
    return grid.sweep(study, _methods(study.preset))


class _Variant(NamedTuple):
    """An adapter size, or a number of layers, for one task."""

    name: str
    trained: int  # parameters
    summary: selection.Summary  # of the best setting
    status: str  # of all its jobs


def _variants(study, task, family):
    """The `_Variant`s of a family that have scores."""
    by_name: dict = {}
    for job in study.jobs:
        kind, _, layers = job.policy.partition(":")
        if job.task == task and kind == _FAMILIES[family]:
            value = {_ADAPTERS: job.adapter_size, _TOP: layers}.get(family, "")
            by_name.setdefault(("%s %s" % (family, value)).strip(), []).append(job)
    for name, jobs in by_name.items():
        best = selection.best_setting(jobs, study.results)
        trained = selection.parameter_count(best, study.results)
        if trained is not None:
            summary = selection.summarize_jobs(best, study.results)
            yield _Variant(
                name, trained, summary, pages.status_text(jobs, study.results)
            )


def _full(study, task):
    """The jobs of full fine-tuning for a task, and the best setting's `Summary`."""
    jobs = [j for j in study.jobs if (j.task, j.policy) == (task, optimization.FULL)]
    best = selection.best_setting(jobs, study.results)
    return jobs, selection.summarize_jobs(best, study.results)


def _add_all_tasks(study, page):
    """Figures 1 and 3: the score minus that of full fine-tuning, over all tasks."""
    found: dict = {}
    tasks = [task for task in study.tasks if _full(study, task)[1] is not None]
    for task in tasks:
        full = _full(study, task)[1]
        for family in _FAMILIES:
            for variant in _variants(study, task, family):
                difference = 100 * (variant.summary.mean - full.mean)
                by_name = found.setdefault(family, {})
                by_name.setdefault(variant.name, []).append(
                    (variant.trained, difference)
                )
    lines, rows = [], []
    for family, by_name in found.items():
        x, bands = [], []
        for name, pairs in by_name.items():
            # Percentiles over different tasks are not comparable.
            if len(pairs) < len(tasks):
                continue
            # Heads differ a little from task to task.
            x.append(sum(trained for trained, _ in pairs) / len(pairs))
            bands.append(np.percentile([d for _, d in pairs], _PERCENTILES))
            texts = ["%+.1f" % value for value in bands[-1]]
            rows.append([name, pages.count_text(x[-1]), *texts])
        if x:
            low, middle, high = zip(*bands)
            lines.append(plots.Line(family, x, middle, None, low, high))
    if not lines:
        return
    page.heading("All tasks (figures 1 and 3)")
    titles = ", ".join(map(grid.title, tasks))
    panel = titles if len(tasks) < 4 else "%d tasks" % len(tasks)
    figure = plots.lines(
        {panel: lines},
        "trained parameters for each task",
        "score minus full fine-tuning, points",
        {panel: 0},
        "full fine-tuning",
    )
    caption = (
        "Score minus that of full fine-tuning: 20th, 50th, 80th percentile of tasks"
    )
    page.figure("size_all_tasks", caption, figure)
    page.table(["", "trained", *("%dth" % p for p in _PERCENTILES)], rows)


def _add_each_task(study, page):
    """Figure 4: each task separately."""
    page.heading("Each task (figure 4)")
    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        title = grid.title(task)
        jobs, full = _full(study, task)
        status = pages.status_text(jobs, study.results)
        score = pages.mean_text(full)
        rows.append([title, "full fine-tuning", pages.NONE, score, "0", status])
        if full is not None:
            baselines[title] = 100 * full.mean
        for family in _FAMILIES:
            variants = list(_variants(study, task, family))
            for name, trained, summary, status in variants:
                texts = [pages.count_text(trained), pages.mean_text(summary)]
                difference = selection.difference(summary, full)
                texts.append(pages.mean_text(difference, sign=True))
                rows.append([title, name, *texts, status])
            if variants:
                line = plots.Line(
                    family,
                    [variant.trained for variant in variants],
                    [100 * variant.summary.mean for variant in variants],
                    [100 * (variant.summary.error or 0) for variant in variants],
                )
                panels.setdefault(title, []).append(line)
    if panels:
        figure = plots.lines(
            panels, "trained parameters", "score, times 100", baselines,
            "full fine-tuning",
        )  # fmt: skip
        caption = "Score on the dev set, mean and standard error over seeds"
        page.figure("size_by_task", caption, figure)
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
    _add_all_tasks(study, page)
    _add_each_task(study, page)
    return page


EXPERIMENT = grid.Experiment(
    about="Adapter sizes, top layers and layer norms against full fine-tuning.",
    tasks={grid.PAPER: grid.GLUE, grid.SMALL: ("mrpc", "cola")},
    seeds={grid.PAPER: (1, 2, 3), grid.SMALL: (1, 2)},
    jobs=_jobs,
    report=_report,
)
