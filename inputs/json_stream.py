"""A streaming parser for nested lists in a JSON file."""

import codecs
import json

import tensorflow.compat.v1 as tf

from errors import UserError
from system import files

_BLOCK_BYTES = 1 << 20
MAX_ITEM_CHARACTERS = 1 << 26


def iterate_items(path, *names):
    """Yields the items of nested lists: `names` "data", "paragraphs" for SQuAD.

    One item is in memory at a time; other entries are skipped.

    Yields:
      Pairs of a path in the file, such as "data[0].paragraphs[2]", and the item.

    Raises:
      UserError: the file cannot be read, is not JSON, lacks a list, or has an item of
        more than `MAX_ITEM_CHARACTERS`.
    """
    files.check_plain_file(path, path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            parser = _Parser(file, path)
            yield from parser.iterate_items(names)
            if parser.next_character():
                raise parser.error("text after the end")
    except tf.errors.OpError as error:
        raise files.unreadable(path, error.message) from None


class _Parser:
    """Parses a binary file; `_text[_position:]` is the unparsed part of the buffer."""

    def __init__(self, file, path):
        self._file, self._path = file, path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._position = "", 0
        self._offset, self._line = 0, 1  # of the buffer's first character
        self._item_path = ""
        self._is_at_end = False

    def error(self, problem):
        """A `UserError` for a problem at the current position."""
        line = self._line + self._text.count("\n", 0, self._position)
        character = self._offset + self._position + 1
        location = "line %d, character %d of the file" % (line, character)
        if self._item_path:
            location += ", in or after " + self._item_path
        return UserError("%s is damaged (%s): %s" % (self._path, location, problem))

    def iterate_items(self, names, prefix=""):
        """Yields pairs of path and item within the next value."""
        if not names:
            yield self._item_path, self._parse_value()
            return
        is_found = False
        self._expect("{", "at the start of %s" % (prefix.rstrip(".") or "the content"))
        for _ in self._elements("}"):
            name = self._parse_value()
            self._expect(":", "after a name")
            if name != names[0]:
                self._parse_value()
                continue
            is_found = True
            list_path = prefix + name
            self._expect("[", "at the start of " + list_path)
            for number in self._elements("]"):
                self._item_path = "%s[%d]" % (list_path, number)
                yield from self.iterate_items(names[1:], self._item_path + ".")
        if not is_found:
            raise self.error("%s%s is missing" % (prefix, names[0]))

    def next_character(self):
        """The next character after white space; "" at the end of the file."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in " \t\r\n":
                    return character
                self._position += 1
            if not self._read_block():
                return ""

    def _elements(self, closing):
        """Yields the number of each element of a list or object, before its text."""
        number = 0
        while self.next_character() != closing:
            if number:
                self._expect(",", "after an element")
            yield number
            number += 1
        self._position += 1

    def _expect(self, character, context):
        actual = self.next_character()
        if actual != character:
            actual = repr(actual) if actual else "the end"
            raise self.error("%s instead of %r %s" % (actual, character, context))
        self._position += 1

    def _parse_value(self):
        self.next_character()
        while True:
            try:
                value, end = self._scan(self._text, self._position)
                # A number such as "1e+5" may continue in the next block.
                if end + 2 < len(self._text) or not self._read_block():
                    self._position = end
                    return value
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._position > MAX_ITEM_CHARACTERS:
                    problem = "an item of more than %d characters, or an error in it"
                    raise self.error(problem % MAX_ITEM_CHARACTERS) from None
                if not self._read_block():
                    reason = getattr(error, "msg", None) or str(error)
                    self._position = getattr(error, "pos", self._position)
                    raise self.error(reason) from None

    def _read_block(self):
        """Reads a block of at least the buffer's size; returns False at the end."""
        if self._is_at_end:
            return False
        self._line += self._text.count("\n", 0, self._position)
        self._offset += self._position
        self._text, self._position = self._text[self._position :], 0
        data = self._file.read(max(_BLOCK_BYTES, len(self._text)))
        self._is_at_end = not data
        try:
            self._text += self._decode(data, not data)
        except UnicodeDecodeError as error:
            raise self.error("it is not UTF-8 (%s)" % error.reason) from None
        return True
