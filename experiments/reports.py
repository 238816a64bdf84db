"""Reports in Markdown with tables and figures."""

import operator
import os

import tensorflow.compat.v1 as tf

from errors import printable
from experiments import datasets, grid, plots, results, selection
from system import files
from system.wording import thousands

REPORT = "report.md"
NONE = "-"  # a missing number

_MAX_LISTED = 20  # degenerate, diverged and failed jobs


class Report:
    """A report in Markdown."""

    def __init__(self, title):
        self._parts = ["# %s" % title]
        self._figures: dict = {}

    def add_heading(self, text):
        self._parts.append("## %s" % text)

    def add_text(self, text):
        """Adds a paragraph."""
        self._parts.append(text)

    def add_table(self, header, rows):
        """Adds a table of texts."""
        lines = [header, ["---"] * len(header), *rows]
        self._parts.append("\n".join("| %s |" % " | ".join(row) for row in lines))

    def add_figure(self, name, caption, figure):
        """Adds a matplotlib figure, which `write` saves as PNG and SVG."""
        self._figures[name] = figure
        self._parts.append(
            "![%s](%s.png)\n\n%s ([SVG](%s.svg))" % (caption, name, caption, name)
        )

    def add_code(self, text):
        self._parts.append("```bash\n%s\n```" % text)

    @property
    def markdown(self):
        return "\n\n".join(self._parts) + "\n"

    def write(self, folder):
        """Writes report and figures; returns the report's path."""
        tf.io.gfile.makedirs(folder)
        for name, figure in self._figures.items():
            for ending in ("png", "svg"):
                path = os.path.join(folder, "%s.%s" % (name, ending))
                files.write_whole(path, plots.render(figure, ending))
        path = os.path.join(folder, REPORT)
        files.write_whole(path, self.markdown)
        return path


def points(score, digits=1):
    """Formats a score of 0 to 1 times 100."""
    return NONE if score is None else "%.*f" % (digits, 100 * score)


def mean_text(summary, sign=False):
    """Formats the mean of a `selection.Summary` times 100, with standard error."""
    if summary is None:
        return NONE
    text = ("%+.1f" if sign else "%.1f") % (100 * summary.mean)
    if summary.error is not None:
        text += " ± %.1f" % (100 * summary.error)
    return text


def count_text(number):
    """Formats a number of parameters."""
    return NONE if number is None else thousands(int(number))


def setting_text(jobs):
    """Formats the swept settings of jobs that differ in their seeds."""
    if not jobs:
        return NONE
    job = jobs[0]
    parts = ["learning rate %s" % job.learning_rate, "%d epochs" % job.epochs]
    if job.adapter_size:
        parts.append("size %d" % job.adapter_size)
    elif ":" in job.policy:
        noun = "top" if job.family == grid.TOP_K else "rank"
        parts.append("%s %s" % (noun, job.policy.partition(":")[2]))
    return ", ".join(parts)


def status_text(jobs, job_results):
    """Counts of ended, collapsed, diverged and failed jobs, as text."""
    counts = selection.count_statuses(jobs, job_results)
    parts = ["%d of %d ended" % (counts.total(), len(jobs))]
    parts += ["%d %s" % (counts[s], s) for s in results.STATUSES[1:] if counts[s]]
    return ", ".join(parts)


def mean_or_none(values):
    """The mean of numbers; None if a number is None, or without numbers."""
    values = list(values)
    if not values or None in values:
        return None
    return sum(values) / len(values)


def start_report(study, title, pending):
    """Makes a `Report` that begins with the statuses of the jobs.

    `pending` is the number of jobs that may become due, see `selection.count_pending`.
    """
    report = Report(title)
    baselines = dict.fromkeys(datasets.find(task).baseline for task in study.tasks)
    report.add_text(
        "Jobs: %s. Scores are times 100, by default on the dev set. ± is the standard "
        "error of the mean over seeds. A collapsed run is degenerate: it predicts a "
        "single class, or its training loss stayed at that of a constant prediction. "
        "Its score counts in means. A diverged or failed run has no score. %s"
        % (status_text(study.jobs, study.results), " ".join(baselines))
    )
    done = sum(results.is_done(job, study.results) for job in study.jobs)
    if missing := len(study.jobs) - done + pending:
        report.add_text("**The report is incomplete: %d jobs are missing.**" % missing)
    return report


