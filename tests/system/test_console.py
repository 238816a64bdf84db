"""What stands on the screen, and what in the log alone."""

import contextlib
import logging
import os
import re
import sys
import warnings

import pytest
import tensorflow.compat.v1 as tf

import errors
from system import console, startup


@pytest.fixture(autouse=True)
def quiet_afterwards():
    tf.logging.set_verbosity(tf.logging.INFO)
    yield
    console.start()
    tf.logging.set_verbosity(tf.logging.WARN)
    logging.captureWarnings(False)


def speak():
    console.say("%d rows", 3)
    console.warn("one label only")
    console.detail("a variable")
    tf.logging.info("Graph was finalized.")
    tf.logging.warning("The name tf.x is deprecated. Please use tf.y instead.")
    tf.logging.error("the disk is gone")
    console.warn("this is deprecated.txt is empty")
    logging.getLogger("absl").info("Wrote 3 files.")
    warnings.warn("overflow in exp", stacklevel=1)


SAID = [
    *("3 rows", "warning: one label only", "error: the disk is gone"),
    "warning: this is deprecated.txt is empty",
]


def test_the_screen_has_what_matters(capsys):
    console.start()
    speak()
    assert capsys.readouterr().err.splitlines() == [*SAID, "Wrote 3 files."]


def test_with_verbosity_it_has_everything_of_use(capsys):
    console.start(verbosity=1)
    speak()
    text = capsys.readouterr().err
    for part in (*SAID, "a variable", "Graph was finalized.", "overflow in exp"):
        assert part in text
    assert "tf.x is deprecated" not in text


def test_the_log_has_everything_with_times_from_the_start(tmp_path):
    path = tmp_path / console.LOG_NAME
    path.write_text("an earlier run\n")
    console.start()
    console.say("before it was open")
    console.log_to(str(path))
    speak()
    first, *lines = path.read_text().splitlines()
    assert first == "an earlier run"
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines[:4])
    text = "\n".join(lines)
    for part in ("before it was open", "one label only", "a variable", "finalized"):
        assert text.count(part) == 1
    assert "tf.x is deprecated" not in text


@pytest.mark.parametrize("error", [errors.UserError("bad row"), KeyError("bad row")])
def test_the_log_has_the_error_that_ends_a_program(tmp_path, capsys, error):
    @errors.reports_user_errors(())
    def main(argv):
        raise error

    console.start()
    console.log_to(str(tmp_path / "log.txt"))
    with pytest.raises((SystemExit, KeyError)):
        main([])
    is_ours = isinstance(error, errors.UserError)
    assert capsys.readouterr().err == ("error: bad row\n" if is_ours else "")
    text = (tmp_path / "log.txt").read_text()
    assert "bad row" in text and ("Traceback" in text) != is_ours


def test_a_second_start_says_nothing_twice(tmp_path, capsys):
    console.start()
    console.log_to(str(tmp_path / "first"))
    console.say("before")
    console.start()
    console.say("once")
    assert capsys.readouterr().err == "before\nonce\n"
    assert "once" not in (tmp_path / "first").read_text()


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    console.start()
    console.log_to(str(tmp_path / "no folder" / "log.txt"))
    console.say("still here")
    assert "still here" in capsys.readouterr().err


def test_a_log_that_is_a_pipe_does_not_wait(tmp_path, capsys):
    os.mkfifo(tmp_path / "log.txt")
    console.start()
    console.log_to(str(tmp_path / "log.txt"))
    console.say("3 rows")
    assert capsys.readouterr().err == "3 rows\n"


@contextlib.contextmanager
def protected_streams(target, monkeypatch):
    """Standard error as a program has it whose descriptor 2 is `target`."""
    before = os.dup(2)
    os.dup2(target, 2)
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # Restored at the test's end.
    try:
        console.protect_standard_streams()
        yield
        sys.stderr.flush()
    finally:
        os.dup2(before, 2)
        os.close(before)


@pytest.mark.parametrize("kind", ["full", "no reader"])
def test_standard_error_that_cannot_be_written(tmp_path, monkeypatch, kind):
    if kind == "full":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    path = tmp_path / "log.txt"
    with protected_streams(target, monkeypatch):
        console.start()
        console.log_to(str(path))
        console.say("step 1")
        console.say("step 2")
        with console.tqdm(total=1) as bar:
            bar.update(1)
        print("by print", file=sys.stderr, flush=True)
    os.close(target)
    text = path.read_text()
    assert "step 1" in text and "step 2" in text
    reason = "No space left" if kind == "full" else "Broken pipe"
    assert text.count(reason) == 1


def test_text_that_the_encoding_of_the_screen_lacks(tmp_path, monkeypatch, capfd):
    with open(tmp_path / "out", "w+", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        target = os.open(tmp_path / "err", os.O_WRONLY | os.O_CREAT)
        with protected_streams(target, monkeypatch):
            console.start()
            print("größe \ud800")
            print("größe \ud800", file=sys.stderr)
        os.close(target)
    assert (tmp_path / "out").read_bytes() == rb"gr\xf6\xdfe \ud800" + b"\n"
    assert rb"\ud800" in (tmp_path / "err").read_bytes()


def test_closed_streams_do_not_give_their_numbers_to_files(tmp_path):
    kept = os.dup(2)
    os.close(2)
    try:
        startup.open_standard_streams()
        with open(tmp_path / "file", "w") as stream:
            assert stream.fileno() > 2
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_without_a_home_directory_caches_are_temporary(monkeypatch):
    names = ("MPLCONFIGDIR", "KERAS_HOME")
    for name in ("HOME", *names):
        monkeypatch.delenv(name, raising=False)
    for home, is_temporary in (("~", True), (os.getcwd(), False)):
        monkeypatch.setattr(os.path, "expanduser", lambda path, home=home: home)
        startup.set_cache_folders()
        assert [name in os.environ for name in names] == [is_temporary] * 2
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_notes_of_the_import_are_for_the_log(capfd):
    with startup.collect_notes(startup.import_notes):
        os.write(2, b"I0000 00:00:1795938 port.cc:153] oneDNN is on\nabout to fail\n")
    assert capfd.readouterr().err == "about to fail\n"
    assert "oneDNN" in startup.import_notes.pop()
