"""RESULTS.md: the results that lie in the project give the reports that lie there."""

import os
import re
import shlex
import shutil

import pytest

import reproduce_paper
from tests.places import ROOT

SMALL = ROOT / "results" / "small"


@pytest.mark.parametrize(
    "name",
    ["table1", "size", "ablation", "init_scale", "learning_rate", "squad", "methods"],
)
def test_a_report_follows_from_the_results(name, tmp_path, monkeypatch):
    made = tmp_path / "results" / "small" / name
    made.mkdir(parents=True)
    shutil.copy(SMALL / name / "results.jsonl", made)
    monkeypatch.chdir(tmp_path)
    report = (SMALL / name / "report.md").read_text()
    command = re.search(r"```bash\npython reproduce_paper.py (.*)\n```\n$", report)
    words = shlex.split(command.group(1))
    assert words[0] == name
    assert reproduce_paper.main(["reproduce_paper.py", *words, "--report_only"]) == 0
    for file in ("report.md", "results.jsonl"):
        assert (made / file).read_text() == (SMALL / name / file).read_text()
    assert sorted(os.listdir(made)) == sorted(os.listdir(SMALL / name))
