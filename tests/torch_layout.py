"""Files as PyTorch's `torch.save` writes them, made by hand."""

import os
import struct
import zipfile

# Instructions of a pickle, as bytes.
DICT, MARK, SET_ITEMS, STOP = b"}", b"(", b"u", b"."
REDUCE, PERSISTENT, EMPTY_TUPLE, TUPLE, FALSE = b"R", b"Q", b")", b"t", b"\x89"


def text(value):
    value = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(value)) + value


def number(value):
    return b"J" + struct.pack("<i", value)


def name(module, attribute):
    return ("c%s\n%s\n" % (module, attribute)).encode()


def numbers(values):
    return MARK + b"".join(map(number, values)) + TUPLE


def tensor(key, length, shape, strides, offset=0, storage="FloatStorage", rest=b""):
    """Instructions that make a tensor, as `torch.save` writes them."""
    stored = (
        MARK
        + text("storage")
        + name("torch", storage)
        + text(key)
        + text("cpu")
        + number(length)
        + TUPLE
        + PERSISTENT
    )
    hooks = name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE
    arguments = stored + number(offset) + numbers(shape) + numbers(strides)
    arguments = MARK + arguments + FALSE + hooks + rest + TUPLE
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + REDUCE


def program(items, begin=DICT):
    """Instructions that make a dict."""
    body = b"".join(text(key) + value for key, value in items.items())
    return b"\x80\x02" + begin + MARK + body + SET_ITEMS + STOP


def write(path, code, storages=(), compression=zipfile.ZIP_STORED, more=()):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", code)
        for key, values in dict(storages).items():
            archive.writestr("archive/data/" + key, values.tobytes())
        for entry, content in dict(more).items():
            archive.writestr(entry, content)
    return str(path)


def write_old(path, code, storages=(), keys=None, order=b"\x88", more=b"", begin=None):
    """Writes a file as PyTorch did before 1.6."""
    keys = list(dict(storages)) if keys is None else keys
    facts = b"\x80\x02" + DICT + text("little_endian") + order + b"s" + STOP
    # A sixth entry of each storage: it is no part of another.
    code = code.replace(TUPLE + PERSISTENT, b"N" + TUPLE + PERSISTENT)
    keys = b"\x80\x02]" + MARK + b"".join(map(text, keys)) + b"e" + STOP
    values = b"".join(
        struct.pack("<q", values.size) + values.tobytes()
        for values in dict(storages).values()
    )
    begin = OLD_BEGIN if begin is None else begin
    path.write_bytes(begin + facts + code + keys + values + more)
    return str(path)


OLD_BEGIN = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


def save(path, arrays, old=False):
    """Writes arrays of float32, float64 and int64 as PyTorch writes a model's tensors.

    Args:
      path: `pathlib.Path` of the file.
      arrays: dict from name to array.
      old: in the format of before 1.6.
    """
    items, storages = {}, {}
    for index, (key, value) in enumerate(arrays.items()):
        kind = {"f4": "Float", "f8": "Double", "i8": "Long"}[value.dtype.str[1:]]
        strides = [step // value.itemsize for step in value.strides]
        settings = {"storage": kind + "Storage"}
        items[key] = tensor(str(index), value.size, value.shape, strides, **settings)
        storages[str(index)] = value.ravel()
    (write_old if old else write)(path, program(items), storages)


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)
