"""Lets one training at a time write into an output directory.

The file says which process holds the folder, so that one left behind is known: it is
taken over where the process is of this host and gone. Evaluation and prediction beside
a training need no lock: they read whole checkpoints and write files of their own.

An object store, such as gs://, has no locks of its own: two trainings that start in the
same second are told apart there only by what is read back after writing.
"""

import contextlib
import fcntl
import json
import os
import socket
import time

import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import text_lines

FILE_NAME = "training.lock"

# A lock is far smaller; what is larger is none.
_MOST_BYTES = 10000


def _started(process):
    """What tells a process from others of its number; None where it is gone."""
    try:
        with open("/proc/%d/stat" % process) as reader:
            # The name, in brackets, can hold anything.
            fields = reader.read().rpartition(")")[2].split()
        with open("/proc/sys/kernel/random/boot_id") as reader:
            boot = reader.read().strip()
    except OSError:
        return None
    # One that has ended stays listed until its parent asks for its status.
    return None if fields[0] in "ZX" else "%s %s" % (boot, fields[19])


def _own():
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
    }


def _lives(holder):
    """Whether a process of this host is there still."""
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It is another user's.
    return _started(holder["process"]) == holder["started"]


def _parse(text):
    """The holder that a lock names, a dict; None where it names none."""
    try:
        holder = json.loads(text)
        process, since = holder["process"], holder["since"]
        is_whole = isinstance(holder["host"], str) and isinstance(since, str)
        if is_whole and isinstance(process, int) and 0 < process < 2**31:
            return {**holder, "started": holder.get("started")}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # Empty, as one that a full disk left, or no lock.
    return None


def _check_free(path, text):
    """Refuses a folder that another process holds."""
    holder = _parse(text)
    own = _own()
    if holder is None or all(holder[key] == own[key] for key in own):
        return
    is_here = holder["host"] == own["host"]
    if is_here and not _lives(holder):
        return
    remedy = "wait for its end, or give another --output_dir"
    if not is_here:
        remedy = (
            "this host cannot see whether it still runs: if it does not, delete %s; "
            "else %s" % (path, remedy)
        )
    raise UserError(
        "--output_dir=%s is held by the training of process %d on host %.200s since "
        "%.40s: %s"
        % (
            os.path.dirname(path),
            holder["process"],
            holder["host"],
            holder["since"],
            remedy,
        )
    )


def _read(path):
    text_lines.check_plain_file(path, path)
    if not tf.io.gfile.exists(path):
        return ""
    with tf.io.gfile.GFile(path, "rb") as reader:
        return reader.read(_MOST_BYTES)


def take(output_dir):
    """Takes the folder for the training of this process, until `release`.

    Args:
      output_dir: the run's folder, which exists.

    Raises:
      UserError: another training holds it, or the lock is no plain file.
      OSError, tf.errors.OpError: the lock cannot be written.
    """
    path = os.path.join(output_dir, FILE_NAME)
    text = json.dumps({**_own(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}) + "\n"
    if "://" in path:
        _check_free(path, _read(path))
        with tf.io.gfile.GFile(path, "w") as writer:
            writer.write(text)
        _check_free(path, _read(path))
        return
    text_lines.check_plain_file(path, path)
    with open(path, "a+b") as lock:
        # So that of two that find a dead one's lock only one takes it over.
        with contextlib.suppress(OSError):  # Some file systems have no such thing.
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        _check_free(path, lock.read(_MOST_BYTES))
        lock.truncate(0)
        lock.write(text.encode("utf-8"))


def release(output_dir):
    """Gives the folder free, if this process holds it."""
    path = os.path.join(output_dir, FILE_NAME)
    with contextlib.suppress(OSError, tf.errors.OpError, UserError):
        holder, own = _parse(_read(path)), _own()
        if holder is not None and all(holder[key] == own[key] for key in own):
            tf.io.gfile.remove(path)