def score_line(name, points, collapsed=()):
    """Makes a `plots.Line` from pairs of x and a `selection.Summary`.

    `collapsed` has pairs of x and the score of a collapsed seed.
    """
    x, summaries = zip(*points)
    means = [100 * each.mean for each in summaries]
    errors = [100 * (each.error or 0) for each in summaries]
    crosses = [(x, 100 * score) for x, score in collapsed]
    return plots.Line(name, x, means, errors, crosses=crosses)


def add_curves(report, study, field, axis, caption):
    """Adds a plot and a table of the best score at each value of a swept setting.

    Adapters and full fine-tuning have a line each, or one with and one without bias
    correction.

    Args:
      field: the setting's name in `grid.Job`; also names the figure's files.
      axis: the setting's names in the table and in the plot.
    """
    has_both = len({job.is_corrected for job in study.jobs}) > 1

    def line_name(job):
        name = "full fine-tuning" if job.policy == grid.FULL else "adapters"
        if not has_both:
            return name
        return name + (", bias-corrected" if job.is_corrected else ", uncorrected")

    panels, baselines, rows = {}, {}, []
    for task in study.tasks:
        title = datasets.find(task).title
        by_line = selection.group(study.select(task=task), line_name)
        for line, line_jobs in by_line.items():
            points = []
            by_value = selection.group(line_jobs, operator.attrgetter(field))
            for value, jobs in by_value.items():
                best, summary = selection.best_setting(jobs, study.results)
                status = status_text(jobs, study.results)
                rows.append([title, line, value, mean_text(summary), status])
                if summary is not None:
                    points.append((float(value), summary))
                    # A diverged seed has no baseline.
                    baseline = selection.summarize_jobs(best, study.results, "baseline")
                    baselines[title] = 100 * baseline.mean
            if points:
                panels.setdefault(title, []).append(score_line(line, points))
    if panels:
        figure = plots.lines(panels, axis[1], "score, times 100", baselines)
        report.add_figure(field, caption, figure)
    header = ["task", "", axis[0], "score", "runs"]
    if len({line for _, line, *_ in rows}) == 1:
        header, *rows = ([row[0], *row[2:]] for row in (header, *rows))
    report.add_table(header, rows)


def finish_report(study, report, command):
    """Adds statuses by tuning method, the jobs that are not "ok", and the command."""
    report.add_heading("Jobs")
    rows = []
    by_method = selection.group(
        study.select(without=""), operator.attrgetter("task", "policy", "is_corrected")
    )
    for (task, policy, is_corrected), jobs in by_method.items():
        ended = results.list_results(jobs, study.results)
        hours = sum(result.seconds for result in ended) / 3600
        status = status_text(jobs, study.results)
        correction = "with" if is_corrected else "without"
        rows.append([task, policy, correction, status, "%.1f" % hours])
    report.add_table(
        ["task", "method", "bias correction", "training runs", "hours"], rows
    )
    # Failed jobs come first.
    lines = [
        "- `%s`: %s: %s" % (job.name, status, printable(study.results[job].reason))
        for status in results.STATUSES[:0:-1]
        for job in study.jobs
        if job in study.results and study.results[job].status == status
    ]
    if lines:
        if len(lines) > _MAX_LISTED:
            lines[_MAX_LISTED:] = ["- and %d more" % (len(lines) - _MAX_LISTED)]
        report.add_text("Not ok:")
        report.add_text("\n".join(lines))
    report.add_text(
        "Settings and scores of each job are in `results.jsonl`. The command:"
    )
    report.add_code(command)
