"""Model selection on the dev set, and means over seeds.

Means include the scores of collapsed seeds. Diverged and failed seeds have no score and
are counted separately.
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
    """Mean and standard error of the scores that are not None; None without scores.

    The standard error is the sample standard deviation (n - 1) over the root of n.
    """
    valid = tuple(score for score in scores if score is not None)
    if not valid:
        return None
    error = None
    if len(valid) > 1:
        error = statistics.stdev(valid) / math.sqrt(len(valid))
    return Summary(statistics.mean(valid), error, valid)


def summarize_jobs(jobs, job_results, name="score"):
    """The `Summary` of a property of `results.Result` over seeds, or None."""
    ended = results.list_results(jobs, job_results)
    return summarize(getattr(each, name) for each in ended)


def group(jobs, key):
    """Dict from each value of `key`, a function of a job, to the list of its jobs."""
    groups: dict = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return groups


def best_run(jobs, job_results):
    """The job with the highest score on the dev set, or None."""
    scored = results.scored_jobs(jobs, job_results)
    return max(scored, key=lambda job: job_results[job].score, default=None)


def best_setting(jobs, job_results):
    """Selects the setting with the highest mean over seeds on the dev set.

    Settings rank by the number of seeds with a score first: the mean of the lucky seeds
    alone would win too often.

    Returns:
      List of the setting's jobs and their `Summary`; [] and None without scores.
    """
    by_setting = group(jobs, lambda job: job._replace(seed=0))
    scored = [
        (seeds, summarize_jobs(seeds, job_results)) for seeds in by_setting.values()
    ]
    return max(
        (pair for pair in scored if pair[1] is not None),
        key=lambda pair: (len(pair[1].scores), pair[1].mean),
        default=([], None),
    )


def _swept_group(job):
    """The group within which learning rate and epochs are selected."""
    return job._replace(learning_rate="", epochs=0, seed=0)


def due_jobs(jobs, study):
    """List of the jobs that can run with the results of a `grid.Study`.

    If the first seed selects, jobs of later seeds are due when their group has ended
    with seed 1, and their setting is the best.
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


def count_pending(jobs, due):
    """The number of jobs that can become due, one for each seed of a group."""
    all_seeds, seeds = (
        {_swept_group(job)._replace(seed=job.seed) for job in each}
        for each in (jobs, due)
    )
    return len(all_seeds - seeds)


def count_statuses(jobs, job_results):
    """A `Counter` of the statuses of ended jobs."""
    statuses = (each.status for each in results.list_results(jobs, job_results))
    return collections.Counter(each for each in statuses if each in results.STATUSES)


def difference(first, second) -> Summary | None:
    """The difference of two independent `Summary`s, with its standard error."""
    if first is None or second is None:
        return None
    error = None
    if first.error is not None and second.error is not None:
        error = math.hypot(first.error, second.error)
    return Summary(first.mean - second.mean, error, ())


def parameter_count(jobs, job_results, name="trained"):
    """A count of parameters, from the first job that has it, or None."""
    for result in results.list_results(jobs, job_results):
        if name in result.parameters:
            return result.parameters[name]
    return None
