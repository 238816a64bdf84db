"""The result of a job: `result.json`, and a line of a report's `results.jsonl`.

Reports read the jobs' files, or `results.jsonl` without jobs, as for published results.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from errors import UserError
from experiments.grid import Job
from system import files, schema

FILE_NAME = "result.json"
ARCHIVE = "results.jsonl"
JOBS = "jobs"  # the folder of all jobs' folders

OK, COLLAPSED, DIVERGED, FAILED = "ok", "collapsed", "diverged", "failed"
STATUSES = (OK, COLLAPSED, DIVERGED, FAILED)
INTERRUPTED = "interrupted"  # by a signal; counts as missing
HELD = "not run"  # locked by another process; never stored
REPEATED = (FAILED, INTERRUPTED, HELD)

_REMEDY = "delete it, and the job is run again"
# An archive may be the only copy of its results.
_ARCHIVE_REMEDY = "repair it, or restore it from a copy"
_MAX_ARCHIVE_BYTES = 1 << 28

_SCORES = schema.Object({}, others=schema.number())
_SET = schema.Object(
    {"scores": _SCORES, "baseline": _SCORES},
    optional={"eval_accuracy": schema.number()},
    others=schema.ANY,
)
SCHEMA = schema.Object(
    {
        "job": schema.Object({}, others=schema.ANY),
        "status": schema.one_of(*STATUSES, INTERRUPTED),
        "reason": schema.LINE,
        "seconds": schema.number(0),
        "flags": schema.Object({}, others=schema.ANY),
        "metric": schema.LINE,
        "sets": schema.List(schema.List(schema.ANY, 2, 2)),  # pairs, see `_parse`
        "test_scores": _SCORES,
        "parameters": schema.Object({}, others=schema.number()),
    },
    optional={"inputs": schema.Object({}, others=schema.LINE)},
    others=schema.ANY,
)

_EMPTY: Mapping = MappingProxyType({})


class Result(NamedTuple):
    """The content of `result.json`."""

    status: str  # one of `STATUSES`, or `INTERRUPTED`
    reason: str  # of another status than "ok"
    seconds: float  # of all runs of the job
    flags: Mapping[str, Any]  # of the job's program
    metric: str = ""  # the primary metric
    sets: Mapping[str, dict] = _EMPTY  # from eval_results.json; selection by the first
    test_scores: Mapping[str, float] = _EMPTY  # of labelled test examples
    parameters: Mapping[str, float] = _EMPTY  # from run.json: "trained", "base", ...
    inputs: Mapping[str, str] = _EMPTY  # digests of the job's input files

    @property
    def _first(self):
        return next(iter(self.sets.values()), None)

    def dev_score(self, metric, of="scores") -> float | None:
        """A score on the dev set, 0 to 1, or with of="baseline" the baseline's."""
        return self._first[of].get(metric) if self.sets else None

    @property
    def score(self) -> float | None:
        """The primary metric on the dev set, 0 to 1; None without scores."""
        return self.dev_score(self.metric)

    @property
    def baseline(self) -> float | None:
        """The primary metric of the task type's baseline."""
        return self.dev_score(self.metric, of="baseline")

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the dev set; for regression the primary metric."""
        return self._first.get("eval_accuracy", self.score) if self.sets else None

    @property
    def test_score(self) -> float | None:
        """The primary metric on a labelled test set."""
        return self.test_scores.get(self.metric)


def is_done(job, job_results):
    """Whether a job has a final result in `job_results`, a dict from `Job`."""
    return job in job_results and job_results[job].status not in REPEATED


def list_results(jobs, job_results):
    """List of the results of the jobs that have one."""
    return [job_results[job] for job in jobs if job in job_results]


def scored_jobs(jobs, job_results):
    """List of the jobs with a score."""
    return [j for j in jobs if j in job_results and job_results[j].score is not None]


def job_folder(work_dir, job):
    return os.path.join(work_dir, JOBS, job.name)


def _format_json(job, result, **options):
    record = {"job": job._asdict(), **result._asdict()}
    record["sets"] = list(result.sets.items())  # Keys are sorted, sets are not.
    return json.dumps(record, default=dict, sort_keys=True, **options) + "\n"


def write(work_dir, job, result):
    """Writes a job's `Result` atomically."""
    folder = job_folder(work_dir, job)
    tf.io.gfile.makedirs(folder)
    text = _format_json(job, result, indent=1)
    files.write_whole(os.path.join(folder, FILE_NAME), text)


