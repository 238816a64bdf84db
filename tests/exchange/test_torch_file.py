"""Files of PyTorch: tensors come out, code never runs, sizes are bounded."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
from torch_layout import (
    DICT,
    EMPTY_TUPLE,
    MARK,
    OLD_BEGIN,
    REDUCE,
    SET_ITEMS,
    STOP,
    TUPLE,
    Command,
    name,
    number,
    program,
    tensor,
    text,
    write,
    write_old,
)

from errors import UserError
from exchange import torch_file

FOUR = {"0": np.arange(4, dtype="<f4")}


def read_all(path):
    names = [name for name, _, _ in torch_file.list_tensors(path)]
    return dict(torch_file.read(path, names))


def refused(path, part):
    with pytest.raises(UserError) as caught:
        read_all(str(path))
    assert str(path) in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_of_all_types_and_strides(tmp_path, old):
    values = np.arange(12, dtype="<f4") / 8 - 0.5
    upper = (values.view("<u4") >> 16).astype("<u2")
    storages = {
        "0": values,
        "1": values.astype("<f8"),
        "2": values.astype("<f2"),
        "3": upper,
        "4": np.arange(-3, 4, dtype="<i8"),
        "5": np.array([True, False]),
    }
    code = program(
        {
            "plain": tensor("0", 12, (3, 4), (4, 1)),
            "turned": tensor("0", 12, (4, 3), (1, 4)),
            "part": tensor("0", 12, (2, 2), (4, 1), offset=5),
            "double": tensor("1", 12, (12,), (1,), storage="DoubleStorage"),
            "half": tensor("2", 12, (12,), (1,), storage="HalfStorage"),
            "short": tensor("3", 12, (2, 6), (6, 1), storage="BFloat16Storage"),
            "scalar": tensor("0", 12, (), (), offset=11),
            "short_scalar": tensor("3", 12, (), (), 11, "BFloat16Storage"),
            "whole": tensor("4", 7, (1, 7), (7, 1), storage="LongStorage"),
            "truth": tensor("5", 2, (2,), (1,), storage="BoolStorage"),
        }
    )
    padding = {"archive/byteorder": b"little", "archive/padding": b"x" * 300}
    if old:
        path = write_old(tmp_path / "f", code, storages)
    else:
        path = write(tmp_path / "f", code, storages, more=padding)
    listed = {name: rest for name, *rest in torch_file.list_tensors(path)}
    assert listed["whole"] == [(1, 7), "I64"] and listed["truth"] == [(2,), "BOOL"]
    assert listed["half"] == [(12,), "F16"] and listed["scalar"] == [(), "F32"]
    found = read_all(path)
    assert {name: value.shape for name, value in found.items()} == {
        name: shape for name, (shape, _) in listed.items()
    }
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    square = values.reshape(3, 4)
    np.testing.assert_array_equal(found["plain"], square)
    np.testing.assert_array_equal(found["turned"], square.T)
    np.testing.assert_array_equal(found["part"], [[values[5], values[6]], values[9:11]])
    # Eighths of small numbers are exact in all these types.
    for key in ("double", "half"):
        np.testing.assert_array_equal(found[key], values)
    np.testing.assert_array_equal(found["short"], values.reshape(2, 6))
    assert found["scalar"] == found["short_scalar"] == values[11]
    np.testing.assert_array_equal(found["whole"], [np.arange(-3, 4)])
    np.testing.assert_array_equal(found["truth"], [1, 0])


def test_each_storage_is_read_once(tmp_path, monkeypatch):
    storages = {"0": np.arange(4, dtype="<f4"), "1": np.arange(4, dtype="<f4") + 4}
    items = {
        "t%d" % i: tensor(str(i % 2), 4, (2,), (1,), offset=i // 2) for i in range(6)
    }
    path = write(tmp_path / "f", program(items), storages)
    read, opened = [], zipfile.ZipFile.read

    def counted(archive, name):
        read.append(name.filename)
        return opened(archive, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", counted)
    names = [name for name in items if name != "t5"]
    found = dict(torch_file.read(path, names))
    assert sorted(found) == names
    np.testing.assert_array_equal(found["t3"], [5, 6])
    assert sorted(read) == ["archive/data.pkl", "archive/data/0", "archive/data/1"]


def test_parameters_and_a_state_dict(tmp_path):
    parameter = (
        name("torch._utils", "_rebuild_parameter")
        + MARK
        + tensor("0", 4, (4,), (1,))
        + b"\x88"
        + name("collections", "OrderedDict")
        + EMPTY_TUPLE
        + REDUCE
        + TUPLE
        + REDUCE
    )
    ordered = name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE
    code = program({"a": parameter}, begin=ordered)
    # The state of such a dict: versions of PyTorch's modules.
    code = code[:-1] + DICT + text("_metadata") + DICT + b"s" + b"b" + STOP
    found = read_all(write(tmp_path / "f", code, FOUR))
    np.testing.assert_array_equal(found["a"], FOUR["0"])


def attacks(marker):
    command = "touch %s" % marker
    call = text(command) + b"\x85" + REDUCE
    posix = name("posix", "system")
    yield from (pickle.dumps({"a": Command(command)}, p) for p in range(6))
    yield program({"a": posix + call})
    yield b"\x80\x02" + MARK + text(command) + b"iposix\nsystem\n" + STOP
    yield b"\x80\x02" + MARK + posix + text(command) + b"o" + STOP
    yield b"\x80\x04" + text("posix") + text("system") + b"\x93" + call + STOP
    yield program({"a": name("builtins", "eval") + text("1") + b"\x85" + REDUCE})
    # Within a storage's name, and as the state of a dict.
    yield program({"a": tensor("0", 4, (4,), (1,))}) + posix + call + STOP
    yield program({})[:-1] + posix + call + b"b" + STOP
    yield program({"a": posix + call + b"0" + tensor("0", 4, (4,), (1,))})


def first_pickle(path, code, storages):
    path.write_bytes(code + OLD_BEGIN)
    return str(path)


@pytest.mark.parametrize("writer", [write, write_old, first_pickle])
@pytest.mark.parametrize("index", range(len(list(attacks("")))))
def test_code_never_runs(tmp_path, index, writer):
    marker = tmp_path / "marker"
    code = list(attacks(marker))[index]
    path = writer(tmp_path / "f", code, FOUR)
    try:
        read_all(path)
    except UserError as error:
        assert path in str(error)
    assert not marker.exists()


def one(**changes):
    settings = {"key": "0", "length": 4, "shape": (4,), "strides": (1,), **changes}
    return program({"a": tensor(**settings)})


@pytest.mark.parametrize(
    "code, part",
    [
        (one(shape=(5,)), "beyond its storage"),
        (one(offset=1), "beyond its storage"),
        (one(shape=(5,), strides=(0,)), "beyond its storage"),
        (one(strides=(-1,)), "a tensor is damaged"),
        (one(strides=(1, 1)), "a tensor is damaged"),
        (one(shape=(1,) * 9, strides=(1,) * 9), "a tensor is damaged"),
        (one(shape=(0,)), "empty"),
        (one(length=2**30), "has 16 bytes"),
        (one(key="1"), "lacks 'data/1'"),
        (one(storage="LongStorage"), "has 16 bytes, not 32"),
        (one(storage="QInt8Storage"), "torch.QInt8Storage"),
        (one(rest=number(1) * 5), "damaged"),
        (program({"a": number(3)}), "'a' is not a tensor"),
        (b"\x80\x02" + number(3) + STOP, "not hold a dict"),
        (b"\x80\x02}(X\x01\x00\x00\x00atu.", "damaged"),
        (b"\x80\x02}" + MARK + number(1) + number(2) + SET_ITEMS + STOP, "names"),
        (b"\x80\x02}" + MARK + text("a") + SET_ITEMS + STOP, "damaged"),
        (b"", "damaged"),
        (b"\x80\x02}h\x05.", "damaged"),
        # A key that is a deep tuple, and the state of a function.
        (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "names"),
        (
            program({})[:-1] + name("torch._utils", "_rebuild_parameter") + b"}b.",
            "dict",
        ),
        # Python's unpickler in C allocates memory for each of these.
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + STOP, "damaged"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + STOP, "damaged"),
        (b"\x80\x02}r\xff\xff\xff\xff" + one()[3:], "is not a tensor"),
    ],
)
def test_damaged_pickles(tmp_path, code, part):
    if part == "is not a tensor":  # A large place in the memory costs nothing.
        assert list(read_all(write(tmp_path / "f", code, FOUR))) == ["a"]
    else:
        refused(write(tmp_path / "f", code, FOUR), part)


def test_deep_and_shared_values(tmp_path):
    deep = b"\x80\x02" + b")" + b"\x85" * 100_000 + STOP
    refused(write(tmp_path / "deep", deep), "not hold a dict")
    # Tuples of tuples, each of the one before twice: 2 ** 200 if written out.
    shared = b"\x80\x02)" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200))
    refused(write(tmp_path / "shared", shared + STOP), "not hold a dict")
    refused(write(tmp_path / "long", b"\x80\x02" + b"N" * 2**20), "more than 1048576")
    # Many tensors of one storage: each would be a copy of it.
    storage = {"0": np.zeros(1000, "<f4")}
    items = {"t%d" % i: tensor("0", 1000, (1000,), (1,)) for i in range(2000)}
    refused(write(tmp_path / "many", program(items), storage), "longer than the file")


def test_archives(tmp_path):
    path = tmp_path / "f"
    write(path, one(), FOUR, compression=zipfile.ZIP_DEFLATED)
    refused(path, "compressed")
    write(path, one(), FOUR, more={"archive/byteorder": b"big\0\0\0"})
    refused(path, "little-endian")
    write(path, one(), FOUR, more={"other/data.pkl": one()})
    refused(path, "data.pkl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/0", b"")
    refused(path, "data.pkl")
    path.write_bytes(b"")
    refused(path, "not a file of PyTorch")
    path.write_bytes(b"\x93NUMPY")
    refused(path, "not a file of PyTorch")
    refused(tmp_path / "none", "cannot be read")
    refused(tmp_path, "cannot be read")


def test_an_archive_whose_names_are_no_utf8(tmp_path):
    path = tmp_path / "f"
    write(path, one(), FOUR, more={"archive/\u00e9\x1b": b""})
    data = path.read_bytes()
    path.write_bytes(data.replace("\u00e9".encode(), b"\xff\xfe"))
    refused(path, "damaged")


@pytest.mark.parametrize(
    "settings, part",
    [
        ({"order": b"\x89"}, "not little-endian"),
        ({"begin": OLD_BEGIN.replace(b"\x6c", b"\x6d")}, "not a file of PyTorch"),
        ({"keys": ["0", "1"]}, "not those of its tensors"),
        ({"keys": ["0", "0"]}, "not those of its tensors"),
        ({"storages": {"0": np.zeros(5, "<f4")}}, "another length"),
        ({"more": b"x"}, " bytes, not "),
        ({"code": one().replace(text("cpu"), text("cpu") + number(1))}, "damaged"),
        ({"code": program({"a": number(3)})}, "'a' is not a tensor"),
        ({"code": one(length=2**30)}, "another length"),
        ({"code": one()[:-1]}, "not hold a dict"),
        (
            {
                "code": program(
                    {
                        "a": tensor("0", 4, (4,), (1,)),
                        "b": tensor("0", 2, (2,), (1,), storage="DoubleStorage"),
                    }
                )
            },
            "not those of its tensors",
        ),
    ],
)
def test_damage_to_a_file_of_before_1_6(tmp_path, settings, part):
    given = {"code": one(), "storages": FOUR, **settings}
    refused(write_old(tmp_path / "f", **given), part)


def test_lengths_that_are_claimed(tmp_path):
    path = tmp_path / "f"
    write(path, one(length=2**30), FOUR)
    data = bytearray(path.read_bytes())
    # The directory's entry of data/0: its two lengths, 16 bytes before 16 more.
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**32 - 2, 2**32 - 2)
    path.write_bytes(data)
    refused(path, "longer than the file")


@pytest.mark.parametrize("writer", [write, write_old])
def test_every_flipped_byte_ends_in_a_message(tmp_path, writer):
    path = tmp_path / "f"
    writer(path, one(), FOUR)
    whole = path.read_bytes()
    changed = 0
    for index in range(len(whole)):
        for value in (0x00, 0xFF, whole[index] ^ 0x01):
            path.write_bytes(whole[:index] + bytes([value]) + whole[index + 1 :])
            try:
                found = read_all(str(path))
            except UserError:
                changed += 1
            else:
                assert all(value.shape == (4,) for value in found.values())
        path.write_bytes(whole[:index])
        with pytest.raises(UserError):
            read_all(str(path))
    # The format before PyTorch 1.6 has no checksums: changed numbers go unnoticed.
    assert changed > len(whole) * (1 if writer is write else 2)
