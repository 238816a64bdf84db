"""Items of JSON files that are read one at a time."""

import json
import re

import pytest

from errors import UserError
from inputs import json_stream

CONTENT = {
    "version": 1.5e-07,
    "data": [
        {
            "title": "[{",
            "paragraphs": [{"a": "é\u2028😀"}, [], 12345, 2.5e-08, "x" * 50, None],
        },
        {"paragraphs": []},
        {"other": {"paragraphs": [0]}, "paragraphs": [True]},
    ],
    "end": "\\",
}
PLACES = [(0, i, item) for i, item in enumerate(CONTENT["data"][0]["paragraphs"])]
EXPECTED = [
    ("data[%d].paragraphs[%d]" % (i, j), item) for i, j, item in [*PLACES, (2, 0, True)]
]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 20])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", request.param)


def read(path, text):
    path.write_text(text, encoding="utf-8")
    return list(json_stream.iterate_items(str(path), "data", "paragraphs"))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_items_are_read(block_bytes, indent, is_ascii, tmp_path):
    text = json.dumps(CONTENT, indent=indent, ensure_ascii=is_ascii)
    assert read(tmp_path / "a.json", text) == EXPECTED
    assert read(tmp_path / "a.json", "\ufeff%s\n" % text) == EXPECTED


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "line 1, character 1 of the file): the end instead of '{'"),
        ("[1]", "'[' instead of '{' at the start of the content"),
        ("{}", "data is missing"),
        ('{"data": {}}', "'{' instead of '[' at the start of data"),
        ('{"data": [{"x": 1}]}', "in or after data[0]): data[0].paragraphs is missing"),
        ('{"data": [{"paragraphs": [1', "the end instead of ','"),
        ('{"data": [{"paragraphs": [1 2]}]}', "'2' instead of ',' after an element"),
        ('{"data": [{"paragraphs": [1,]}]}', "Expecting value"),
        ('{"data":\n [{"paragraphs": [1, "a', "(line 2, character 31 of the file, in"),
        (
            '{"data": [{"paragraphs": [{"a": 1,}]}]}',
            "in or after data[0].paragraphs[0]",
        ),
        ('{"data": []} x', "text after the end"),
        ('{"data" 5', "'5' instead of ':' after a name"),
    ],
)
def test_damage_is_located(block_bytes, text, expected, tmp_path):
    with pytest.raises(UserError, match=re.escape(expected)):
        read(tmp_path / "a.json", text)


def test_files_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"data": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8"):
        list(json_stream.iterate_items(str(tmp_path / "a.json"), "data"))
    with pytest.raises(UserError, match="cannot be read"):
        list(json_stream.iterate_items(str(tmp_path / "b.json"), "data"))
    with pytest.raises(UserError, match="not a plain file"):
        list(json_stream.iterate_items(str(tmp_path), "data"))


def test_items_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(json_stream, "MAX_ITEM_CHARACTERS", 100)
    with pytest.raises(UserError, match="an item of more than 100 characters"):
        read(tmp_path / "a.json", '{"data": [{"paragraphs": ["%s"]}]}' % ("a" * 1000))
    with pytest.raises(UserError, match="an item of more than 100 characters"):
        read(tmp_path / "a.json", '{"data": [{"paragraphs": [%s' % ("[" * 10**6))
