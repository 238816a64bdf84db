"""Exact match and F1 against the official rules, as recorded."""

import pytest

from errors import UserError
from tasks.squad import scores
from tests import squad_data


def test_scores_of_a_prediction():
    cases = squad_data.load("eval_cases.json")
    assert len(cases) == 150
    for case in cases:
        for version_2, name in ((False, "v1"), (True, "v2")):
            expected = case[name]["exact"], case[name]["f1"]
            texts = case["prediction"], case["golds"]
            found = scores.score_prediction(*texts, version_2)
            assert found == pytest.approx(expected, rel=1e-12), case


@pytest.mark.parametrize(
    "record", squad_data.load("eval_results.json"), ids=lambda record: record["folder"]
)
def test_scores_of_files(record):
    folder = "predictions", record["folder"]
    predictions = squad_data.load(*folder, "predictions.json")
    if "v1.1" in record:
        references = scores.read_references(squad_data.data_path("dev", "v1.1"))
        found = scores.evaluate(references, predictions)
        assert found == pytest.approx(record["v1.1"], rel=1e-12)
        return
    references = {
        qas_id: reference
        for qas_id, reference in scores.read_references(
            squad_data.data_path("dev", "v2.0"), version_2_with_negative=True
        ).items()
        if qas_id in predictions
    }
    found = scores.evaluate_v2(references, predictions)
    assert found == pytest.approx(record["v2.0"], rel=1e-12)

    null_odds = squad_data.load(*folder, "null_odds.json")
    expected = record["v2.0 with null_odds as no-answer probabilities"]
    found = scores.evaluate_v2(references, predictions, null_odds)
    best = {name: value for name, value in expected.items() if "best" in name}
    assert {name: found[name] for name in best} == pytest.approx(best, rel=1e-12)
    # The official script takes null odds for probabilities: no answer is above 1.
    by_probability = {
        qas_id: "" if null_odds[qas_id] > 1.0 else text
        for qas_id, text in predictions.items()
    }
    found = scores.evaluate_v2(references, by_probability)
    assert found == pytest.approx({k: expected[k] for k in found}, rel=1e-12)


def test_missing_predictions_score_0():
    references = {"x": scores.Reference(("A",), ""), "y": scores.Reference(("b",), "")}
    assert scores.evaluate(references, {"y": "B"}) == {"exact_match": 50.0, "f1": 50.0}


def test_the_best_threshold_is_what_answering_by_it_gives():
    """Recorded files score best without any answer; these do not."""
    golds = {"a": ("x",), "b": (), "c": ("y z",), "d": (), "e": ("w",), "f": ()}
    references = {i: scores.Reference(each, "") for i, each in golds.items()}
    predictions = {"a": "x", "b": "no", "c": "y", "d": "no", "e": "wrong", "f": ""}
    null_odds = {"f": -3.0, "c": -2.5, "a": -1.0, "b": -0.5, "e": 0.5, "d": 3.0}
    found = scores.evaluate_v2(references, predictions, null_odds)
    for name in ("exact", "f1"):
        by_threshold = {}
        for threshold in sorted(null_odds.values()):
            answered = {
                i: "" if null_odds[i] > threshold else text
                for i, text in predictions.items()
            }
            by_threshold[threshold] = scores.evaluate_v2(references, answered)[name]
        best = max(by_threshold, key=by_threshold.get)
        assert found["best_%s_thresh" % name] == best == -1.0
        assert found["best_" + name] == pytest.approx(by_threshold[best])


def test_files_that_cannot_be_evaluated_are_refused(tmp_path):
    question = {"id": "x", "question": "?", "answers": []}
    path = squad_data.write_file(tmp_path / "a.json", [("Text.", [question])])
    with pytest.raises(UserError, match="id x: it has no answer"):
        scores.read_references(path)
    assert scores.read_references(path, True)["x"].golds == ()
    with pytest.raises(UserError, match="has no questions"):
        scores.read_references(squad_data.write_file(tmp_path / "b.json", []))


@pytest.mark.parametrize(
    "context, expected",
    [
        ("", ""),
        ("all is small. Not this.", ""),
        (
            "When Ada Lovelace met Babbage, it rained. Charles Babbage",
            "When Ada Lovelace",
        ),
        ("In (May) 1833 the Élan Vital of London won.", "Élan Vital"),
    ],
)
def test_the_baseline_guesses_a_name(context, expected):
    assert scores.guess_answer(context) == expected


def test_the_baseline_is_the_better_rule():
    golds = {"a": ("Ada",), "b": ("Eve",)}
    references = {i: scores.Reference(each, "Ada") for i, each in golds.items()}
    guesses = {"a": "Ada", "b": "Ada"}
    assert scores.predict_baseline(references) == guesses
    assert scores.predict_baseline(references, True) == guesses
    references |= {i: scores.Reference((), "Ada") for i in "cd"}
    assert set(scores.predict_baseline(references, True).values()) == {""}
    references |= {i: scores.Reference(("Ada",), "Ada") for i in "ef"}
    assert set(scores.predict_baseline(references, True).values()) == {"Ada"}
