"""Reads the tensors of a file that PyTorch saved, without PyTorch and without code.

Such a file (`torch.save` since PyTorch 1.6) is a zip archive of `data.pkl`, a pickle of
a dict from name to tensor, and one entry `data/KEY` for each storage. A pickle is a
program for a small stack machine, and Python's own `pickle` lets it call anything. Here
it runs on a machine of this module, which calls nothing: the few functions that saved
tensors name are stand-ins, any other name or instruction ends the reading.
"""

import io
import math
import os
import pickletools
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from errors import UserError

_MOST_PICKLE_BYTES = 1 << 20  # 200 bytes for each tensor are usual
_MOST_DIMENSIONS = 8
# Storage class -> dtype of its bytes. bfloat16 is the upper half of a float32.
_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
}


class _Name(NamedTuple):
    """A class or function that a pickle names; never looked up."""

    module: str
    name: str


_ORDERED_DICT = _Name("collections", "OrderedDict")
_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_KNOWN_NAMES = {
    _ORDERED_DICT,
    _TENSOR,
    _PARAMETER,
    *(_Name("torch", name) for name in _STORAGES),
}


class _Storage(NamedTuple):
    kind: str  # one of _STORAGES
    key: str
    length: int  # elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


class _Refused(Exception):
    """What is wrong with a file, for the message."""


def read(path):
    """Reads a dict of tensors.

    Args:
      path: a file that `torch.save` wrote.

    Returns:
      Dict from name to float32 array.

    Raises:
      UserError: it is of another format, is damaged, or holds anything but tensors of
        floating point numbers under their names.
    """
    try:
        with open(path, "rb") as reader:
            if reader.read(4) != b"PK\x03\x04":
                raise UserError(
                    "%s is no zip archive, as PyTorch has written since 1.6. If it is "
                    "older, load it there (weights_only=True) and save it again, best "
                    "as safetensors." % path
                )
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, os.path.getsize(path))
    except _Refused as error:
        reason = str(error)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        reason = "damaged: %s" % error
    except (OSError, RuntimeError) as error:  # The second: encrypted.
        raise UserError("%s cannot be read: %s." % (path, error)) from None
    raise UserError(
        "%s is not read: %s. Fetch it anew, or save the adapter as safetensors."
        % (path, reason)
    )


def _read_archive(archive, file_length):
    entries = {info.filename: info for info in archive.infolist()}
    # PyTorch does not compress, so that the file's length bounds what is read.
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise _Refused("it is compressed")
    if sum(info.file_size for info in archive.infolist()) > file_length:
        raise _Refused("its entries claim to be longer than the file")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise _Refused("it holds no FOLDER/data.pkl")
    folder = pickles[0].split("/")[0]

    def content(name, length=None):
        info = entries.get("%s/%s" % (folder, name))
        if info is None:
            raise _Refused("it lacks %s" % ascii(name))
        if length is not None and info.file_size != length:
            raise _Refused(
                "%s has %d bytes, not %d" % (ascii(name), info.file_size, length)
            )
        return archive.read(info)

    if folder + "/byteorder" in entries and content("byteorder", 6) != b"little":
        raise _Refused("its numbers are not little-endian")
    if entries[pickles[0]].file_size > _MOST_PICKLE_BYTES:
        raise _Refused("data.pkl has more than %d bytes" % _MOST_PICKLE_BYTES)
    found = _Machine(content("data.pkl")).run()
    if not isinstance(found, dict):
        raise _Refused("it holds no dict")
    for name, tensor in found.items():
        if not isinstance(tensor, _Tensor):
            raise _Refused("%s is no tensor" % ascii(name))
    if sum(math.prod(tensor.shape) for tensor in found.values()) > file_length:
        raise _Refused("its tensors are longer than the file")
    tensors, storages = {}, {}
    for name, tensor in found.items():
        storage = tensor.storage
        if storage not in storages:
            dtype = _STORAGES[storage.kind]
            data = content("data/" + storage.key, storage.length * dtype.itemsize)
            storages[storage] = np.frombuffer(data, dtype)
        tensors[name] = _as_float32(tensor, storages[storage])
    return tensors


