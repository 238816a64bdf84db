"""What a job came to: one file, `result.json`, written whole at its end."""

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from errors import UserError
from system import files

FILE_NAME = "result.json"
JOBS = "jobs"  # the folder of all jobs' folders

# What a job can come to. Those of `REPEATED` are run again by a rerun.
OK, COLLAPSED, DIVERGED, FAILED = "ok", "collapsed", "diverged", "failed"
STATUSES = (OK, COLLAPSED, DIVERGED, FAILED)
REPEATED = (FAILED,)

_REMEDY = "delete it, and the job is run again"

_EMPTY: Mapping = MappingProxyType({})


class Result(NamedTuple):
    """The content of `result.json`, as far as reports need it."""

    status: str  # one of `STATUSES`
    reason: str  # why it is not "ok"; "" if it is
    seconds: float
    flags: dict[str, Any]  # of run_classifier.py
    metric: str = ""  # the headline
    sets: Mapping[str, dict] = _EMPTY  # eval_results.json's; the first selects
    test_scores: Mapping[str, float] = _EMPTY  # where the test rows have labels
    parameters: Mapping[str, float] = _EMPTY  # "trained", "base", ...: run.json's

    @property
    def _first(self):
        return next(iter(self.sets.values()), None)

    @property
    def score(self) -> float | None:
        """The headline on the dev set, 0 to 1; None if the run gave none."""
        return self._first["scores"][self.metric] if self.sets else None

    @property
    def baseline(self) -> float | None:
        """The headline of one answer for all rows."""
        return self._first["baseline"][self.metric] if self.sets else None

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the dev set, whatever the headline; that for regression."""
        return self._first.get("eval_accuracy", self.score) if self.sets else None

    @property
    def test_score(self) -> float | None:
        """The headline on the test set, where it has labels."""
        return self.test_scores.get(self.metric)


def folder_of(work_dir, job):
    """The folder of a job."""
    return os.path.join(work_dir, JOBS, job.name)


def write(work_dir, job, result):
    """Writes a job's `Result`, whole or not at all."""
    record = {"job": job._asdict(), **result._asdict()}
    for name, value in record.items():
        if isinstance(value, Mapping):
            record[name] = dict(value)
    record["sets"] = list(result.sets.items())  # Their order counts.
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    folder = folder_of(work_dir, job)
    tf.io.gfile.makedirs(folder)
    files.write_whole(os.path.join(folder, FILE_NAME), text)


def read(work_dir, job) -> Result | None:
    """The `Result` of a job; None where it has not ended.

    Raises:
      UserError: the file is damaged.
    """
    path = os.path.join(folder_of(work_dir, job), FILE_NAME)
    if not tf.io.gfile.exists(path):
        return None
    record = files.read_json(path, _REMEDY)
    try:
        record["sets"] = dict(record["sets"])
        result = Result(**{name: record[name] for name in Result._fields})
        is_sound = result.status in STATUSES and result.seconds >= 0
        # What reports look at has to be there.
        is_sound &= result.status in (DIVERGED, FAILED) or None not in (
            result.score, result.baseline, result.accuracy,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        is_sound = False
    if not is_sound:
        raise UserError("%s is damaged (no result of a job): %s" % (path, _REMEDY))
    return result


def read_all(work_dir, jobs):
    """Dict from each of the jobs that has ended to its `Result`."""
    folder = os.path.join(work_dir, JOBS)
    there = set()
    if tf.io.gfile.isdir(folder):
        there = {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}
    found = {job: read(work_dir, job) for job in jobs if job.name in there}
    return {job: result for job, result in found.items() if result is not None}


def check_same_base(results, flags):
    """Refuses results of another base, data or settings than those given now.

    Args:
      results: dict from `Job` to `Result`.
      flags: dict of the flags that all jobs share and the user has given.

    Raises:
      UserError: naming the flag and both values.
    """
    for job, result in results.items():
        for name, value in flags.items():
            then = result.flags.get(name)
            if then != value:
                raise UserError(
                    "--work_dir holds a result of --%s=%s (%s), and now it is %s: give "
                    "the same again, or another --work_dir"
                    % (name, then, job.name, value)
                )
