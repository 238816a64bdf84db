"""Checks on the sentiment sentences in sample_data/.

The thresholds below separate "two people wrote about the same thing" from
"one sentence is a reworked copy of another".  They are read off the data: over
all pairs of the 720 sentences the largest Jaccard similarity of word sets is
0.375 (two short sentences that share "for", "the", "and", "it" and "was"), and
the largest share of common word 4-grams is 0.22.  A ten-word sentence with one
word replaced has a Jaccard similarity of 9/11 = 0.82 to the original, and two
fillings of a twelve-word template with three slots one of 9/15 = 0.6; a new
word in the middle of twelve leaves 5 of 9 4-grams, 0.56.  Limits of 0.45 and
0.34 leave room for new rows and still catch all of these.
"""

import collections
import itertools
import os
import re

import pytest

from tests.places import ROOT

SAMPLE_DATA = str(ROOT / "sample_data")
FILES = ("train.tsv", "dev.tsv", "test.tsv")
HEADERS = {
    "train.tsv": ["sentence", "label"],
    "dev.tsv": ["sentence", "label"],
    "test.tsv": ["index", "sentence"],
}
MIN_ROWS = {"train.tsv": 500, "dev.tsv": 150, "test.tsv": 40}
MIN_WORDS, MAX_WORDS = 4, 35
JACCARD_LIMIT = 0.45
FOUR_GRAM_LIMIT = 0.34


def read_text(name):
    with open(os.path.join(SAMPLE_DATA, name), "rb") as stream:
        return stream.read().decode("utf-8")


def read_rows(name):
    lines = read_text(name).split("\n")[:-1]
    return [line.split("\t") for line in lines[1:]]


def sentences(name):
    return [row[HEADERS[name].index("sentence")] for row in read_rows(name)]


def all_sentences():
    return [(name, sentence) for name in FILES for sentence in sentences(name)]


def words(sentence):
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", sentence.lower())


def n_grams(tokens, length):
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


def jaccard(left, right):
    return len(left & right) / len(left | right)


def containment(left, right):
    """Share of the smaller set that the other one holds, 0 if either is empty."""
    smaller = min(len(left), len(right))
    return len(left & right) / smaller if smaller else 0.0


@pytest.mark.parametrize("name", FILES)
def test_header(name):
    assert read_text(name).split("\n")[0].split("\t") == HEADERS[name]


@pytest.mark.parametrize("name", FILES)
def test_file_is_plain_two_column_text(name):
    text = read_text(name)
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "\r" not in text
    assert '"' not in text
    assert not text.startswith("\ufeff")
    for number, line in enumerate(text.split("\n")[:-1], 1):
        fields = line.split("\t")
        assert len(fields) == 2, "%s:%d" % (name, number)
        for field in fields:
            assert field, "%s:%d has an empty column" % (name, number)
            assert field == " ".join(field.split()), "%s:%d" % (name, number)
            assert field.isprintable(), "%s:%d" % (name, number)


@pytest.mark.parametrize("name", FILES)
def test_enough_rows(name):
    assert len(read_rows(name)) >= MIN_ROWS[name]


@pytest.mark.parametrize("name", ["train.tsv", "dev.tsv"])
def test_classes_are_balanced(name):
    labels = collections.Counter(row[1] for row in read_rows(name))
    assert set(labels) == {"0", "1"}
    assert labels["0"] == labels["1"]


@pytest.mark.parametrize("name", ["train.tsv", "dev.tsv"])
def test_classes_are_mixed(name):
    # In 520 fair coin tosses a run longer than 15 has a chance below 1 percent.
    labels = [row[1] for row in read_rows(name)]
    assert max(len(list(run)) for _, run in itertools.groupby(labels)) <= 15


def test_index_counts_from_zero():
    indices = [row[0] for row in read_rows("test.tsv")]
    assert indices == [str(i) for i in range(len(indices))]


@pytest.mark.parametrize("name", FILES)
def test_sentence_lengths(name):
    for sentence in sentences(name):
        assert MIN_WORDS <= len(sentence.split()) <= MAX_WORDS, sentence


def test_no_duplicates():
    seen = {}
    for name, sentence in all_sentences():
        key = " ".join(words(sentence))
        assert key not in seen, "%s and %s: %s" % (seen[key], name, sentence)
        seen[key] = name


def test_no_near_duplicates_by_word_set():
    rows = [
        (name, sentence, set(words(sentence))) for name, sentence in all_sentences()
    ]
    close = [
        (left[:2], right[:2])
        for left, right in itertools.combinations(rows, 2)
        if jaccard(left[2], right[2]) >= JACCARD_LIMIT
    ]
    assert close == []


def test_no_near_duplicates_by_four_grams():
    rows = [
        (name, sentence, n_grams(words(sentence), 4))
        for name, sentence in all_sentences()
    ]
    close = [
        (left[:2], right[:2])
        for left, right in itertools.combinations(rows, 2)
        if containment(left[2], right[2]) >= FOUR_GRAM_LIMIT
    ]
    assert close == []


@pytest.mark.parametrize("position", ["opening", "ending"])
@pytest.mark.parametrize(("length", "limit"), [(5, 2), (3, 4)])
def test_no_template_skeleton(position, length, limit):
    # A template shows as the same first or last words over and over.
    counts = collections.Counter()
    for _, sentence in all_sentences():
        tokens = words(sentence)
        if len(tokens) > length:
            part = tokens[:length] if position == "opening" else tokens[-length:]
            counts[" ".join(part)] += 1
    assert {part: n for part, n in counts.items() if n > limit} == {}


def test_no_repeated_frame():
    # A template with its slots masked: keep the words that occur in at least
    # eight sentences, replace each run of others by one "_".  A frame says
    # something only where four or more kept words hold it together.
    tokens = [words(sentence) for _, sentence in all_sentences()]
    spread = collections.Counter(itertools.chain.from_iterable(map(set, tokens)))
    frames = collections.Counter()
    for sentence in tokens:
        masked = [word if spread[word] >= 8 else "_" for word in sentence]
        frame = [word for word, _ in itertools.groupby(masked)]
        if sum(word != "_" for word in frame) >= 4:
            frames[" ".join(frame)] += 1
    assert {frame: n for frame, n in frames.items() if n > 2} == {}
