"""Figures 1, 3 and 4: trained parameters against quality."""

import numpy as np

from experiments import grid, pages, plots, selection

_PERCENTILES = (20, 50, 80)  # of tasks, the lines of figures 1 and 3
_FAMILIES = {
    "adapters": grid.ADAPTERS,
    "top layers": grid.TOP_K,
    "layer norms": grid.LAYER_NORM,
}
_PAPER = (grid.PAPER_RATES, grid.PAPER_EPOCHS)


def _variants(study, task, family):
    """Adapter sizes or numbers of layers of a family that have scores for a task.

    Yields the name, the count of trained parameters, the `selection.Summary` of the
    best setting, and the status of all jobs.
    """
    jobs = study.select(task=task, kind=_FAMILIES[family])
    by_variant = selection.group(jobs, lambda job: (job.adapter_size, job.policy))
    for (size, policy), jobs in by_variant.items():
        name = ("%s %s" % (family, size or policy.partition(":")[2])).strip()
        best, summary = selection.best_setting(jobs, study.results)
        trained = selection.parameter_count(best, study.results)
        if trained is not None:
            status = pages.status_text(jobs, study.results)
            yield name, trained, summary, status


def _best_full(study, task):
    """The `Summary` of the best setting of full fine-tuning for a task, or None."""
    jobs = study.select(task=task, policy=grid.FULL)
    return selection.best_setting(jobs, study.results)[1]


def _add_all_tasks(study, page):
    """Figures 1 and 3: the score minus that of full fine-tuning, over all tasks."""
    full = {task: _best_full(study, task) for task in study.tasks}
    tasks = [task for task in study.tasks if full[task] is not None]
    lines, rows = [], []
    for family in _FAMILIES:
        by_name: dict = {}
        for task in tasks:
            for name, trained, summary, _ in _variants(study, task, family):
                difference = 100 * (summary.mean - full[task].mean)
                by_name.setdefault(name, []).append((trained, difference))
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
    axes = ("trained parameters for each task", "score minus full fine-tuning, points")
    figure = plots.lines({panel: lines}, *axes, {panel: 0}, "full fine-tuning")
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
        full = _best_full(study, task)
        jobs = study.select(task=task, policy=grid.FULL)
        texts = pages.mean_text(full), "0", pages.status_text(jobs, study.results)
        rows.append([title, "full fine-tuning", pages.NONE, *texts])
        if full is not None:
            baselines[title] = 100 * full.mean
        for family in _FAMILIES:
            points = []
            for name, trained, summary, status in _variants(study, task, family):
                points.append((trained, summary))
                texts = [pages.count_text(trained), pages.mean_text(summary)]
                difference = selection.difference(summary, full)
                texts.append(pages.mean_text(difference, sign=True))
                rows.append([title, name, *texts, status])
            if points:
                line = pages.score_line(family, points)
                panels.setdefault(title, []).append(line)
    if panels:
        axes = ("trained parameters", "score, times 100")
        figure = plots.lines(panels, *axes, baselines, "full fine-tuning")
        caption = "Score on the dev set, mean and standard error over seeds"
        page.figure("size_by_task", caption, figure)
    page.table(["task", "", "trained", "score", "minus full", "all runs"], rows)
    page.text(
        "The paper, MNLI-m, BERT-base: top layer alone (9M parameters) 77.8, adapters "
        "of size 64 (2M) 83.7, full fine-tuning 84.4. Layer norms alone (40k): about "
        "3.5 points below full fine-tuning on CoLA, 4 on MNLI."
    )


def _report(study, page):
    page.text(
        "For each size, and each number of layers, the setting with the highest mean "
        "on the dev set."
    )
    _add_all_tasks(study, page)
    _add_each_task(study, page)


_PAPER_METHODS = [
    grid.Method(grid.FULL, *_PAPER),
    *grid.top_layers(range(1, 13), *_PAPER),
    grid.Method(grid.LAYER_NORM, *_PAPER),
    grid.adapters(grid.PAPER_RATES, tuple(2**n for n in range(10)), grid.PAPER_EPOCHS),
]
_SMALL_METHODS = [
    grid.Method(grid.FULL, ("1e-4",), is_corrected=True),
    *grid.top_layers((1, 2, 3), ("1e-4",), is_corrected=True),
    grid.Method(grid.LAYER_NORM, ("1e-3",), is_corrected=True),
    grid.small_adapters(sizes=(1, 8, 64, 256)),
]
EXPERIMENT = grid.Experiment(
    title="Size against quality: figures 1, 3 and 4",
    about="Adapter sizes, top layers and layer norms against full fine-tuning.",
    paper=grid.Preset(grid.GLUE, 3, _PAPER_METHODS),
    small=grid.Preset(("mrpc", "cola"), 2, _SMALL_METHODS),
    report=_report,
)
