"""Downloads, archives and folders, against a real server with chosen faults."""

import io
import json
import os
import socket
import stat
import sys
import zipfile

import pytest
from file_server import serve

from errors import UserError
from inputs import download
from system import disk

DATA = bytes(range(256)) * 2000  # 512,000 bytes: several blocks
OTHER = bytes(reversed(DATA))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(download, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 5.0)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serve({"/f.bin": DATA}) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "f.bin")


def fetch(server, target):
    download.fetch_file(server.url + "/f.bin", target)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def break_off(server, target, size):
    """Leaves `size` bytes behind, as a run that gave up does."""
    attempts = download.ATTEMPTS
    download.ATTEMPTS = 1
    server.breaks = [size]
    try:
        with pytest.raises(UserError, match="again to continue"):
            fetch(server, target)
    finally:
        download.ATTEMPTS = attempts
    assert not os.path.exists(target)
    assert os.path.getsize(target + ".part") == size
    server.log.clear()


def test_whole_file(server, target, tmp_path):
    fetch(server, target)
    assert read(target) == DATA
    assert os.listdir(tmp_path) == ["f.bin"]
    assert server.log == [("/f.bin", None, None)]


def test_breaks_are_resumed_in_one_call(server, target, tmp_path, capsys):
    server.breaks = [100_000, 150_000]
    fetch(server, target)
    assert read(target) == DATA
    assert [entry[1] for entry in server.log] == [
        None, "bytes=100000-", "bytes=250000-",
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["f.bin"]
    assert "resuming after 250000 bytes" in capsys.readouterr().err


def test_next_call_resumes(server, target):
    break_off(server, target, 200_000)
    fetch(server, target)
    assert read(target) == DATA
    ((_, wanted, tag),) = server.log
    assert wanted == "bytes=200000-"
    assert tag.startswith('"')


def test_server_without_ranges_starts_over(server, target, capsys):
    break_off(server, target, 200_000)
    server.ranges = False
    fetch(server, target)
    assert read(target) == DATA
    assert "starting over" in capsys.readouterr().err


@pytest.mark.parametrize("checks_tags", [True, False])
def test_changed_file_starts_over(server, target, checks_tags):
    break_off(server, target, 200_000)
    server.files["/f.bin"] = OTHER  # of the same length: only the tag tells
    server.checks_tags = checks_tags
    fetch(server, target)
    assert read(target) == OTHER


@pytest.mark.parametrize("other", [OTHER + b"more", OTHER[:400_000]])
def test_changed_length_starts_over_without_tags(server, target, other):
    server.tags = False
    break_off(server, target, 200_000)
    server.files["/f.bin"] = other
    fetch(server, target)
    assert read(target) == other
    assert [entry[1] for entry in server.log] == ["bytes=200000-", None]


def test_same_length_resumes_without_tags(server, target):
    server.tags = False
    break_off(server, target, 200_000)
    fetch(server, target)
    assert read(target) == DATA
    assert len(server.log) == 1


def test_shrunk_file_starts_over(server, target):
    server.tags = False
    break_off(server, target, 200_000)
    server.files["/f.bin"] = DATA[:1000]  # the range asked for is past its end: 416
    fetch(server, target)
    assert read(target) == DATA[:1000]


def test_part_of_another_address_is_not_continued(server, target):
    break_off(server, target, 200_000)
    server.files["/g.bin"] = OTHER
    download.fetch_file(server.url + "/g.bin", target)
    assert read(target) == OTHER
    assert server.log == [("/g.bin", None, None)]


def test_gives_up_and_keeps_what_came(server, target, capsys):
    server.breaks = [1000] * download.ATTEMPTS
    with pytest.raises(UserError, match=r"closed after 5000 of 512000 bytes \(att"):
        fetch(server, target)
    assert len(server.log) == download.ATTEMPTS
    assert os.path.getsize(target + ".part") == 5000
    assert "trying again" in capsys.readouterr().err


def test_passing_server_errors_are_retried(server, target):
    server.states = [503, 500, 429]
    fetch(server, target)
    assert read(target) == DATA


def test_missing_file_is_not_retried(server, target, tmp_path):
    with pytest.raises(UserError, match=r"/none\.bin: the server answered 404"):
        download.fetch_file(server.url + "/none.bin", target)
    assert len(server.log) == 1
    assert os.listdir(tmp_path) == []


def test_no_server(target):
    with serve({}) as server:
        url = server.url
    with pytest.raises(UserError, match=r"cannot fetch.*attempt 5 of 5"):
        download.fetch_file(url + "/f.bin", target)


def test_silent_server_times_out(target, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.05)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # accepts, and never answers
        url = "http://127.0.0.1:%d/f.bin" % listener.getsockname()[1]
        with pytest.raises(UserError, match="timed out"):
            download.fetch_file(url, target)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "f.bin"])
