"""Disk space: checks before writing, and errors of a full disk."""

import contextlib
import errno
import os
import re
import shutil

import safetensors
import tensorflow.compat.v1 as tf

from errors import UserError


def _error_pattern(*numbers):
    return "|".join(re.escape(os.strerror(number)) for number in numbers)


_NO_SPACE = _error_pattern(errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REASON = re.compile("(%s)|%s" % (_NO_SPACE, _error_pattern(errno.EROFS, errno.EIO)))
# Event files raise `RuntimeError`.
_ERRORS = (tf.errors.OpError, OSError, RuntimeError, safetensors.SafetensorError)


class WriteError(UserError):
    """The disk is full, read-only or broken; the user's input is valid."""


def format_size(count):
    """Formats a number of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return "%.3g %s" % (count, unit)
        count /= 1000
    return "%.3g GB" % count


def free_bytes(path):
    """Free bytes for this user on the disk of a path; the path need not exist."""
    while path and not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path or ".").free


def _find_file(error, reason):
    """The file named by an error, or ""."""
    # `filename2` is the target of a copy.
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(name, str):
        return name
    # TensorFlow: "PATH; REASON", within the stack of a graph.
    match = re.search(r"(\S[^\n;]*); %s" % re.escape(reason), str(error))
    return match.group(1) if match else ""


@contextlib.contextmanager
def explain_errors(folder, need=None):
    """Turns the errors of a full, read-only or broken disk into a `WriteError`.

    The message names the file, or else `folder`; for a full disk also the free bytes
    and `need`, the bytes of the file (None: unknown).
    """
    try:
        yield
    except _ERRORS as error:
        reason = _REASON.search(str(error))
        if reason is None:
            raise
        file = _find_file(error, reason.group())
        message = "%s cannot be written (%s)" % (file or folder, reason.group())
        if not reason.group(1):
            message += ": give a folder that can be written"
            raise WriteError(message) from None
        if need is not None:
            message += ", it needs %s" % format_size(need)
        if "://" not in folder:
            # The file may be in the folder for temporary files.
            path = file if os.path.isabs(file) else folder
            message += ", %s are free there" % format_size(free_bytes(path))
        raise WriteError(
            message + ": existing files are unchanged; make space and give the same "
            "command again"
        ) from None


def check_space(folder, need, what):
    """Raises a `WriteError` if a local folder has less than `need` bytes free.

    The folder need not exist; `what` names the files in the message.
    """
    free = free_bytes(folder)
    if free < need:
        raise WriteError(
            "%s needs %s, and %s are free in %s: make space there and give the same "
            "command again" % (what, format_size(need), format_size(free), folder)
        )
