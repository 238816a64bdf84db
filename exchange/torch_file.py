"""Reads the tensors of PyTorch's files without PyTorch and without running their code.

Since PyTorch 1.6, `torch.save` writes a zip archive of `data.pkl`, a pickle of a dict
from name to tensor, and of one entry `data/KEY` for each storage. Older files are a
sequence of pickles (a magic number, a protocol version, properties of the machine, the
dict, the storages' keys), followed by the storages, each after its length.

A pickle can call any function. Here the few that saved tensors name are replaced, and
any other name or instruction is an error.
"""

import contextlib
import io
import math
import os
import pickle
import zipfile
import zlib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from errors import UserError

_MAX_PICKLE_BYTES = 1 << 20  # 200 bytes for each tensor are usual
_MAX_DIMENSIONS = 8
_ZIP_BEGIN, _PICKLE_BEGIN = b"PK\x03\x04", b"\x80\x02"
# The first two pickles of a file from before PyTorch 1.6.
_MAGIC_NUMBER, _PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
_LENGTH_BYTES = 8


class _StorageType(NamedTuple):
    name: str  # as in safetensors
    dtype: np.dtype


# Keys are PyTorch's classes. The bytes of bfloat16 are the upper half of a float32.
_STORAGE_TYPES = {
    "torch.FloatStorage": _StorageType("F32", np.dtype("<f4")),
    "torch.DoubleStorage": _StorageType("F64", np.dtype("<f8")),
    "torch.HalfStorage": _StorageType("F16", np.dtype("<f2")),
    "torch.BFloat16Storage": _StorageType("BF16", np.dtype("<u2")),
    "torch.LongStorage": _StorageType("I64", np.dtype("<i8")),
    "torch.IntStorage": _StorageType("I32", np.dtype("<i4")),
    "torch.ShortStorage": _StorageType("I16", np.dtype("<i2")),
    "torch.CharStorage": _StorageType("I8", np.dtype("i1")),
    "torch.ByteStorage": _StorageType("U8", np.dtype("u1")),
    "torch.BoolStorage": _StorageType("BOOL", np.dtype("?")),
}


class _Storage(NamedTuple):
    type: _StorageType
    key: str
    length: int  # elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


class UnsupportedFileError(Exception):
    """The reason why a file is not read."""


def list_tensors(path):
    """Lists (name, shape, type) of the tensors of a file that `torch.save` wrote.

    The type is named as in safetensors, such as "F32".

    Raises:
      UserError: the file has another format, is damaged, or holds other objects than
        a dict of tensors.
    """
    with _open_file(path) as (tensors, _):
        return [
            (name, tensor.shape, tensor.storage.type.name)
            for name, tensor in tensors.items()
        ]


def read(path, names):
    """Yields (name, float32 array) of tensors; reads each storage once, one at a time.

    Raises:
      UserError: the file is damaged.
    """
    with _open_file(path) as (tensors, read_storage):
        by_storage = {}
        for name in names:
            by_storage.setdefault(tensors[name].storage, []).append(name)
        for storage, held in by_storage.items():
            values = np.frombuffer(read_storage(storage), storage.type.dtype)
            for name in held:
                yield name, _as_float32(tensors[name], values)


@contextlib.contextmanager
def _open_file(path):
    """Yields the tensors by name and a function that reads the bytes of a storage.

    Errors become a `UserError`.
    """
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
                raise UnsupportedFileError("it is not a file of PyTorch's torch.save")
    except UnsupportedFileError as error:
        reason = str(error)
    except EOFError:
        reason = "damaged: it ends too early"
    # ValueError: the directory of the archive and its entries disagree on a name.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError) as error:
        reason = "damaged: %s" % ascii(str(error))
    except (OSError, RuntimeError) as error:  # RuntimeError: encrypted.
        reason = ascii(str(error))
    else:
        return
    raise UserError(
        "%s cannot be read: %s. Fetch it again, or load it in PyTorch with "
        "weights_only=True and save its tensors as safetensors." % (path, reason)
    )


