"""Fetching files over HTTP, unpacking archives safely, placing folders whole.

Nothing here knows what is fetched. All paths are local: a download is resumed from
what lies on disk, and a folder is placed by renaming it.
"""

import contextlib
import http.client
import json
import lzma
import os
import re
import shutil
import stat
import struct
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from typing import NamedTuple

import tqdm

from errors import UserError
from system import disk, files

ATTEMPTS = 5
# Before the second attempt; doubled before each further one.
WAIT_SECONDS = 1.0
# For each wait on the network (connecting, the next block), not for the whole file.
TIMEOUT_SECONDS = 60.0

# More than any file that is fetched has: an answer without end stops here.
MAX_BYTES = 2 << 30
# Text shrinks to a tenth; a member that unpacks to far more is meant to fill the disk.
MAX_ZIP_RATIO = 50
_ZIP_SLACK_BYTES = 16 << 20

_BLOCK_BYTES = 1 << 16
# A plain log gets at most ten lines for a file, and none for one below this size.
_PLAIN_STEP_BYTES = 5 << 20
# HTTP states that may pass by themselves.
_TRANSIENT_STATES = (408, 425, 429, 500, 502, 503, 504)


class _TransferError(Exception):
    """One attempt failed in a way that another attempt may not."""


class _Partial(NamedTuple):
    """What is on disk of an unfinished download.

    `validator` is the strong ETag, or else the Last-Modified date, of the file that
    the bytes came from; `length` is that file's length in bytes. Either may be
    unknown (None); with both unknown nothing shows that the rest would fit, so `size`
    is then 0.
    """

    size: int
    validator: str | None
    length: int | None


def say(message):
    """Writes one line to standard error at once."""
    print(message, file=sys.stderr, flush=True)


