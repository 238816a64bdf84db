"""Tokenization in the graph gives the ids of `tokenization` and of the original."""

import json
import os
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tokenization
from inputs import features
from serving import text_graph
from tests import graph_variables
from tests.places import DATA

VOCAB = os.path.join(DATA, "vocab_uncased.txt")
LONG = 1 << 20


class Encoder:
    """The graph, and what it is compared with."""

    def __init__(self, do_lower_case):
        self.tokenizer = tokenization.FullTokenizer(VOCAB, do_lower_case)
        graph = tf.Graph()
        with graph.as_default():
            self._fed = [
                tf.placeholder(dtype, [None])
                for dtype in (tf.string, tf.string, tf.int32)
            ]
            encoder = text_graph.TextEncoder(self.tokenizer)
            self._encoded = encoder.encode(*self._fed)
            initializer = tf.tables_initializer()
        self.nodes = [
            name for name, _ in graph_variables.iterate_nodes(graph.as_graph_def())
        ]
        self._session = tf.Session(graph=graph)
        self._session.run(initializer)

    def encode(self, rows, lengths):
        """Features of pairs of texts: dict from name to array [rows, S]."""
        rows = [[text.encode("utf-8", "ignore") for text in row] for row in rows]
        columns = [list(column) for column in zip(*rows)] or [[], []]
        return self._session.run(
            self._encoded, dict(zip(self._fed, [*columns, lengths]))
        )

    def check(self, rows, lengths=None):
        """Compares with `features.encode_example`."""
        lengths = [LONG] * len(rows) if lengths is None else lengths
        found = self.encode(rows, lengths)
        longest = 0
        for number, (row, length) in enumerate(zip(rows, lengths)):
            example = features.InputExample(None, row[0], row[1] or None)
            count = min(length, sum(map(len, row)) * 4 + 3)
            expected = features.encode_example(
                features.NOT_LOGGED, example, None, count, self.tokenizer
            )
            size = sum(expected["input_mask"])
            longest = max(longest, size)
            for name, values in found.items():
                assert values[number, :size].tolist() == expected[name][:size], row
                assert not values[number, size:].any()
        for values in found.values():
            assert values.shape == (len(rows), longest) and values.dtype == np.int32


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def encoder(request):
    return Encoder(request.param)


def test_ids_are_the_originals(encoder):
    with open(os.path.join(DATA, "golden_tokenization.json"), encoding="utf-8") as file:
        records = json.load(file)
    case = "uncased" if encoder.tokenizer.basic_tokenizer.do_lower_case else "cased"
    texts = [record["text"] for record in records]
    found = encoder.encode([(text, "") for text in texts], [LONG] * len(texts))
    for record, ids, mask in zip(records, found["input_ids"], found["input_mask"]):
        assert ids[1 : mask.sum() - 1].tolist() == record[case + "_ids"], record["text"]


def test_every_character(encoder):
    chars = [
        chr(code_point)
        for code_point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code_point)) not in ("Cs", "Cn", "Co", "Lo")
        or (code_point % 16 == 0 and not 0xD800 <= code_point < 0xE000)
    ]
    # A capital sigma is the exception, see below.
    chars.remove("\u03a3")
    rows = []
    for start in range(0, len(chars), 64):
        part = chars[start : start + 64]
        rows.append((" ".join(part), "b".join(part)))
    encoder.check(rows)


def test_random_texts(encoder):
    random = np.random.RandomState(0)
    alphabet = [
        *"abcdefghijklmnoprstuvw", *"ABÉéñßİŸ 12.,-'\"#[]$\t\n\u00a0\u00ad\u200b\ufffd",
        *"e\u0301 n\u0303 中文한국어ひらカタ\uff21\uff42\u2028\x00\x07😀",
        "ing", "un", "the ", " ",
    ]  # fmt: skip
    rows = [
        tuple("".join(random.choice(alphabet, random.randint(0, 60))) for _ in "ab")
        for _ in range(400)
    ]
    encoder.check(rows)
    encoder.check(rows, random.randint(3, 40, len(rows)).tolist())


def test_long_words_and_unknown_parts(encoder):
    words = [
        "un" * 100,
        "un" * 100 + "a",
        "x" * 5000,
        "running",
        "run\u4e00ning",
        "runningж",
    ]
    encoder.check([(" ".join(words), word) for word in words])


def test_a_capital_sigma_at_the_end_of_a_word(encoder):
    texts = ["ΟΔΟΣ", "ΣΟΦΟΣ ΣΟΦΟΣ.", "ΑΣΑ Σ, (ΑΣ) ΆΣ\u0301", "ΟΔΟΣ ΟΔΟΣ ΟΔΟΣ"]
    encoder.check([(text, "") for text in texts])


def test_bytes_that_are_no_utf_8_are_left_out(encoder):
    whole, broken = encoder._session.run(
        encoder._encoded["input_ids"],
        dict(zip(encoder._fed, [[b"a cat", b"a\xff cat\xc3"], [b"", b""], [9, 9]])),
    )
    assert whole.tolist() == broken.tolist()


def test_an_empty_batch(encoder):
    for values in encoder.encode([], []).values():
        assert values.shape == (0, 1)


def test_the_graph_is_small(encoder):
    """A server needs some 20 kB of memory for each operation."""
    assert 200 < len(encoder.nodes) < 500
