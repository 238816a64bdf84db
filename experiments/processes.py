"""Runs jobs, each a process of `run_classifier.py`, several at a time."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from tqdm import tqdm

import glue_data
from errors import UserError, printable
from experiments import grid, results
from system import console, disk, files
from weights import adapter_package

PROGRAM = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "run_classifier.py"
)

POLL_SECONDS = 0.1
_MOST_REASON = 600  # characters
TAIL_BYTES = 20000  # of what a process writes
_REMEDY = "delete its folder, and the job is run again"

# Statuses of a process that was asked to end, and signals that do so.
_ENDED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
# By these messages run_classifier.py says that the numbers ran away, and that another
# process is at work in the folder.
_DIVERGED = re.compile(r"the training diverged|predictions .* are not finite")
_HELD = "is held by the training of process"

# What a run leaves for its next start; the job has ended. Adapters stay, as a package.
_LEFT_OVER = ("model.ckpt-*", "checkpoint", "*.tf_record", "*.tf_record.key")


# Flags that make a job, or say where things are: they are nobody else's.
OWN_FLAGS = {
    *("task_config", "task_name", "data_dir", "output_dir"),
    *("train_policy", "adapter_size", "adapter_init_scale", "adapters"),
    *("ablate_adapter_layers", "adapter_layers", "do_train", "do_eval", "do_predict"),
    *("learning_rate", "num_train_epochs", "adam_bias_correction", "seed"),
    "keep_best",  # Results are those of the last checkpoint.
}


class Place(NamedTuple):
    """What all jobs share, and where they run."""

    work_dir: str
    glue_dir: str
    task_files: dict[str, str]  # from a task's name to its file
    flags: dict[str, Any]  # of run_classifier.py: the base, and what all jobs share
    gpus: int = 0  # of this machine, dealt out to the jobs that run; 0: left alone


def flags_of(job, place):
    """The flags of `run_classifier.py` for a job, a dict.

    What the user gives for all jobs goes before lengths and batches of the grid, and
    what makes the job goes before all.
    """
    values: dict[str, Any] = {}
    if job.task in place.task_files:
        values["task_config"] = place.task_files[job.task]
    else:
        task = glue_data.get_task(job.task)
        values["task_name"] = task.name
        values["data_dir"] = os.path.join(place.glue_dir, task.title)
        values["max_seq_length"] = grid.MAX_SEQ_LENGTH
    if not job.without:
        values["train_batch_size"] = grid.BATCH_SIZE
        values["checkpoint_content"] = "trained"  # Small, and the same numbers.
    values.update(place.flags)
    values["output_dir"] = results.folder_of(place.work_dir, job)
    values["train_policy"] = job.policy
    values["do_eval"] = "true"
    if job.adapter_size:
        values["adapter_size"] = job.adapter_size
    if job.without:
        package = results.folder_of(place.work_dir, job.trained)
        values["adapters"] = os.path.join(package, adapter_package.FOLDER)
        values["ablate_adapter_layers"] = job.without
        return values
    if job.adapter_size:
        values["adapter_init_scale"] = job.init_scale
    values.update(
        do_train="true",
        do_predict="true",
        learning_rate=job.learning_rate,
        num_train_epochs=job.epochs,
        adam_bias_correction=str(job.is_corrected).lower(),
        seed=job.seed,
    )
    return values


def command_of(job, place):
    """The command line of a job, a list of words."""
    values = sorted(flags_of(job, place).items())
    return [sys.executable, PROGRAM, *("--%s=%s" % pair for pair in values)]


# --- features -------------------------------------------------------------------


def _features_folder(job, place):
    return os.path.join(place.work_dir, "features", job.task)


def _copy_features(source, target):
    """Copies files of features and their keys, where the target lacks them.

    They are copies and no links, since a run writes into its own. The key comes last: a
    file whose key is of another is tokenized anew, see `feature_cache`.
    """
    for key in files.list_folder(source, "*.tf_record.key"):
        key_there = os.path.join(target, os.path.basename(key))
        path, there = (name[: -len(".key")] for name in (key, key_there))
        if tf.io.gfile.exists(key_there) or not tf.io.gfile.exists(path):
            continue
        tf.io.gfile.makedirs(target)
        for one, other in ((path, there), (key, key_there)):
            with files.atomic_file(other) as partial:
                tf.io.gfile.copy(one, partial, overwrite=True)


# --- outcomes -------------------------------------------------------------------


def reason_of(tail):
    """Why a process failed, from what it wrote: its message, or the last lines."""
    lines = [line for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return printable(" | ".join(errors[-1:] or lines[-3:]), _MOST_REASON)


def _json_beside(folder, name):
    """A file of results as a dict; {} where there is none."""
    path = os.path.join(folder, name)
    return files.read_json(path, _REMEDY) if tf.io.gfile.exists(path) else {}


def outcome(job, place, status, tail, seconds) -> results.Result | None:
    """What a process came to.

    Args:
      job: the `grid.Job`.
      place: the `Place`.
      status: the process's; negative: the signal that ended it.
      tail: the end of what it wrote.
      seconds: how long it ran.

    Returns:
      A `results.Result`; None where it was asked to end, or another process has the
      job: nothing is known then.
    """
    flags = flags_of(job, place)
    seconds = round(seconds, 1)
    if status in _ENDED or (status and _HELD in tail):
        return None
    if status:
        reason = reason_of(tail) or "it wrote nothing"
        if status < 0:
            reason = "ended by signal %d (memory?): %s" % (-status, reason)
        kind = results.DIVERGED if _DIVERGED.search(tail) else results.FAILED
        return results.Result(kind, reason, seconds, flags)
    folder = flags["output_dir"]
    without = "_without_%s" % job.without if job.without else ""
    name = "eval_results%s.json" % without
    report = _json_beside(folder, name)
    if not report:
        return results.Result(results.FAILED, "it left no " + name, seconds, flags)
    task, _ = glue_data.select_task(
        flags.get("task_name"), flags.get("task_config"), flags.get("data_dir")
    )
    kept = ("examples", "scores", "baseline", "eval_accuracy", "eval_loss")
    sets = {
        name: {key: entry[key] for key in kept if key in entry}
        for name, entry in report["sets"].items()
    }
    findings = [*(report["health"]["training"] or ())]
    # Without its adapters a model may well answer all the same.
    findings += () if job.without else (report["health"]["evaluation"] or ())
    return results.Result(
        status=results.COLLAPSED if findings else results.OK,
        reason=printable("; ".join(findings), _MOST_REASON),
        seconds=seconds,
        flags=flags,
        metric=task.metrics[0],
        sets=sets,
        test_scores=_json_beside(folder, "test_scores.json").get("scores", {}),
        parameters=_json_beside(folder, "run.json").get("parameters", {}),
    )


def _finish(job, place, result):
    """Writes a job's result; then what only a next start would need goes."""
    folder = results.folder_of(place.work_dir, job)
    with disk.explained(folder):
        _copy_features(folder, _features_folder(job, place))
    results.write(place.work_dir, job, result)
    if result.status in results.REPEATED:
        return
    for pattern in _LEFT_OVER:
        for path in files.list_folder(folder, pattern):
            files.remove(path)


