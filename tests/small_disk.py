"""A disk that is full, for tests."""

import contextlib
import resource


@contextlib.contextmanager
def files_end_at(size):
    """Files that would grow larger, in bytes, cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
