"""Lines of files and streams, and what is no file of lines."""

import io
import os

import pytest

from errors import UserError
from inputs import text_lines


def test_every_byte_of_a_file_is_kept(tmp_path):
    content = b"a\rb\r\n\n\r\r\n" + b"c" * 3000000 + b"\nlast \xff\r"
    path = tmp_path / "rows.tsv"
    path.write_bytes(content)
    lines = list(text_lines.file_lines(str(path), "--input"))
    assert lines == list(io.BytesIO(content))
    assert b"".join(lines) == content


def test_what_is_no_plain_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.tsv")
    (tmp_path / "zero.tsv").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.tsv", tmp_path / "zero.tsv", tmp_path):
        with pytest.raises(
            UserError, match=r"--input cannot be read .*not a plain file"
        ):
            list(text_lines.file_lines(str(path), "--input"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--input cannot be read .*no\.tsv; No such"):
        list(text_lines.file_lines(str(tmp_path / "no.tsv"), "--input"))


def test_a_line_without_end(monkeypatch):
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 10)
    found = text_lines.stream_lines(io.BytesIO(b"a\n123456789\n1234567890\n"), "rows")
    assert [next(found), next(found)] == [b"a\n", b"123456789\n"]
    with pytest.raises(UserError, match="rows, line 3: longer than 10 bytes"):
        next(found)


class _Broken(io.BytesIO):
    def readline(self, *_):
        raise OSError(5, "Input/output error")


def test_a_stream_that_cannot_be_read():
    with pytest.raises(UserError, match=r"rows cannot be read \(Input/output error\)"):
        list(text_lines.stream_lines(_Broken(), "rows"))
