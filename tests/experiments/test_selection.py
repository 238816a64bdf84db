"""Selection and statistics, on made-up results with known outcome."""

import pytest

from experiments import results, selection
from experiments.grid import Job, Study
from tests.made_up_results import result


def jobs_and_results(scores_by_rate, **rest):
    """Jobs of one task, a setting for each learning rate, a seed for each score.

    A score of None is a seed that diverged; "missing" one that has not ended.
    """
    jobs, known = [], {}
    for rate, scores in scores_by_rate.items():
        for seed, score in enumerate(scores, 1):
            jobs.append(Job("mrpc", "full", rate, 3, seed))
            if score is None:
                known[jobs[-1]] = result(None, results.DIVERGED)
            elif score != "missing":
                known[jobs[-1]] = result(score, **rest)
    return jobs, known


def test_mean_and_standard_error():
    # Deviations -0.02, 0, 0.02: variance 0.0008 / 2, its root over the root of 3.
    found = selection.summarize([0.80, 0.82, 0.84, None])
    assert found.mean == pytest.approx(0.82)
    assert found.error == pytest.approx(0.02 / 3**0.5)
    assert found.scores == (0.80, 0.82, 0.84)
    assert selection.summarize([0.5]).error is None
    assert selection.summarize([None]) is None


def test_the_best_run_is_that_of_the_dev_set():
    jobs, known = jobs_and_results({"1e-4": [0.7, 0.9, None], "3e-4": [0.85, 0.8, 0.9]})
    assert selection.best_run(jobs, known) == jobs[1]
    assert selection.best_run(jobs, {}) is None
    assert selection.best_setting(jobs, {}) == ([], None)


@pytest.mark.parametrize("lost", [None, "missing"])
def test_a_setting_that_lost_seeds_comes_after_whole_ones(lost):
    jobs, known = jobs_and_results({"1e-4": [0.95, lost], "3e-4": [0.6, 0.6]})
    assert selection.best_setting(jobs, known)[0] == jobs[2:]
    # If every setting has lost a seed, the mean decides.
    jobs, known = jobs_and_results({"1e-4": [0.95, lost], "3e-4": [lost, 0.6]})
    assert selection.best_setting(jobs, known)[0] == jobs[:2]


def test_the_first_seed_selects_what_later_ones_train():
    scores = {"1e-4": [0.7, 0.9], "3e-4": [0.8, "missing"], "1e-3": [None, "missing"]}
    jobs, known = jobs_and_results(scores)
    study = Study("small", ("mrpc",), 6, 2, "", tuple(jobs), known, True)
    assert selection.due_jobs(jobs, study) == [jobs[0], *jobs[2:5]]
    # Two seeds of the selected setting count more than a higher one of another.
    known[jobs[3]] = result(0.5)
    due = selection.due_jobs(jobs, study)
    assert selection.best_setting(due, known)[0] == jobs[2:4]
    known[jobs[0]] = result(None, results.FAILED)
    due = selection.due_jobs(jobs, study)
    assert due == jobs[::2]
    assert selection.count_pending(jobs, due) == 1


def test_test_rows_do_not_select():
    jobs, known = jobs_and_results({"1e-4": [0.8, 0.8], "3e-4": [0.7, 0.7]})
    for job, test in zip(jobs, (0.1, 0.2, 0.9, 1.0)):
        known[job] = known[job]._replace(test_scores={"f1": test})
    best, _ = selection.best_setting(jobs, known)
    assert best == jobs[:2]
    assert selection.best_run(jobs, known) == jobs[0]
    of_test = selection.summarize_jobs(best, known, "test_score")
    assert of_test.mean == pytest.approx(0.15)


def test_counts():
    jobs, known = jobs_and_results({"1e-4": [0.9, None, "missing", 0.8, 0.7]})
    known[jobs[3]] = result(0.5, results.INTERRUPTED)
    known[jobs[4]] = result(None, results.FAILED)
    found = selection.count_statuses(jobs, known)
    assert found == {"ok": 1, "diverged": 1, "failed": 1}