def test_other_addresses_are_refused(url, target):
    with pytest.raises(UserError, match="not an http"):
        download.fetch_file(url, target)


def test_an_address_that_is_none(target):
    with pytest.raises(UserError, match=r"cannot fetch http://\[: Invalid IPv6 URL"):
        download.fetch_file("http://[", target)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("ftp://127.0.0.1/f.bin", "leads to ftp://127.0.0.1/f.bin, which is no http"),
        ("file:///etc/hostname", "file:///etc/hostname' is not allowed"),
    ],
)
def test_a_redirect_out_of_the_web_is_refused(server, target, to, message):
    server.redirects["/away.bin"] = to
    with pytest.raises(UserError, match=message):
        download.fetch_file(server.url + "/away.bin", target)
    assert len(server.log) == 1


def test_a_redirect_within_the_web_is_followed(server, target):
    server.redirects["/away.bin"] = server.url + "/f.bin"
    download.fetch_file(server.url + "/away.bin", target)
    assert read(target) == DATA


@pytest.mark.parametrize(
    "length",
    ["\u00b2", "-5", "9" * 5000, "five"],
    ids=["squared", "minus", "long", "word"],
)
def test_a_content_length_that_is_no_number(server, target, length):
    server.length = length
    fetch(server, target)
    assert read(target) == DATA


@pytest.mark.parametrize("length", [None, "600000"])
def test_an_answer_beyond_the_bound(server, target, tmp_path, monkeypatch, length):
    monkeypatch.setattr(download, "MAX_BYTES", 200_000)
    server.length = length or "unknown"
    with pytest.raises(UserError, match="sends more than 200000 bytes"):
        fetch(server, target)
    assert len(server.log) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "state",
    [b"[" * 100000, b"[]", b"7", b"\xff", b'{"validator": 7}', b'{"length": "a"}'],
)
def test_a_damaged_record_starts_over(server, target, state):
    break_off(server, target, 100_000)
    path = target + ".part.json"
    sound = json.loads(read(path))
    if state.startswith(b"{"):
        state = json.dumps({**sound, **json.loads(state)}).encode()
    with open(path, "wb") as file:
        file.write(state)
    server.log.clear()
    fetch(server, target)
    assert read(target) == DATA
    assert server.log[0][1] is None


def test_what_a_server_says_is_shown_printable(server, target):
    server.redirects["/away.bin"] = "ftp://x/\x1b[2J"
    with pytest.raises(UserError) as caught:
        download.fetch_file(server.url + "/away.bin", target)
    assert str(caught.value).isprintable()


def test_plain_progress_lines(server, target, monkeypatch, capsys):
    monkeypatch.setattr(download, "_PLAIN_STEP_BYTES", 1000)
    fetch(server, target)
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 10
    assert lines[0] == "f.bin: 0.1 of 0.5 MB"
    assert not any("\r" in line or "|" in line for line in lines)


