"""What all readers and writers of files share: bounded reading, JSON, working folders.

Files come from strangers and from full disks: a small file is a regular one of a
bounded length, or it is refused before it is read.
"""

import contextlib
import fnmatch
import glob
import hashlib
import json
import math
import os
import shutil
import socket

import tensorflow.compat.v1 as tf

from errors import UserError, printable
from system import disk

MOST_JSON_BYTES = 1 << 22  # A model's config is a thousandth of that.

_MOST_LEVELS = 32  # of JSON within JSON
_READ_REMEDY = "ask its owner for the right to read it, or give another"
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
        raise _unreadable(path, error, remedy) from None


def _unreadable(path, reason, remedy):
    reason = " ".join(str(reason).split()).replace(path + "; ", "")
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
    """SHA-256 of a file's bytes, as hexadecimal text.

    Raises:
      UserError: the file cannot be read.
    """
    found = hashlib.sha256()
    try:
        with tf.io.gfile.GFile(path, "rb") as reader:
            while block := reader.read(1 << 20):
                found.update(block)
    except tf.errors.OpError as error:
        raise _unreadable(path, error, _READ_REMEDY) from None
    return found.hexdigest()


# --- writing --------------------------------------------------------------------

_REPLACED = ".replaced"


def write_whole(path, data):
    """Writes a file atomically, see `atomic_file`.

    Args:
      path: see `atomic_file`.
      data: bytes, or a string for a file of UTF-8.
    """
    data = data.encode("utf-8") if isinstance(data, str) else data
    with (
        atomic_file(path, len(data)) as partial,
        tf.io.gfile.GFile(partial, "wb") as writer,
    ):
        writer.write(data)


@contextlib.contextmanager
def atomic_file(path, need=None, overwrite=True):
    """Gives a path to write a file to, which then replaces the file at `path`.

    After an error, or a kill, `path` is as it was.

    Args:
      path: local, or of any file system of TensorFlow's. A link is followed.
      need: bytes of the file, where they are known.
      overwrite: whether a file that appeared at `path` meanwhile is replaced.

    Raises:
      UserError: the file cannot be written, or `path` is a folder or a device.
    """
    target = _real_path(path)
    if os.path.exists(target) and not os.path.isfile(target):
        kind = "a folder" if os.path.isdir(target) else "a pipe or device"
        raise _not_writable(path, "it is " + kind)
    partial = _working_path(target)
    with _writing(path, target, need):
        try:
            yield partial
            if not overwrite and tf.io.gfile.exists(target):
                raise _not_writable(path, "it is there already")
            tf.io.gfile.rename(partial, target, overwrite=True)
        finally:
            remove(partial)


@contextlib.contextmanager
def atomic_folder(folder, need=None, is_own=lambda names: False):
    """Gives an empty folder to fill, which then replaces `folder`.

    After an error, or a kill, `folder` is as it was; `stored_at` finds it.

    Args:
      folder: its path, local or of any file system of TensorFlow's. A link is followed.
      need: bytes of the files, where they are known.
      is_own: see `check_replaceable`.

    Raises:
      UserError: the folder cannot be written, or see `check_replaceable`.
    """
    check_replaceable(folder, is_own)
    restore(folder)
    with working_folder(folder, need) as partial:
        yield partial
        check_replaceable(folder, is_own)
        target = _real_path(folder)
        replaced = target + _REPLACED
        # Two steps: a folder cannot replace another one in a single step.
        if tf.io.gfile.exists(target):
            check_replaceable(replaced, is_own)
            remove(replaced)
            tf.io.gfile.rename(target, replaced)
        try:
            tf.io.gfile.rename(partial, target)
        except BaseException:
            if tf.io.gfile.exists(replaced):
                tf.io.gfile.rename(replaced, target)
            raise
        remove(replaced)


@contextlib.contextmanager
def working_folder(path, need=None):
    """Gives an empty folder beside `path`, which is removed at the end.

    Args:
      path: of what is written in the folder, before it is moved. A link is followed.
      need: bytes of the files, where they are known.

    Raises:
      UserError: the folder cannot be written.
    """
    target = _real_path(path)
    partial = _working_path(target)
    try:
        tf.io.gfile.makedirs(partial)
    except (OSError, tf.errors.OpError) as error:
        raise _not_writable(path, error) from None
    with _writing(path, target, need):
        try:
            yield partial
        finally:
            remove(partial)