def _as_float32(tensor, values):
    """The array of a tensor, whose storage holds the 1-D `values`."""
    strided = np.lib.stride_tricks.as_strided(
        values[tensor.offset :],
        tensor.shape,
        [stride * values.itemsize for stride in tensor.strides],
        writeable=False,
    )
    if tensor.storage.kind == "BFloat16Storage":
        return (strided.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return strided.astype(np.float32)


class _Machine:
    """Runs the instructions of a pickle that a dict of tensors consists of."""

    def __init__(self, data):
        self._data = data
        self._stack = []
        self._marks = []  # lengths of the stack
        self._memo = {}

    def run(self):
        """What the pickle makes."""
        instructions = pickletools.genops(io.BytesIO(self._data))
        try:
            for code, argument, _ in instructions:
                if code.name == "STOP":
                    break
                method = getattr(self, "_do_" + code.name.lower(), None)
                if method is not None:
                    method(argument)
                elif code.name in _CONSTANTS:
                    self._stack.append(_CONSTANTS[code.name])
                elif code.name in _LITERALS:
                    self._stack.append(argument)
                elif code.name not in ("PROTO", "FRAME"):
                    raise _Refused("its pickle has the instruction %s" % code.name)
            return self._stack.pop()
        except (IndexError, KeyError, ValueError, OverflowError) as error:
            raise _Refused("its pickle is damaged (%s)" % error) from None

    def _to_mark(self):
        start = self._marks.pop()
        values = self._stack[start:]
        if start > len(self._stack):
            raise IndexError("stack")
        del self._stack[start:]
        return values

    def _do_mark(self, _):
        self._marks.append(len(self._stack))

    def _do_empty_dict(self, _):
        self._stack.append({})

    def _do_tuple(self, _):
        self._stack.append(tuple(self._to_mark()))

    def _do_tuple1(self, _):
        self._stack.append((self._stack.pop(),))

    def _do_tuple2(self, _):
        last = self._stack.pop()
        self._stack.append((self._stack.pop(), last))

    def _do_tuple3(self, _):
        last, middle = self._stack.pop(), self._stack.pop()
        self._stack.append((self._stack.pop(), middle, last))

    def _do_binput(self, index):
        self._memo[index] = self._stack[-1]

    _do_long_binput = _do_binput

    def _do_memoize(self, _):
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_binget(self, index):
        self._stack.append(self._memo[index])

    _do_long_binget = _do_binget

    def _do_setitem(self, _):
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _do_setitems(self, _):
        self._set(self._to_mark())

    def _set(self, items):
        target = self._stack[-1]
        keys = items[::2]
        if not isinstance(target, dict) or not all(isinstance(k, str) for k in keys):
            raise _Refused("its pickle holds something else than names and tensors")
        if len(items) % 2 or any(key in target for key in keys):
            raise _Refused("its pickle has a name without or with two values")
        target.update(zip(keys, items[1::2]))

    def _do_global(self, argument):
        self._name(*argument.split(" ", 1))

    def _do_stack_global(self, _):
        name, module = self._stack.pop(), self._stack.pop()
        self._name(module, name)

    def _name(self, module, name):
        # Whatever it names, it is compared and printed, and not imported.
        if not isinstance(module, str) or not isinstance(name, str):
            raise _Refused("its pickle is damaged (a name is no text)")
        if _Name(module, name) not in _KNOWN_NAMES:
            raise _Refused(
                "its pickle asks for %s, which no tensor needs and which was not run"
                % ascii("%s.%s" % (module, name))[:100]
            )
        self._stack.append(_Name(module, name))

    def _do_binpersid(self, _):
        found = self._stack.pop()
        if not isinstance(found, tuple) or len(found) != 5 or found[0] != "storage":
            raise _Refused("its pickle refers to something else than a storage")
        _, kind, key, _, length = found
        if (
            not isinstance(kind, _Name)
            or kind.name not in _STORAGES
            or not isinstance(key, str)
            or not _is_count(length)
        ):
            raise _Refused("a storage is damaged or holds no floating point numbers")
        self._stack.append(_Storage(kind.name, key, length))

    def _do_build(self, _):
        # Of an OrderedDict that is a state_dict: versions of PyTorch's modules.
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise _Refused("its pickle sets the state of something else than a dict")

    def _do_reduce(self, _):
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _Refused("its pickle is damaged (nothing to call)")
        if function == _ORDERED_DICT and not arguments:
            self._stack.append({})
        elif function == _TENSOR and len(arguments) in (6, 7):
            self._stack.append(_checked_tensor(*arguments[:4]))
        elif function == _PARAMETER and isinstance(arguments[0], _Tensor):
            self._stack.append(arguments[0])
        else:
            raise _Refused("its pickle calls %s otherwise than a tensor" % (function,))


_CONSTANTS: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _checked_tensor(storage, offset, shape, strides):
    """A `_Tensor` all of whose elements lie in its storage."""
    if (
        not isinstance(storage, _Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or not len(shape) == len(strides) <= _MOST_DIMENSIONS
        or not all(map(_is_count, (offset, *shape, *strides)))
    ):
        raise _Refused("a tensor is damaged")
    size = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    if size and (last >= storage.length or size > storage.length):
        raise _Refused("a tensor reaches beyond its storage")
    if not size:
        raise _Refused("a tensor is empty")
    return _Tensor(storage, offset, shape, strides)
