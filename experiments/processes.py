"""Runs jobs as parallel processes."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time

import tensorflow.compat.v1 as tf
from tqdm import tqdm

from errors import UserError, printable
from experiments import datasets, grid, job_flags, results
from system import console, disk, files
from training import run_lock, signals

POLL_SECONDS = 0.1
TAIL_BYTES = 20000  # of a process's output
_MAX_REASON = 600  # characters
_REMEDY = "delete its folder, and the job is run again"

LOCK = "job.lock"
OUTPUT = "output.txt"  # the end of a failed job's output

# Messages of the programs.
_DIVERGED = re.compile(r"training diverged|predictions? .* are not finite")

# Files to remove when a job has ended; its package stays.
_TEMPORARY = ("model.ckpt-*", "checkpoint", "*.tf_record", "*.tf_record.key", OUTPUT)


def _features_folder(job, settings):
    return os.path.join(settings.work_dir, "features", job.task)


def _copy_features(source, target):
    """Copies missing files of features and their keys.

    Copies, not links, because runs write to their files. The key makes a file valid and
    is copied last, see `feature_cache`.
    """
    for key in files.list_folder(source, "*.tf_record.key"):
        path = key.removesuffix(".key")
        new_key = os.path.join(target, os.path.basename(key))
        if tf.io.gfile.exists(new_key) or not tf.io.gfile.exists(path):
            continue
        tf.io.gfile.makedirs(target)
        for old, new in ((path, new_key.removesuffix(".key")), (key, new_key)):
            with files.atomic_file(new) as partial:
                tf.io.gfile.copy(old, partial, overwrite=True)


def _read_json(folder, name):
    """Reads a JSON file of a run to a dict; {} if missing."""
    return files.read_json_if_there(os.path.join(folder, name), _REMEDY) or {}


def _remove_temporary(folder):
    for pattern in _TEMPORARY:
        for path in files.list_folder(folder, pattern):
            files.remove(path)


def make_result(job, settings, status, tail, seconds) -> results.Result:
    """Makes the result of an ended job from the return values of `Process.wait`.

    The reason of a failure is the last message, or the last lines of the output.
    """
    lines = [line for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    reason = printable(" | ".join(errors[-1:] or lines[-3:]), _MAX_REASON)
    result = results.Result(
        status=results.FAILED,
        reason=reason or "it wrote nothing",
        seconds=round(seconds, 1),
        flags=job_flags.make_flags(job, settings),
        inputs=settings.digests.get(job.task, {}),
    )
    number = -status if status < 0 else status - 128
    if number in signals.STOP_SIGNALS:
        # The number is not shown: a sweep passes on every signal as SIGTERM.
        return result._replace(status=results.INTERRUPTED, reason="ended by a signal")
    if status and run_lock.HELD in tail:
        return result._replace(status=results.HELD)
    if status and _DIVERGED.search(tail):
        return result._replace(status=results.DIVERGED)
    if status < 0:
        reason = "ended by signal %d (memory?): %s" % (-status, result.reason)
        return result._replace(reason=reason)
    return result if status else _read_result(job, settings, result)


def _read_result(job, settings, result):
    """Completes the result of a successful run from its files."""
    folder = result.flags["output_dir"]
    without = "_without_%s" % job.without if job.without else ""
    name = "eval_results%s.json" % without
    report = _read_json(folder, name)
    if not report:
        return result._replace(reason="it left no " + name)
    dataset = datasets.find(job.task)
    kept = ("examples", "scores", "baseline", "eval_accuracy", "eval_loss")
    sets = {
        name: {key: entry[key] for key in kept if key in entry}
        for name, entry in report["sets"].items()
    }
    for entry in sets.values():
        for key in ("scores", "baseline"):
            entry[key] = {n: x / dataset.best_score for n, x in entry[key].items()}
    warnings = [*(report["health"]["training"] or ())]
    # After ablation a model may predict a single class.
    warnings += () if job.without else (report["health"]["evaluation"] or ())
    return result._replace(
        status=results.COLLAPSED if warnings else results.OK,
        reason=printable("; ".join(warnings), _MAX_REASON),
        metric=dataset.find_metric(settings),
        sets=sets,
        test_scores=_read_json(folder, "test_scores.json").get("scores", {}),
        parameters=_read_json(folder, "run.json").get("parameters", {}),
    )


class Process:
    """A job on this machine."""

    def __init__(self, job, settings, number):
        """Starts a `grid.Job`; `number` is its slot among the running jobs, from 0."""
        self.job, self.number, self._begun = job, number, time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        environment = dict(os.environ)
        # TensorFlow would take all memory of a GPU that several jobs may share.
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if settings.gpus:
            gpu = settings.gpus[number % len(settings.gpus)]
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._process = subprocess.Popen(
            job_flags.make_command(job, settings),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
            # The sweep passes on signals of the terminal.
            start_new_session=True,
        )

    def has_ended(self):
        return self._process.poll() is not None

    def end(self):
        """Terminates the process; a training run writes a checkpoint first."""
        if not self.has_ended():
            self._process.terminate()

    def wait(self):
        """Waits for the end; returns status, end of the output and seconds."""
        status = self._process.wait()
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - TAIL_BYTES))
        tail = self._output.read().decode("utf-8", "replace")
        self._output.close()
        return status, tail, time.monotonic() - self._begun


class _Sweep:
    """Waiting and running jobs, and results."""

    def __init__(self, jobs, settings, at_a_time, start):
        self.settings, self._at_a_time, self._start = settings, at_a_time, start
        wanted = {*jobs, *(job.trained for job in jobs)}
        self.job_results = results.read_all(settings.work_dir, wanted)
        self.waiting = [
            job for job in jobs if not results.is_done(job, self.job_results)
        ]
        self.running: list = []
        for job in set(jobs).difference(self.waiting):
            # A sweep that was killed before it removed the files left its lock file.
            lock = self.lock_path(job)
            with contextlib.suppress(OSError):
                if os.path.exists(lock) and run_lock.lock_file(lock):
                    _remove_temporary(os.path.dirname(lock))
                    run_lock.unlock_file(lock)

    def start_jobs(self):
        """Starts jobs up to the limit."""
        for job in list(self.waiting):
            if len(self.running) == self._at_a_time:
                return
            unfinished = [*self.waiting, *(process.job for process in self.running)]
            if job.trained != job and job.trained in unfinished:
                continue
            self.waiting.remove(job)
            self._start_job(job)

    def _start_job(self, job):
        try:
            with disk.explain_errors(self.settings.work_dir):
                folder = results.job_folder(self.settings.work_dir, job)
                tf.io.gfile.makedirs(folder)
                lock = self.lock_path(job)
                if run_lock.lock_file(lock) is False:
                    holder = run_lock.read_holder(lock) or "another process"
                    console.warn(
                        "%s: skipped, its folder is locked by %s", job.name, holder
                    )
                    held = results.Result(results.HELD, str(holder), 0, {})
                    self.job_results[job] = held
                    return
                if not self._needs_run(job):
                    run_lock.unlock_file(lock)
                    return
                _copy_features(_features_folder(job, self.settings), folder)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                "`work_dir`=%s cannot be written (%s)" % (self.settings.work_dir, error)
            ) from None
        used = {process.number for process in self.running}
        number = next(n for n in itertools.count() if n not in used)
        self.running.append(self._start(job, self.settings, number))
        console.say("%s: started", job.name)

    def lock_path(self, job):
        folder = results.job_folder(self.settings.work_dir, job)
        return run_lock.lock_path(folder, LOCK)

    def _needs_run(self, job):
        """Whether a job has to run; reads results of other sweeps."""
        trained = job.trained
        for each in {job, trained}:
            self._read_again(each)
        if results.is_done(job, self.job_results):
            return False
        if trained != job:
            result = self.job_results.get(trained)
            status = result.status if result else "missing"
            if status not in (results.OK, results.COLLAPSED):
                console.warn("%s: skipped, %s is %s", job.name, trained.name, status)
                return False
            # Published results come without packages.
            package = job_flags.make_flags(job, self.settings)["adapters"]
            if not tf.io.gfile.exists(package):
                console.warn(
                    "%s: skipped, there is no %s; delete the folder %s to train it "
                    "again",
                    *(job.name, package, os.path.dirname(package)),
                )
                return False
        return True

    def _read_again(self, job):
        if not results.is_done(job, self.job_results):
            result = results.read(self.settings.work_dir, job)
            if result is not None:
                self.job_results[job] = result

    def finish_job(self, process):
        """Stores and reports the result of an ended process."""
        job, (status, tail, seconds) = process.job, process.wait()
        folder = results.job_folder(self.settings.work_dir, job)
        try:
            result = make_result(job, self.settings, status, tail, seconds)
            self._read_again(job)
            if results.is_done(job, self.job_results):
                result = self.job_results[job]  # another process's
            elif result.status != results.HELD:
                result = self._store(job, result, folder, tail)
            self.job_results[job] = result
        finally:
            run_lock.unlock_file(self.lock_path(job))
        text = result.reason
        if result.score is not None:
            text = "%s %.4f %s" % (result.metric, result.score, text)
        if result.status == results.FAILED:
            text += "; see %s" % os.path.join(folder, OUTPUT)
        console.say("%s: %s, %.0f s: %s", job.name, result.status, result.seconds, text)

    def _store(self, job, result, folder, tail):
        """Writes a result; removes the files for resuming."""
        if job in self.job_results:
            seconds = self.job_results[job].seconds + result.seconds
            result = result._replace(seconds=round(seconds, 1))
        with disk.explain_errors(folder):
            _copy_features(folder, _features_folder(job, self.settings))
        results.write(self.settings.work_dir, job, result)
        if result.status == results.FAILED:
            files.write_whole(os.path.join(folder, OUTPUT), tail)
        if result.status not in results.REPEATED:
            _remove_temporary(folder)
        return result


def run(jobs, settings, at_a_time=1, start=Process):
    """Runs unfinished jobs, `at_a_time`, and writes their results.

    Stop signals are passed on to running jobs. After the first, each job writes a
    checkpoint and can be resumed; a second one ends jobs at once.

    `start` starts a job, with the arguments of `Process`. Returns a dict from `Job` to
    `results.Result`.

    Raises:
      SystemExit: ended by a signal.
    """
    sweep = _Sweep(jobs, settings, at_a_time, start)
    received: list = []
    try:
        with (
            signals.install_handlers(lambda number, frame: received.append(number)),
            tqdm(total=len(jobs), unit="job", disable=None, smoothing=0) as bar,
        ):
            _run_jobs(sweep, len(jobs), received, bar)
    finally:  # Jobs run only after an error.
        for process in sweep.running:
            process.end()
            run_lock.unlock_file(sweep.lock_path(process.job))
    if received:
        name = signals.STOP_SIGNALS[received[0]]
        console.say("%s: ended; the same command resumes", name)
        sys.exit(128 + received[0])
    return {job: sweep.job_results[job] for job in jobs if job in sweep.job_results}


def _run_jobs(sweep, count, received, bar):
    """Runs the jobs of a sweep until all have ended; starts none after a signal."""
    passed_on = 0
    while sweep.running or (sweep.waiting and not received):
        if not received:
            sweep.start_jobs()
        if len(received) > passed_on:
            passed_on = len(received)
            for process in sweep.running:
                process.end()
        ended = [process for process in sweep.running if process.has_ended()]
        for process in ended:
            sweep.running.remove(process)
            sweep.finish_job(process)
        bar.update(count - len(sweep.waiting) - len(sweep.running) - bar.n)
        bar.set_postfix_str(", ".join(p.job.name for p in sweep.running))
        if not ended and sweep.running:
            time.sleep(POLL_SECONDS)


def seconds_left(jobs, job_results) -> float | None:
    """Estimated seconds of the unfinished jobs, one at a time; None: no job is done.

    The estimate is proportional to `grid.cost`; for a task of unknown size, the mean of
    the finished jobs.
    """
    done = results.scored_jobs(jobs, job_results)
    if not done:
        return None
    mean = sum(job_results[job].seconds for job in done) / len(done)
    sized = [job for job in done if grid.cost(job)]
    # 0 if all sizes are unknown.
    rate = sum(job_results[job].seconds for job in sized) / (
        sum(map(grid.cost, sized)) or 1
    )
    return sum(
        rate * grid.cost(job) or mean
        for job in jobs
        if not results.is_done(job, job_results)
    )
