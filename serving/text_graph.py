"""BERT's tokenization as a graph, from texts to ids, with TensorFlow's own operations.

The normalization of a character, but for one letter, does not depend on its neighbors,
so a table holds it, made by the rules of `tokenization`. Words are looked up whole, and
those that are not in the vocabulary are split by a loop over all of them at once.

Axis letters: B batch, S sequence, N texts; C characters, W words and P word pieces of
all texts; A words that are not split yet.
"""

import functools
import itertools
import sys
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import tokenization

# The other planes of Unicode are empty, or for private use.
_USED = range(0x40000), range(0xE0000, 0xE1000)
_PAGE = 256  # characters of a page of the table
# Special values among code points: the character itself, and padding.
_ITSELF, _NONE = -2, -1
# The lower case of a capital sigma depends on the letters beside it.
_LAST_SIGMA = r"(\pL\pM*)\x{03A3}(\pM*(?:[^\pL\pM]|$))"


class _CharacterTable(NamedTuple):
    """Normalized characters; in pages, since most of Unicode has no character."""

    page_of: np.ndarray  # int32 [0x1100], of a code point divided by `_PAGE`
    pages: np.ndarray  # int32 [pages, _PAGE], index into `texts`
    # int32 [texts, longest]: code points, `_ITSELF` or `_NONE`.
    texts: np.ndarray


@functools.lru_cache
def _make_character_table(do_lower_case):
    numbers = np.zeros(sys.maxunicode + 1, np.int32)
    known = {(_ITSELF,): 0}
    for code_point in itertools.chain(*_USED):
        text = tokenization.normalize_character(chr(code_point), do_lower_case)
        codes = tuple(_ITSELF if ord(c) == code_point else ord(c) for c in text)
        numbers[code_point] = known.setdefault(codes, len(known))
    rows = numbers.reshape(-1, _PAGE)
    pages, page_of = np.unique(rows, axis=0, return_inverse=True)
    texts = np.full([len(known), max(map(len, known))], _NONE, np.int32)
    for codes, number in known.items():
        texts[number, : len(codes)] = codes
    return _CharacterTable(np.int32(page_of.reshape(-1)), pages, texts)


