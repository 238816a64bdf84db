"""Messages in printable form, and how a program ends on an error."""

import os
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf
from absl import logging as absl_logging

import errors
from system import console
from tests.places import ROOT

HOSTILE = "\x1b[2J\x9b31m\u202e\ud800\r\b"
SHOWN = "\\x1b[2J\\x9b31m\\u202e\\ud800\\r\\x08"


def test_a_message_is_printable_and_keeps_its_lines():
    error = errors.UserError("ö %s\nb" % HOSTILE, HOSTILE)
    assert str(error) == "ö %s\\nb\n  %s" % (SHOWN, SHOWN)
    # A message within another stays as it is.
    assert str(errors.UserError(str(errors.UserError(HOSTILE)))) == SHOWN


def test_a_message_echoes_no_long_line_whole():
    message = str(errors.UserError("a" + "x" * 5_000_000 + "b", "try again"))
    assert message == "a%s...%sb\n  try again" % ("x" * 1999, "x" * 1999)


def test_a_value_error_names_its_source():
    for error, remedy, message in (
        (ValueError("a is 1"), "", "a.json: a is 1"),
        (ValueError("a is 1"), "Leave it out.", "a.json: a is 1. Leave it out."),
        (errors.UserError("b.json: no"), "Leave it out.", "b.json: no"),
    ):
        explain = errors.explain_value_errors("a.json", remedy)
        with pytest.raises(errors.UserError) as caught, explain:
            raise error
        assert str(caught.value) == message


def test_what_a_program_logs_is_printable(capsys):
    @errors.reports_user_errors(())
    def main(argv):
        absl_logging.info("skipped: %s", argv[0])
        tf.logging.error("%s is %d\n%%s", argv[0], 5)
        raise errors.UserError(argv[0])

    console.start()
    with pytest.raises(SystemExit) as ended:
        main([HOSTILE])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "skipped: %s\nerror: %s is 5\n%%s\nerror: %s\n" % (SHOWN, SHOWN, SHOWN)
    )


def test_fields_become_flags_of_the_program(capsys):
    text = "`seed`=1: `data_dir`, `a b` and `label` of %s"

    @errors.reports_user_errors({"seed", "data_dir"})
    def main(argv):
        console.say(text, "a say")
        console.warn(text, "a warning")
        raise errors.UserError(text % "an error")

    console.start()
    with pytest.raises(SystemExit):
        main([])
    console.say("`seed`")  # No program any more.
    expected = "--seed=1: --data_dir, `a b` and `label` of "
    assert capsys.readouterr().err.splitlines() == [
        expected + "a say",
        "warning: %sa warning" % expected,
        "error: %san error" % expected,
        "`seed`",
    ]


_PROGRAM = """
from errors import reports_user_errors

@reports_user_errors(())
def main(argv):
    for _ in range(%d):
        print("line")
    %s

main([])
"""


def start(lines, last, stdout):
    """Runs a program that prints; returns its status and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM % (lines, last)],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("lines", [1, 10000])  # In the buffer, and beyond it.
def test_standard_output_on_a_full_disk(lines):
    message = "error: standard output cannot be written (No space left on device)\n"
    with open("/dev/full", "wb") as full:
        assert start(lines, "raise SystemExit(0)", full) == (1, message)


@pytest.mark.parametrize("lines", [1, 10000])
def test_whoever_read_the_output_has_gone(lines):
    read, write = os.pipe()
    os.close(read)
    try:
        assert start(lines, "", write) == (1, "")
    finally:
        os.close(write)


def test_another_error_is_shown_whole():
    status, errors = start(1, "raise OSError(5, 'of something else')", None)
    assert status == 1
    assert errors.startswith("Traceback") and "of something else" in errors
