"""Reads the tensors of a file that PyTorch saved, without PyTorch and without code.

Such a file (`torch.save` since PyTorch 1.6) is a zip archive of `data.pkl`, a pickle of
a dict from name to tensor, and one entry `data/KEY` for each storage. Before, it was a
row of pickles (a magic number, a version, facts of the machine, the dict, the storages'
keys) and then the storages, each after its length.

A pickle is a program for a small stack machine, and Python's own `pickle` lets it call
anything. Here it runs on a machine of this module, which calls nothing: the few
functions that saved tensors name are stand-ins, any other name or instruction ends the
reading.
"""

import contextlib
import io
import math
import os
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from errors import UserError

_MOST_PICKLE_BYTES = 1 << 20  # 200 bytes for each tensor are usual
_MOST_DIMENSIONS = 8
_ZIP_BEGIN, _PICKLE_BEGIN = b"PK\x03\x04", b"\x80\x02"
# The first two pickles of a file of before 1.6.
_MAGIC_NUMBER, _PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
_LENGTH_BYTES = 8


class _Kind(NamedTuple):
    type: str  # as safetensors has it
    dtype: np.dtype


# By storage class. The bytes of bfloat16 are the upper half of a float32.
_STORAGES = {
    name + "Storage": _Kind(kind, np.dtype(dtype))
    for name, kind, dtype in (
        ("Float", "F32", "<f4"),
        ("Double", "F64", "<f8"),
        ("Half", "F16", "<f2"),
        ("BFloat16", "BF16", "<u2"),
        ("Long", "I64", "<i8"),
        ("Int", "I32", "<i4"),
        ("Short", "I16", "<i2"),
        ("Char", "I8", "i1"),
        ("Byte", "U8", "u1"),
        ("Bool", "BOOL", "?"),
    )
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


class _Content(NamedTuple):
    """An open file: its tensors, and how to get a storage's bytes."""

    tensors: dict[str, _Tensor]
    read_storage: Callable[[_Storage], bytes]


def list_tensors(path):
    """Lists the tensors of a file.

    Args:
      path: a file that `torch.save` wrote.

    Returns:
      List of (name, shape, type), the last as safetensors has it, such as "F32".

    Raises:
      UserError: it is of another format, is damaged, or holds anything but tensors
        under their names.
    """
    with _opened(path) as content:
        return [
            (name, tensor.shape, _STORAGES[tensor.storage.kind].type)
            for name, tensor in content.tensors.items()
        ]


def read(path, names):
    """Reads tensors, each storage once and one at a time.

    Args:
      path: a file that `torch.save` wrote.
      names: of tensors that it holds.

    Yields:
      Pairs of name and float32 array.

    Raises:
      UserError: the file is damaged.
    """
    with _opened(path) as content:
        by_storage = {}
        for name in names:
            storage = content.tensors[name].storage
            by_storage.setdefault(storage, []).append(name)
        for storage, held in by_storage.items():
            dtype = _STORAGES[storage.kind].dtype
            values = np.frombuffer(content.read_storage(storage), dtype)
            for name in held:
                yield name, _as_float32(content.tensors[name], values)


@contextlib.contextmanager
def _opened(path):
    """Yields a `_Content`; what is wrong with the file becomes a `UserError`."""
    try:
        with open(path, "rb") as reader:
            length = os.path.getsize(path)
            begin = reader.read(4)
            reader.seek(0)
            if begin == _ZIP_BEGIN:
                with zipfile.ZipFile(reader) as archive:
                    yield _read_archive(archive, length)
            elif begin.startswith(_PICKLE_BEGIN):
                yield _read_stream(reader, length)
            else:
                raise _Refused("it is no file of PyTorch's torch.save")
    except _Refused as error:
        reason = str(error)
    # The last: names in an archive that are not what their entry says.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError) as error:
        reason = "damaged: %s" % ascii(str(error))
    except EOFError:
        reason = "damaged: it ends too early"
    except (OSError, RuntimeError) as error:  # The second: encrypted.
        raise UserError("%s cannot be read: %s." % (path, ascii(str(error)))) from None
    else:
        return
    raise UserError(
        "%s is not read: %s. Fetch it anew, or load it in PyTorch with "
        "weights_only=True and save its tensors as safetensors." % (path, reason)
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
    found = _Machine(io.BytesIO(content("data.pkl"))).run()
    return _Content(
        _checked_tensors(found, file_length),
        lambda storage: content("data/" + storage.key, _byte_length(storage)),
    )


def _read_stream(reader, file_length):
    """Reads what PyTorch wrote before 1.6."""
    head = io.BytesIO(reader.read(_MOST_PICKLE_BYTES))
    for wanted in (_MAGIC_NUMBER, _PROTOCOL_VERSION):
        if _Machine(head).run() != wanted:
            raise _Refused("it is no file of PyTorch's torch.save")
    facts = _Machine(head).run()
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise _Refused("its numbers are not little-endian")
    machine = _Machine(head)
    tensors = _checked_tensors(machine.run(), file_length)
    keys = _Machine(head).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _Refused("it does not say which storages follow")
    stored = {storage.key: storage for storage in machine.storages}
    if len(stored) != len(machine.storages) or sorted(stored) != sorted(keys):
        raise _Refused("its storages are not those of its tensors")
    places, place = {}, head.tell()
    for key in keys:
        reader.seek(place)
        length = int.from_bytes(reader.read(_LENGTH_BYTES), "little")
        if length != stored[key].length:
            raise _Refused("a storage has another length than its tensors say")
        places[key] = place + _LENGTH_BYTES
        place = places[key] + _byte_length(stored[key])
    if place != file_length:
        raise _Refused("it has %d bytes, not %d" % (file_length, place))

    def read_storage(storage):
        reader.seek(places[storage.key])
        return reader.read(_byte_length(storage))

    return _Content(tensors, read_storage)


def _byte_length(storage):
    return storage.length * _STORAGES[storage.kind].dtype.itemsize


def _checked_tensors(found, file_length):
    """What a pickle made, which has to be a dict of tensors."""
    if not isinstance(found, dict):
        raise _Refused("it holds no dict")
    for name, tensor in found.items():
        if not isinstance(tensor, _Tensor):
            raise _Refused("%s is no tensor" % ascii(name))
    if sum(math.prod(tensor.shape) for tensor in found.values()) > file_length:
        raise _Refused("its tensors are longer than the file")
    return found


def _as_float32(tensor, values):
    """The array of a tensor, whose storage holds the 1-D `values`."""
    strided = np.lib.stride_tricks.as_strided(
        values[tensor.offset :],
        tensor.shape,
        [stride * values.itemsize for stride in tensor.strides],
        writeable=False,
    )
    if tensor.storage.kind == "BFloat16Storage":
        # Shifted by a uint32, since a Python int makes int64 of a single number.
        return (strided.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return strided.astype(np.float32)


class _Machine:
    """Runs the instructions of a pickle that a dict of tensors consists of.

    Attributes:
      storages: set of the `_Storage`s that it named.
    """

    def __init__(self, stream):
        """Takes a binary stream; `run` reads from it up to the pickle's end."""
        self._stream = stream
        self.storages = set()
        self._stack = []
        self._marks = []  # lengths of the stack
        self._memo = {}

    def run(self):
        """What the pickle makes."""
        instructions = pickletools.genops(self._stream)
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

    def _do_empty_list(self, _):
        self._stack.append([])

    def _do_append(self, _):
        self._append([self._stack.pop()])

    def _do_appends(self, _):
        self._append(self._to_mark())

    def _append(self, items):
        if not isinstance(self._stack[-1], list):
            raise _Refused("its pickle is damaged (nothing to append to)")
        self._stack[-1].extend(items)

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
        if not isinstance(found, tuple) or found[:1] != ("storage",):
            raise _Refused("its pickle refers to something else than a storage")
        # Before 1.6 a sixth says which part of another storage it is, if it is.
        if len(found) == 6 and found[5] is None:
            found = found[:5]
        if len(found) != 5:
            raise _Refused("a storage is damaged or is a part of another")
        _, kind, key, _, length = found
        if (
            not isinstance(kind, _Name)
            or kind.name not in _STORAGES
            or not isinstance(key, str)
            or not _is_count(length)
        ):
            raise _Refused("a storage is damaged or holds no numbers")
        storage = _Storage(kind.name, key, length)
        self.storages.add(storage)
        self._stack.append(storage)

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
