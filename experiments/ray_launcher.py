"""Runs jobs on a Ray cluster.

Ray is optional. All machines need this project, its Python and `--work_dir` under the
same paths.
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
    """Runs a command in a folder of a worker; returns like `Process.wait`.

    Cancellation terminates the command, which writes a checkpoint.
    """
    begun = time.monotonic()
    # Ray cancels with SIGINT, which a process in a shell script's background ignores.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
    """A job on a cluster, with the interface of `processes.Process`."""

    def __init__(self, job, settings, number, remote):
        """Submits a job; `remote` is `call` as a remote function."""
        self.job, self.number = job, number
        self._reference = remote.remote(
            job_flags.make_command(job, settings),
            os.getcwd(),
            processes.TAIL_BYTES,
            processes.POLL_SECONDS,
        )

    def has_ended(self):
        return bool(ray.wait([self._reference], timeout=0)[0])

    def end(self):
        ray.cancel(self._reference)

    def wait(self):
        try:
            return ray.get(self._reference)
        except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
            return -signal.SIGTERM, "", 0.0
        except ray.exceptions.RayError as error:
            return 1, "error: the worker is lost: %s" % error, 0.0


def check_installed():
    """Raises a `UserError` if Ray is not installed."""
    if ray is None:
        raise UserError("`launcher`=ray needs Ray: pip install ray")


def start(cpus, gpus):
    """Joins the cluster of RAY_ADDRESS, or starts one on this machine.

    `cpus` and `gpus`, per job, can be fractions. Returns `start` of `processes.run`.
    """
    ray.init(include_dashboard=False, log_to_driver=False)
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
    # Pickled by value, so that workers do not import this module and TensorFlow.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return functools.partial(RayJob, remote=ray.remote(**options)(call))
