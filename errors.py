"""The one exception for wrong user input, and how a program ends on it."""

import functools
import sys


class UserError(ValueError):
    """The user's input is wrong, and the message says all they need to know.

    The message names what was given, what is allowed, and which flag, file and
    line to change. Programs print it without a traceback; it is a `ValueError`
    because that is what the original program raised in the same places.
    """


def reports_user_errors(main):
    """Wraps a program's `main` so that a `UserError` ends it with one message.

    Args:
      main: a function of `argv`, as `absl.app.run` calls it.

    Returns:
      A function of `argv` that returns what `main` returns, or writes
      `error: <message>` to standard error and exits with status 1.
    """

    @functools.wraps(main)
    def wrapped(argv):
        try:
            return main(argv)
        except UserError as error:
            sys.stderr.write("error: %s\n" % error)
            sys.exit(1)
        except KeyboardInterrupt:  # As shells have it.
            sys.stderr.write("ended by Ctrl-C\n")
            sys.exit(130)

    return wrapped
