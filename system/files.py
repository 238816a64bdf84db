"""What all readers and writers of files share: bounded reading, JSON, working folders.

Files come from strangers and from full disks: a small file is a regular one of a
bounded length, or it is refused before it is read.
"""

import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
import socket

import tensorflow.compat.v1 as tf

from errors import UserError
from system import disk

MOST_JSON_BYTES = 1 << 22  # A model's config is a thousandth of that.

_MOST_LEVELS = 32  # of JSON within JSON
_TOO_DEEP = "JSON of more than %d objects or lists within each other" % _MOST_LEVELS
_MOST_DIGITS = 300  # of a whole number in JSON: Python takes long over longer ones


# --- reading --------------------------------------------------------------------


def read(path, most_bytes, remedy):
    """The bytes of a small file.

    Args:
      path: local, or of any file system of TensorFlow's.
      most_bytes: the longest file that is read.
      remedy: what to do about a file that cannot be read, for the message.

    Raises:
      UserError: it is not there, is no regular file, or is longer.
    """
    try:
        # Reading a pipe waits for someone to write, and a device may have no end.
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "folder" if os.path.isdir(path) else "pipe or device"
            raise _unreadable(path, "it is a %s, no file" % kind, remedy)
        length = tf.io.gfile.stat(path).length
        if length > most_bytes:
            raise _unreadable(
                path, "%d bytes, at most %d are read" % (length, most_bytes), remedy
            )
        with tf.io.gfile.GFile(path, "rb") as reader:
            return reader.read()
    except (OSError, tf.errors.OpError) as error:
        raise _unreadable(path, " ".join(str(error).split()), remedy) from None


def _unreadable(path, reason, remedy):
    return UserError("%s cannot be read (%s): %s" % (path, reason, remedy))


def read_json(path, remedy, most_bytes=MOST_JSON_BYTES, schema=None):
    """The JSON object that a small file holds.

    Args:
      path: see `read`.
      remedy: what to do about a file that cannot be used, for the message.
      most_bytes: see `read`.
      schema: what it has to hold, a `schema.Object`; None: any object.

    Returns:
      Dict.

    Raises:
      UserError: the file cannot be read, holds no JSON object, or not what the schema
        says.
    """
    data = read(path, most_bytes, remedy)
    try:
        content = parse_json_object(data)
        if schema is not None:
            schema.check(content)
        return content
    except ValueError as error:
        raise UserError("%s is damaged (%s): %s" % (path, error, remedy)) from None


def parse_json_object(data, finite=False):
    """The JSON object in a text.

    Args:
      data: bytes of UTF-8, or a string.
      finite: whether NaN and infinities are refused; Python writes them, although they
        are not of JSON.

    Returns:
      Dict.

    Raises:
      ValueError: with the reason, where it is no object, is nested without end, names
        an entry twice or has a number beyond all reason.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError("not JSON: %s" % error) from None
    hooks = {"parse_constant": _no_constant, "parse_float": _finite} if finite else {}
    try:
        value = json.loads(
            text, object_pairs_hook=_distinct, parse_int=_whole_number, **hooks
        )
    except json.JSONDecodeError as error:
        raise ValueError("not JSON: %s" % error) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if not _is_shallow(value, _MOST_LEVELS):
        raise ValueError(_TOO_DEEP)
    return value


def _distinct(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError("it has the entry %.80r twice" % twice)
    return content


def _whole_number(text):
    if len(text) > _MOST_DIGITS:
        raise ValueError("it has a number of %d digits" % len(text))
    return int(text)


def _no_constant(name):
    raise ValueError("it holds %s, which is no JSON" % name)


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds %.80s, which is too large" % text)
    return value


def _is_shallow(value, levels):
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return True
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in value)


def digest(path):
    """SHA-256 of a file's bytes, as hexadecimal text."""
    found = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as reader:
        while True:
            block = reader.read(1 << 20)
            if not block:
                return found.hexdigest()
            found.update(block)


# --- writing --------------------------------------------------------------------


def write_whole(path, data):
    """Writes a file so that it is never seen half-written.

    Args:
      path: local, or of any file system of TensorFlow's; a file there is replaced.
      data: bytes, or a string for a file of UTF-8.

    Raises:
      UserError: it cannot be written.
    """
    data = data.encode("utf-8") if isinstance(data, str) else data
    partial = path + ".partial"
    try:
        with disk.explained(os.path.dirname(path), len(data)):
            with tf.io.gfile.GFile(partial, "wb") as writer:
                writer.write(data)
            tf.io.gfile.rename(partial, path, overwrite=True)
    except BaseException as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(partial)
        if isinstance(error, tf.errors.OpError):
            raise UserError(
                "%s cannot be written (%s): see to what is there, or give another "
                "place" % (path, " ".join(str(error).split()))
            ) from None
        raise


_REPLACED = ".replaced"


def place(folder):
    """Where a folder's files lie.

    Args:
      folder: its path.

    Returns:
      The same, but for one that a program was replacing when it was killed: then where
      that had moved it.
    """
    replaced = folder.rstrip("/") + _REPLACED
    if tf.io.gfile.exists(replaced) and not tf.io.gfile.exists(folder):
        return replaced
    return folder


def restore(folder):
    """Moves a folder back, if a program was killed while it replaced it."""
    if place(folder) != folder:
        tf.io.gfile.rename(place(folder), folder)


@contextlib.contextmanager
def replacing(folder):
    """Gives an empty folder to fill, and then puts it in the place of another.

    Args:
      folder: its path, local or of any file system of TensorFlow's. What is there stays
        until the new one is whole.
    """
    restore(folder)
    partial, replaced = folder + ".partial", folder.rstrip("/") + _REPLACED
    for path in (partial, replaced):
        if tf.io.gfile.exists(path):
            tf.io.gfile.rmtree(path)
    tf.io.gfile.makedirs(partial)
    try:
        yield partial
    except BaseException:
        tf.io.gfile.rmtree(partial)
        raise
    # Two steps, since a folder cannot take the place of another in one.
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rename(folder, replaced)
    try:
        tf.io.gfile.rename(partial, folder)
    except BaseException:
        if tf.io.gfile.exists(replaced):
            tf.io.gfile.rename(replaced, folder)
        raise
    if tf.io.gfile.exists(replaced):
        tf.io.gfile.rmtree(replaced)


def working_path(path):
    """Where to write what is to be moved to `path` when it is whole.

    What processes of this machine that are no more have left there is removed, and what
    an earlier process of this one's number has.

    Args:
      path: a local one.

    Returns:
      A path beside it that is this process's own.
    """
    mine = "%s.tmp-%s-" % (path, socket.gethostname())
    for prefix in (mine, path + ".tmp-"):  # The second: earlier versions'.
        for left in glob.glob(glob.escape(prefix) + "*"):
            clear_left_over(left, left[len(prefix) :])
    return "%s%d" % (mine, os.getpid())


def clear_left_over(path, process):
    """Removes a working folder unless another process that runs has made it.

    Args:
      path: the folder.
      process: what stands for the process's number in its name; where it is none, the
        folder is left alone.
    """
    # The digits of other scripts are none of a name that was written here.
    is_number = process.isascii() and process.isdecimal()
    if is_number and not _is_another(int(process)):
        shutil.rmtree(path, ignore_errors=True)


def _is_another(process):
    """Whether a number is that of a running process other than this one."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        pass  # No process's number, or the process of somebody else.
    return True
