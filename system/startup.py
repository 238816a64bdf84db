"""Prepares the process and imports TensorFlow; programs import this module first.

TensorFlow and the libraries it imports read environment variables when they are loaded.
Variables that the user has set are kept.
"""

import atexit
import contextlib
import faulthandler
import gc
import os
import platform
import re
import shutil
import tempfile

# Lines that TensorFlow 2.21 writes at every TF_CPP_MIN_LOG_LEVEL.
_NOTE = re.compile(r"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} ")

import_notes: list[str] = []  # suppressed lines, for the log file


def open_standard_streams():
    """Opens the null device for each closed standard stream.

    Otherwise the next file to be opened gets the number of standard error, and
    TensorFlow writes its messages into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free number.


def set_cache_folders():
    """Gives matplotlib and Keras a temporary folder if there is no home directory.

    Both write into the home directory when they are imported. In containers HOME can be
    unset with an unknown user id, or not writable.
    """
    if os.access(os.path.expanduser("~"), os.W_OK):
        return
    folder = tempfile.mkdtemp(prefix="adapter_bert_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))
    os.environ.setdefault("KERAS_HOME", os.path.join(folder, "keras"))


@contextlib.contextmanager
def collect_notes(notes):
    """Captures standard error: adds notes to a list, shows other lines at the end."""
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

# Each session has the number of threads in its configuration. By default the first
# session, or the first trace of a `tf.function`, decides for the whole process.
os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")

# With level 3 TensorFlow shows fatal errors only.
is_quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
# The garbage collector would search the million objects that TensorFlow's import
# creates again and again, during the import and later: a fifth of a short run.
collects = gc.isenabled()
gc.disable()
with collect_notes(import_notes) if is_quiet else contextlib.nullcontext():
    import tensorflow  # noqa: F401
gc.freeze()
if collects:
    gc.enable()