def _read_archive(archive, file_length):
    entries = {info.filename: info for info in archive.infolist()}
    # PyTorch does not compress. So the length of the file bounds what is read.
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise UnsupportedFileError("it is compressed")
    if sum(info.file_size for info in archive.infolist()) > file_length:
        raise UnsupportedFileError("its entries are longer than the file")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise UnsupportedFileError("it lacks FOLDER/data.pkl")
    folder = pickles[0].split("/")[0]

    def content(name, length=None):
        info = entries.get("%s/%s" % (folder, name))
        if info is None:
            raise UnsupportedFileError("it lacks %s" % ascii(name))
        size = info.file_size
        if length not in (None, size):
            raise UnsupportedFileError(
                "%s has %d bytes, not %d" % (ascii(name), size, length)
            )
        return archive.read(info)

    if folder + "/byteorder" in entries and content("byteorder", 6) != b"little":
        raise UnsupportedFileError("its numbers are not little-endian")
    if entries[pickles[0]].file_size > _MAX_PICKLE_BYTES:
        raise UnsupportedFileError(
            "data.pkl has more than %d bytes" % _MAX_PICKLE_BYTES
        )
    found = _Unpickler(io.BytesIO(content("data.pkl"))).load()
    return (
        _check_tensors(found, file_length),
        lambda storage: content("data/" + storage.key, _byte_length(storage)),
    )


def _read_stream(reader, file_length):
    """Reads the format from before PyTorch 1.6."""
    head = io.BytesIO(reader.read(_MAX_PICKLE_BYTES))
    for wanted in (_MAGIC_NUMBER, _PROTOCOL_VERSION):
        if _Unpickler(head).load() != wanted:
            raise UnsupportedFileError("it is not a file of PyTorch's torch.save")
    machine = _Unpickler(head).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise UnsupportedFileError("its numbers are not little-endian")
    unpickler = _Unpickler(head)
    tensors = _check_tensors(unpickler.load(), file_length)
    keys = _Unpickler(head).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise UnsupportedFileError("its list of storages is damaged")
    stored = {storage.key: storage for storage in unpickler.storages}
    if len(stored) != len(unpickler.storages) or sorted(stored) != sorted(keys):
        raise UnsupportedFileError("its storages are not those of its tensors")
    places, place = {}, head.tell()
    for key in keys:
        reader.seek(place)
        length = int.from_bytes(reader.read(_LENGTH_BYTES), "little")
        if length != stored[key].length:
            raise UnsupportedFileError(
                "a storage has another length than in its tensors"
            )
        places[key] = place + _LENGTH_BYTES
        place = places[key] + _byte_length(stored[key])
    if place != file_length:
        raise UnsupportedFileError("it has %d bytes, not %d" % (file_length, place))

    def read_storage(storage):
        reader.seek(places[storage.key])
        return reader.read(_byte_length(storage))

    return tensors, read_storage


def _byte_length(storage):
    return storage.length * storage.type.dtype.itemsize


def _check_tensors(found, file_length):
    """Returns an unpickled object, which must be a dict of tensors."""
    if not isinstance(found, dict):
        raise UnsupportedFileError("it does not hold a dict")
    for name, tensor in found.items():
        if not isinstance(tensor, _Tensor):
            raise UnsupportedFileError("%s is not a tensor" % ascii(name))
    if sum(math.prod(tensor.shape) for tensor in found.values()) > file_length:
        raise UnsupportedFileError("its tensors are longer than the file")
    return found


