"""What is chosen and computed from results: by the dev set alone, never by test rows.

The score of a collapsed seed, mostly the baseline's, counts in means as any other. A
diverged or failed seed has no score: it is counted beside the mean.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np

from experiments import results as results_lib

# Lines of figures 1 and 3.
PERCENTILES = (20, 50, 80)


class Summary(NamedTuple):
    """The scores of several seeds of one setting."""

    mean: float
    error: float | None  # standard error of the mean; None for a single score
    scores: tuple[float, ...]


class Counts(NamedTuple):
    """How many jobs came to what."""

    expected: int
    ok: int
    collapsed: int
    diverged: int
    failed: int

    @property
    def missing(self):
        """Those that have not ended."""
        ended = self.ok + self.collapsed + self.diverged + self.failed
        return self.expected - ended


def summarize(scores) -> Summary | None:
    """Mean and standard error of scores, those that are None left out.

    The standard error is the deviation with n - 1, over the root of n.

    Returns:
      A `Summary`; None where there is no score.
    """
    known = tuple(score for score in scores if score is not None)
    if not known:
        return None
    error = None
    if len(known) > 1:
        error = statistics.stdev(known) / math.sqrt(len(known))
    return Summary(statistics.mean(known), error, known)


def dev_score(result):
    """The headline on the dev set, what everything is selected by."""
    return result.score


def summary(jobs, results, of=dev_score):
    """The `Summary` of jobs, or None.

    Args:
      jobs: jobs of one cell.
      results: dict from `Job` to `results.Result`.
      of: function from a `Result` to a score or None.
    """
    return summarize(of(results[job]) for job in jobs if job in results)


def cells(jobs):
    """Jobs by their cell, a dict in the order of the grid."""
    found: dict = {}
    for job in jobs:
        found.setdefault(job.cell, []).append(job)
    return found


def best_run(jobs, results):
    """The job with the highest score on the dev set: what the paper submits.

    Returns:
      A `Job`, the first of equals; None where no job has a score.
    """
    scored = [job for job in jobs if job in results and results[job].score is not None]
    return max(scored, key=lambda job: results[job].score, default=None)


def best_cell(jobs, results, of=dev_score):
    """The jobs of the setting with the highest mean on the dev set over its seeds.

    A setting that lacks the score of a seed comes after all that lack fewer: a mean
    over the lucky seeds alone would win too often.

    Args:
      jobs: all jobs of a sweep for one task.
      results: dict from `Job` to `results.Result`.
      of: function from a `Result` to the score on the dev set, or None.

    Returns:
      List of jobs, the first setting of equals; [] where no job has a score.
    """
    best, best_key = [], None
    for cell in cells(jobs).values():
        found = summary(cell, results, of)
        if found is None:
            continue
        key = (len(found.scores) - len(cell), found.mean)
        if best_key is None or key > best_key:
            best, best_key = cell, key
    return best


def counts(jobs, results):
    """The `Counts` of jobs."""
    found = [results[job].status for job in jobs if job in results]
    return Counts(len(jobs), *map(found.count, results_lib.STATUSES))


def percentiles(values):
    """The `PERCENTILES` of numbers, with linear interpolation; a list of floats."""
    return [float(p) for p in np.percentile(values, PERCENTILES)]


def difference(first, second) -> Summary | None:
    """The difference of two independent `Summary`s, with its standard error."""
    if first is None or second is None:
        return None
    error = None
    if first.error is not None and second.error is not None:
        error = math.hypot(first.error, second.error)
    return Summary(first.mean - second.mean, error, ())


def parameters(jobs, results, name="trained"):
    """A count of parameters of the first of the jobs that has it; None if none has."""
    for job in jobs:
        if job in results and name in results[job].parameters:
            return results[job].parameters[name]
    return None
