"""Output of a program: selected lines on the screen, everything in a log file.

`say` and `warn` write to both. `detail`, and what libraries log below the level of an
error, are written to the log file, and with `--verbosity=1` to the screen.
"""

import collections
import contextlib
import io
import logging
import os
import re
import sys
import warnings

import tensorflow.compat.v1 as tf
from tqdm import tqdm

from system import startup

LOG_NAME = "log.txt"

# Loggers of this program, and of libraries.
_OURS = ("adapter_bert", "absl")
_LIBRARIES = ("tensorflow", "py.warnings")

# TensorFlow's warnings about TensorFlow 1, which this program uses throughout.
_DEPRECATION = re.compile(
    r"is deprecated|are deprecated|Instructions for updating|params are not passed"
)

_logger = logging.getLogger(_OURS[0])


class _LossyFile(io.FileIO):
    """A file whose writes raise nothing; the first error is stored."""

    error: OSError | None = None

    def write(self, data):
        try:
            return super().write(data) or len(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)


def protect_standard_streams():
    """Makes writing to the screen safe.

    Standard error raises nothing from now on when it is closed, full or has no reader.
    Both streams escape characters that their encoding lacks.
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
    """Writes records to standard error, above a progress bar."""

    def __init__(self, shows_all):
        super().__init__()
        self._shows_all = shows_all
        self._is_failure_logged = False

    def emit(self, record):
        least = logging.INFO if record.name in _OURS else logging.ERROR
        if not self._shows_all and record.levelno < least:
            return
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = "%s: %s" % (record.levelname.lower(), text)
        tqdm.write(text, file=sys.stderr)
        raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
        if isinstance(raw, _LossyFile) and raw.error and not self._is_failure_logged:
            self._is_failure_logged = True
            detail("standard error cannot be written (%s)", raw.error)


class _LogFile(logging.Handler):
    """Writes records with times to a file, local or in a bucket.

    Records are buffered until `open` is called. A file that cannot be written is
    closed; the run continues.
    """

    def __init__(self):
        super().__init__()
        self.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s (%(module)s)")
        )
        self._buffer = collections.deque(maxlen=10_000)
        self._file = None
        self._is_remote = False

    def open(self, path):
        self._is_remote = "://" in path
        if os.path.exists(path) and not os.path.isfile(path):
            self._buffer = collections.deque(maxlen=0)  # A pipe would block.
            return
        self._file = tf.io.gfile.GFile(path, "a")
        while self._buffer:
            self.emit(self._buffer.popleft())

    def emit(self, record):
        if self._file is None:
            self._buffer.append(record)
            return
        try:
            self._file.write(self.format(record) + "\n")
            # In a bucket each flush writes the whole file again.
            if not self._is_remote:
                self._file.flush()
        except (tf.errors.OpError, ValueError):
            self._file = None
            self._buffer = collections.deque(maxlen=0)

    def close(self):
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


_handlers: list = []


def start(verbosity=0):
    """Sets up logging to the screen and a log file; verbosity 1 shows all records."""
    logging.captureWarnings(True)
    for handler in _handlers:
        handler.close()
    _handlers[:] = [_Screen(verbosity >= 1), _LogFile()]
    for handler in _handlers:
        handler.addFilter(lambda record: not _DEPRECATION.search(record.getMessage()))
    tf.get_logger()  # Adds a handler that prints everything, which is replaced.
    for name in _OURS + _LIBRARIES:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.setLevel(logging.DEBUG if name == _OURS[0] else logging.INFO)
        logger.handlers = [*_handlers]
    for note in startup.import_notes:
        detail("%s", note)


@contextlib.contextmanager
def logging_to_screen():
    """Logs as after `start` in the `with` block; after it, loggers are as before."""
    tf.get_logger()
    loggers = [logging.getLogger(name) for name in _OURS + _LIBRARIES]
    before = [(each.handlers, each.level, each.propagate) for each in loggers]
    show_warning = warnings.showwarning
    start()
    try:
        yield
    finally:
        for handler in _handlers:
            handler.close()
        _handlers.clear()
        for logger, (handlers, level, propagate) in zip(loggers, before):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        if warnings.showwarning is not show_warning:
            logging.captureWarnings(False)


def log_to(path):
    """Opens the log file for appending, and writes the records so far."""
    for handler in _handlers:
        if isinstance(handler, _LogFile):
            handler.open(path)


def say(text, *values):
    """Writes a line to the screen and the log file."""
    _logger.info(text, *values)


def warn(text, *values):
    """Writes a line that begins with "warning: " on the screen."""
    _logger.warning(text, *values)


def detail(text, *values):
    """Writes a line to the log file."""
    _logger.debug(text, *values)