class TextEncoder:
    """Makes ids from texts, as `inputs.features.encode_example` does."""

    def __init__(self, tokenizer):
        """Adds the tables of a `tokenization.FullTokenizer` to the graph."""
        vocab, words = tokenizer.vocab, tokenizer.wordpiece_tokenizer
        self._do_lower_case = tokenizer.basic_tokenizer.do_lower_case
        self._characters = _make_character_table(self._do_lower_case)
        # One text: in graphs, each string of a constant takes much memory.
        pieces = tf.strings.split(["\n".join(vocab)], "\n").values
        ids = np.array(list(vocab.values()), np.int32)
        initializer = tf.lookup.KeyValueTensorInitializer(pieces, ids)
        self._vocab = tf.lookup.StaticHashTable(initializer, -1)
        self._unknown = vocab[words.unk_token]
        self._start, self._end = vocab["[CLS]"], vocab["[SEP]"]
        self._longest_word = words.max_input_chars_per_word
        self._longest_piece = max(map(len, vocab))

    def encode(self, text_a, text_b, max_lengths):
        """Encodes texts, and pairs of texts, whose text_b has a word piece.

        Args:
          text_a, text_b: string [B], UTF-8; other bytes are left out.
          max_lengths: int32 [B], of the sequences.

        Returns:
          Dict of "input_ids", "input_mask" and "segment_ids", int32 [B, S]. S is the
          length of the longest sequence; in an empty batch 1.
        """
        B = tf.size(text_a)
        ids, text = self._tokenize(tf.concat([text_a, text_b], axis=0))  # [P]
        first = tf.searchsorted(text, tf.range(2 * B + 1))  # piece of each text
        a_length, b_length = tf.split(first[1:] - first[:-1], 2)
        # A pair loses pieces of its longer text until it fits, of b if both are equal.
        room = max_lengths - 2 - tf.cast(b_length > 0, tf.int32)
        a_length = tf.minimum(a_length, tf.maximum(room - b_length, (room + 1) // 2))
        b_length = tf.minimum(b_length, room - a_length)
        # Truncated, b may be empty.
        lengths = a_length + 2 + b_length + tf.cast(b_length > 0, tf.int32)
        S = tf.maximum(tf.reduce_max(lengths), 1)

        number = tf.range(tf.size(ids)) - tf.gather(first, text)  # of a piece in a text
        kept_lengths = tf.concat([a_length, b_length], axis=0)
        kept = tf.where_v2(number < tf.gather(kept_lengths, text))[:, 0]
        start = tf.concat([tf.ones_like(a_length), a_length + 2], axis=0)
        places = tf.stack([text % B, tf.gather(start, text) + number], axis=1)
        places, ids = tf.gather(places, kept), tf.gather(ids, kept)
        input_ids = tf.scatter_nd(places, ids, tf.stack([B, S]))
        positions = tf.range(S)[tf.newaxis]
        lengths, end_a = lengths[:, tf.newaxis], a_length[:, tf.newaxis] + 1
        is_token = positions < lengths
        is_end = tf.equal(positions, end_a) | tf.equal(positions, lengths - 1)
        input_ids = tf.where_v2(is_end, self._end, input_ids)
        return {
            "input_ids": tf.where_v2(tf.equal(positions, 0), self._start, input_ids),
            "input_mask": tf.cast(is_token, tf.int32),
            "segment_ids": tf.cast(is_token & (positions > end_a), tf.int32),
        }

    def _tokenize(self, texts):
        """Word pieces of texts, string [N].

        Returns their ids, int32 [P], and the number of each one's text, int32 [P].
        """
        if self._do_lower_case:
            texts = tf.strings.regex_replace(texts, _LAST_SIGMA, "\\1\u03c2\\2")
        decoded = tf.strings.unicode_decode(texts, "UTF-8", errors="ignore")
        code_points = decoded.flat_values  # [C]
        splits = tf.cast(decoded.row_splits, tf.int32)
        places = tf.range(tf.size(code_points))
        text = tf.searchsorted(splits, places, side="right") - 1
        table = self._characters
        page = tf.gather(tf.constant(table.page_of), code_points // _PAGE)
        place = tf.stack([page, code_points % _PAGE], axis=1)
        number = tf.gather_nd(tf.constant(table.pages), place)
        codes = tf.gather(tf.constant(table.texts), number)  # [C, longest]
        own = code_points[:, tf.newaxis]
        codes = tf.where_v2(tf.equal(codes, _ITSELF), own, codes)
        places = tf.where_v2(tf.not_equal(codes, _NONE))
        codes, text = tf.gather_nd(codes, places), tf.gather(text, places[:, 0])
        splits = tf.searchsorted(text, tf.range(tf.size(texts) + 1))
        codes = tf.RaggedTensor.from_row_splits(codes, splits, validate=False)
        words = tf.strings.split(tf.strings.unicode_encode(codes, "UTF-8"))
        ids, word = self._split_words(words.values)
        return ids, tf.gather(tf.cast(words.indices[:, 0], tf.int32), word)

    def _split_words(self, words):
        """Word pieces of words, string [W].

        Returns their ids, int32 [P], and the number of each one's word, int64 [P].
        """
        length = tf.strings.length(words, "UTF8_CHAR")
        whole = self._vocab.lookup(words)
        whole = tf.where_v2(length > self._longest_word, self._unknown, whole)
        sizes = tf.range(1, self._longest_piece + 1)[tf.newaxis]

        def split(ids, word, left, start):
            """Adds the next piece of the words `left` [A], from character `start`."""
            text = tf.gather(words, left)[:, tf.newaxis]
            shape = [tf.size(left), self._longest_piece]
            parts = tf.strings.substr(  # [A, longest piece], those at the end repeated
                text,
                tf.broadcast_to(start[:, tf.newaxis], shape),
                tf.broadcast_to(sizes, shape),
                "UTF8_CHAR",
            )
            prefix = tf.where_v2(start > 0, "##", "")[:, tf.newaxis]
            found = self._vocab.lookup(prefix + parts)
            size = tf.reduce_max(tf.where_v2(found >= 0, sizes, 0), axis=1)
            last = tf.maximum(size - 1, 0)[:, tf.newaxis]
            ids = tf.concat([ids, tf.gather(found, last, batch_dims=1)[:, 0]], axis=0)
            word = tf.concat([word, left], axis=0)
            start += size
            is_left = tf.logical_and(size > 0, start < tf.gather(length, left))
            kept = tf.where_v2(is_left)[:, 0]
            return ids, word, tf.gather(left, kept), tf.gather(start, kept)

        is_whole = whole >= 0
        word, left = (tf.where_v2(each)[:, 0] for each in (is_whole, ~is_whole))
        ids, word, _, _ = tf.while_loop(
            lambda ids, word, left, start: tf.size(left) > 0,
            split,
            [tf.gather(whole, word), word, left, tf.zeros_like(left, tf.int32)],
            [tf.TensorShape([None])] * 4,
        )
        # A word with a part that is no piece is unknown; the part is its last, -1.
        is_unknown = tf.math.unsorted_segment_min(ids, word, tf.size(words)) < 0
        is_kept = tf.logical_or(ids < 0, ~tf.gather(is_unknown, word))
        kept = tf.where_v2(is_kept)[:, 0]
        order = tf.gather(kept, tf.argsort(tf.gather(word, kept), stable=True))
        ids = tf.where_v2(ids < 0, self._unknown, ids)
        return tf.gather(ids, order), tf.gather(word, order)