def check_replaceable(folder, is_own=lambda names: False):
    """Refuses to replace a folder that this program has not written.

    Args:
      folder: its path; there may be none.
      is_own: function of the set of names in the folder, whether this program has
        written it. An empty folder can always be replaced.

    Raises:
      UserError: it is a file, has other content, or cannot be moved.
    """
    there = _real_path(stored_at(folder))
    if not tf.io.gfile.exists(there):
        return
    if not tf.io.gfile.isdir(there):
        raise UserError(
            "%s is a file, and a folder of this name is written: move it away" % folder
        )
    names = {os.path.basename(path) for path in list_folder(there)}
    if names and not is_own(names):
        raise UserError(
            "%s holds %s, so this program has not written it and does not replace it: "
            "move it away, or give another place"
            % (folder, printable(", ".join(sorted(names)), 100))
        )
    parent = os.path.dirname(there)
    if "://" not in there and (
        os.path.ismount(there) or not os.access(parent, os.W_OK)
    ):
        raise _not_writable(folder, "%s cannot be replaced in %s" % (there, parent))


def stored_at(folder):
    """The path of a folder's files.

    Args:
      folder: its path.

    Returns:
      The same; or, where a program was killed while it replaced the folder, the path
      that it had moved the folder to.
    """
    target = _real_path(folder)
    if tf.io.gfile.exists(target + _REPLACED) and not tf.io.gfile.exists(target):
        return target + _REPLACED
    return folder


def restore(folder):
    """Moves a folder back, if a program was killed while it replaced it."""
    if stored_at(folder) != folder:
        tf.io.gfile.rename(stored_at(folder), _real_path(folder))


def list_folder(folder, pattern="*"):
    """The files and folders in a folder.

    Args:
      folder: its path, in which no character stands for others.
      pattern: of their names, see `fnmatch`.

    Returns:
      Sorted list of paths; empty if there is no such folder.

    Raises:
      UserError: the folder cannot be read.
    """
    try:
        # TensorFlow's takes names of UTF-8 alone.
        is_local = "://" not in folder
        names = os.listdir(folder or ".") if is_local else tf.io.gfile.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError):
        return []
    except (OSError, tf.errors.OpError) as error:
        raise _unreadable(folder, error, _READ_REMEDY) from None
    names = sorted(name.rstrip("/") for name in names)
    return [os.path.join(folder, name) for name in fnmatch.filter(names, pattern)]


def list_with_prefix(prefix, pattern):
    """The files and folders whose path is a prefix and then matches a pattern.

    See `list_folder`; `prefix` may be the path of a checkpoint.
    """
    folder, name = os.path.split(prefix)
    return list_folder(folder, glob.escape(name) + pattern)


def _real_path(path):
    path = path.rstrip("/") or path
    return path if "://" in path else os.path.realpath(path)


@contextlib.contextmanager
def _writing(path, target, need):
    """Turns errors about files at `target` and beside it into a `UserError`."""
    try:
        with disk.explain_errors(target, need):
            yield
    except (OSError, tf.errors.OpError) as error:
        if target not in str(error):
            raise
        raise _not_writable(path, error) from None


def _not_writable(path, reason):
    return UserError(
        "%s cannot be written (%s): give a place that can be written"
        % (path, " ".join(str(reason).split()))
    )


def _working_path(path):
    """A path beside another one that is this process's own.

    What earlier processes of this machine have left there is removed.
    """
    prefix = "%s.tmp-%s-" % (path, socket.gethostname())
    for left in list_with_prefix(prefix, "*"):
        process = left[len(prefix) :]
        # isdecimal alone takes the digits of other scripts.
        if process.isascii() and process.isdecimal() and not is_running(int(process)):
            remove(left)
    return "%s%d" % (prefix, os.getpid())


def remove(path):
    """Removes a file, or a folder with its content; of a link never the target."""
    if "://" not in path:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.remove(path)
    elif tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    elif tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)


def is_running(process):
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
