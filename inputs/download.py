"""Downloads over HTTP and extraction of zip archives, to local paths."""

import logging
import lzma
import os
import posixpath
import re
import shutil
import struct
import sys
import zipfile
import zlib

import pooch
import requests

from errors import UserError, printable
from system import disk

RETRIES = 2  # of a download that fails
TIMEOUT_SECONDS = 60.0  # of each wait for the network
# Larger than any file of GLUE: an endless response stops here.
MAX_BYTES = 2 << 30
_BLOCK_BYTES = 1 << 16

# RuntimeError: encryption or unknown compression. ValueError: a name that is not UTF-8,
# or an invalid number.
_BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError,
    OverflowError, struct.error,
)  # fmt: skip


class _RefusedResponse(Exception):
    """A response that retrying would not change."""


class _BoundedFile:
    """A binary file that refuses more than `MAX_BYTES`."""

    def __init__(self, file):
        self._file = file
        self._bytes_left = MAX_BYTES

    def write(self, block):
        self._bytes_left -= len(block)
        if self._bytes_left < 0:
            raise _RefusedResponse(
                "the server sends more than %d bytes: it is another file" % MAX_BYTES
            )
        self._file.write(block)

    def flush(self):
        """Does nothing: pooch flushes after each block."""


def _check_length(response, **_):
    """Refuses an invalid Content-Length, with which no download can be verified."""
    length = response.headers.get("Content-Length", "0")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > MAX_BYTES:
        raise _RefusedResponse(
            "the server states a Content-Length of %s, not a number of bytes up to %d"
            % (printable(length, 30), MAX_BYTES)
        )


def _download(url, path, source):
    """A downloader for pooch that stops after `MAX_BYTES`."""
    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=_BLOCK_BYTES,
        timeout=TIMEOUT_SECONDS,
        # Content-Length then counts the received bytes.
        headers={"Accept-Encoding": "identity"},
        hooks={"response": _check_length},
    )
    with open(path, "wb") as file:
        download(url, _BoundedFile(file), source)


def _failure_reason(error):
    if isinstance(error, requests.HTTPError):
        response = error.response
        return "the server answered %d %s" % (response.status_code, response.reason)
    if isinstance(error, requests.Timeout):
        return "no answer within %g s" % TIMEOUT_SECONDS
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", cause))


def fetch_file(url, path, field=""):
    """Downloads a file atomically to a local path; makes the folder if needed.

    `field` is the name of the argument with the address, for messages.

    Raises:
      UserError: the download failed or is larger than `MAX_BYTES`.
      disk.WriteError: the disk is full.
      OSError: the file cannot be written.
    """
    address = "address (`%s`)" % field if field else "address"
    if not url.lower().startswith(("http://", "https://")):
        raise UserError(
            "cannot fetch %s: not an http:// or https:// %s" % (url, address)
        )
    folder, name = os.path.split(path)
    pooch.get_logger().setLevel(logging.WARNING)
    source = pooch.create(
        folder, "", registry={name: None}, urls={name: url}, retry_if_failed=RETRIES
    )
    try:
        with disk.explain_errors(folder):
            source.fetch(name, downloader=_download)
        return
    except disk.WriteError:
        raise
    except requests.RequestException as error:
        reason = _failure_reason(error)
    except (_RefusedResponse, ValueError) as error:  # ValueError: a long host name.
        reason = str(error)
    raise UserError(
        "cannot fetch %s: %s. Check the %s and the connection, and run the same "
        "command again" % (url, printable(reason), address)
    )


def extract_files(archive, filenames, folder):
    """Extracts files, all from one folder of a zip archive, to the existing `folder`.

    Raises:
      UserError: the archive is damaged, lacks a file or holds more than `MAX_BYTES`.
      disk.WriteError: the disk has too little space.
      OSError: a file cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _find_members(file, filenames)
            size = sum(member.file_size for member in members)
            if size > MAX_BYTES:
                raise UserError(
                    "%s unpacks to %d bytes, more than %d: it is another file"
                    % (archive, size, MAX_BYTES)
                )
            disk.check_space(folder, size, "unpacking %s" % archive)
            for name, member in zip(filenames, members):
                with (
                    file.open(member) as reader,
                    open(os.path.join(folder, name), "wb") as writer,
                ):
                    shutil.copyfileobj(reader, writer)
    except UserError:
        raise
    except _BROKEN_ZIP as error:
        raise UserError(
            "%s is not a valid zip file: %s" % (archive, printable(str(error)))
        ) from error


def _find_members(archive, filenames):
    """The members of a `ZipFile` with these names in the first folder with all."""
    members = {member.filename: member for member in archive.infolist()}
    for folder in sorted({posixpath.dirname(name) for name in members}):
        wanted = [posixpath.join(folder, name) for name in filenames]
        if members.keys() >= set(wanted):
            return [members[name] for name in wanted]
    raise UserError(
        "%s has no folder with all of %s" % (archive.filename, ", ".join(filenames))
    )
