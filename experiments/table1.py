"""Table 1: GLUE, adapters and full fine-tuning, and submission files."""

import os
import statistics

import tensorflow.compat.v1 as tf

import glue_data
from experiments import datasets, grid, reports, results, selection
from tasks import submission_file

# Test scores of the tasks of `grid.GLUE`.
_PAPER = {
    "full fine-tuning": (60.5, 94.9, 89.3, 87.6, 72.1, 86.7, 85.9, 91.1, 70.1),
    "adapters, 8-256": (59.5, 94.0, 89.5, 86.9, 71.8, 84.9, 85.1, 90.7, 71.5),
    "adapters, 64": (56.9, 94.2, 89.6, 87.3, 71.8, 85.3, 84.6, 91.4, 68.8),
}
_PAPER_BY_SIZE = {8: 86.2, 64: 85.8, 256: 85.7}


def _lines(study):
    """The lines of the table: dict from name to dict from task to jobs."""
    sizes = {job.adapter_size for job in study.jobs if job.adapter_size}
    lines = {"full fine-tuning": {0}}
    if len(sizes) > 1:
        lines["adapters, %d-%d" % (min(sizes), max(sizes))] = sizes
    lines["adapters, 64"] = {64}
    return {
        name: {
            task: [j for j in study.select(task=task) if j.adapter_size in sizes]
            for task in study.tasks
        }
        for name, sizes in lines.items()
    }


def _columns(*tasks):
    mnli = {"mnli": ("MNLI-m", "MNLI-mm")}
    titles = {task: datasets.find(task).title for task in tasks}
    return [name for task in tasks for name in mnli.get(task, [titles[task]])]


def _add_best_runs(study, report, lines):
    """Adds the table of the paper, with dev sets instead of the test server."""
    report.add_heading("The best run on the dev set")
    report.add_text(
        "The runs for the test server. The best run's dev score is biased upwards, "
        "because the same examples selected it; the paper's lines are test scores."
    )
    columns = _columns(*study.tasks)
    rows = []
    for name, by_task in lines.items():
        scores, trained = [], []
        for task, jobs in by_task.items():
            job = selection.best_run(jobs, study.results)
            dev_scores = [None, None]
            if job is not None:
                result = study.results[job]
                dev_scores = [
                    each["scores"][result.metric] for each in result.sets.values()
                ]
            scores += dev_scores[: len(_columns(task))]
            trained.append(selection.parameter_count([job], study.results, "share"))
        fraction = reports.points(reports.mean_or_none(trained), 2)
        mean = reports.points(reports.mean_or_none(scores))
        rows.append([name, fraction, *map(reports.points, scores), mean])
        if name in _PAPER:
            paper = dict(zip(_columns(*grid.GLUE), _PAPER[name]))
            paper_scores = [paper.get(column) for column in columns]
            paper_scores.append(reports.mean_or_none(paper_scores))
            texts = [reports.NONE if x is None else "%.1f" % x for x in paper_scores]
            rows.append(["*paper, BERT-large, test server*", reports.NONE, *texts])
    report.add_table(["", "trained, %", *columns, "mean"], rows)


def _add_best_settings(study, report, lines):
    """Adds means over seeds of the best settings; returns them by line and task."""
    report.add_heading("The best setting on the dev set, over its seeds")
    rows, summaries = [], {}
    for name, by_task in lines.items():
        for task, jobs in by_task.items():
            best, summary = selection.best_setting(jobs, study.results)
            summaries[name, task] = summary
            seeds = " ".join(map(reports.points, summary.scores if summary else ()))
            texts = reports.setting_text(best), seeds, reports.mean_text(summary)
            status = reports.status_text(jobs, study.results)
            rows.append([_columns(task)[0], name, *texts, status])
    header = ["task", "method", "setting", "seeds", "mean", "all runs of the sweep"]
    report.add_table(header, rows)
    return summaries


