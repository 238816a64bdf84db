"""Answers from logits, and their files, against the original's."""

import gzip
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.squad import answer_files, answer_text, answers, examples
from tests import squad_data
from tests.fuzzing import fuzzed

FILES = "predictions.json", "nbest_predictions.json", "null_odds.json"


def load_results(record):
    """The recorded logits of a record of predictions/index.json."""
    name, prefix = record["logits"].split(": ")
    arrays = np.load(os.path.join(squad_data.SQUAD, name))
    ids = prefix if prefix + "/unique_ids" in arrays else prefix.split("/")[0]
    names = ids + "/unique_ids", prefix + "/start_logits", prefix + "/end_logits"
    return list(map(answers.RawResult, *(arrays[each] for each in names)))


def predict(found, output, results, settings, folder):
    """Writes the answers to examples; returns the files' bytes by name."""
    version_2 = settings["version_2_with_negative"]
    paths = [str(folder / name) for name in FILES]
    answer_files.write_predictions(
        found,
        output,
        results,
        settings["n_best_size"],
        settings["max_answer_length"],
        settings.get("do_lower_case", True),
        *paths,
        version_2_with_negative=version_2,
        null_score_diff_threshold=settings.get("null_score_diff_threshold", 0.0),
    )
    assert os.path.exists(paths[2]) == version_2
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def remove_entries(data, ids):
    content = {key: value for key, value in json.loads(data).items() if key not in ids}
    return (json.dumps(content, indent=4) + "\n").encode()


@pytest.mark.parametrize(
    "record",
    squad_data.load("predictions", "index.json"),
    ids=lambda record: record["folder"],
)
def test_predictions_equal_the_original(record, tmp_path, caplog):
    version = "v2.0" if record["version_2_with_negative"] else "v1.1"
    found = squad_data.read("dev", version)
    output = squad_data.make_features(found, record, is_training=False)
    # Results may come in any order.
    files = predict(found, output, load_results(record)[::-1], record, tmp_path)
    assert len(files) == (3 if version == "v2.0" else 2)

    failed = record["original_fails_on"]
    for name, data in files.items():
        path = os.path.join(squad_data.SQUAD, "predictions", record["folder"], name)
        if name == "nbest_predictions.json":
            with gzip.open(path + ".gz") as reader:
                expected = reader.read()
        else:
            with open(path, "rb") as reader:
                expected = reader.read()
        assert remove_entries(data, failed) == expected

    # These questions have no other candidate than no answer.
    without = failed or [
        qas_id
        for qas_id, text in json.loads(files["predictions.json"]).items()
        if text == "empty"
    ]
    if version == "v2.0":
        for qas_id in failed:
            assert json.loads(files["predictions.json"])[qas_id] == ""
            (only,) = json.loads(files["nbest_predictions.json"])[qas_id]
            assert (only["text"], only["probability"]) == ("", 1.0)
            null_score = only["start_logit"] + only["end_logit"]
            assert json.loads(files["null_odds.json"])[qas_id] == null_score
    assert (" %d of " % len(without) in caplog.text) == bool(without)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in squad_data.load("functions", "input_cases.json")
        if "start_logits" in case and "same id" not in case["name"]
    ],
    ids=lambda case: case["name"],
)
def test_predictions_of_input_cases(case, tmp_path):
    path = tmp_path / "input" / "questions.json"
    path.parent.mkdir()
    path.write_text(json.dumps(case["input"]))
    settings = {
        **{"max_seq_length": 64, "doc_stride": 24, "max_query_length": 16},
        **{"n_best_size": 64, "max_answer_length": 30},
        "version_2_with_negative": case["version_2_with_negative"],
    }
    found = examples.read_squad_examples(str(path), is_training=False)
    output = squad_data.make_features(found, settings, is_training=False)
    logits = zip(
        [feature.unique_id for feature in output],
        np.float32(case["start_logits"]),
        np.float32(case["end_logits"]),
        strict=True,
    )
    results = [answers.RawResult(*each) for each in logits]
    files = predict(found, output, results, settings, tmp_path)
    if case["name"] == "empty context, v2 prediction":  # The original fails.
        expected, null_odds = {"1": ""}, {"1": 1000000.0}
        assert json.loads(files["null_odds.json"]) == null_odds
    else:
        expected = case["predictions"]
    assert json.loads(files["predictions.json"]) == expected


