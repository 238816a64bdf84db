"""Reports: Markdown with tables and figures, and the texts that all of them share."""

import collections
import os
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from errors import printable
from experiments import plots, results, selection
from system import files

REPORT = "report.md"
NONE = "-"  # stands for a number that is not there

_MOST_LISTED = 20  # jobs that failed


class Page:
    """A report in the making."""

    def __init__(self, title):
        """Begins with a heading."""
        self._parts = ["# %s" % title]
        self._figures: dict = {}

    def heading(self, text):
        self._parts.append("## %s" % text)

    def text(self, text):
        """A paragraph."""
        self._parts.append(text)

    def table(self, header, rows):
        """A table; cells are texts."""
        lines = [header, ["---"] * len(header), *rows]
        self._parts.append("\n".join("| %s |" % " | ".join(row) for row in lines))

    def figure(self, name, caption, figure):
        """A matplotlib figure, which lies beside the page as PNG and SVG."""
        self._figures[name] = figure
        self._parts.append(
            "![%s](%s.png)\n\n%s ([SVG](%s.svg))" % (caption, name, caption, name)
        )

    def code(self, text):
        self._parts.append("```bash\n%s\n```" % text)

    @property
    def markdown(self):
        return "\n\n".join(self._parts) + "\n"

    def write(self, folder):
        """Writes page and figures; returns the page's path."""
        tf.io.gfile.makedirs(folder)
        for name, figure in self._figures.items():
            for ending in ("png", "svg"):
                path = os.path.join(folder, "%s.%s" % (name, ending))
                files.write_whole(path, plots.as_bytes(figure, ending))
        path = os.path.join(folder, REPORT)
        files.write_whole(path, self.markdown)
        return path


# --- numbers as text ------------------------------------------------------------


def points(score, digits=1):
    """A score of 0 to 1 times 100."""
    return NONE if score is None else "%.*f" % (digits, 100 * score)


def spread(summary, sign=False):
    """A `selection.Summary` times 100, with its standard error."""
    if summary is None:
        return NONE
    text = ("%+.1f" if sign else "%.1f") % (100 * summary.mean)
    if summary.error is not None:
        text += " ± %.1f" % (100 * summary.error)
    return text


def count(number):
    """A number of parameters."""
    return NONE if number is None else "{:,}".format(int(number))


def setting_text(job):
    """The swept settings of a job."""
    parts = ["learning rate %s" % job.learning_rate, "%d epochs" % job.epochs]
    if job.adapter_size:
        parts.append("size %d" % job.adapter_size)
    elif job.policy.startswith("top_k"):
        parts.append("top %s" % job.policy.partition(":")[2])
    return ", ".join(parts)


def counts_text(jobs, known):
    """How many of the jobs have ended, and which did not end well."""
    counts = selection.counts(jobs, known)
    parts = ["%d of %d ended" % (counts.expected - counts.missing, counts.expected)]
    for name in ("collapsed", "diverged", "failed"):
        if getattr(counts, name):
            parts.append("%d %s" % (getattr(counts, name), name))
    return ", ".join(parts)


def mean_of(values):
    """The mean of numbers; None where one of them is None, or there is none."""
    values = list(values)
    if not values or None in values:
        return None
    return sum(values) / len(values)


# --- common parts of all reports ------------------------------------------------


class Curve(NamedTuple):
    """The best setting for each value of an axis."""

    rows: list[list[str]]  # of each value: its text, mean and error, ended jobs
    line: plots.Line | None  # None where no job has a score
    baseline: float | None  # the baseline's score, times 100


def best_by_value(study, jobs, values, value_of, name):
    """Selects the best setting for each value of an axis.

    Args:
      study: a `grid.Study`.
      jobs: those of one line.
      values: texts of numbers, along the axis.
      value_of: function from a job to its value.
      name: of the line.

    Returns:
      A `Curve`.
    """
    rows, x, y, errors, baseline = [], [], [], [], None
    for value in values:
        candidates = [job for job in jobs if value_of(job) == value]
        best = selection.best_cell(candidates, study.results)
        found = selection.summary(best, study.results)
        counts = counts_text(candidates, study.results)
        rows.append([value, spread(found), counts])
        if found is not None:
            x.append(float(value))
            y.append(100 * found.mean)
            errors.append(100 * (found.error or 0))
            baseline = 100 * study.results[best[0]].baseline
    line = plots.Line(name, x, y, errors) if x else None
    return Curve(rows, line, baseline)


def start_report(study, title):
    """A `Page` that begins with how many jobs have ended."""
    page = Page(title)
    page.text(
        "Jobs: %s. Scores are times 100, on the dev set where nothing else is said. "
        "± is the standard error of the mean over seeds. Collapsed is a degenerate "
        "run: it predicts a single class, or its training loss did not fall below that "
        "of the labels' frequencies. Its score counts in means. A diverged or failed "
        "run has no score. The baseline predicts the majority class, or the mean for "
        "regression." % counts_text(study.jobs, study.results)
    )
    missing = selection.counts(study.jobs, study.results).missing
    if missing:
        page.text("**The report is incomplete: %d jobs are missing.**" % missing)
    return page


def finish_report(study, page, command):
    """Adds how the jobs were run, and what is known of those that are not ok."""
    page.heading("Jobs")
    rows = []
    by_method = collections.defaultdict(list)
    for job in study.jobs:
        if not job.without:
            by_method[job.task, job.policy, job.is_corrected].append(job)
    for (task, policy, is_corrected), jobs in by_method.items():
        seconds = [study.results[job].seconds for job in jobs if job in study.results]
        rows.append(
            [
                task,
                policy,
                "corrected" if is_corrected else "plain",
                counts_text(jobs, study.results),
                "%.1f" % (sum(seconds) / 3600),
            ]
        )
    page.table(["task", "policy", "Adam's moments", "training runs", "hours"], rows)
    # Failed jobs come first.
    lines = [
        "- `%s`: %s: %s" % (job.name, status, printable(study.results[job].reason))
        for status in results.STATUSES[:0:-1]
        for job in study.jobs
        if job in study.results and study.results[job].status == status
    ]
    if lines:
        if len(lines) > _MOST_LISTED:
            lines[_MOST_LISTED:] = ["- and %d more" % (len(lines) - _MOST_LISTED)]
        page.text("Not ok:")
        page.text("\n".join(lines))
    page.text("Settings and scores of each job are in `results.jsonl`. The command:")
    page.code(command)