def _add_differences(study, report, lines, summaries):
    report.add_heading("Adapters against full fine-tuning")
    full, *others = lines
    rows = []
    for name in others:
        differences = [
            selection.difference(summaries[name, task], summaries[full, task])
            for task in study.tasks
        ]
        texts = [reports.mean_text(each, sign=True) for each in differences]
        mean, deviation = reports.NONE, reports.NONE
        if None not in differences:
            means = [100 * each.mean for each in differences]
            mean = "%+.2f" % statistics.mean(means)
            if len(means) > 1:
                deviation = "%.2f" % statistics.stdev(means)
        rows.append([name, *texts, mean, deviation])
    columns = [_columns(task)[0] for task in study.tasks]
    report.add_table(["", *columns, "mean", "deviation over tasks"], rows)
    report.add_text(
        "Means over seeds, adapters minus full fine-tuning. The paper, on the test "
        "server: -0.4 (80.0 against 80.4), and -0.8 with size 64 alone."
    )


def _add_sizes(study, report):
    sizes = sorted({job.adapter_size for job in study.jobs if job.adapter_size})
    if len(sizes) < 2:
        return
    report.add_heading("By adapter size")
    rows = []
    for size in sizes:
        scores = []
        for task in study.tasks:
            jobs = study.select(task=task, adapter_size=size)
            _, summary = selection.best_setting(jobs, study.results)
            scores.append(summary and summary.mean)
        mean = reports.points(reports.mean_or_none(scores))
        paper = _PAPER_BY_SIZE.get(size)
        rows.append([str(size), mean, "%.1f" % paper if paper else reports.NONE])
    report.add_table(["size", "mean over tasks", "paper, validation accuracy"], rows)


def _write_submissions(study, report, lines):
    """Copies the submission files of the best runs, if every task has one."""
    commands = []
    for number, (name, by_task) in enumerate(lines.items(), 1):
        if not set(grid.GLUE) <= set(by_task):
            continue
        best = [selection.best_run(by_task[t], study.results) for t in grid.GLUE]
        if None in best:
            continue
        sources = {
            split.submission_file: results.job_folder(study.work_dir, job)
            for job in best
            for split in glue_data.get_task(job.task).test
        }
        paths = {file: os.path.join(path, file) for file, path in sources.items()}
        if not all(map(tf.io.gfile.exists, paths.values())):
            continue
        folder = os.path.join(study.work_dir, "table1", "submission-%d" % number)
        tf.io.gfile.makedirs(folder)
        for file, path in paths.items():
            tf.io.gfile.copy(path, os.path.join(folder, file), overwrite=True)
        # The server requires these too.
        for task in map(glue_data.get_task, ("wnli", "ax")):
            for split in task.test:
                path = os.path.join(folder, split.submission_file)
                texts = [task.type.labels[0]] * split.rows
                submission_file.write_submission(texts, path)
        commands.append(
            "# %s\npython glue_submission.py --output_dirs=%s --zip=%s.zip"
            % (name, folder, folder)
        )
    if commands:
        report.add_heading("For the evaluation server")
        report.add_text(
            "The best run of each task. For WNLI, which the paper leaves out, and AX "
            "every prediction is the first label."
        )
        report.add_code("\n".join(commands))


def _write_report(study, report):
    lines = _lines(study)
    _add_best_runs(study, report, lines)
    summaries = _add_best_settings(study, report, lines)
    _add_differences(study, report, lines, summaries)
    _add_sizes(study, report)
    _write_submissions(study, report, lines)


_PAPER_METHODS = [
    # The paper quotes Devlin et al.; this is their sweep.
    grid.Method(grid.FULL, ("2e-5", "3e-5", "4e-5", "5e-5"), (3,)),
    grid.adapters(grid.PAPER_RATES, (8, 64, 256), grid.PAPER_EPOCHS),
]
_SMALL_METHODS = [
    grid.Method(grid.FULL, ("3e-5", "1e-4"), is_corrected=True),
    grid.small_adapters(("3e-4", "1e-3"), sweeps_epochs=True),
]
EXPERIMENT = grid.Experiment(
    title="Table 1: GLUE",
    about="GLUE: full fine-tuning and adapters, selected on the dev sets.",
    paper=grid.Preset(grid.GLUE, 5, _PAPER_METHODS),
    small=grid.Preset(("mrpc", "rte", "cola", "sts-b"), 3, _SMALL_METHODS),
    write_report=_write_report,
)
