"""Scores by trained parameters: figures 1, 3, 4 and 5.

`families` is a dict from a line's name to the `grid.Job.family` of its jobs. Each size,
rank or number of layers is a point of the line.
"""

from typing import NamedTuple

import numpy as np

from experiments import datasets, grid, plots, reports, results, selection

_PERCENTILES = (20, 50, 80)  # of tasks, the lines of figures 1 and 3
_FULL = "full fine-tuning"


class _Point(NamedTuple):
    """A size, rank or number of layers of a family, on one task."""

    name: str
    setting: str  # the best one
    trained: int  # parameters
    summary: selection.Summary
    collapsed: list  # scores of its collapsed seeds
    status: str  # of all its jobs


def _find_points(study, task, name, family):
    """Yields the `_Point`s of a family on a task."""
    by_variant = selection.group(
        study.select(task=task, family=family),
        lambda job: (job.adapter_size, job.policy),
    )
    for (size, policy), jobs in by_variant.items():
        best, summary = selection.best_setting(jobs, study.results)
        trained = selection.parameter_count(best, study.results)
        if trained is not None:
            ended = results.list_results(best, study.results)
            yield _Point(
                ("%s %s" % (name, size or policy.partition(":")[2])).strip(),
                _setting_text(best),
                trained,
                summary,
                [each.score for each in ended if each.status == results.COLLAPSED],
                reports.status_text(jobs, study.results),
            )


def _setting_text(jobs):
    return "%s, %d" % (jobs[0].learning_rate, jobs[0].epochs) if jobs else reports.NONE


def _best_full(study, task):
    """`selection.best_setting` of full fine-tuning for a task."""
    jobs = study.select(task=task, policy=grid.FULL)
    return selection.best_setting(jobs, study.results)


def add_all_tasks(study, report, families, name):
    """Adds figure and table of the score minus full fine-tuning, over all tasks."""
    full = {task: _best_full(study, task)[1] for task in study.tasks}
    tasks = [task for task in study.tasks if full[task] is not None]
    lines, rows = [], []
    for line, family in families.items():
        by_name: dict = {}
        for task in tasks:
            for point in _find_points(study, task, line, family):
                difference = 100 * (point.summary.mean - full[task].mean)
                pair = point.trained, difference
                by_name.setdefault(point.name, []).append(pair)
        x, bands = [], []
        for each, pairs in by_name.items():
            # Percentiles over different tasks are not comparable.
            if len(pairs) < len(tasks):
                continue
            # The size of the head depends on the task.
            x.append(sum(trained for trained, _ in pairs) / len(pairs))
            bands.append(np.percentile([d for _, d in pairs], _PERCENTILES))
            texts = ["%+.1f" % value for value in bands[-1]]
            rows.append([each, reports.count_text(x[-1]), *texts])
        if x:
            low, middle, high = zip(*bands)
            lines.append(plots.Line(line, x, middle, None, low, high))
    if not lines:
        return
    titles = ", ".join(datasets.find(task).title for task in tasks)
    panel = titles if len(tasks) < 4 else "%d tasks" % len(tasks)
    axes = ("trained parameters for each task", "score minus full fine-tuning, points")
    figure = plots.lines({panel: lines}, *axes, {panel: 0}, _FULL)
    caption = "Score minus full fine-tuning: 20th, 50th, 80th percentile of tasks"
    report.add_figure(name, caption, figure)
    report.add_table(["", "trained", *("%dth" % p for p in _PERCENTILES)], rows)


def add_each_task(study, report, families, name):
    """Adds figure and table of each task."""
    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        title = datasets.find(task).title
        best, full = _best_full(study, task)
        jobs = study.select(task=task, policy=grid.FULL)
        trained = selection.parameter_count(best, study.results)
        texts = [
            _setting_text(best),
            reports.count_text(trained),
            reports.mean_text(full),
        ]
        status = reports.status_text(jobs, study.results)
        rows.append([title, _FULL, *texts, "0", status])
        if full is not None:
            baselines[title] = 100 * full.mean
        for line, family in families.items():
            points = list(_find_points(study, task, line, family))
            for point in points:
                difference = selection.difference(point.summary, full)
                texts = [point.setting, reports.count_text(point.trained)]
                texts.append(reports.mean_text(point.summary))
                texts.append(reports.mean_text(difference, sign=True))
                rows.append([title, point.name, *texts, point.status])
            if points:
                means = [(point.trained, point.summary) for point in points]
                crosses = [(p.trained, s) for p in points for s in p.collapsed]
                drawn = reports.score_line(line, means, crosses)
                panels.setdefault(title, []).append(drawn)
    if panels:
        axes = ("trained parameters", "score, times 100")
        figure = plots.lines(panels, *axes, baselines, _FULL)
        caption = "Score on the dev set, mean and standard error over seeds"
        report.add_figure(name, caption, figure)
    header = ["learning rate, epochs", "trained", "score", "minus full", "all runs"]
    report.add_table(["task", "", *header], rows)
