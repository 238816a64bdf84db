"""Logging: selected records on the screen, all records in a log file.

`say` and `warn` write to both. `detail` and libraries' records below ERROR are written
to the log file, and to the screen with verbosity 1.
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

_PROGRAM_LOGGERS = ("adapter_bert", "absl")
_LIBRARY_LOGGERS = ("tensorflow", "py.warnings")

# TensorFlow's warnings about TensorFlow 1, which this program uses throughout.
_DEPRECATION = re.compile(
    r"is deprecated|are deprecated|Instructions for updating|params are not passed"
)

_logger = logging.getLogger(_PROGRAM_LOGGERS[0])


class _LossyFile(io.FileIO):
    """A file that stores the first write error instead of raising it."""

    error: OSError | None = None

    def write(self, data):
        try:
            return super().write(data) or len(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)


def protect_standard_streams():
    """Suppresses write errors of standard error.

    Both standard streams escape characters that their encoding lacks.
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
        is_own = record.name in _PROGRAM_LOGGERS
        level = logging.INFO if is_own else logging.ERROR
        if not self._shows_all and record.levelno < level:
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


def _is_deprecation(record):
    """Whether a library warns of TensorFlow 1; own messages may quote such a text."""
    is_librarys = record.name in _LIBRARY_LOGGERS
    return is_librarys and _DEPRECATION.search(record.getMessage())


def _all_loggers():
    return map(logging.getLogger, _PROGRAM_LOGGERS + _LIBRARY_LOGGERS)


def start(verbosity=0):
    """Sets up logging to the screen and a log file; verbosity 1 shows all records."""
    logging.captureWarnings(True)
    for handler in _handlers:
        handler.close()
    _handlers[:] = [_Screen(verbosity >= 1), _LogFile()]
    for handler in _handlers:
        handler.addFilter(lambda record: not _is_deprecation(record))
    tf.get_logger()  # Adds a handler that prints everything, which is replaced.
    for logger in _all_loggers():
        logger.propagate = False
        logger.setLevel(logging.DEBUG if logger is _logger else logging.INFO)
        logger.handlers = [*_handlers]
    for note in startup.import_notes:
        detail("%s", note)


@contextlib.contextmanager
def logging_to_screen():
    """Calls `start`, and restores all loggers at the end of the `with` block."""
    tf.get_logger()
    loggers = list(_all_loggers())
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
