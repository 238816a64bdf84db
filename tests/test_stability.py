"""The benchmark of how many trainings learn: its grid, table and plot."""

import json
import os

import pytest
from absl import flags

from benchmarks import stability
from errors import UserError

SCORES = {"plain": {"1": 0.5, "2": 0.54}, "corrected": {"1": 0.8, "2": 0.9}}


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """Made-up trainings; gives the commands that were run."""
    commands = []

    def call(command, **_):
        values = dict(word[2:].split("=", 1) for word in command[2:])
        commands.append(values)
        correction = {"false": "plain", "true": "corrected"}
        score = SCORES[correction[values["adam_bias_correction"]]][values["seed"]]
        if score is None:
            return 1
        dev = {"scores": {"accuracy": score}, "baseline": {"accuracy": 0.5}}
        os.makedirs(values["output_dir"])
        path = os.path.join(values["output_dir"], "eval_results.json")
        with open(path, "w") as writer:
            json.dump({"sets": {"dev": dev}}, writer)
        return 0

    monkeypatch.setattr(stability.subprocess, "call", call)
    values = flags.FlagValues()
    stability.define_flags(values)
    given = ["--checkpoint_dir=encoder", "--work_dir=%s" % tmp_path]
    values(["stability", *given, "--learning_rates=1e-3", "--seeds=1,2"])
    monkeypatch.setattr(stability, "FLAGS", values)
    return commands


def test_each_training_of_the_grid_once(trainings, tmp_path, capsys):
    stability.main(["stability"])
    assert [(c["adam_bias_correction"], c["seed"]) for c in trainings] == [
        ("false", "1"),
        ("false", "2"),
        ("true", "1"),
        ("true", "2"),
    ]
    assert {c["learning_rate"] for c in trainings} == {"1e-3"}
    assert {c["vocab_file"] for c in trainings} == {"encoder/vocab.txt"}
    assert len({c["output_dir"] for c in trainings}) == 4
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines[2:] == [
        "| 1e-3 | plain | 0 of 2 | 50.0 54.0 | 52.0 | 2.8 |",
        "| 1e-3 | corrected | 2 of 2 | 80.0 90.0 | 85.0 | 7.1 |",
        "",
        "The same answer for every row: 50.0.",
    ]
    assert len(json.loads((tmp_path / "results.json").read_text())) == 4
    assert (tmp_path / "stability.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    stability.main(["stability"])
    assert len(trainings) == 4
    assert "seed 1: accuracy 0.5000 (learned nothing)" in capsys.readouterr().out


def test_a_training_that_fails_is_named_and_can_be_repeated(
    trainings, tmp_path, monkeypatch
):
    monkeypatch.setitem(SCORES["plain"], "2", None)
    with pytest.raises(UserError, match=r"lr1e-3-plain-seed2\.txt"):
        stability.run("1e-3", "plain", "2")
    monkeypatch.setitem(SCORES["plain"], "2", 0.7)
    assert stability.run("1e-3", "plain", "2").learned
