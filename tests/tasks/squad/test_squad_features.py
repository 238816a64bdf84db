"""Windows and features of questions, against the original's."""

import pytest

from errors import UserError
from tasks.squad import examples, features
from tests import squad_data

SMALL_FUNCTIONS = squad_data.load("functions", "small_functions.json.gz")


def describe(feature):
    found = dict(vars(feature))
    for name in ("token_to_orig_map", "token_is_max_context"):
        found[name] = {str(key): value for key, value in found[name].items()}
    return found


@pytest.mark.parametrize("setting", ["main", "default", "cased"])
@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_features_equal_the_original(split, version, setting):
    name = "%s_%s_%s.json.gz" % (split, version, setting)
    recorded = squad_data.load("features", name)
    settings = recorded["settings"]
    found = squad_data.make_features(
        squad_data.read(split, version), settings, settings["is_training"]
    )
    assert len(found) == len(recorded["features"]) > 40
    for feature, expected in zip(found, recorded["features"]):
        assert describe(feature) == expected


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in squad_data.load("functions", "input_cases.json")
        if "features" in case
    ],
    ids=lambda case: case["name"],
)
def test_features_of_input_cases(case):
    questions = case["input"]["data"][0]["paragraphs"][0]["qas"]
    if case["warnings"]:
        questions = []
    found = [
        examples.SquadExample(question_text=question["question"], **example)
        for question, example in zip(questions, case["examples"], strict=True)
    ]
    settings = {"max_seq_length": 64, "doc_stride": 24, "max_query_length": 16}
    output = squad_data.make_features(found, settings, case["is_training"])
    names = "unique_id", "tokens", "start_position", "end_position"
    described = [{name: getattr(each, name) for name in names} for each in output]
    assert described == case["features"]


def test_windows_equal_the_original():
    for case in SMALL_FUNCTIONS["check_is_max_context"]:
        windows = features.split_windows(
            case["doc_tokens"], case["max_tokens_for_doc"], case["doc_stride"]
        )
        assert list(map(list, windows)) == case["spans"]
        best = features.find_best_windows(windows)
        assert [[each] for each in best] == case["best_window_per_token"]


def test_answers_are_narrowed_as_in_the_original():
    for case in SMALL_FUNCTIONS["improve_answer_span"]:
        found = features.improve_answer_span(
            case["doc_tokens"],
            case["input_start"],
            case["input_end"],
            squad_data.get_tokenizer(case["do_lower_case"]),
            case["orig_answer_text"],
        )
        assert list(found) == case["result"], case


@pytest.mark.parametrize(
    "lengths, expected",
    [((64, 0, 16), "`doc_stride`=0"), ((19, 8, 16), "`max_seq_length`=19")],
)
def test_lengths_that_leave_no_window_are_refused(lengths, expected):
    tokenizer = squad_data.get_tokenizer()
    with pytest.raises(UserError, match=expected):
        features.convert_examples_to_features([], tokenizer, *lengths, False, print)
