"""Training on several devices of a machine and on several machines.

Every replica computes its part of the global batch; the optimizer averages the
gradients before it clips them, as `optimization.create_optimizer` says, so that the
update is that of one device with the whole batch. Evaluation and prediction run on one
device of the chief.
"""

import os
import re
import shutil
import socket
import sys
import threading
import time
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow.python.distribute import distribute_coordinator as coordinator

from errors import UserError
from system import console, files
from training.estimator_compat import estimator

NONE, MIRRORED, MULTI_WORKER = "none", "mirrored", "multi_worker"
STRATEGIES = (NONE, MIRRORED, MULTI_WORKER)

# A worker counts as lost when it could not be reached so many times in a row.
PING_INTERVAL = 2.0  # seconds
LOST_AFTER = 5
LOST_EXIT_STATUS = 3

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Cluster(NamedTuple):
    """The machines of a training, as TF_CONFIG lists them."""

    addresses: list[str]  # host:port of all, the chief's first
    workers: list[str]  # those of job "worker"
    index: int  # of this machine among them
    job: str  # "chief" or "worker"
    job_index: int  # of this machine in its job

    @property
    def is_chief(self):
        """Whether this machine writes checkpoints, evaluates and predicts."""
        return self.index == 0


def local_devices():
    """Names of the devices that a model is mirrored on: all GPUs, or the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    return ["/gpu:%d" % i for i in range(len(gpus))] or ["/cpu:0"]


def read_cluster():
    """Takes the cluster out of the environment variable TF_CONFIG.

    Out of it, since an Estimator that finds the variable starts a server of its own.

    Raises:
      UserError: it is missing, or is not what it should be.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise UserError(
            "--distribution_strategy=%s needs the environment variable TF_CONFIG on "
            "each machine, such as %s" % (MULTI_WORKER, _EXAMPLE)
        )

    def wrong(reason):
        return UserError(
            "TF_CONFIG=%s: %s; it must look like %s" % (text, reason, _EXAMPLE)
        )

    try:
        config = files.parse_json_object(text)
    except ValueError as error:
        raise wrong(error) from None
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise wrong('"cluster" and "task" are needed')
    if not cluster or set(cluster) - {"chief", "worker"}:
        raise wrong('jobs are "worker" and, if wanted, "chief"')
    jobs = {job: cluster.get(job, []) for job in ("chief", "worker")}
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(
            isinstance(address, str) and re.fullmatch(r".+:\d{1,5}", address)
            for address in addresses
        ):
            raise wrong('"%s" must be a list of "host:port"' % job)
    if len(jobs["chief"]) > 1:
        raise wrong("there can be one chief only")
    job, index = task.get("type"), task.get("index")
    if job not in jobs or not isinstance(index, int):
        raise wrong('"task" needs a "type" of "cluster" and an "index"')
    if not 0 <= index < len(jobs[job]):
        raise wrong("there is no %s %d" % (job, index))
    addresses = jobs["chief"] + jobs["worker"]
    if len(set(addresses)) != len(addresses):
        raise wrong("an address is there twice")
    del os.environ["TF_CONFIG"]
    before = len(jobs["chief"]) if job == "worker" else 0
    return Cluster(addresses, jobs["worker"], before + index, job, index)


def check(strategy, train_batch_size, parts):
    """Refuses a batch that the replicas cannot share.

    Args:
      strategy: one of `STRATEGIES`.
      train_batch_size: examples of a global batch.
      parts: parts that each replica computes its share in.

    Returns:
      The `Cluster`, or None where the strategy is of one machine.

    Raises:
      UserError: naming the flags, or TF_CONFIG.
    """
    if strategy != MULTI_WORKER and os.environ.pop("TF_CONFIG", None) is not None:
        # An Estimator that finds it waits for the machines that it lists.
        console.warn(
            "the environment variable TF_CONFIG is left out of account: "
            "--distribution_strategy=%s is of one machine; several need %s",
            strategy,
            MULTI_WORKER,
        )
    if strategy == NONE:
        return None
    cluster = read_cluster() if strategy == MULTI_WORKER else None
    devices, machines = len(local_devices()), len(cluster.addresses) if cluster else 1
    if train_batch_size % (devices * machines * parts):
        raise UserError(
            "--train_batch_size=%d, the global batch, does not divide over %d "
            "device(s) on %d machine(s), in --gradient_accumulation_steps=%d parts "
            "each: give a multiple of %d"
            % (train_batch_size, devices, machines, parts, devices * machines * parts)
        )
    if devices * machines == 1:
        console.warn("--distribution_strategy=%s: there is one device only", strategy)
    return cluster