def test_final_texts_equal_the_original(caplog):
    caplog.set_level("INFO", logger="tensorflow")
    cases = squad_data.load("functions", "get_final_text.json.gz")
    assert len(cases) == 560
    for case in cases:
        caplog.clear()
        arguments = case["pred_text"], case["orig_text"], case["do_lower_case"]
        found = answer_text.get_final_text(*arguments, verbose_logging=True)
        assert found == case["result"], case
        assert bool(caplog.records) == (case["how"] != "aligned")


def test_best_indexes_and_softmax_equal_the_original():
    cases = squad_data.load("functions", "small_functions.json.gz")
    for case in cases["get_best_indexes"]:
        found = answers.get_best_indexes(case["logits"], case["n_best_size"])
        assert found == case["result"]
    for case in cases["compute_softmax"]:
        assert answers.compute_softmax(case["scores"]) == case["result"]


CHARACTERS = st.one_of(
    st.sampled_from("aA1.,'-é"),
    st.sampled_from(["e\u0301", "İ", "ß", "ﬁ", "Ω", "ǅ", "中", "文", "ก็", "ख़"]),
    st.sampled_from(["\u200b", "\u200d", "\ufeff", "\xad", "\0", "\ufffd", "\x1b"]),
    st.sampled_from([" ", " ", "  ", "\t", "\r\n", "\u202f", "\xa0", "\u3000", "\x0b"]),
    st.sampled_from(["😀", "👩\u200d👩", "🇩🇪", "\u2028", "'s", "##a", "[UNK]"]),
    st.characters(exclude_categories=["Cs"]),
)


@fuzzed
@given(
    context=st.lists(CHARACTERS, max_size=60).map("".join),
    question=st.text(max_size=10),
    do_lower_case=st.booleans(),
    version_2=st.booleans(),
    seed=st.integers(0, 99),
)
def test_answers_are_parts_of_their_context(
    context, question, do_lower_case, version_2, seed
):
    example = examples.SquadExample("x", question, examples.ContextWords(context))
    output = squad_data.make_features(
        [example],
        {
            **{"max_seq_length": 24, "doc_stride": 5, "max_query_length": 4},
            "do_lower_case": do_lower_case,
        },
        is_training=False,
    )
    random = np.random.RandomState(seed)
    logits = random.randint(-9, 9, [len(output), 2, 24]).astype(np.float32)
    windows = [
        (feature, answers.RawResult(feature.unique_id, *each))
        for feature, each in zip(output, logits)
    ]
    decoding = answers.Decoding(20, 8, do_lower_case, version_2)
    found = answers.choose_answers(example, windows, decoding)
    words = " ".join(example.doc_tokens)
    for answer in found.n_best:
        if answer.span is None:
            assert answer.text == "" if version_2 else answer == answers.NO_CANDIDATE
            continue
        assert answer.text in words
        # The part itself, where words are not only separated by single spaces.
        part = context[answer.span]
        assert part and " ".join(examples.ContextWords(part)) == answer.text
    assert (found.best in found.n_best) and (found.null_odds is None) != version_2
    assert sum(answer.probability for answer in found.n_best) == pytest.approx(1)


def test_questions_without_a_window(tmp_path):
    contexts = ["", "The red kite.", "\u200b", "A wall.", ""]
    found = [
        examples.SquadExample(str(n), "?", examples.ContextWords(context))
        for n, context in enumerate(contexts)
    ]
    settings = {"max_seq_length": 12, "doc_stride": 2, "max_query_length": 4}
    output = squad_data.make_features(found, settings, is_training=False)
    logits = np.zeros(12, np.float32)
    results = [answers.RawResult(each.unique_id, logits, logits) for each in output]
    paths = [str(tmp_path / name) for name in FILES]
    answer_files.write_predictions(found, output, results, 20, 30, True, *paths)
    written = json.loads((tmp_path / FILES[0]).read_text())
    assert list(written) == ["0", "1", "2", "3", "4"]
    for number, text in enumerate(written.values()):
        assert (text == answers.NO_CANDIDATE.text) != (number in (1, 3))
