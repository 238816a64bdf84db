"""The grids: their jobs are those of the paper, each once and under its own name."""

import collections
import re

import pytest

from experiments import grid
from experiments.catalogue import EXPERIMENTS
from tests.made_up_results import make_study
from tests.places import ROOT

NAMES = [name for name in EXPERIMENTS if name != "table2"]  # without files


@pytest.mark.parametrize("name", NAMES)
def test_the_document_has_the_grid_of_the_paper(name):
    jobs = make_study(name, "--preset=paper").jobs
    assert len({job.name for job in jobs}) == len(jobs)
    row = re.search(r"\| `%s` .*" % name, (ROOT / "docs/reproducing.md").read_text())
    cells = [cell.strip().replace(",", "") for cell in row.group().split("|")]
    assert cells[4:6] == [str(len(jobs)), str(sum(map(grid.steps, jobs)))]


def test_what_the_paper_sweeps_for_further_tasks():
    jobs = make_study("table2", "--preset=paper", "--task_configs=a/mail.json").jobs
    kinds = collections.Counter(job.family for job in jobs)
    # 3 seeds x 4 rates x 3 lengths, times 1, 8 depths and 6 sizes.
    assert kinds == {"full": 36, "top_k": 288, "adapters": 216}


def test_what_the_paper_sweeps_for_glue():
    jobs = make_study("table1", "--preset=paper").jobs
    adapters = [job for job in jobs if job.adapter_size]
    assert {job.learning_rate for job in adapters} == {"3e-5", "3e-4", "3e-3"}
    assert {job.epochs for job in adapters} == {3, 20}
    assert {job.adapter_size for job in adapters} == {8, 64, 256}
    assert {job.seed for job in adapters} == {1, 2, 3, 4, 5}
    assert "wnli" not in {job.task for job in jobs}


def test_what_the_paper_sweeps_for_squad():
    jobs = make_study("squad", "--preset=paper").jobs
    kinds = collections.Counter((job.family, job.adapter_size) for job in jobs)
    # Three seeds; full: 3 rates x 3 lengths; adapters of each size: 4 x 3.
    sizes = {("adapters", size): 36 for size in (2, 8, 64, 256)}
    assert kinds == {("full", 0): 27, **sizes}
    assert {job.task for job in jobs} == {"squad"}


@pytest.mark.parametrize("name", NAMES)
def test_a_small_grid_has_few_jobs(name):
    jobs = make_study(name, "--preset=small").jobs
    # Of "methods", 39 settings on each task, most of them with one seed alone.
    assert 10 <= len(jobs) <= (468 if name == "methods" else 60)
    assert len({job.name for job in jobs}) == len(jobs)


def test_experiments_share_cells():
    table, sizes = (
        set(make_study(n, "--preset=small").jobs) for n in ("table1", "size")
    )
    assert len(table & sizes) == 8


def test_tasks_and_seeds_can_be_chosen():
    jobs = make_study("table1", "--preset=small", "--tasks=sst2,RTE", "--seeds=2").jobs
    assert {(job.task, job.epochs) for job in jobs} == {("sst-2", 1), ("rte", 10)}
    assert {job.seed for job in jobs} == {1, 2}
    assert len(jobs) == 2 * 2 * 4


def test_adapters_alone_train_longer_too():
    jobs = make_study("table1", "--preset=small", "--tasks=CoLA,MRPC").jobs
    epochs = {(job.task, job.policy, job.epochs) for job in jobs}
    assert epochs == {
        *(("cola", "full", 3), ("cola", "adapters", 3), ("cola", "adapters", 10)),
        *(("mrpc", "full", 5), ("mrpc", "adapters", 5)),
    }


def test_layers_are_those_of_the_base(tmp_path):
    config = tmp_path / "bert_config.json"
    config.write_text('{"vocab_size": 9, "num_hidden_layers": 3}')
    jobs = make_study(
        "ablation", "--preset=small", "--bert_config_file=%s" % config
    ).jobs
    spans = [job.without for job in jobs if job.task == "cola" and job.without]
    assert spans == ["0", "0-1", "0-2", "1", "1-2", "2"]


def test_every_method_of_the_comparison_is_swept_over_powers_of_two():
    jobs = make_study("methods", "--preset=paper", "--tasks=RTE").jobs
    counts = collections.Counter(job.family for job in jobs)
    of_one = 18  # three seeds, three rates, two lengths
    assert counts == {
        **{"full": of_one, "bitfit": of_one, "layer_norm": of_one},
        **{"top_k": 12 * of_one, "lora": 10 * of_one},
        **{"adapters": 10 * of_one, "adapters-pfeiffer": 10 * of_one},
        "adapters-parallel": 10 * of_one,
    }
    for job in jobs:
        number = job.adapter_size or int(job.policy.partition(":")[2] or 1)
        assert job.family == "top_k" or number & (number - 1) == 0
