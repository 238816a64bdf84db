"""Allows one training run at a time in an output directory.

`filelock` locks the file: the operating system releases that lock when its process
ends. The file's content names the holder, for messages and for places whose locks other
hosts do not see. A record of another host is respected until somebody deletes it.

Object stores such as gs://, and some network file systems, have no locks. There the
record alone counts, and two runs that start within the same second are only detected by
reading it back. Evaluation and prediction need no lock: they read complete checkpoints
and write other files.
"""

import contextlib
import errno
import json
import os
import socket
import time
from typing import NamedTuple

import filelock
import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import text_lines
from system import files, schema

FILE_NAME = "training.lock"
HELD = "is held by the training run of"  # Part of every refusal.

_MAX_BYTES = 10000  # of a record
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)

_PROCESS = schema.integer(1, 2**31 - 1)
_RECORD = schema.Object(
    {"host": schema.LINE, "process": _PROCESS, "since": schema.LINE}, others=schema.ANY
)

# Locks of this process, by path.
_locks: dict[str, filelock.FileLock] = {}


class Holder(NamedTuple):
    """The process that holds a lock; its fields are the entries of the record."""

    host: str
    process: int
    since: str

    def __str__(self):
        text = "process %d on host %.200s since %.40s"
        return text % (self.process, self.host, self.since)


def lock_path(folder, name=FILE_NAME):
    """The path of a folder's lock file; file:// is left out, for `filelock`."""
    return os.path.join(folder, name).removeprefix("file://")


def _own_record():
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    holder = Holder(socket.gethostname(), os.getpid(), since)
    return (json.dumps(holder._asdict()) + "\n").encode()


def read_holder(path) -> Holder | None:
    """The `Holder` that a lock file names; None where it names none.

    A `UserError` is raised if it is a folder, a named pipe or a device.
    """
    text_lines.check_plain_file(path, path)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as reader:
        text = reader.read(_MAX_BYTES)
    try:
        record = files.parse_json_object(text)
        _RECORD.check(record)
    except ValueError:
        return None  # Empty, as a full disk leaves it, or another file.
    return Holder(*(record[name] for name in Holder._fields))


def lock_file(path) -> bool | None:
    """Locks a file, see `lock_path`, for this process and writes a record of it.

    Returns True; False where another process has the lock; None where there are no
    locks. An `OSError` is raised if the file cannot be written.
    """
    if path in _locks:
        return True
    if "://" in path:
        return None
    lock = filelock.FileLock(
        path,
        blocking=False,
        fallback_to_soft=False,
        on_acquired=lambda descriptor: os.write(descriptor, _own_record()),
    )
    try:
        lock.acquire()
    except filelock.Timeout:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    _locks[path] = lock
    return True


def unlock_file(path):
    """Releases and removes a file that `lock_file` has locked, if it has."""
    lock = _locks.pop(path, None)
    if lock is not None:
        # Removed before the release, so that the next holder's file is not removed.
        with contextlib.suppress(OSError):
            os.remove(path)
        lock.release()


def _refuse(path, holder, remedy=""):
    raise UserError(
        "`output_dir`=%s %s %s: %swait for its end, or give another `output_dir`"
        % (os.path.dirname(path), HELD, holder or "another process", remedy)
    )


def _check_record(path, has_locks):
    """Refuses the record of another host, and without locks of a running process."""
    holder = read_holder(path)
    if holder is None:
        return
    if holder.host != socket.gethostname():
        remedy = "this host cannot see whether it still runs: if it does not"
    elif not has_locks and files.is_running(holder.process):
        remedy = "if that is no training run"
    else:
        return
    _refuse(path, holder, "%s, delete %s; else " % (remedy, path))


def take(output_dir):
    """Reserves an existing folder for the training run of this process.

    Raises:
      UserError: another training run holds it, or the lock file is no plain file.
      OSError, tf.errors.OpError: the lock file cannot be written.
    """
    path = lock_path(output_dir)
    _check_record(path, "://" not in path)
    is_locked = lock_file(path)
    if is_locked is False:
        _refuse(path, read_holder(path))
    if is_locked is None:
        _check_record(path, False)
        with tf.io.gfile.GFile(path, "wb") as writer:
            writer.write(_own_record())
        _check_record(path, False)


def release(output_dir):
    """Releases the folder, if this process holds it."""
    path = lock_path(output_dir)
    if path in _locks:
        unlock_file(path)
        return
    with contextlib.suppress(OSError, tf.errors.OpError, UserError):
        holder = read_holder(path)
        if holder and holder[:2] == (socket.gethostname(), os.getpid()):
            tf.io.gfile.remove(path)