class Placement(NamedTuple):
    """Where an Estimator trains."""

    strategy: tf.distribute.Strategy | None = None
    master: str | None = None


ONE_DEVICE = Placement()


def run(strategy, session_config, cluster, num_train_steps, train):
    """Trains under a distribution strategy.

    Args:
      strategy: one of `STRATEGIES`.
      session_config: the `tf.ConfigProto` of the training.
      cluster: the `Cluster` of "multi_worker".
      num_train_steps: the last step.
      train: function of a `Placement` and a list of hooks.
    """
    if strategy == NONE:
        train(ONE_DEVICE, [])
    elif strategy == MIRRORED:
        train(Placement(tf.distribute.MirroredStrategy(local_devices())), [])
    else:

        def train_as_worker(configured):
            watch = PeerWatch(cluster, num_train_steps)
            server = "grpc://" + cluster.addresses[cluster.index]
            train(Placement(configured, server), [watch])

        chief = len(cluster.addresses) - len(cluster.workers)
        jobs = {"chief": cluster.addresses[:chief], "worker": cluster.workers}
        place = {
            "cluster_spec": tf.train.ClusterSpec({k: v for k, v in jobs.items() if v}),
            "task_type": cluster.job,
            "task_id": cluster.job_index,
        }
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(**place)
        coordinator.run_distribute_coordinator(
            train_as_worker,
            tf.distribute.experimental.MultiWorkerMirroredStrategy(
                cluster_resolver=resolver
            ),
            mode=coordinator.CoordinatorMode.INDEPENDENT_WORKER,
            session_config=session_config,
            **place,
        )


def remove_worker_files(output_dir, cluster):
    """Removes what TensorFlow has workers write, so that they stay in step."""
    if cluster is not None and not cluster.is_chief:
        name = "tmp_%s_%d" % (cluster.job, cluster.job_index)
        shutil.rmtree(os.path.join(output_dir, name), ignore_errors=True)


class PeerWatch(estimator.SessionRunHook):
    """Ends the process when another machine of the cluster is lost.

    A step waits for all machines, and TensorFlow 1's sessions wait for a lost one
    without end: the process can only be ended from a thread of its own.
    """

    def __init__(self, cluster, num_train_steps, lost=None):
        """Keeps what is watched.

        Args:
          cluster: a `Cluster`.
          num_train_steps: no machine is missed after this step.
          lost: function of a message, called at most once; by default the message is
            printed and the process ends.
        """
        self._peers = [
            address
            for index, address in enumerate(cluster.addresses)
            if index != cluster.index
        ]
        self._num_train_steps = num_train_steps
        self._lost = lost or _end_process
        self._step = 0
        self._over = threading.Event()
        self._thread = None

    def begin(self):
        self._global_step = tf.train.get_global_step()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def before_run(self, run_context):
        del run_context
        return estimator.SessionRunArgs(self._global_step)

    def after_run(self, run_context, run_values):
        del run_context
        # As read in the step: its own increment may not be in it.
        self._step = int(run_values.results)
        if self._step + 1 >= self._num_train_steps:
            self._over.set()

    def end(self, session):
        del session
        self._over.set()

    def _watch(self):
        seen = dict.fromkeys(self._peers, False)
        failures = dict.fromkeys(self._peers, 0)
        while not self._over.wait(PING_INTERVAL):
            for address in self._peers:
                answers = _answers(address)
                seen[address] |= answers
                failures[address] = 0 if answers else failures[address] + 1
                # One that was never there may still be starting.
                if seen[address] and failures[address] >= LOST_AFTER:
                    if not self._over.is_set():
                        self._lost(
                            "%s no longer answers: training ended in step %d; start "
                            "all machines again with the same commands to resume from "
                            "the last checkpoint" % (address, self._step)
                        )
                    return


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PING_INTERVAL).close()
    except OSError:
        return False
    return True


def _end_process(message):
    sys.stderr.write("error: %s\n" % message)
    sys.stderr.flush()
    os._exit(LOST_EXIT_STATUS)


def wait_for(path, what, timeout=600.0, interval=1.0):
    """Waits for a file that the chief writes.

    Args:
      path: path of the file.
      what: what it is, for the message.
      timeout: seconds.
      interval: seconds between two looks.

    Raises:
      UserError: it did not come.
    """
    end = time.monotonic() + timeout
    while not tf.io.gfile.exists(path):
        if time.monotonic() > end:
            raise UserError(
                "no %s came to %s in %d seconds: --output_dir must be one folder that "
                "all machines share, and the chief must run" % (what, path, timeout)
            )
        time.sleep(interval)
