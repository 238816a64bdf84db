"""Runs jobs on a Ray cluster, in the place of processes of this machine.

Ray is no requirement: `start` refuses where it is not installed. Each machine of the
cluster needs this project and its Python under the same paths, and `--work_dir`.
"""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time

from errors import UserError
from experiments import job_flags, processes

try:
    import ray
except ImportError:
    ray = None


def call(command, folder, tail_bytes, poll_seconds):
    """Runs a command, on a worker; ends it, so that it saves, where it is cancelled.

    Args:
      command: list of words.
      folder: where to run it.
      tail_bytes: how much of its output is kept.
      poll_seconds: how often it is looked at.

    Returns:
      Its status, the end of its output, and the seconds that it ran.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            # Ray's cancellation arrives between two instructions of Python.
            while process.poll() is None:
                time.sleep(poll_seconds)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        status = process.returncode
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - tail_bytes))
        tail = output.read().decode("utf-8", "replace")
    return status, tail, time.monotonic() - begun


class RayJob:
    """A job that a cluster runs; as `processes.Process`."""

    def __init__(self, job, settings, number, remote):
        """Submits it.

        Args:
          job: the `grid.Job`.
          settings: the `job_flags.SweepSettings`.
          number: among the jobs that are submitted at a time, from 0.
          remote: `call` as a remote function.
        """
        self.job, self.number, self._settings = job, number, settings
        command = job_flags.make_command(job, settings)
        self._reference = remote.remote(
            command, os.getcwd(), processes.TAIL_BYTES, processes.POLL_SECONDS
        )

    def has_ended(self):
        return bool(ray.wait([self._reference], timeout=0)[0])

    def end(self):
        """Asks it to end; a training run writes a checkpoint first."""
        ray.cancel(self._reference)

    def result(self):
        """The result and the end of the output; waits for the end of the process."""
        try:
            status, tail, seconds = ray.get(self._reference)
        except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
            status, tail, seconds = -signal.SIGTERM, "", 0.0
        except ray.exceptions.RayError as error:
            # The machine or its worker is gone, and the job is to be repeated.
            status, tail, seconds = 1, "error: the worker is gone: %s" % error, 0.0
        return (
            processes.make_result(self.job, self._settings, status, tail, seconds),
            tail,
        )


def start(cpus, gpus):
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine.

    Args:
      cpus: that each job needs.
      gpus: that each job needs; may be a share of one.

    Returns:
      What `processes.run` takes as `start`.

    Raises:
      UserError: Ray is not installed.
    """
    if ray is None:
        raise UserError("--launcher=ray needs Ray: pip install ray")
    ray.init(include_dashboard=False, log_to_driver=False)
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
    # By value: the workers need not import this module, and TensorFlow with it.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return functools.partial(RayJob, remote=ray.remote(**options)(call))
