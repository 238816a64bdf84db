"""Questions of files, against the original's, and wrong files."""

import json
import tracemalloc

import pytest

from errors import UserError
from inputs import json_stream
from tasks.squad import examples
from tests import squad_data

CONTEXT = "The red kite flew over the wall."
KITE = {"text": "kite", "answer_start": 8}

# Input cases that are refused, and a part of the message. The original ends with an
# exception on some, and uses a wrong answer of the others.
REFUSED = {
    "two answers in training": "it has 2 answers, for training it must have 1",
    "no answer in training, v1": "it has 0 answers, for training it must have 1",
    "impossible question read without the v2 flag": "`version_2_with_negative`",
    "impossible but with two answers, v2 flag": "but there is an answer, 'kite'",
    "is_impossible missing, v2 flag, training": "is_impossible is missing",
    "answers missing, training": "answers is missing",
    "answers missing but impossible, v2 training": "answers is missing",
    "start at the length of the text": "ends at character 36, the context at 32",
    "end beyond the text": "ends at character 35, the context at 32",
    "negative start, counted from the end": "it must be a whole number of at least 0",
    "empty context, training": "ends at character 4, the context at 0",
    "same id twice, prediction": "the id is a duplicate",
    "no data key": "data is missing",
    "data is a list": "'[' instead of '{' at the start of the content",
    "is_impossible is a string, v2 training": "it must be true or false",
    "is_impossible 0, v2 training": "it must be true or false",
    "no id": "id is missing",
    "no context": "data[0].paragraphs[0].context is missing",
}


def describe(example):
    names = "qas_id", "orig_answer_text", "start_position", "end_position"
    found = {name: getattr(example, name) for name in (*names, "is_impossible")}
    return {**found, "doc_tokens": list(example.doc_tokens)}


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_examples_equal_the_original(split, version, caplog):
    recorded = squad_data.load("examples", "%s_%s.json.gz" % (split, version))
    found = squad_data.read(split, version)
    assert [
        {**describe(each), "question_text": each.question_text} for each in found
    ] == recorded["examples"]
    texts = [record.getMessage() for record in caplog.records]
    skipped = [text for text in texts if "is skipped" in text]
    assert bool(skipped) == bool(recorded["skipped"])
    if skipped:
        assert " %d of " % recorded["warnings"] in skipped[0]
        assert "id %s:" % recorded["skipped"][0] in skipped[0]


@pytest.mark.parametrize(
    "case",
    squad_data.load("functions", "input_cases.json"),
    ids=lambda case: case["name"],
)
def test_input_cases(case, tmp_path, caplog):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(case["input"]))
    arguments = str(path), case["is_training"], case["version_2_with_negative"]
    expected = REFUSED.get(case["name"])
    if expected:
        with pytest.raises(UserError) as refused:
            examples.read_squad_examples(*arguments)
        message = str(refused.value)
        assert message.startswith(str(path)) and expected in message
        if case["name"] not in ("no data key", "data is a list", "no context"):
            assert ", data[0].paragraphs[0].qas[" in message
            assert (", id 1: " in message) == (case["name"] != "no id")
    else:
        found = examples.read_squad_examples(*arguments)
        assert list(map(describe, found)) == case["examples"]
        assert ("is skipped" in caplog.text) == (case["warnings"] > 0)
        assert ("but not there" in caplog.text) == ("moved by one" in case["name"])
        assert ("an empty answer" in caplog.text) == ("empty answer" in case["name"])


@pytest.mark.parametrize("context", [CONTEXT, ""])
def test_an_empty_answer_at_the_end_is_refused(context, tmp_path):
    answer = {"text": "", "answer_start": len(context)}
    question = {"id": "x", "question": "?", "answers": [answer]}
    path = squad_data.write_file(tmp_path / "a.json", [(context, [question])])
    with pytest.raises(UserError, match="id x: the answer '' ends at character"):
        examples.read_squad_examples(path, True)


def test_an_answer_to_a_question_without_one_is_refused(tmp_path):
    question = {"id": "x", "question": "?", "answers": [KITE], "is_impossible": True}
    path = squad_data.write_file(tmp_path / "a.json", [(CONTEXT, [question])])
    with pytest.raises(UserError, match="id x: is_impossible is true: train with"):
        examples.read_squad_examples(path, True)
    with pytest.raises(UserError, match="but there is an answer, 'kite'"):
        examples.read_squad_examples(path, True, True)
    assert examples.read_squad_examples(path, False)[0].orig_answer_text is None


@pytest.mark.parametrize(
    "entries, expected",
    [
        ({"id": 5, "question": "?"}, "qas[0]: id is 5, it must be a text"),
        ({"id": "x", "question": None}, "id x: question is null"),
        ("What?", 'the content is "What?", it must be an object'),
    ],
)
def test_wrong_entries_are_refused(entries, expected, tmp_path):
    path = squad_data.write_file(tmp_path / "a.json", [(CONTEXT, [entries])])
    with pytest.raises(UserError) as refused:
        examples.read_squad_examples(path, False)
    assert expected in str(refused.value)


def test_a_list_of_words_is_a_context():
    example = examples.SquadExample("x", "?", ["The", "red", "kite"])
    assert example.doc_tokens.text == "The red kite"
    assert (len(example.doc_tokens), example.doc_tokens[1:]) == (3, ["red", "kite"])


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", 1 << 16)

    def measure_peak(paragraphs):
        path = squad_data.write_file(
            tmp_path / "a.json",
            (
                (
                    CONTEXT + "x" * 10000,
                    [{"id": str(n), "question": "?", "answers": [KITE]}],
                )
                for n in range(paragraphs)
            ),
        )
        tracemalloc.start()
        count = sum(1 for _ in examples.iterate_examples(path, True))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == paragraphs
        return peak

    assert measure_peak(300) < 1.3 * measure_peak(30)  # 3 MB, 0.3 MB
