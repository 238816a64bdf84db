"""Jobs on a local Ray; needs Ray beside what the tests need."""

import os
import signal

import pytest
import ray

from experiments import job_flags, processes, ray_launcher, results
from tests.experiments.made_up_program import Bench
from tests.experiments.test_processes import JOB, JOBS


@pytest.fixture(scope="module")
def start():
    yield ray_launcher.start(1, 0)
    ray.shutdown()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(job_flags, "PROGRAMS", str(tmp_path))
    return Bench(tmp_path)


def test_jobs_run_and_failed_ones_are_repeated(bench, start):
    bench.behave(_1='sys.exit("error: no such file")', _3="warnings = ['all the same']")
    known = processes.run(JOBS, bench.settings, 2, start)
    assert [known[job].status for job in JOBS] == ["failed", "ok", "collapsed"]
    assert known[JOB].reason == "error: no such file"
    assert known[JOBS[1]].score == 0.8
    bench.behave()
    assert processes.run(JOBS, bench.settings, 2, start)[JOB].status == "ok"
    assert len(bench.ran()) == 4


def test_a_worker_that_dies_is_a_job_to_repeat(bench, start):
    bench.behave(_2="import signal; os.kill(os.getppid(), signal.SIGKILL)")
    known = processes.run(JOBS, bench.settings, 1, start)
    assert [known[job].status for job in JOBS] == ["ok", "failed", "ok"]
    assert "the worker is lost" in known[JOBS[1]].reason
    bench.behave()
    assert processes.run(JOBS, bench.settings, 1, start)[JOBS[1]].status == "ok"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_jobs_save_and_goes_on_later(number, bench, start):
    bench.behave(
        _1="import signal\n"
        "def end(*_):\n"
        "  open(os.path.join(folder, 'checkpoint'), 'w')\n"
        "  sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "os.kill(%d, %d)\n"
        "time.sleep(60)" % (os.getpid(), number)
    )
    with pytest.raises(SystemExit) as ended:
        processes.run(JOBS, bench.settings, 1, start)
    assert ended.value.code == 128 + number
    known = results.read_all(bench.settings.work_dir, JOBS)
    assert known[JOB].status == "interrupted"
    assert os.path.exists(os.path.join(bench.folder(JOB), "checkpoint"))
    bench.behave()
    assert len(processes.run(JOBS, bench.settings, 1, start)) == 3
