"""Lines of files and streams, as bytes, separated by line feeds alone."""

import io
import itertools

import tensorflow.compat.v1 as tf

from errors import UserError
from system import files

MAX_LINE_BYTES = 1 << 26  # longer lines are hardly text
_BLOCK_BYTES = 1 << 20


class _RawFile(io.RawIOBase):
    """Adapts a `tf.io.gfile.GFile` to `io.BufferedReader`."""

    def __init__(self, file):
        self._file = file

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def file_lines(path, name):
    """Yields the lines of a file, local or in a bucket; see `stream_lines`."""
    # `GFile.readline` would drop carriage returns.
    files.check_plain_file(path, name)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            stream = io.BufferedReader(_RawFile(file), _BLOCK_BYTES)
            yield from stream_lines(stream, name)
    except tf.errors.OpError as error:
        raise files.unreadable(name, error.message) from None


def stream_lines(stream, name):
    """Yields the lines of a binary stream, with line ends.

    Raises:
      UserError: `name` cannot be read, or a line exceeds `MAX_LINE_BYTES`.
    """
    for number in itertools.count(1):
        try:
            line = stream.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise files.unreadable(name, error.strerror) from None
        if len(line) > MAX_LINE_BYTES:
            raise UserError(
                "%s, line %d: longer than %d bytes; give one row a line"
                % (name, number, MAX_LINE_BYTES)
            )
        if not line:
            return
        yield line
