"""What a run says of its scores."""

import pytest

import glue_data
from training import run_text

DEV = glue_data.get_task("MRPC").splits[1]
BASELINE = {"f1": 0.8122, "accuracy": 0.6838}


@pytest.mark.parametrize(
    "scores, is_warned",
    [
        ({"f1": 0.81, "accuracy": 0.6838}, True),
        ({"f1": 0.8122, "accuracy": 0.6838}, True),
        ({"f1": 0.70, "accuracy": 0.69}, False),
        ({"f1": 0.82, "accuracy": 0.68}, False),
    ],
)
def test_scores_of_chance_are_warned_of(scores, is_warned, caplog):
    run_text.say_scores(DEV, 778, 408, scores, BASELINE)
    said = caplog.text
    assert ("no score is above" in said) == is_warned, said
