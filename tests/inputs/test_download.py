"""Downloads and archives, against a real server with chosen faults."""

import io
import os
import socket
import sys
import zipfile

import pooch
import pytest
from file_server import serve

from errors import UserError
from inputs import download
from system import disk

DATA = bytes(range(256)) * 2000  # 512,000 bytes: several blocks


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serve({"/f.bin": DATA}) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "f.bin"


def refused(url, target, *parts):
    """Asserts that a download ends with one message and leaves no file."""
    with pytest.raises(UserError) as caught:
        download.fetch_file(url, str(target))
    message = str(caught.value)
    assert "cannot fetch %s: " % url in message and message.isprintable()
    for part in parts:
        assert part in message
    assert not target.parent.exists() or os.listdir(target.parent) == []


def test_whole_file(server, target):
    server.redirects["/here.bin"] = "/f.bin"
    download.fetch_file(server.url + "/here.bin", str(target))
    assert target.read_bytes() == DATA
    assert os.listdir(target.parent) == ["f.bin"]


def test_failures_that_pass_are_retried(server, target):
    server.states, server.breaks = [503], [100_000]
    download.fetch_file(server.url + "/f.bin", str(target))
    assert target.read_bytes() == DATA
    assert len(server.log) == 3


def test_broken_transfers(server, target):
    server.breaks = [1000] * (1 + download.RETRIES)
    refused(server.url + "/f.bin", target, "run the same command again")


def test_servers_that_do_not_answer(server, target, monkeypatch):
    refused(server.url + "/none.bin", target, "404")
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.05)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:%d/f.bin" % listener.getsockname()[1]
        refused(url, target, "refused")
        listener.listen()  # Accepts, and never answers.
        refused(url, target, "no answer within 0.05 s")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://x/y", "f.bin", "http://[", "http://é..é/"]
)
def test_other_addresses(url, target):
    refused(url, target)


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1/f.bin", "file:///etc/hostname", "ftp://x/\x1b[2J"]
)
def test_redirects_out_of_the_web(server, target, address):
    server.redirects["/away.bin"] = address
    refused(server.url + "/away.bin", target)


@pytest.mark.parametrize("length", ["\u00b2", "-5", "9" * 5000, "five", "9" * 18])
def test_an_absurd_content_length(server, target, length):
    server.length = length
    refused(server.url + "/f.bin", target, length[:18])
    assert len(server.log) == 1


def test_an_answer_without_end(server, target, monkeypatch):
    server.length = ""
    download.fetch_file(server.url + "/f.bin", str(target))
    assert target.read_bytes() == DATA
    target.unlink()
    monkeypatch.setattr(download, "MAX_BYTES", 200_000)
    refused(server.url + "/f.bin", target, "more than 200000 bytes")


def test_progress_on_a_terminal(server, target, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    download.fetch_file(server.url + "/f.bin", str(target))
    assert "512k/512k" in terminal.getvalue()


# --- archives -------------------------------------------------------------------


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def test_only_the_files_asked_for_are_written(tmp_path):
    members = {
        "a.tsv": b"0", "../d/a.tsv": b"1", "../d/b.tsv": b"2", "/etc/x": b"3",
        "../escaped": b"4",
    }  # fmt: skip
    archive = make_zip(tmp_path / "a.zip", members)
    folder = tmp_path / "out"
    folder.mkdir()
    download.extract_files(archive, ("b.tsv", "a.tsv"), str(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.tsv": b"1", "b.tsv": b"2",
    }  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "out"]
    with pytest.raises(UserError, match=r"no folder with all of a\.tsv, c\.tsv"):
        download.extract_files(archive, ("a.tsv", "c.tsv"), str(folder))


def test_broken_zips(tmp_path):
    path = tmp_path / "a.zip"
    make_zip(path, {"x.tsv": os.urandom(5000)})
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[2000] ^= 0xFF  # inside the data: the checksum tells
    make_zip(path, {"\u00e9.tsv": b"1"})
    no_utf_8 = path.read_bytes().replace("\u00e9".encode(), b"\xff\xff")
    for broken in (sound[:3000], b"<html>no</html>", b"", bytes(flipped), no_utf_8):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="not a valid zip"):
            download.extract_files(str(path), ("x.tsv",), str(tmp_path))


def test_a_zip_that_is_made_to_fill_the_disk(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", {"x.tsv": b"0" * 5_000_000})
    folder = tmp_path / "out"
    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(disk, "free_bytes", lambda path: 4)
        message = r"unpacking .*a\.zip needs 5 MB, and 4 bytes are free"
        with pytest.raises(disk.WriteError, match=message):
            download.extract_files(archive, ("x.tsv",), str(folder))
    monkeypatch.setattr(download, "MAX_BYTES", 4_000_000)
    with pytest.raises(UserError, match="unpacks to 5000000 bytes"):
        download.extract_files(archive, ("x.tsv",), str(folder))
    assert os.listdir(folder) == []
    # A member that is longer than stated is truncated, and fails its checksum.
    content = (tmp_path / "a.zip").read_bytes()
    size = (5_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    (tmp_path / "a.zip").write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match="not a valid zip"):
        download.extract_files(archive, ("x.tsv",), str(folder))
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10