# --- processes ------------------------------------------------------------------


class Process:
    """A job that runs."""

    hears_ctrl_c = True  # by itself, from the terminal

    def __init__(self, job, place, number):
        """Starts it.

        Args:
          job: the `grid.Job`.
          place: the `Place`.
          number: of those that run at a time, from 0.
        """
        self.job, self.number = job, number
        self._place, self._begun = place, time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        environment = dict(os.environ)
        # TensorFlow would take all memory of a GPU that several jobs may share.
        environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        if place.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(number % place.gpus)
        self._process = subprocess.Popen(
            command_of(job, place),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def has_ended(self):
        return self._process.poll() is not None

    def end(self):
        """Asks it to end; a training writes a checkpoint first."""
        if not self.has_ended():
            self._process.terminate()

    def result(self) -> results.Result | None:
        """What it came to, see `outcome`; waits for its end."""
        status = self._process.wait()
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - TAIL_BYTES))
        tail = self._output.read().decode("utf-8", "replace")
        self._output.close()
        seconds = time.monotonic() - self._begun
        return outcome(self.job, self._place, status, tail, seconds)


class _Ended(BaseException):
    """SIGTERM."""


def _raise_ended(number, frame):
    del number, frame
    raise _Ended


def is_done(job, known):
    """Whether a job needs no run.

    Args:
      job: a `grid.Job`.
      known: dict from `Job` to `results.Result`.
    """
    return job in known and known[job].status not in results.REPEATED


