"""Training on several devices of a machine and on several machines.

Each replica computes a part of the global batch. The optimizer averages the gradients
before it clips them, so the update equals that of one device with the whole batch
(`optimization.build_train_step`). Evaluation and prediction run on one device of the
chief.
"""

import atexit
import contextlib
import itertools
import os
import re
import shutil
import socket
import sys
import threading
import time
import traceback
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow.python.distribute import distribute_coordinator as coordinator

from errors import UserError, report_error
from system import console, files, schema
from training.estimator_compat import estimator

NONE, MIRRORED, MULTI_WORKER = "none", "mirrored", "multi_worker"
STRATEGIES = (NONE, MIRRORED, MULTI_WORKER)

# Consecutive failed pings, or broken sessions, after which a machine is lost.
PING_INTERVAL = 2.0  # seconds
MAX_FAILED_PINGS = 5
MAX_SESSIONS = 5
LOST_EXIT_STATUS = 3

# Seconds until a machine reports which machines it waits for, and until it gives up.
WAITING_REPORT_DELAY = 10.0
START_TIMEOUT = 600.0

# Seconds that functions registered by `atexit` have after a multi_worker run.
_EXIT_TIMEOUT = 30.0

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_ADDRESS = schema.pattern(re.compile(r".+:\d{1,5}"), '"host:port"')
_JOBS = {"chief": schema.List(_ADDRESS, max_items=1), "worker": schema.List(_ADDRESS)}
_TASK = {"type": schema.one_of(*_JOBS), "index": schema.integer()}
_TF_CONFIG = schema.Object(
    {
        "cluster": schema.Object({}, optional=_JOBS),
        "task": schema.Object(_TASK, others=schema.ANY),
    },
    others=schema.ANY,
)


class Cluster(NamedTuple):
    """The machines of a run, as in TF_CONFIG."""

    addresses: list[str]  # host:port of all, the chief's first
    jobs: dict[str, list[str]]  # the addresses by job
    index: int  # of this machine in `addresses`
    job: str  # "chief" or "worker"
    job_index: int  # of this machine in its job

    @property
    def is_chief(self):
        """Whether this machine writes checkpoints, evaluates and predicts."""
        return self.index == 0


def available_cores():
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def local_devices():
    """Names of the devices that a model is mirrored on: all GPUs, or the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    return ["/gpu:%d" % i for i in range(len(gpus))] or ["/cpu:0"]


def parse_cluster(text):
    """The `Cluster` of TF_CONFIG's value; a `UserError` if it is None or invalid."""
    if not text:
        raise UserError(
            "`distribution_strategy`=%s needs the environment variable TF_CONFIG on "
            "each machine, such as %s" % (MULTI_WORKER, _EXAMPLE)
        )
    try:
        config = files.parse_json_object(text)
        _TF_CONFIG.check(config)
        job, index = config["task"]["type"], config["task"]["index"]
        cluster = config["cluster"]
        jobs = {name: cluster[name] for name in _JOBS if cluster.get(name)}
        addresses = list(itertools.chain(*jobs.values()))
        if len(set(addresses)) != len(addresses):
            raise ValueError("an address occurs twice")
        if index >= len(jobs.get(job, ())):
            raise ValueError("no address of %s %d" % (job, index))
    except ValueError as error:
        raise UserError(
            "TF_CONFIG=%s: %s; it must look like %s" % (text, error, _EXAMPLE)
        ) from None
    return Cluster(addresses, jobs, addresses.index(jobs[job][index]), job, index)


def take_cluster(strategy):
    """Removes TF_CONFIG from the environment, and returns its `Cluster`, or None.

    An Estimator that reads the variable starts a server and waits for all machines.

    Raises:
      UserError: it is invalid, or the port of this machine is in use.
    """
    text = os.environ.pop("TF_CONFIG", None)
    if strategy == MULTI_WORKER:
        cluster = parse_cluster(text)
        _check_port(cluster.addresses[cluster.index])
        return cluster
    if text is not None:
        console.warn(
            "the environment variable TF_CONFIG is ignored: `distribution_strategy`=%s "
            "is for one machine; several need %s" % (strategy, MULTI_WORKER)
        )
    return None


def _check_port(address):
    """Refuses an address of this machine whose port is in use."""
    with socket.socket() as server:
        # As TensorFlow's server does: earlier connections may still be closing.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", int(address.rpartition(":")[2])))
        except (OSError, OverflowError) as error:
            raise UserError(
                "TF_CONFIG: the port of this machine's address %s cannot be used (%s): "
                "give each process its own index and a free port" % (address, error)
            ) from None


def check_batch(strategy, cluster, train_batch_size, parts):
    """Refuses a batch that the replicas cannot divide into `parts` equal parts each."""
    if strategy == NONE:
        return
    devices, machines = len(local_devices()), len(cluster.addresses) if cluster else 1
    if train_batch_size % (devices * machines * parts):
        raise UserError(
            "`train_batch_size`=%d, the global batch, cannot be divided among %d "
            "device(s) on %d machine(s), in `gradient_accumulation_steps`=%d parts "
            "each: give a multiple of %d"
            % (train_batch_size, devices, machines, parts, devices * machines * parts)
        )
    if devices * machines == 1:
        console.warn("`distribution_strategy`=%s has a single device", strategy)


