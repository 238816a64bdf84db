"""Signals that stop a program: a training run writes a checkpoint first.

Schedulers that take a machine away send SIGTERM, or the signal that they were asked
for, such as SIGUSR1, some time before; a terminal that is closed sends SIGHUP. The
program ends with one line and the status that shells report, 128 + the number of the
signal. A second signal ends the process at once.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time

import tensorflow.compat.v1 as tf

import optimization
from system import console
from training.estimator_compat import estimator

# The signals that ask a program to stop, and their names in messages.
STOP_SIGNALS = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP",
    signal.SIGUSR1: "SIGUSR1",
    signal.SIGUSR2: "SIGUSR2",
    signal.SIGXCPU: "SIGXCPU",  # the limit of CPU time is near
}

# Signals within so many seconds are one request: some schedulers signal a sweep and its
# jobs, and the sweep passes its signal on.
_REPEAT_SECONDS = 1.0

# Seconds within which Python handles a signal, unless its main thread is in TensorFlow.
GRACE = 5.0

# The graph collection with whether this machine stops, and its mean over all machines.
_STOP = "stop"


class StoppedBySignal(BaseException):
    """A signal ends the program; no `Exception`, so that nothing catches it as one."""

    def __init__(self, number, status):
        """Takes the signal and, for the message, what was stopped and what is kept."""
        super().__init__("%s: %s" % (STOP_SIGNALS[number], status))
        self.number, self.status = number, 128 + number


@contextlib.contextmanager
def install_handlers(handle):
    """Installs `handle(number, frame)` for all stop signals that are not ignored."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in before.items():
        # A shell has background jobs ignore Ctrl-C, and nohup has SIGHUP ignored.
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _first_handler(handle, may_exit):
    """Calls `handle(number)` for the first signal; a second one ends the process.

    Python calls its handlers between two operations of the main thread, so none is
    called while that waits in TensorFlow, for another machine or a file in a bucket. A
    thread that reads the signals too acts then: if `may_exit()`, it ends the process.

    Only the main thread gets signals: the function does nothing in other threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_handled = threading.Event()

    def receive(number, frame):
        del frame
        if not is_handled.is_set():
            is_handled.set()
            handle(number)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(
        target=_watch_signals, args=(reader, is_handled, may_exit), daemon=True
    )
    thread.start()
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        with install_handlers(receive):
            yield
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(writer)
        thread.join()
        os.close(reader)


def _watch_signals(reader, is_handled, may_exit):
    """Acts where the main thread cannot; see `_first_handler`."""
    first, first_time, is_pending = 0, 0.0, False
    while True:
        if not select.select([reader], [], [], GRACE if is_pending else None)[0]:
            is_pending = False
            if is_handled.is_set():
                continue
            name = STOP_SIGNALS[first]
            if may_exit():
                console.say("%s: ended while waiting for TensorFlow", name)
                _exit(first)
            else:
                console.say("%s: stops after the running step", name)
            continue
        data = os.read(reader, 1)
        if not data:
            return
        number = data[0]
        if number in STOP_SIGNALS:
            if not first:
                first, first_time, is_pending = number, time.monotonic(), True
            elif time.monotonic() - first_time > _REPEAT_SECONDS:
                _exit(number)


def _exit(number):
    sys.stderr.flush()
    os._exit(128 + number)


@contextlib.contextmanager
def exit_on_signal():
    """Exits with one line when a signal or `StoppedBySignal` ends the `with` block."""

    def end(number):
        raise StoppedBySignal(number, "stopped; the same command resumes")

    try:
        with _first_handler(end, lambda: True):
            yield
    except StoppedBySignal as stopped:
        console.say("%s", stopped)
        sys.exit(stopped.status)


class StopRequest:
    """A request to stop training, and the step at which training stopped."""

    number: int | None = None  # of the signal
    step: int | None = None
    has_session: bool = False  # whether a step can be running


@contextlib.contextmanager
def record_signal():
    """Yields a `StopRequest` that records a signal during the `with` block."""
    request = StopRequest()

    def note(number):
        request.number = number

    with _first_handler(note, lambda: not request.has_session):
        yield request


def add_stop_flag():
    """Adds tensors by which all replicas stop after the same step.

    A signal can reach one machine alone, and the others cannot train without it.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        is_asked = tf.placeholder_with_default(0.0, [])
        (mean,) = optimization.mean_of_replicas([is_asked])
        for tensor in (is_asked, mean):
            tf.add_to_collection(_STOP, tensor)


class StopHook(estimator.SessionRunHook):
    """Stops training after the running step, when a signal was recorded.

    The Estimator's own hook then writes a checkpoint.
    """

    def __init__(self, request):
        self._request = request

    def begin(self):
        # The tensors of this machine's first replica.
        self._flag = tf.get_collection(_STOP)[:2]
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session, coord):
        del session, coord
        self._request.has_session = True

    def before_run(self, run_context):
        del run_context
        if not self._flag:
            return None
        is_asked, mean = self._flag
        value = float(self._request.number is not None)
        return estimator.SessionRunArgs(mean, feed_dict={is_asked: value})

    def after_run(self, run_context, run_values):
        request = self._request
        if self._flag:
            if run_values.results == 0:
                return
            # Another machine was asked to stop.
            request.number = request.number or signal.SIGTERM
        if request.number is not None:
            console.say(
                "%s: writing a checkpoint; a second signal ends without it",
                STOP_SIGNALS[request.number],
            )
            run_context.request_stop()

    def end(self, session):
        self._request.step = int(session.run(self._global_step))
