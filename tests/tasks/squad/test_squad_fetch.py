"""Fetching SQuAD from a loopback server."""

import hashlib
import os

import pooch
import pytest

from errors import UserError
from inputs import download
from tasks.squad import fetch
from tests import programs
from tests.file_server import serve

NAME = "train-v1.1.json"
CONTENT = b'{"data": []}'


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    digest = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(fetch, "SHA256", {NAME: digest})
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serve({"/squad/" + NAME: CONTENT}) as running:
        yield running


def test_a_file_is_fetched_once(server, tmp_path, capsys):
    folder = tmp_path / "new" / "squad"
    for _ in range(2):
        fetch.fetch_file(NAME, str(folder), server.url + "/squad/")
    assert server.log == ["/squad/" + NAME]
    assert os.listdir(folder) == [NAME]
    assert (folder / NAME).read_bytes() == CONTENT
    assert "exists, nothing to fetch" in capsys.readouterr().err


def test_another_file_of_the_name_is_kept(server, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(UserError, match="not SQuAD's file: move it away"):
        fetch.fetch_file(NAME, str(tmp_path), server.url + "/squad")
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert not server.log


def test_wrong_content_and_broken_transfers_leave_nothing(server, tmp_path):
    url = server.url + "/squad"
    server.files["/squad/" + NAME] = CONTENT + b" "
    with pytest.raises(UserError, match="SHA-256 is another one"):
        fetch.fetch_file(NAME, str(tmp_path), url)
    server.breaks = [5] * (1 + download.RETRIES)
    with pytest.raises(UserError, match=r"`base_url`\) and .*run .* again"):
        fetch.fetch_file(NAME, str(tmp_path), url)
    assert not os.listdir(tmp_path)
    server.files["/squad/" + NAME] = CONTENT
    fetch.fetch_file(NAME, str(tmp_path), url)


def test_program(server, tmp_path):
    done = programs.run(
        "fetch_squad.py",
        "--output_dir=%s" % tmp_path,
        "--base_url=%s/squad" % server.url,
        environment={"no_proxy": "*"},
    )
    assert done.returncode == 1
    # The program knows the published files' digests, and this is another file.
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error: %s/squad/%s is not SQuAD's" % (server.url, NAME))
    assert "or give another --base_url" in message
    assert not os.listdir(tmp_path)
