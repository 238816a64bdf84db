"""The exception for wrong user input, and how a program ends on it.

Messages and log lines quote text from files in printable form, so that control
characters in it do not reach the terminal. A message names an argument or a field of
settings in backticks, with a value after them: `seed`=1. Programs show it as a flag.
"""

import contextlib
import functools
import logging
import os
import re
import sys

_MAX_LINE_LENGTH = 4000  # characters of a message; a path alone can have 4096 bytes
_LOGGERS = ("adapter_bert", "absl", "tensorflow")
_logger = logging.getLogger(_LOGGERS[0])


def printable(text, most=300):
    """At most `most` characters of a text; line ends and control characters escaped."""
    text = text if len(text) <= most else text[:most] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _printable_line(line):
    """Shortens a long line in its middle: file and reason are at the ends."""
    if len(line) > _MAX_LINE_LENGTH:
        half = _MAX_LINE_LENGTH // 2
        line = "%s...%s" % (line[:half], line[-half:])
    return printable(line, len(line))


class UserError(ValueError):
    """The user's input is wrong.

    The message names what was given, what is allowed, and which `field`, file and line
    to change. Programs print it without a traceback. It is a `ValueError`, as the
    original program raises in the same places.
    """

    def __init__(self, message, *more):
        """Makes the message printable; a line end in a line belongs to quoted text."""
        super().__init__("\n  ".join(map(_printable_line, (message, *more))))


@contextlib.contextmanager
def explain_value_errors(source, remedy=""):
    """Turns a `ValueError`, as of a schema, into a `UserError` that names the source.

    `remedy` is a sentence. A `UserError` is raised unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        end = ". " + remedy if remedy else ""
        raise UserError("%s: %s%s" % (source, error, end)) from None


def _concerns_standard_output(error):
    if error.filename is not None:
        return False
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def name_flags(text, flag_values):
    """Replaces `name` by --name in a text where a program has a flag of that name."""
    return re.sub(
        r"`(\w+)`", lambda m: "--" + m[1] if m[1] in flag_values else m[0], text
    )


@contextlib.contextmanager
def names_arguments(names):
    """Reverses `name_flags` in a `UserError`, for a program that is a function."""
    try:
        yield
    except UserError as error:
        pattern = r"--(%s)\b" % "|".join(names)
        error.args = (re.sub(pattern, r"`\1`", str(error)),)
        raise


def _format_for_program(flag_values, record):
    """A filter of log records: they become printable, and name the program's flags."""
    lines = record.getMessage().split("\n")
    record.msg = name_flags("\n".join(map(_printable_line, lines)), flag_values)
    record.args = ()
    return True


def report_error(message):
    """Writes printable text as `error: <message>` to standard error and the log."""
    if _logger.handlers:  # See `system.console`.
        _logger.error("%s", message)
    else:
        sys.stderr.write("error: %s\n" % message)


@contextlib.contextmanager
def formats_log(flag_values):
    """Makes log messages printable, and shows fields in them as a program's flags."""
    format_record = functools.partial(_format_for_program, flag_values)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(format_record)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(format_record)


@contextlib.contextmanager
def reports_user_errors(flag_values):
    """Wraps a program's `main`: a `UserError` is one message that names its flags.

    It is written to standard error as `error: <message>`, and the status is 1; so it is
    if standard output cannot be written, without a message if the reader has left, as
    `head` does. On Ctrl-C the status is 130. Log messages are treated as the error's.

    `flag_values` are the program's, or a set of the names of its flags.
    """
    with formats_log(flag_values):
        try:
            try:
                yield
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except UserError as error:
            report_error(name_flags(str(error), flag_values))
            sys.exit(1)
        except Exception as error:
            if not isinstance(error, OSError) or not _concerns_standard_output(error):
                _logger.debug("ended by an error", exc_info=True)
                raise
            # Python would try to write buffered output again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                report_error("standard output cannot be written (%s)" % error.strerror)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.stderr.write("ended by Ctrl-C\n")
            sys.exit(130)