def run(jobs, place, at_a_time=1, start=Process):
    """Runs all jobs that are not done, and writes their results.

    Ctrl-C and SIGTERM end the processes that run, each with a checkpoint, and the same
    jobs go on from there the next time. Ctrl-C reaches them from the terminal, SIGTERM
    is passed on.

    Args:
      jobs: list of `grid.Job`, trainings before what evaluates them.
      place: the `Place`.
      at_a_time: how many processes run.
      start: what starts a job, called as `Process`.

    Returns:
      Dict from `Job` to `results.Result`: of all jobs that have one now.

    Raises:
      SystemExit: a signal has ended this.
    """
    known = results.read_all(place.work_dir, {*jobs, *(job.trained for job in jobs)})
    waiting = [job for job in jobs if not is_done(job, known)]
    running: list = []
    before = signal.signal(signal.SIGTERM, _raise_ended)
    try:
        with tqdm(total=len(jobs), unit="job", disable=None, smoothing=0) as bar:
            while waiting or running:
                _start_next(waiting, running, place, at_a_time, known, start)
                ended = [process for process in running if process.has_ended()]
                for process in ended:
                    running.remove(process)
                    _note(process, place, known)
                bar.update(len(jobs) - len(waiting) - len(running) - bar.n)
                bar.set_postfix_str(", ".join(p.job.name for p in running))
                if not ended and running:
                    time.sleep(POLL_SECONDS)
    except (KeyboardInterrupt, _Ended) as error:
        for process in running:
            if isinstance(error, _Ended) or not process.hears_ctrl_c:
                process.end()
        for process in running:
            _note(process, place, known)
        console.say("ended; the same command goes on with what is finished")
        number = signal.SIGTERM if isinstance(error, _Ended) else signal.SIGINT
        sys.exit(128 + number)
    except BaseException:
        for process in running:
            process.end()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return {job: known[job] for job in jobs if job in known}


def _start_next(waiting, running, place, at_a_time, known, start):
    """Starts jobs until enough run, or none can be started."""
    for job in list(waiting):
        if len(running) == at_a_time:
            return
        trained = job.trained
        if trained != job and (
            trained in waiting or any(p.job == trained for p in running)
        ):
            continue
        waiting.remove(job)
        _look_again({job, trained}, place, known)
        if is_done(job, known):
            continue
        if trained != job:
            status = known[trained].status if trained in known else "not there"
            if status not in (results.OK, results.COLLAPSED):
                console.warn("%s is left out: %s is %s", job.name, trained.name, status)
                continue
        used = {process.number for process in running}
        number = min(set(range(at_a_time)) - used)
        try:
            with disk.explained(place.work_dir):
                _copy_features(
                    _features_folder(job, place),
                    results.folder_of(place.work_dir, job),
                )
        except tf.errors.OpError as error:
            raise UserError(
                "--work_dir=%s cannot be written (%s)" % (place.work_dir, error.message)
            ) from None
        running.append(start(job, place, number))


def _look_again(jobs, place, known):
    """Takes what others have done meanwhile who share the folder."""
    for job in jobs:
        if not is_done(job, known):
            found = results.read(place.work_dir, job)
            if found is not None:
                known[job] = found


def _note(process, place, known):
    """Writes and says what an ended process came to."""
    job, result = process.job, process.result()
    if result is None:
        console.say("%s: not finished, or another process has it", job.name)
        return
    _finish(job, place, result)
    known[job] = result
    said = result.reason
    if result.score is not None:
        said = "%s %.4f %s" % (result.metric, result.score, said)
    console.say("%s: %s, %.0f s: %s", job.name, result.status, result.seconds, said)


# --- what is left to do ---------------------------------------------------------


def seconds_left(jobs, known) -> float | None:
    """How long the jobs that are not done will take one at a time.

    From those that are done, by `grid.work`; a task of unknown size counts as the mean.

    Args:
      jobs: list of `grid.Job`.
      known: dict from `Job` to `results.Result`.

    Returns:
      Seconds; None where no job has ended yet.
    """
    done = [job for job in jobs if job in known and known[job].score is not None]
    if not done:
        return None
    seconds = sum(known[job].seconds for job in done)
    left = [job for job in jobs if not is_done(job, known)]
    sized = [job for job in done if grid.work(job)]
    if not sized:
        return seconds / len(done) * len(left)
    rate = sum(known[job].seconds for job in sized) / sum(map(grid.work, sized))
    mean = seconds / len(done)
    return sum(rate * (grid.work(job) or 0) or mean for job in left)
