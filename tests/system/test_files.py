"""Reading of small files, JSON, and what dead processes leave behind."""

import json
import os
import subprocess
import sys

import pytest

from errors import UserError
from system import files

REMEDY = "give another"


def refused(path, most_bytes=1000):
    """The message with which a file of JSON is refused."""
    with pytest.raises(UserError) as error:
        files.read_json(str(path), REMEDY, most_bytes)
    message = str(error.value)
    assert message.startswith(str(path)) and message.endswith(": " + REMEDY)
    assert message.isprintable() and len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"[" * 100_000, "JSON of more than 32"),
        (b'{"a":' * 100_000, "JSON of more than 32"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "JSON of more than 32"),
        (b'{"a": 1, "b": {"a": 1, "a": 1}}', "entry 'a' twice"),
        (b'{"a": ' + b"9" * 301 + b"}", "number of 301 digits"),
        (b'{"\x1b[2J": 1, "\x1b[2J": 2}', "not JSON"),
        (b'{"\\u001b[2J": 1, "\\u001b[2J": 2}', "\\x1b[2J' twice"),
    ],
    ids=lambda value: "%d-%r" % (len(value), value[:12]),
)
def test_what_is_no_json_object(tmp_path, data, part):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    assert part in refused(path, 1 << 20)


def test_json_objects(tmp_path):
    path = tmp_path / "a.json"
    deep = {"a": [[[[[{}]]]]], "b": 10**299, "c": -0.5, "d": "ö\n"}
    path.write_text(json.dumps(deep, ensure_ascii=False), "utf-8")
    assert files.read_json(str(path), REMEDY) == deep
    nan = json.dumps({"a": float("nan")})
    assert files.parse_json_object(nan)["a"] != 0
    for text in (nan, '{"a": -Infinity}', '{"a": 1e999}'):
        with pytest.raises(ValueError, match=r"no JSON|too large"):
            files.parse_json_object(text, finite=True)


def test_what_is_no_small_file(tmp_path):
    path = tmp_path / "a.json"
    assert "cannot be read" in refused(path)
    path.write_text("{}" + " " * 999)
    assert "1001 bytes, at most 1000" in refused(path)
    path.unlink()
    os.mkfifo(path)
    assert "it is a pipe or device, no file" in refused(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "it is a pipe or device, no file" in refused(path)
    path.unlink()
    path.mkdir()
    assert "it is a folder, no file" in refused(path)


def test_what_dead_processes_left_is_cleared(tmp_path):
    path = str(tmp_path / "out[1]")  # Brackets are no pattern.
    mine = files.working_path(path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stem = mine[: -len(str(os.getpid()))]
    left, alive = "%s%d" % (stem, dead.pid), "%s%d" % (stem, os.getppid())
    others = [path + ".tmp-x", path + ".tmp-otherhost-%d" % dead.pid, stem + "2x"]
    old = "%s.tmp-%d" % (path, dead.pid)  # As earlier versions named theirs.
    others.append("%s.tmp-%d" % (path, os.getppid()))
    for folder in (left, alive, path, mine, old, *others):
        os.mkdir(folder)
    assert files.working_path(path) == mine
    assert not any(map(os.path.exists, (left, mine, old)))
    assert all(map(os.path.exists, (alive, path, *others)))
