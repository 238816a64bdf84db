"""Prepares the process and imports TensorFlow; programs import this module first.

TensorFlow and the libraries it imports read environment variables when they are loaded.
Variables that the user has set are kept.
"""

import contextlib
import faulthandler
import os
import platform
import re
import tempfile

# Lines that TensorFlow writes before it reads TF_CPP_MIN_LOG_LEVEL (2.21).
_NOTE = re.compile(r"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} ")

# The lines of TensorFlow's import that were not shown, for the log file.
import_notes: list[str] = []


def open_standard_streams():
    """Opens the null device in the place of standard streams that are closed.

    The next file that is opened would get the number of a closed one, and TensorFlow's
    messages on standard error would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free number.


def set_cache_folders():
    """Gives matplotlib and Keras a temporary folder where there is no home directory.

    Both write settings or caches into the home directory when they are imported.
    Containers can lack it: HOME is not set and the user id is unknown, or HOME cannot
    be written.
    """
    if os.access(os.path.expanduser("~"), os.W_OK):
        return
    folder = os.path.join(tempfile.gettempdir(), "adapter_bert_%d" % os.getuid())
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))
    os.environ.setdefault("KERAS_HOME", os.path.join(folder, "keras"))


@contextlib.contextmanager
def collected_notes(notes):
    """Adds TensorFlow's notes to the list `notes`; shows all other lines at the end."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    screen = os.dup(2)
    os.dup2(writer, 2)
    is_enabled = faulthandler.is_enabled()
    if not is_enabled:
        # TensorFlow aborts on processors that lack AVX: show at least where.
        faulthandler.enable(screen)
    try:
        yield
    finally:
        if not is_enabled:
            faulthandler.disable()
        os.dup2(screen, 2)
        os.close(screen)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            text = (stream.read() or b"").decode(errors="replace")
        for line in text.splitlines(keepends=True):
            if _NOTE.match(line):
                notes.append(line.rstrip())
            else:
                with contextlib.suppress(OSError):
                    os.write(2, line.encode())


open_standard_streams()
set_cache_folders()

# By default TensorFlow uses oneDNN's operations only on processors with AVX512-VNNI,
# AVX512-BF16 or AMX; those with AVX2 alone gain too: benchmarks/README.md.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# With level 3, fatal errors only, the notes of the import are not shown either.
is_quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
with collected_notes(import_notes) if is_quiet else contextlib.nullcontext():
    import tensorflow  # noqa: F401
