"""Reading of small files and JSON, atomic writing, what dead processes leave."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from errors import UserError
from system import files

REMEDY = "give another"


def refused(path, max_bytes=1000):
    """The message with which a file of JSON is refused."""
    with pytest.raises(UserError) as error:
        files.read_json(str(path), REMEDY, max_bytes)
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
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
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
    assert "it is a pipe or device, not a plain file" in refused(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "it is a pipe or device, not a plain file" in refused(path)
    path.unlink()
    path.mkdir()
    assert "it is a folder, not a plain file" in refused(path)


def test_files_that_this_user_may_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    for name in ("a.json", "folder"):
        (pathlib.Path.mkdir if name == "folder" else pathlib.Path.touch)(
            tmp_path / name
        )
        os.chmod(name, 0)
    is_root = os.geteuid() == 0
    if is_root:  # Who may read everything.
        os.seteuid(12345)
    try:
        for read, path in (
            (lambda path: files.read_json(path, REMEDY), "a.json"),
            (files.digest, "a.json"),
            (files.list_folder, "folder"),
        ):
            with pytest.raises(UserError, match=path + " cannot be read .*denied"):
                read(path)
    finally:
        if is_root:
            os.seteuid(0)


def test_what_dead_processes_left_is_cleared(tmp_path):
    path = tmp_path / "out[1]"  # Brackets are no pattern.
    with files.working_folder(str(path)) as mine:
        stem = mine[: -len(str(os.getpid()))]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, alive = "%s%d" % (stem, dead.pid), "%s%d" % (stem, os.getppid())
    others = ["%s.tmp-otherhost-%d" % (path, dead.pid), stem + "2x"]
    for folder in (left, alive, path, mine, *others):
        os.mkdir(folder)
    pathlib.Path(mine, "of an earlier process of this number").touch()
    with files.working_folder(str(path)) as again:
        assert again == mine and os.listdir(mine) == []
        assert not os.path.exists(left)
    assert {os.path.basename(name) for name in (alive, path, *others)} == set(
        os.listdir(tmp_path)
    )


# --- writing --------------------------------------------------------------------


def write_folder(folder, text="new"):
    """Replaces a folder that has a file `mark` by another such."""
    with (
        files.atomic_folder(str(folder), is_own=lambda names: "mark" in names) as new,
        tf.io.gfile.GFile(os.path.join(new, "mark"), "w") as writer,
    ):
        writer.write(text)


class _Stopped(KeyboardInterrupt):
    """The user stops the program."""


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, _Stopped])
@pytest.mark.parametrize(
    ("name", "call"), [("makedirs", 1), ("GFile", 1), ("rename", 1), ("rename", 2)]
)
def test_a_failure_keeps_the_earlier_folder(tmp_path, monkeypatch, name, call, error):
    write_folder(tmp_path / "best", "earlier")
    function, calls = getattr(tf.io.gfile, name), []

    def fail_once(path, *others, **named):
        calls.append(path)
        if len(calls) == call:
            raise error(None, None, "%s; cannot be reached" % path)
        return function(path, *others, **named)

    with monkeypatch.context() as patched, pytest.raises((UserError, _Stopped)):
        patched.setattr(tf.io.gfile, name, fail_once)
        write_folder(tmp_path / "best", "later")
    assert (tmp_path / "best" / "mark").read_text() == "earlier"
    write_folder(tmp_path / "best", "later")
    assert (tmp_path / "best" / "mark").read_text() == "later"
    assert os.listdir(tmp_path) == ["best"]


def test_a_kill_between_two_renames(tmp_path):
    write_folder(tmp_path / "best", "earlier")
    (tmp_path / "best").rename(tmp_path / "best.replaced")
    assert files.find_stored_folder(str(tmp_path / "best")) == str(
        tmp_path / "best.replaced"
    )
    with (
        pytest.raises(RuntimeError),
        files.atomic_folder(
            str(tmp_path / "best"), is_own=lambda names: "mark" in names
        ),
    ):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["best"]
    assert (tmp_path / "best" / "mark").read_text() == "earlier"


@pytest.mark.parametrize("content", ["thesis.txt", None])
def test_a_linked_folder_of_others_is_never_emptied(tmp_path, content):
    mine = tmp_path / "disk" / "mine"
    mine.mkdir(parents=True)
    if content:
        (mine / content).write_text("all of it")
    (tmp_path / "best").symlink_to(mine)
    if content:
        for _ in range(2):
            with pytest.raises(UserError, match=r"best holds thesis\.txt"):
                write_folder(tmp_path / "best")
        assert (mine / content).read_text() == "all of it"
    else:
        for _ in range(2):
            write_folder(tmp_path / "best")
        assert (mine / "mark").read_text() == "new"
    assert (tmp_path / "best").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["mine"]


def test_links_in_a_folder_that_is_replaced_are_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    write_folder(tmp_path / "best")
    (tmp_path / "best" / "more").symlink_to(tmp_path / "mine")
    write_folder(tmp_path / "best")
    assert os.listdir(tmp_path / "best") == ["mark"]
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_a_link_left_under_the_name_of_what_is_replaced(tmp_path):
    # Earlier versions left such a link.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    (tmp_path / "best.replaced").symlink_to(tmp_path / "mine")
    for _ in range(2):
        with pytest.raises(UserError, match=r"best holds thesis\.txt"):
            write_folder(tmp_path / "best")
    (tmp_path / "best").mkdir()
    with pytest.raises(UserError, match=r"best\.replaced holds thesis\.txt"):
        write_folder(tmp_path / "best")
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_a_file_of_the_name_of_a_folder_stays(tmp_path):
    (tmp_path / "best").write_text("notes")
    with pytest.raises(UserError, match="best is a file"):
        write_folder(tmp_path / "best")
    assert (tmp_path / "best").read_text() == "notes"


def test_a_linked_file_is_written_where_it_lies(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.txt").symlink_to(tmp_path / "disk" / "a.txt")
    for text in ("one", "two"):
        files.write_whole(str(tmp_path / "a.txt"), text)
        assert (tmp_path / "disk" / "a.txt").read_text() == text
    assert (tmp_path / "a.txt").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("pipe", "pipe or device"), ("disk", "folder")):
        with pytest.raises(UserError, match=name + " cannot be written .*" + kind):
            files.write_whole(str(tmp_path / name), "text")


def test_a_file_that_appears_meanwhile(tmp_path):
    path = tmp_path / "a.txt"
    with (
        pytest.raises(UserError, match=r"a\.txt cannot be written"),
        files.atomic_file(str(path), overwrite=False) as partial,
    ):
        pathlib.Path(partial).write_text("new")
        path.write_text("of another program")
    assert path.read_text() == "of another program"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_other_errors_than_those_of_writing_stay_what_they_are(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        files.atomic_file(str(tmp_path / "a.txt")),
    ):
        raise FileNotFoundError(2, "No such file", "/elsewhere")
    with pytest.raises(UserError, match=r"b.txt cannot be written \(.*No such file"):
        files.write_whole(str(tmp_path / "no" / "b.txt"), "text")


def test_no_character_of_a_folder_stands_for_others(tmp_path):
    for name in ("s*ar", "sXar"):
        (tmp_path / name).mkdir()
        for step in ("9", "10"):
            (tmp_path / name / ("model.ckpt-%s.index" % step)).touch()
    (tmp_path / "s*ar" / "notes \udcff").touch()
    folder = str(tmp_path / "s*ar")
    assert [os.path.relpath(p, folder) for p in files.list_folder(folder, "*.i*")] == [
        "model.ckpt-10.index",
        "model.ckpt-9.index",
    ]
    assert len(files.list_folder(folder)) == 3
    assert files.list_folder(str(tmp_path / "none")) == []