def _as_float32(tensor, values):
    """Returns the array of a tensor; `values` [length] are those of its storage."""
    strides = [stride * values.itemsize for stride in tensor.strides]
    strided = np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )
    if tensor.storage.type.name == "BF16":
        # Shifting by a Python int would turn a scalar into int64.
        return (strided.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return strided.astype(np.float32)


class _Unpickler(pickle._Unpickler):
    """Runs a pickle that consists of a dict of tensors.

    The classes and functions that it names are replaced by those of this module. This
    is the unpickler in Python: the one in C allocates memory for any index of its memo.

    Attributes:
      storages: set of the `_Storage`s that the pickle refers to.
    """

    def __init__(self, stream):
        """Takes a binary stream; `load` reads from it up to the pickle's end."""
        super().__init__(stream)
        self.storages = set()

    def load(self):
        """Returns the object that the pickle describes."""
        try:
            return super().load()
        except UnsupportedFileError:
            raise
        except Exception as error:
            raise UnsupportedFileError(
                "its pickle is damaged or holds other objects than tensors (%s)"
                % ascii(error)[:100]
            ) from None

    def find_class(self, module, name):
        """Returns the replacement of a class or function, which is never imported."""
        full_name = "%s.%s" % (module, name)
        if full_name not in _REPLACEMENTS:
            raise UnsupportedFileError(
                "its pickle asks for %s, which no tensor needs and which was not run"
                % ascii(full_name)[:100]
            )
        return _REPLACEMENTS[full_name]

    def persistent_load(self, reference):
        """Returns the `_Storage` that a reference describes."""
        # PyTorch before 1.6: a sixth item describes a view of another storage, or None.
        if len(reference) == 6 and reference[5] is None:
            reference = reference[:5]
        tag, storage_type, key, _, length = reference
        if (
            tag != "storage"
            or not isinstance(storage_type, _StorageType)
            or not isinstance(key, str)
            or not _is_count(length)
        ):
            raise UnsupportedFileError("a storage is damaged or holds no numbers")
        storage = _Storage(storage_type, key, length)
        self.storages.add(storage)
        return storage

    def load_empty_dict(self):
        self.append(_Dict())

    def load_build(self):
        # The state of an OrderedDict: versions of PyTorch's modules.
        self.stack.pop()
        if not isinstance(self.stack[-1], _Dict):
            raise UnsupportedFileError(
                "its pickle sets the state of another object than a dict"
            )

    dispatch: ClassVar = {
        code[0]: pickle._Unpickler.dispatch[code[0]]
        for code in (
            pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK,
            pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
            pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1,
            pickle.BINUNICODE, pickle.SHORT_BINUNICODE,
            pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS,
            pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2,
            pickle.TUPLE3, pickle.SETITEM, pickle.SETITEMS,
            pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
            pickle.BINGET, pickle.LONG_BINGET,
            pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.REDUCE,
        )
    }  # fmt: skip
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict
    dispatch[pickle.BUILD[0]] = load_build


class _Dict(dict):
    """A dict whose keys are distinct names."""

    def __setitem__(self, name, value):
        # Checked before the key is hashed, since hashing recurses into nested tuples.
        if not isinstance(name, str) or name in self:
            raise UnsupportedFileError(
                "its pickle has duplicate keys, or keys that are not names"
            )
        super().__setitem__(name, value)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _make_tensor(storage, offset, shape, strides, gradient, hooks, metadata=None):
    """Returns a `_Tensor` all of whose elements lie in its storage."""
    if not (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MAX_DIMENSIONS
        and all(map(_is_count, (offset, *shape, *strides)))
    ):
        raise UnsupportedFileError("a tensor is damaged")
    size = math.prod(shape)
    if not size:
        raise UnsupportedFileError("a tensor is empty")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    if last >= storage.length or size > storage.length:
        raise UnsupportedFileError("a tensor reaches beyond its storage")
    return _Tensor(storage, offset, shape, strides)


_REPLACEMENTS: dict[str, Any] = {
    "collections.OrderedDict": lambda: _Dict(),
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, gradient, hooks: tensor,
    **_STORAGE_TYPES,
}
