"""Signals that stop a program: a training run writes a checkpoint first.

Schedulers send SIGTERM, or another signal such as SIGUSR1, some time before they take
a machine away; a closed terminal sends SIGHUP. The program prints one line and exits
with the status that shells report, 128 + the number of the signal. A second signal ends
the process at once.
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

# Signals within this number of seconds are one request: some schedulers signal both a
# sweep and its jobs, to which the sweep passes its signal.
_REPEAT_SECONDS = 1.0

# Seconds within which Python handles a signal, unless its main thread is in TensorFlow.
GRACE = 5.0

# The graph collection of this machine's stop flag, and its mean over all machines.
_STOP = "stop"


class StoppedBySignal(BaseException):
    """A signal ends the program. No `Exception`, so that no handler catches it."""

    def __init__(self, number, status):
        """Takes the number of the signal, and the end of the message."""
        super().__init__("%s: %s" % (STOP_SIGNALS[number], status))
        self.number, self.status = number, 128 + number


@contextlib.contextmanager
def install_handlers(handle):
    """Installs `handle(number, frame)` for all stop signals that are not ignored."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in handlers.items():
        # Background jobs of a shell ignore Ctrl-C; nohup makes SIGHUP ignored.
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _handle_first_signal(handle, may_exit):
    """Calls `handle(number)` for the first signal; a second one ends the process.

    Python calls no handler while the main thread waits in TensorFlow, for another
    machine or a file in a bucket. A second thread, which reads the signals too, then
    ends the process if `may_exit()`.

    Only the main thread gets signals: in other threads this does nothing.
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
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        with install_handlers(receive):
            yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        os.close(writer)
        thread.join()
        os.close(reader)


def _watch_signals(reader, is_handled, may_exit):
    """Handles signals while the main thread cannot; see `_handle_first_signal`."""
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
    """Prints one line and exits if a signal or `StoppedBySignal` ends the block."""

    def stop(number):
        raise StoppedBySignal(number, "stopped; the same command resumes")

    try:
        with _handle_first_signal(stop, lambda: True):
            yield
    except StoppedBySignal as stopped:
        console.say("%s", stopped)
        sys.exit(stopped.status)


class StopRequest:
    """A request to stop training, and the step at which training stopped."""

    number: int | None = None  # of the signal
    step: int | None = None
    has_session: bool = False  # whether training steps can be running


@contextlib.contextmanager
def record_signal():
    """Yields a `StopRequest` that records a signal during the `with` block."""
    request = StopRequest()

    def store(number):
        request.number = number

    with _handle_first_signal(store, lambda: not request.has_session):
        yield request


def add_stop_flag():
    """Adds tensors that make all replicas stop after the same step.

    A signal can reach a single machine, without which the others cannot train.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        stop_flag = tf.placeholder_with_default(0.0, [])
        (mean,) = optimization.mean_of_replicas([stop_flag])
        for tensor in (stop_flag, mean):
            tf.add_to_collection(_STOP, tensor)


class StopHook(estimator.SessionRunHook):
    """Stops training after the running step, when a signal was recorded.

    The Estimator's own hook then writes a checkpoint.
    """

    def __init__(self, request):
        self._request = request

    def begin(self):
        # The tensors of this machine's first replica.
        self._stop_tensors = tf.get_collection(_STOP)[:2]
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session, coord):
        del session, coord
        self._request.has_session = True

    def before_run(self, run_context):
        del run_context
        if not self._stop_tensors:
            return None
        stop_flag, mean = self._stop_tensors
        value = float(self._request.number is not None)
        return estimator.SessionRunArgs(mean, feed_dict={stop_flag: value})

    def after_run(self, run_context, run_values):
        request = self._request
        if self._stop_tensors:
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
