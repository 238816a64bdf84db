"""Files: bounded reading, JSON, atomic writing.

Paths are local, or in any file system of `tf.io.gfile`.
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

MAX_JSON_BYTES = 1 << 22

_MAX_LEVELS = 32  # of nested objects and lists
_READ_REMEDY = "ask its owner for the right to read it, or give another"
_TOO_DEEP = "JSON of more than %d nested objects or lists" % _MAX_LEVELS
_MAX_DIGITS = 300  # of an integer in JSON; parsing takes quadratic time


def read(path, max_bytes, remedy):
    """Reads a file of at most `max_bytes`; returns bytes.

    Raises:
      UserError: the file is missing, longer, or no regular file; it ends with `remedy`.
    """
    try:
        check_plain_file(path, path, remedy)
        length = tf.io.gfile.stat(path).length
        if length > max_bytes:
            raise unreadable(
                path, "%d bytes, at most %d are read" % (length, max_bytes), remedy
            )
        with tf.io.gfile.GFile(path, "rb") as reader:
            return reader.read()
    except (OSError, tf.errors.OpError) as error:
        raise unreadable(path, error, remedy) from None


def _special_type(path):
    """The type of a local path other than a regular file; None for all other paths."""
    if not os.path.exists(path) or os.path.isfile(path):
        return None
    return "folder" if os.path.isdir(path) else "pipe or device"


def check_plain_file(path, name, remedy="give a file"):
    """Refuses a local folder, named pipe or device, which reading might block on.

    Missing files and files in a bucket pass. `name` is for the message.
    """
    if type_name := _special_type(path):
        raise unreadable(name, "it is a %s, not a plain file" % type_name, remedy)


def unreadable(name, reason, remedy="give a file that can be read"):
    """A `UserError`: a file cannot be read, for a text or an error as the reason."""
    reason = " ".join(str(reason).split()).replace(name + "; ", "")
    return UserError("%s cannot be read (%s): %s" % (name, reason, remedy))


def read_json(path, remedy, max_bytes=MAX_JSON_BYTES, schema=None):
    """Reads a JSON object, a dict, and checks it against a `schema.Object`, if any.

    Raises:
      UserError: the file cannot be read, or has other content; it ends with `remedy`.
    """
    data = read(path, max_bytes, remedy)
    try:
        content = parse_json_object(data)
        if schema is not None:
            schema.check(content)
        return content
    except ValueError as error:
        raise UserError("%s is damaged (%s): %s" % (path, error, remedy)) from None


def read_json_if_there(path, remedy, schema=None):
    """Like `read_json`; None if there is no file."""
    return read_json(path, remedy, schema=schema) if tf.io.gfile.exists(path) else None


def format_json(content):
    """A dict or list as the text of a JSON file."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def parse_json_object(data, finite=False):
    """Parses a JSON object, a dict, from a string or from bytes of UTF-8.

    `finite`: whether to refuse NaN and infinities, which Python writes but JSON lacks.

    Raises:
      ValueError: with the reason, also for duplicate names, deep nesting and huge
        integers.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError("not JSON: %s" % error) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_reject_duplicates,
            parse_int=_parse_int,
            parse_constant=_parse_finite if finite else None,
            parse_float=_parse_finite if finite else None,
        )
    except json.JSONDecodeError as error:
        raise ValueError("not JSON: %s" % error) from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if not _is_nested_at_most(value, _MAX_LEVELS):
        raise ValueError(_TOO_DEEP)
    return value


def _reject_duplicates(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError("it has the entry %.80r twice" % duplicate)
    return content


def _parse_int(text):
    if len(text) > _MAX_DIGITS:
        raise ValueError("it has a number of %d digits" % len(text))
    return int(text)


def _parse_finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds %.80s, which is too large, or not JSON" % text)
    return value


def _is_nested_at_most(value, levels):
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return True
    return levels > 0 and all(_is_nested_at_most(each, levels - 1) for each in value)


def digest(path):
    """SHA-256 of a file in hexadecimal; raises a `UserError` if it cannot be read."""
    sha256 = hashlib.sha256()
    try:
        with tf.io.gfile.GFile(path, "rb") as reader:
            while block := reader.read(1 << 20):
                sha256.update(block)
    except tf.errors.OpError as error:
        raise unreadable(path, error, _READ_REMEDY) from None
    return sha256.hexdigest()


_REPLACED = ".replaced"


def write_whole(path, data):
    """Writes bytes, or a string in UTF-8, atomically, see `atomic_file`."""
    data = data.encode("utf-8") if isinstance(data, str) else data
    with (
        atomic_file(path, len(data)) as partial,
        tf.io.gfile.GFile(partial, "wb") as writer,
    ):
        writer.write(data)


@contextlib.contextmanager
def atomic_file(path, need=None, overwrite=True):
    """Yields a temporary path; the file written there replaces `path` at the end.

    After an error or a kill, `path` is unchanged; links are followed. `need` is the
    file's size in bytes, None: unknown. `overwrite`: whether to replace a file that
    appears at `path` meanwhile.

    Raises:
      UserError: the file cannot be written, or `path` is a folder or a device.
    """
    target = _real_path(path)
    if type_name := _special_type(target):
        raise _not_writable(path, "it is a " + type_name)
    with _temporary_path(path, target, need) as partial:
        yield partial
        if not overwrite and tf.io.gfile.exists(target):
            raise _not_writable(path, "it exists")
        tf.io.gfile.rename(partial, target, overwrite=True)


@contextlib.contextmanager
def atomic_folder(folder, need=None, is_own=lambda names: False):
    """Yields an empty folder to fill, which replaces `folder` at the end.

    After an error or a kill, `folder` is unchanged, but see `find_stored_folder`;
    links are followed. `need` is the size of the files in bytes, None: unknown.
    `check_replaceable`, with `is_own`, is called first.

    Raises:
      UserError: the folder cannot be written or replaced.
    """
    check_replaceable(folder, is_own)
    if (stored := find_stored_folder(folder)) != folder:
        tf.io.gfile.rename(stored, _real_path(folder))
    with working_folder(folder, need) as partial:
        yield partial
        check_replaceable(folder, is_own)
        target = _real_path(folder)
        replaced = target + _REPLACED
        # A rename cannot replace a folder that is not empty.
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
    """Yields an empty folder beside `path`, links followed; removes it at the end.

    Raises:
      UserError: the folder, or its content of `need` bytes, cannot be written.
    """
    with _temporary_path(path, _real_path(path), need) as partial:
        try:
            tf.io.gfile.makedirs(partial)
        except (OSError, tf.errors.OpError) as error:
            raise _not_writable(path, error) from None
        yield partial


def check_replaceable(folder, is_own=lambda names: False):
    """Refuses to replace a folder with content of other programs.

    `is_own`: function of the set of names in the folder, whether this program wrote
    it. An empty or missing folder can always be replaced.

    Raises:
      UserError: the folder is a file, has other content, or cannot be moved.
    """
    path = _real_path(find_stored_folder(folder))
    if not tf.io.gfile.exists(path):
        return
    if not tf.io.gfile.isdir(path):
        raise UserError(
            "%s is a file, and a folder of this name is written: move it away" % folder
        )
    names = {os.path.basename(each) for each in list_folder(path)}
    if names and not is_own(names):
        raise UserError(
            "%s holds %s, so this program has not written it and does not replace it: "
            "move it away, or give another path"
            % (folder, printable(", ".join(sorted(names)), 100))
        )
    parent = os.path.dirname(path)
    if "://" not in path and (os.path.ismount(path) or not os.access(parent, os.W_OK)):
        raise _not_writable(folder, "%s cannot be replaced in %s" % (path, parent))


def find_stored_folder(folder):
    """The path of a folder's content, which an interrupted replacement has moved."""
    target = _real_path(folder)
    if tf.io.gfile.exists(target + _REPLACED) and not tf.io.gfile.exists(target):
        return target + _REPLACED
    return folder