def test_progress_bar_on_a_terminal(server, target, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    server.breaks = [200_000]
    fetch(server, target)
    assert "100%" in terminal.getvalue()
    assert "512k/512k" in terminal.getvalue()


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return str(path)


def test_extract(tmp_path):
    archive = make_zip(tmp_path / "a.zip", [("d/x.tsv", b"1"), ("d/e/y..tsv", b"2")])
    folder = tmp_path / "out"
    folder.mkdir()
    download.extract_zip(archive, str(folder))
    assert (folder / "d" / "x.tsv").read_bytes() == b"1"
    assert (folder / "d" / "e" / "y..tsv").read_bytes() == b"2"


def link_member():
    info = zipfile.ZipInfo("d/link")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../escaped.tsv", "leaves its folder"),
        ("d/../../escaped.tsv", "leaves its folder"),
        ("d\\..\\..\\escaped.tsv", "leaves its folder"),
        ("/escaped.tsv", "absolute"),
        ("C:/escaped.tsv", "absolute"),
        ("\\escaped.tsv", "absolute"),
        (zipfile.ZipInfo(""), "without a name"),
        ("./", "without a name"),
        (link_member(), "a link"),
    ],
)
def test_escaping_members_are_refused_before_any_is_written(tmp_path, member, reason):
    archive = make_zip(tmp_path / "a.zip", [("d/x.tsv", b"1"), (member, b"/etc")])
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(UserError, match=reason):
        download.extract_zip(archive, str(folder))
    assert os.listdir(folder) == []
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "out"]


def test_broken_zips(tmp_path):
    path = tmp_path / "a.zip"
    make_zip(path, [("x.tsv", os.urandom(5000))])
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[2000] ^= 0xFF  # inside the data: the checksum tells
    for broken in (sound[:3000], b"<html>no</html>", b"", bytes(flipped)):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="not a sound zip"):
            download.extract_zip(str(path), str(tmp_path))


def test_a_name_that_is_no_utf8(tmp_path):
    path = tmp_path / "a.zip"
    make_zip(path, [("\u00e9.tsv", b"1")])
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(UserError, match="not a sound zip"):
        download.extract_zip(str(path), str(tmp_path))


def test_a_zip_that_is_made_to_fill_the_disk(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("x.tsv", b"0" * (64 << 20))])
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(UserError, match=r"its \d+ bytes unpack to 67108864"):
        download.extract_zip(archive, str(folder))
    assert os.listdir(folder) == []
    # One that says less than it holds is cut there, and its checksum tells.
    content = (tmp_path / "a.zip").read_bytes()
    size = (64 << 20).to_bytes(4, "little")
    assert content.count(size) == 2
    (tmp_path / "a.zip").write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match="not a sound zip"):
        download.extract_zip(archive, str(folder))
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10


def test_a_zip_that_the_disk_cannot_hold(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a.zip", [("x.tsv", b"12345")])
    monkeypatch.setattr(disk, "free_bytes", lambda path: 4)
    message = "unpacking .*a.zip needs 5 bytes, and 4 bytes are free in %s" % tmp_path
    with pytest.raises(disk.NoSpaceError, match=message):
        download.extract_zip(archive, str(tmp_path))


def test_staging_folder_is_gone_afterwards(tmp_path):
    final = str(tmp_path / "T")
    left_over = tmp_path / ".T.incomplete"
    left_over.mkdir()
    (left_over / "stale").write_bytes(b"")
    with pytest.raises(RuntimeError), download.staging_folder(final) as staging:
        assert os.listdir(staging) == []
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with download.staging_folder(final) as staging:
        os.mkdir(os.path.join(staging, "inner"))
        download.place_folder(os.path.join(staging, "inner"), final)
    assert os.listdir(tmp_path) == ["T"]


def test_place_folder_overwrites_nothing(tmp_path):
    (tmp_path / "T").mkdir()  # empty: a bare rename would replace it
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="not overwritten"):
        download.place_folder(str(tmp_path / "new"), str(tmp_path / "T"))
    assert (tmp_path / "new").is_dir()