def _printable(text):
    """What another computer sent, for a message: a terminal would act on some of it."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text)[:200])
    return shown or type(text).__name__


def _state_path(part):
    return part + ".json"


def _load_partial(part, url):
    try:
        state = files.read_json(_state_path(part), "it is fetched again")
        size = os.path.getsize(part)
        validator, length = state["validator"], state["length"]
        same_file = state["url"] == url
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return _Partial(0, None, None)
    sound = isinstance(validator, (str, type(None))) and (
        length is None or type(length) is int
    )
    if not (same_file and sound) or (validator is None and length is None):
        return _Partial(0, None, None)
    return _Partial(size, validator, length)


def _discard(part):
    for path in (part, _state_path(part)):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _start_over(part, url, validator, length):
    """Empties the partial file, then records what will be in it: in that order, so
    that old bytes never stand beside a new record."""
    with open(part, "wb"):
        pass
    with open(_state_path(part), "w", encoding="utf-8") as file:
        json.dump({"url": url, "validator": validator, "length": length}, file)


def _validator(headers):
    etag = headers.get("ETag")
    # RFC 9110, 13.1.5: a weak tag does not promise equal bytes, so it cannot resume.
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified")


def _length(headers):
    value = headers.get("Content-Length", "")
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to a web address only; Python's own would take ftp too."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not _is_web_address(newurl):
            raise ValueError(
                "the server leads to %s, which is no http:// or https:// address"
                % _printable(newurl)
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_web_address(url):
    return url.lower().startswith(("http://", "https://"))


def _open(url, partial):
    headers = {}
    if partial.size:
        headers["Range"] = "bytes=%d-" % partial.size
        if partial.validator:
            headers["If-Range"] = partial.validator
    try:
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener(_WebRedirects)
        return opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        reason = "the server answered %d %s" % (error.code, _printable(error.reason))
        if error.code in _TRANSIENT_STATES or (error.code == 416 and partial.size):
            raise _TransferError(reason) from error
        raise UserError("cannot fetch %s: %s" % (url, reason)) from error
    except urllib.error.URLError as error:
        raise _TransferError(_printable(error.reason)) from error
    except ValueError as error:
        raise UserError("cannot fetch %s: %s" % (url, error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(_printable(error)) from error


def _continues(headers, partial):
    """Whether a 206 answer holds exactly the bytes that are missing."""
    match = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)",
        headers.get("Content-Range", "").strip(),
    )
    if not match or int(match.group(1)) != partial.size:
        return False
    total = match.group(3)
    if partial.length is not None and total not in ("*", str(partial.length)):
        return False
    validator = _validator(headers)
    return not partial.validator or validator in (None, partial.validator)


def _blocks(response):
    while True:
        try:
            block = response.read(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            message = "the connection broke: %s" % _printable(error)
            raise _TransferError(message) from error
        if not block:
            return
        yield block


@contextlib.contextmanager
def _progress(name, done, total):
    """Yields a function that is told of every number of bytes received."""
    if sys.stderr.isatty():
        with tqdm.tqdm(
            desc=name, initial=done, total=total, unit="B", unit_scale=True
        ) as bar:
            yield bar.update
        return
    step = max(_PLAIN_STEP_BYTES, (total or 0) // 10)
    shown = done

    def update(count):
        nonlocal done, shown
        done += count
        if done - shown >= step:
            shown = done
            of_total = " of %.1f" % (total / 1e6) if total else ""
            say("%s: %.1f%s MB" % (name, done / 1e6, of_total))

    yield update


def _check_size(url, part, size):
    """Refuses an answer of more than `MAX_BYTES`, and lets go of what has come."""
    if size > MAX_BYTES:
        _discard(part)
        raise UserError(
            "cannot fetch %s: the server sends more than %d bytes: it is another file"
            % (url, MAX_BYTES)
        )


def _fetch_rest(url, part, name):
    """One attempt: appends to `part` what is missing, or fetches all of it anew."""
    partial = _load_partial(part, url)
    try:
        response = _open(url, partial)
    except _TransferError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError) and (
            error.__cause__.code == 416
        ):
            _discard(part)
        raise
    with response:
        resumed = response.status == 206
        if resumed and not (partial.size and _continues(response.headers, partial)):
            _discard(part)
            raise _TransferError("the file on the server is not the one begun")
        if resumed:
            size, length = partial.size, partial.length
            say("%s: resuming after %d bytes" % (name, size))
        else:
            if partial.size:
                say(
                    "%s: the server cannot resume, or has another file now; starting "
                    "over" % name
                )
            size, length = 0, _length(response.headers)
            _check_size(url, part, length or 0)
            with disk.explained(os.path.dirname(part), length):
                _start_over(part, url, _validator(response.headers), length)
        with (
            disk.explained(os.path.dirname(part), length and length - size),
            open(part, "ab") as file,
            _progress(name, size, length) as update,
        ):
            for block in _blocks(response):
                size += len(block)
                _check_size(url, part, size)
                file.write(block)
                update(len(block))
    if length is not None and size < length:
        # http.client reports a short body as a normal end.
        raise _TransferError(
            "the connection closed after %d of %d bytes" % (size, length)
        )
    if length is not None and size > length:
        _discard(part)
        raise _TransferError("got %d bytes of a file of %d" % (size, length))


def fetch_file(url, path):
    """Fetches one file, continuing an earlier download that broke off.

    While it is incomplete the file is at `path + ".part"`, beside a small record of
    what the server said of it. Bytes are appended to only if the server confirms that
    they belong to the same file (`If-Range`, ETag, date or length); otherwise the file
    is fetched anew. `path` appears when all bytes are there.

    Args:
      url: an http or https address.
      path: a local path; a file that is there is replaced when the new one is whole.

    Raises:
      UserError: the server refuses, sends more than `MAX_BYTES`, leads elsewhere than
        to the web, or `ATTEMPTS` attempts failed. What has arrived then is kept for the
        next call.
      disk.NoSpaceError: there is no space for the file.
      OSError: the file cannot be written.
    """
    if not _is_web_address(url):
        raise UserError("cannot fetch %s: not an http:// or https:// address" % url)
    part = path + ".part"
    name = os.path.basename(path)
    wait = WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch_rest(url, part, name)
            break
        except _TransferError as error:
            if attempt == ATTEMPTS:
                raise UserError(
                    "cannot fetch %s: %s (attempt %d of %d). Run the same command "
                    "again to continue from what has arrived"
                    % (url, error, attempt, ATTEMPTS)
                ) from error
            say("%s: %s; trying again in %g s" % (name, error, wait))
            time.sleep(wait)
            wait *= 2
    os.replace(part, path)
    _discard(part)


# RuntimeError: encrypted, or packed by a method that is not known. ValueError: a name
# that is no UTF-8, or a number that cannot be.
_BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError,
    OverflowError, struct.error,
)  # fmt: skip


def _check_member(archive, member):
    """Refuses a member that would be written outside of the folder unpacked into."""
    # Backslashes too: some tools write them, and some systems take them for slashes.
    name = member.filename.replace("\\", "/")
    reason = None
    if set(name.split("/")) <= {"", "."}:
        reason = "without a name"
    elif name.startswith("/") or re.match(r"[A-Za-z]:", name):
        reason = "an absolute path"
    elif ".." in name.split("/"):
        reason = "a path that leaves its folder"
    elif stat.S_ISLNK(member.external_attr >> 16):
        reason = "a link"
    if reason:
        raise UserError(
            "%s is refused: its member %s is %s"
            % (archive, _printable(member.filename), reason)
        )


def _check_unpacked_size(archive, members):
    """Refuses an archive that is made to fill the disk, or one it cannot hold."""
    packed = os.path.getsize(archive)
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_ZIP_RATIO * packed + _ZIP_SLACK_BYTES:
        raise UserError(
            "%s is refused: its %d bytes unpack to %d, which no text does"
            % (archive, packed, unpacked)
        )
    disk.check_space(os.path.dirname(archive), unpacked, "unpacking %s" % archive)


def extract_zip(archive, folder):
    """Unpacks a zip file; every member is checked before the first is written.

    Args:
      archive: path of the zip file.
      folder: an existing folder to unpack into, on the same disk.

    Raises:
      disk.NoSpaceError: they need more than is free.
      UserError: the archive is broken, a member would escape from `folder`, or they are
        together far larger than text can be (`MAX_ZIP_RATIO`).
      OSError: the disk cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            for member in members:
                _check_member(archive, member)
            _check_unpacked_size(archive, members)
            # zipfile unpacks no more of a member than the size that was just checked.
            for member in members:
                file.extract(member, folder)
    except UserError:
        raise
    except _BROKEN_ZIP as error:
        raise UserError(
            "%s is not a sound zip file: %s" % (archive, _printable(error))
        ) from error


@contextlib.contextmanager
def staging_folder(final):
    """A folder beside `final` to make it in; gone again when the block is left.

    The name is fixed (`.NAME.incomplete`), so that what a killed run left is cleared
    by the next one.

    Args:
      final: path of the folder that is to appear; its parent exists.

    Yields:
      The path of an empty folder on the same file system.
    """
    parent, name = os.path.split(os.path.abspath(final))
    staging = os.path.join(parent, ".%s.incomplete" % name)
    if os.path.lexists(staging):
        shutil.rmtree(staging)
    os.mkdir(staging)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def place_folder(complete, final):
    """Moves a finished folder into place in one step.

    Raises:
      UserError: something is at `final` already; it is left alone.
      OSError: the rename failed, for example between two file systems.
    """
    if os.path.lexists(final):
        raise UserError(
            "%s exists already and is not overwritten; move it away first" % final
        )
    os.rename(complete, final)