def list_folder(folder, pattern="*"):
    """Sorted paths in a folder by a pattern of `fnmatch`; [] for a missing folder.

    Raises:
      UserError: the folder cannot be read.
    """
    try:
        # TensorFlow fails on names that are not UTF-8.
        is_local = "://" not in folder
        names = os.listdir(folder or ".") if is_local else tf.io.gfile.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError):
        return []
    except (OSError, tf.errors.OpError) as error:
        raise unreadable(folder, error, _READ_REMEDY) from None
    names = sorted(name.rstrip("/") for name in names)
    return [os.path.join(folder, name) for name in fnmatch.filter(names, pattern)]


def list_with_prefix(prefix, pattern):
    """Lists paths that begin with a literal prefix and end with a pattern's match."""
    folder, name = os.path.split(prefix)
    return list_folder(folder, glob.escape(name) + pattern)


def _real_path(path):
    path = path.rstrip("/") or path
    return path if "://" in path else os.path.realpath(path)


@contextlib.contextmanager
def _temporary_path(path, target, need):
    """Yields this process's temporary path beside the target; removes it at the end.

    Temporary paths of ended processes are removed first. Errors that name the target or
    its temporary path become a `UserError`.
    """
    prefix = "%s.tmp-%s-" % (target, socket.gethostname())
    for stale in list_with_prefix(prefix, "*"):
        process = stale[len(prefix) :]
        # `isdecimal` alone accepts digits of all scripts.
        if process.isascii() and process.isdecimal() and not is_running(int(process)):
            remove(stale)
    partial = "%s%d" % (prefix, os.getpid())
    try:
        with disk.explain_errors(target, need):
            yield partial
    except (OSError, tf.errors.OpError) as error:
        if target not in str(error):
            raise
        raise _not_writable(path, error) from None
    finally:
        remove(partial)


def _not_writable(path, reason):
    return UserError(
        "%s cannot be written (%s): give a path that can be written"
        % (path, " ".join(str(reason).split()))
    )


def remove(path):
    """Removes a file, a folder with its content, or a link but not its target."""
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
    """Whether another process with this id runs."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        pass  # Not a process id, or a process of another user.
    return True
