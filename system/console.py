"""What a program says: some lines for a person on the screen, everything in a log.

`say` and `warn` are for the person. What libraries and this program report beside that,
and `detail`, goes with times to the log file alone, and with `--verbosity=1` to the
screen too.
"""

import collections
import contextlib
import io
import logging
import os
import re
import sys

import tensorflow.compat.v1 as tf
from tqdm import tqdm

from system import startup

LOG_NAME = "log.txt"

# Records that are kept until the log file is known.
_MOST_KEPT = 10000

# Those of this program, and those of libraries.
_OURS = ("adapter_bert", "absl")
_LIBRARIES = ("tensorflow", "py.warnings")

# TensorFlow's notes on its own parts of TensorFlow 1: what this program is made of.
_DEPRECATION = re.compile(
    r"is deprecated|are deprecated|Instructions for updating|params are not passed"
)

_logger = logging.getLogger(_OURS[0])


class _LossyFile(io.FileIO):
    """A file that keeps the first error of writing to it and raises none."""

    error: OSError | None = None

    def write(self, data):
        try:
            return super().write(data) or len(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)


def protect_standard_streams():
    """Lets a program outlive its screen, and print any text on it.

    Standard error can be closed, full, or without a reader: writing to it raises
    nothing from now on. Characters that a stream's encoding lacks are escaped on
    standard output and standard error.
    """
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = "utf-8"
    if sys.stderr is not None:
        encoding = sys.stderr.encoding
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_LossyFile(2, "w", closefd=False)),
        encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


class _Screen(logging.Handler):
    """Standard error; leaves progress bars whole."""

    def __init__(self, shows_all):
        super().__init__()
        self._shows_all = shows_all
        self._is_lost = False

    def emit(self, record):
        is_ours = record.name in _OURS
        if not self._shows_all and record.levelno < (
            logging.INFO if is_ours else logging.ERROR
        ):
            return
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = "%s: %s" % (record.levelname.lower(), text)
        tqdm.write(text, file=sys.stderr)
        self._log_loss()

    def _log_loss(self):
        """Logs, once, that standard error cannot be written."""
        error = _standard_error_failure()
        if error is not None and not self._is_lost:
            self._is_lost = True
            detail("standard error cannot be written (%s): see this log", error)


def _standard_error_failure():
    """The first `OSError` of writing to protected standard error, or None."""
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _LossyFile) else None


class _LogFile(logging.Handler):
    """A file in an output directory, wherever TensorFlow can write; with times.

    What is logged before the directory is known is kept for it. A log that cannot be
    written ends no run.
    """

    def __init__(self):
        super().__init__()
        self.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s (%(module)s)")
        )
        self._kept = collections.deque(maxlen=_MOST_KEPT)
        self._file = None
        self._is_remote = False

    def open(self, path):
        self._is_remote = "://" in path
        if os.path.exists(path) and not os.path.isfile(path):
            self._kept = collections.deque(maxlen=0)  # A pipe waits for a reader.
            return
        self._file = tf.io.gfile.GFile(path, "a")
        while self._kept:
            self.emit(self._kept.popleft())

    def emit(self, record):
        if self._file is None:
            self._kept.append(record)
            return
        try:
            self._file.write(self.format(record) + "\n")
            # An object store writes the whole file anew with each flush.
            if not self._is_remote:
                self._file.flush()
        except (tf.errors.OpError, ValueError):
            self._file = None
            self._kept = collections.deque(maxlen=0)

    def close(self):
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


def _is_of_use(record):
    return not _DEPRECATION.search(record.getMessage())


_handlers: list = []


def start(verbosity=0):
    """Sends what is said and logged from now on where it belongs.

    Args:
      verbosity: 1 shows on the screen what otherwise stands in the log file alone.
    """
    logging.captureWarnings(True)
    while _handlers:
        handler = _handlers.pop()
        for name in _OURS + _LIBRARIES:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
    tf.get_logger().handlers.clear()  # Its own prints everything.
    _handlers.extend([_Screen(verbosity >= 1), _LogFile()])
    for name in _OURS + _LIBRARIES:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.DEBUG if name == _OURS[0] else logging.INFO)
        for handler in _handlers:
            logger.addHandler(handler)
    for handler in _handlers:
        handler.addFilter(_is_of_use)
    for note in startup.import_notes:
        detail("%s", note)


def log_to(path):
    """Opens the log file, at its end, for all that was and will be logged."""
    for handler in _handlers:
        if isinstance(handler, _LogFile):
            handler.open(path)


def say(text, *values):
    """A line for the person."""
    _logger.info(text, *values)


def warn(text, *values):
    """A line for the person that begins with "warning: "."""
    _logger.warning(text, *values)


def detail(text, *values):
    """A line for the log."""
    _logger.debug(text, *values)
