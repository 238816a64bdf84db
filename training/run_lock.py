"""Allows one training run at a time in an output directory.

`filelock` locks a file; the operating system releases the lock when the process ends.
A record in the file names the holder, for messages and for file systems whose locks
other hosts do not see. The record of another host is valid until it is deleted.

Object stores such as gs://, and some network file systems, have no locks. There only
the record counts, and is read back to detect runs that start within the same second.
Evaluation and prediction need no lock: they read complete checkpoints and write other
files.
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
from system import files, schema

FILE_NAME = "training.lock"
HELD = "is held by the training run of"  # part of every error message

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
    """The path of a folder's lock file, for `filelock` without file://."""
    return os.path.join(folder, name).removeprefix("file://")


def _own_record():
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    holder = Holder(socket.gethostname(), os.getpid(), since)
    return (json.dumps(holder._asdict()) + "\n").encode()


def read_holder(path) -> Holder | None:
    """The `Holder` in a lock file; None if there is no valid record.

    A `UserError` is raised if the path is a folder, a named pipe or a device.
    """
    files.check_plain_file(path, path)
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
    """Locks a file, see `lock_path`, and writes the record of this process.

    Returns True; False if another process has the lock; None if the file system has no
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
    """Releases and removes the file, if `lock_file` has locked it."""
    lock = _locks.pop(path, None)
    if lock is not None:
        # Before the release: after it, the file may be the next holder's.
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
        remedy = "if that process is not a training run"
    else:
        return
    _refuse(path, holder, "%s, delete %s; else " % (remedy, path))


def take(output_dir):
    """Locks an existing folder for the training run of this process.

    Raises:
      UserError: another training run holds it, or the lock file is not a plain file.
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