def run(strategy, session_config, cluster, num_train_steps, train):
    """Calls `train` under one of `STRATEGIES`.

    Its arguments are a list of hooks and, for several devices, the Estimator's strategy
    and master. After `num_train_steps` other machines may leave.
    """
    if strategy == NONE:
        train([])
    elif strategy == MIRRORED:
        train([], tf.distribute.MirroredStrategy(local_devices()))
    else:

        def train_as_worker(configured):
            master = "grpc://" + cluster.addresses[cluster.index]
            train([PeerWatch(cluster, num_train_steps)], configured, master)

        task = {
            "cluster_spec": tf.train.ClusterSpec(cluster.jobs),
            "task_type": cluster.job,
            "task_id": cluster.job_index,
        }
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(**task)
        coordinator.run_distribute_coordinator(
            train_as_worker,
            tf.distribute.experimental.MultiWorkerMirroredStrategy(
                cluster_resolver=resolver
            ),
            mode=coordinator.CoordinatorMode.INDEPENDENT_WORKER,
            session_config=session_config,
            **task,
        )


def remove_worker_files(output_dir, cluster):
    """Removes the checkpoints that TensorFlow writes for a worker; it needs none."""
    if cluster is not None and not cluster.is_chief:
        name = "tmp_%s_%d" % (cluster.job, cluster.job_index)
        shutil.rmtree(os.path.join(output_dir, name), ignore_errors=True)


class PeerWatch(estimator.SessionRunHook):
    """Ends the process when another machine of the cluster is missing or lost.

    TensorFlow waits forever for a machine that has not started or was lost, and
    creates a new session whenever a connection breaks. The main thread is then in
    TensorFlow, so another thread watches the machines.
    """

    def __init__(self, cluster, num_train_steps):
        """Takes a `Cluster` and the last step, after which machines may leave."""
        own = cluster.addresses[cluster.index]
        self._peers = [address for address in cluster.addresses if address != own]
        self._num_train_steps = num_train_steps
        self._step = 0
        self._num_sessions = 0  # since the last step
        self._has_stepped = False  # all machines have taken part in a step
        self._is_over = threading.Event()
        self._thread = None

    def begin(self):
        self._global_step = tf.train.get_global_step()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def after_create_session(self, session, coord):
        del session, coord
        self._num_sessions += 1
        if self._num_sessions == 1:
            return
        console.warn(
            "the connection to another machine broke: training resumed from the last "
            "checkpoint"
        )
        if self._num_sessions > MAX_SESSIONS:
            unreachable = [address for address in self._peers if not _answers(address)]
            self._report_lost(
                "%s: the connection broke %d consecutive times"
                % (", ".join(unreachable or self._peers), MAX_SESSIONS)
            )

    def before_run(self, run_context):
        del run_context
        return estimator.SessionRunArgs(self._global_step)

    def after_run(self, run_context, run_values):
        del run_context
        # It may have been read before the increment of the step.
        self._step = int(run_values.results)
        self._has_stepped, self._num_sessions = True, 1
        if self._step + 1 >= self._num_train_steps:
            self._is_over.set()

    def end(self, session):
        del session
        self._is_over.set()

    def _watch(self):
        started, is_reported = time.monotonic(), False
        reached: set[str] = set()
        failures = dict.fromkeys(self._peers, 0)  # consecutive, by address
        while not self._is_over.wait(PING_INTERVAL):
            for address in self._peers:
                if _answers(address):
                    reached.add(address)
                    failures[address] = 0
                elif address in reached or self._has_stepped:
                    failures[address] += 1
            lost = [a for a in self._peers if failures[a] >= MAX_FAILED_PINGS]
            if lost:
                self._report_lost("%s no longer answers" % ", ".join(lost))
                return
            missing = [a for a in self._peers if a not in reached]
            if self._has_stepped or (self._num_sessions and not missing):
                continue
            elapsed = time.monotonic() - started
            if elapsed >= START_TIMEOUT:
                self._report_lost(
                    "%s of TF_CONFIG did not start training in %d seconds"
                    % (", ".join(missing or self._peers), elapsed)
                )
                return
            if elapsed >= WAITING_REPORT_DELAY and not is_reported:
                is_reported = True
                names = ", ".join(missing or self._peers)
                text = "Waiting for %s of TF_CONFIG, for %d seconds at most"
                console.say(text, names, START_TIMEOUT)

    def _report_lost(self, reason):
        if not self._is_over.is_set():
            self._is_over.set()
            _exit_with_error(
                "%s: training ended in step %d; start all machines again with the same "
                "commands to resume from the last checkpoint" % (reason, self._step)
            )


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PING_INTERVAL).close()
    except (OSError, OverflowError, UnicodeError):  # Port or host name is invalid.
        return False
    return True


def _exit_with_error(message):
    report_error(message)
    sys.stderr.flush()
    os._exit(LOST_EXIT_STATUS)


@contextlib.contextmanager
def process_exit(strategy):
    """Ends the process after the `with` block, if it is a multi_worker run.

    TensorFlow's server can wait forever for other machines when Python finalizes.
    """
    if strategy != MULTI_WORKER:
        yield
        return
    status = 0
    try:
        yield
    except SystemExit as end:
        status = end.code or 0
    except BaseException:  # As Python ends a program.
        traceback.print_exc()
        status = 1
    timer = threading.Timer(_EXIT_TIMEOUT, os._exit, (status,))
    timer.daemon = True
    timer.start()
    atexit._run_exitfuncs()  # Closes logs, and removes temporary folders.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)


def wait_for(path, timeout=600.0, interval=1.0):
    """Waits for a file of the chief; raises a `UserError` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not tf.io.gfile.exists(path):
        if time.monotonic() > end:
            raise UserError(
                "no record of the chief in %s after %d seconds: `output_dir` must be "
                "one folder that all machines share, and the chief must run"
                % (path, timeout)
            )
        time.sleep(interval)
