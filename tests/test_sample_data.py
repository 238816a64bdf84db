"""The sentences of sample_data/: read as SST-2, balanced, and no two of them alike.

Two reworked copies of one sentence share far more words than the limits below: over all
pairs the largest Jaccard similarity of word sets is 0.375, and the largest fraction of
common 4-grams 0.22; with one of ten words replaced they are 0.82 and 0.56.
"""

import collections
import itertools
import re

import pytest

import glue_data
from tasks import task_data
from tasks.squad import examples as squad_examples
from tests.places import ROOT

MOST_SIMILAR = 0.45
MOST_COMMON_4_GRAMS = 0.34


@pytest.fixture(scope="module")
def examples():
    task = glue_data.get_task("sst-2")
    folder = str(ROOT / "sample_data")
    return {
        split.name: task_data.read_examples(task, folder, split)
        for split in task.splits
    }


def test_sets_are_balanced_and_shuffled(examples):
    assert {name: len(found) for name, found in examples.items()} == {
        "train": 520, "dev": 160, "test": 40
    }  # fmt: skip
    for name in ("train", "dev"):
        labels = [example.label for example in examples[name]]
        assert labels.count("0") == labels.count("1") == len(labels) / 2
        # In 520 fair coin tosses a run longer than 15 has a chance below 1 percent.
        assert max(len(list(run)) for _, run in itertools.groupby(labels)) <= 15


def test_sentences_are_plain_text_and_not_alike(examples):
    found = [example.text_a for rows in examples.values() for example in rows]
    openings = collections.Counter()
    words = []
    for text in found:
        assert text == " ".join(text.split()) and text.isprintable() and '"' not in text
        words.append(re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower()))
        assert 4 <= len(text.split()) <= 35, text
        openings[" ".join(words[-1][:3])] += 1
    assert max(openings.values()) <= 4
    sets = [set(each) for each in words]
    grams = [{tuple(w[i : i + 4]) for i in range(len(w) - 3)} for w in words]
    for one, other in itertools.combinations(range(len(found)), 2):
        common = len(sets[one] & sets[other])
        similarity = common / (len(sets[one]) + len(sets[other]) - common)
        assert similarity < MOST_SIMILAR, (found[one], found[other])
        fewest = min(len(grams[one]), len(grams[other]))
        shared = len(grams[one] & grams[other]) / max(fewest, 1)
        assert shared < MOST_COMMON_4_GRAMS, (found[one], found[other])


def test_questions_have_their_answers_in_place():
    contexts = {}
    for split, count in (("train", 333), ("dev", 75)):
        path = str(ROOT / "sample_data" / "squad" / ("%s.json" % split))
        questions = list(squad_examples.iterate_questions(path))
        assert len(questions) == count
        for question in questions:
            text = question.words.text
            assert contexts.setdefault(text, split) == split
            (answer,) = question.entries["answers"]
            start = answer["answer_start"]
            end = start + len(answer["text"])
            assert text[start:end] == answer["text"]
            assert not text[:start][-1:].isalnum() and not text[end:][:1].isalnum()
            assert 1 <= len(answer["text"].split()) <= 6
            assert not re.search(
                r"\b%s\b" % re.escape(answer["text"]), question.entries["question"]
            )
    assert collections.Counter(contexts.values()) == {"train": 69, "dev": 15}
