"""Selects settings and averages scores: by the dev set alone, never by test examples.

The score of a collapsed seed, mostly the baseline's, counts in means as any other. A
diverged or failed seed has no score: it is counted beside the mean.
"""

import collections
import math
import statistics
from typing import NamedTuple

from experiments import results


class Summary(NamedTuple):
    """The scores of several seeds of one setting."""

    mean: float
    error: float | None  # standard error of the mean; None for a single score
    scores: tuple[float, ...]


def summarize(scores) -> Summary | None:
    """Mean and standard error of scores, without those that are None.

    The standard error is the deviation with n - 1, over the root of n. Returns None if
    there is no score.
    """
    known = tuple(score for score in scores if score is not None)
    if not known:
        return None
    error = None
    if len(known) > 1:
        error = statistics.stdev(known) / math.sqrt(len(known))
    return Summary(statistics.mean(known), error, known)


def summarize_jobs(jobs, known, name="score"):
    """The `Summary` of jobs that differ in their seeds, or None.

    `name` is that of a property of `results.Result`.
    """
    return summarize(getattr(known[job], name) for job in jobs if job in known)


def group(jobs, key):
    """Dict from each value of `key`, a function of a job, to the list of its jobs."""
    groups: dict = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return groups


def best_run(jobs, known):
    """The job with the highest score on the dev set, or None; the paper submits it."""
    scored = [job for job in jobs if job in known and known[job].score is not None]
    return max(scored, key=lambda job: known[job].score, default=None)


def best_setting(jobs, known):
    """The setting with the highest mean on the dev set over its seeds.

    A setting with the scores of fewer seeds ranks below those with more: a mean over
    the lucky seeds alone would win too often.

    Returns:
      List of the setting's jobs and their `Summary`; [] and None if no job has a score.
    """
    by_setting = group(jobs, lambda job: job._replace(seed=0))
    found = [(seeds, summarize_jobs(seeds, known)) for seeds in by_setting.values()]
    return max(
        (pair for pair in found if pair[1] is not None),
        key=lambda pair: (len(pair[1].scores), pair[1].mean),
        default=([], None),
    )


def _swept_group(job):
    """What a learning rate and a number of epochs are selected for."""
    return job._replace(learning_rate="", epochs=0, seed=0)


def due_jobs(jobs, study):
    """Those of the jobs that need no result that a `grid.Study` lacks, a list.

    If the first seed selects, jobs of later seeds are due when all runs of their group
    with seed 1 have ended, and have their setting as the best.
    """
    if not study.selects_by_first_seed:
        return list(jobs)
    first = group((job for job in study.jobs if job.seed == 1), _swept_group)
    selected = set()
    for runs in first.values():
        if all(results.is_done(job, study.results) for job in runs):
            best, _ = best_setting(runs, study.results)
            selected.update(job._replace(seed=0) for job in best)
    return [job for job in jobs if job.seed == 1 or job._replace(seed=0) in selected]


def count_later(jobs, due):
    """How many of the jobs may become due, one for each seed of a group."""
    all_seeds, seeds = (
        {_swept_group(job)._replace(seed=job.seed) for job in each}
        for each in (jobs, due)
    )
    return len(all_seeds - seeds)


def count_statuses(jobs, known):
    """A `Counter` of the statuses of the jobs that have ended."""
    found = (known[job].status for job in jobs if job in known)
    return collections.Counter(status for status in found if status in results.STATUSES)


def difference(first, second) -> Summary | None:
    """The difference of two independent `Summary`s, with its standard error."""
    if first is None or second is None:
        return None
    error = None
    if first.error is not None and second.error is not None:
        error = math.hypot(first.error, second.error)
    return Summary(first.mean - second.mean, error, ())


def parameter_count(jobs, known, name="trained"):
    """A count of parameters, of the first job that has it; None if none has."""
    found = (known[job].parameters.get(name) for job in jobs if job in known)
    return next((count for count in found if count is not None), None)