def write_archive(folder, job_results):
    """Writes a dict from `Job` to `Result` to `results.jsonl`."""
    lines = [_format_json(*item, separators=(",", ":")) for item in job_results.items()]
    files.write_whole(os.path.join(folder, ARCHIVE), "".join(lines))


def add_results(known, new):
    """Adds results to a dict in place; unfinished ones do not replace finished ones."""
    for job, result in new.items():
        if is_done(job, new) or not is_done(job, known):
            known[job] = result


def import_archives(work_dir, experiments):
    """Writes the results of all archives to the folder of jobs, if it is missing.

    After an error or a kill, there is no folder of jobs.
    """
    if has_jobs(work_dir):
        return
    archive: dict = {}
    for experiment in experiments:
        add_results(archive, read_archive(os.path.join(work_dir, experiment)))
    if not archive:
        return
    target = os.path.join(work_dir, JOBS)
    with files.working_folder(target) as partial:
        for job, result in archive.items():
            write(partial, job, result)
        # Another sweep may have imported them meanwhile.
        with contextlib.suppress(tf.errors.AlreadyExistsError):
            tf.io.gfile.rename(os.path.join(partial, JOBS), target)


def read_archive(folder):
    """Reads `results.jsonl` to a dict from `Job` to `Result`; {} if missing.

    Raises:
      UserError: the file is damaged.
    """
    path = os.path.join(folder, ARCHIVE)
    if not tf.io.gfile.exists(path):
        return {}
    archive: dict = {}
    lines = files.read(path, _MAX_ARCHIVE_BYTES, _ARCHIVE_REMEDY).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = files.parse_json_object(line)
            result = _parse(record)
            add_results(archive, {Job(**record["job"]): result})
        except (TypeError, ValueError) as error:  # TypeError: an unknown field.
            raise UserError(
                "%s, line %d: %s: %s" % (path, number, error, _ARCHIVE_REMEDY)
            ) from None
    return archive


def _parse(record):
    """Parses a record to a `Result`; a `ValueError` names an invalid entry."""
    SCHEMA.check(record)
    for number, (name, entry) in enumerate(record["sets"]):
        schema.LINE.check(name, "sets[%d][0]" % number)
        _SET.check(entry, "sets[%d][1]" % number)
    record["sets"] = dict(record["sets"])
    values = {n: record[n] for n in Result._fields if record.get(n) is not None}
    result = Result(**values)
    if result.status in (OK, COLLAPSED) and not result.sets:
        raise ValueError("sets is empty")
    for name, entry in result.sets.items():
        for metric in (result.metric, *entry["scores"]):
            if not (metric in entry["scores"] and metric in entry["baseline"]):
                raise ValueError("set %r lacks %r or its baseline" % (name, metric))
    return result


def read(work_dir, job) -> Result | None:
    """Reads the `Result` of a job; None if missing.

    Raises:
      UserError: the file is damaged.
    """
    path = os.path.join(job_folder(work_dir, job), FILE_NAME)
    record = files.read_json_if_there(path, _REMEDY)
    try:
        return None if record is None else _parse(record)
    except ValueError as error:
        raise UserError("%s is damaged (%s): %s" % (path, error, _REMEDY)) from None


def has_jobs(work_dir):
    """Whether a folder has jobs."""
    return tf.io.gfile.isdir(os.path.join(work_dir, JOBS))


def read_all(work_dir, jobs, experiment=None):
    """Reads results to a dict from `Job` to `Result`, without unfinished jobs.

    If the folder has no jobs, the experiment's archive is read.
    """
    if has_jobs(work_dir):
        names = tf.io.gfile.listdir(os.path.join(work_dir, JOBS))
        existing = {name.rstrip("/") for name in names}
        found = {job: read(work_dir, job) for job in jobs if job.name in existing}
    else:
        archive = read_archive(os.path.join(work_dir, experiment)) if experiment else {}
        found = {job: archive.get(job) for job in jobs}
    return {job: result for job, result in found.items() if result is not None}
