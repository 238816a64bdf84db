"""What stands on the screen, and what in the log alone."""

import logging
import os
import re
import warnings

import pytest
import tensorflow.compat.v1 as tf

from system import console


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
    logging.getLogger("absl").info("Wrote 3 files.")
    warnings.warn("overflow in exp", stacklevel=1)


SAID = ["3 rows", "warning: one label only", "error: the disk is gone"]


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
    assert "deprecated" not in text


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
    assert "deprecated" not in text


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
