"""The one exception for wrong user input, and how a program ends on it.

What comes from a file is shown, never obeyed: messages and log lines reach the terminal
as printable text.
"""

import functools
import logging
import os
import sys

_LONGEST_LINE = 4000  # characters of a message; a path alone can have 4096 bytes
_LOGGERS = ("adapter_bert", "absl", "tensorflow")
_logger = logging.getLogger(_LOGGERS[0])


def printable(text, most=300):
    """Text from a file as one line that a terminal shows and does not obey.

    Args:
      text: any string.
      most: characters to keep of it.
    """
    text = text if len(text) <= most else text[:most] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _printable_line(line):
    """A line; of an endless one both ends, where a message has its file and reason."""
    if len(line) > _LONGEST_LINE:
        half = _LONGEST_LINE // 2
        line = "%s...%s" % (line[:half], line[-half:])
    return printable(line, len(line))


class UserError(ValueError):
    """The user's input is wrong, and the message says all they need to know.

    The message names what was given, what is allowed, and which flag, file and
    line to change. Programs print it without a traceback; it is a `ValueError` because
    that is what the original program raised in the same places.
    """

    def __init__(self, message, *more):
        """Makes the message printable, whatever it quotes.

        Args:
          message: its line; a line end in it comes from what it quotes.
          *more: lines below it.
        """
        super().__init__("\n  ".join(map(_printable_line, (message, *more))))


def close_standard_output():
    """Lets what is left in its buffer go: Python would try again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_of_standard_output(error):
    if error.filename is not None:
        return False
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _make_printable(record):
    lines = record.getMessage().split("\n")
    record.msg = "\n".join(map(_printable_line, lines))
    record.args = ()
    return True


def report_error(message):
    """Writes `error: <message>` to standard error, and to the log file if there is one.

    Args:
      message: printable text.
    """
    if _logger.handlers:  # See `system.console`.
        _logger.error("%s", message)
    else:
        sys.stderr.write("error: %s\n" % message)


def reports_user_errors(main):
    """Wraps a program's `main` so that a `UserError` ends it with one message.

    Args:
      main: a function of `argv`, as `absl.app.run` calls it.

    Returns:
      A function of `argv` that returns what `main` returns, or writes
      `error: <message>` to standard error and exits with status 1; with 130, as shells
      have it, on Ctrl-C. Standard output that cannot be written is such a message too,
      or none where its reader has gone, as `head` does. What `main` logs is printable.
    """

    @functools.wraps(main)
    def wrapped(argv):
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_make_printable)  # Once, called often.
        try:
            try:
                return main(argv)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except UserError as error:
            report_error(error)
            sys.exit(1)
        except Exception as error:
            if not isinstance(error, OSError) or not _is_of_standard_output(error):
                _logger.debug("ended by an error", exc_info=True)
                raise
            close_standard_output()
            if not isinstance(error, BrokenPipeError):
                report_error("standard output cannot be written (%s)" % error.strerror)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.stderr.write("ended by Ctrl-C\n")
            sys.exit(130)

    return wrapped
