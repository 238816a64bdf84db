"""Jobs as processes of a made-up program: what runs, what is kept, what is repeated."""

import os
import signal
import threading
import time

import filelock
import pytest

from errors import UserError
from experiments import job_flags, processes, results
from experiments.grid import Job
from system import console
from tests.experiments.made_up_program import Bench
from tests.made_up_results import result
from training import run_lock

JOB = Job("mrpc", "adapters", "1e-3", 5, 1, adapter_size=8, init_scale="1e-2")
JOBS = [JOB._replace(seed=seed) for seed in (1, 2, 3)]
WITHOUT = JOB._replace(without="0-1")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(job_flags, "PROGRAMS", str(tmp_path))
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.005)
    console.start()
    return Bench(tmp_path)


def test_each_job_runs_once(bench):
    known = processes.run(JOBS, bench.settings)
    assert bench.ran() == [job.name for job in JOBS]
    assert list(known) == JOBS
    first = known[JOB]
    assert (first.status, first.metric, first.score) == ("ok", "f1", 0.8)
    assert (first.baseline, first.accuracy) == (0.6, 0.7)
    assert first.flags["learning_rate"] == "1e-3"
    assert first.flags["data_dir"] == os.path.join("glue", "MRPC")
    assert "labels" not in first.sets["dev"]
    assert results.read_all(bench.settings.work_dir, JOBS) == known
    assert processes.run(JOBS, bench.settings) == known
    assert len(bench.ran()) == 3


def test_scores_in_percent_are_fractions_in_results(bench):
    bench.behave(_1="scores, baseline = {'f1': 80.0}, {'f1': 5.0}")
    job = JOB._replace(task="squad_sample")
    found = processes.run([job], bench.settings)[job]
    assert (found.metric, found.score, found.baseline) == ("f1", 0.8, 0.05)


def test_results_of_another_sweep_are_not_computed_again(bench):
    of_second = JOBS[1]._replace(without="0-1")

    def start(job, settings, number):
        if job == JOB:
            results.write(settings.work_dir, JOBS[1], result(0.9))
            os.mkdir(os.path.join(bench.folder(JOBS[1]), "adapters"))
        return processes.Process(job, settings, number)

    known = processes.run([*JOBS, of_second], bench.settings, start=start)
    assert bench.ran() == [JOB.name, JOBS[2].name, of_second.name]
    assert known[JOBS[1]].score == 0.9


def test_a_job_of_another_sweep_is_left_to_it(bench, capsys):
    lock = filelock.FileLock(os.path.join(bench.folder(JOB), processes.LOCK))
    with lock:
        known = processes.run(JOBS, bench.settings)
    assert [known[job].status for job in JOBS] == [results.HELD, "ok", "ok"]
    assert bench.ran() == [job.name for job in JOBS[1:]]
    assert "%s: skipped, its folder is locked by" % JOB.name in capsys.readouterr().err


def test_a_failure_replaces_no_result(bench):
    class Overtaken(processes.Process):
        def wait(self):
            results.write(bench.settings.work_dir, JOB, result(0.9))
            return super().wait()

    bench.behave(_1="sys.exit(1)")
    known = processes.run([JOB], bench.settings, start=Overtaken)
    assert known[JOB].score == 0.9
    assert results.read(bench.settings.work_dir, JOB).score == 0.9


def test_a_failed_job_is_repeated_and_does_not_end_the_sweep(bench, capsys):
    bench.behave(
        _1='print("a traceback"); sys.exit("error: no such file")',
        _3="warnings = ['dev: a single class']",
    )
    known = processes.run(JOBS, bench.settings)
    assert [known[job].status for job in JOBS] == ["failed", "ok", "collapsed"]
    assert known[JOB].reason == "error: no such file"
    assert known[JOB].score is None
    assert known[JOBS[2]].reason == "dev: a single class"
    output = os.path.join(bench.folder(JOB), processes.OUTPUT)
    assert output in capsys.readouterr().err
    with open(output) as reader:
        assert "a traceback" in reader.read()
    bench.behave()
    assert processes.run(JOBS, bench.settings)[JOB].status == "ok"
    assert bench.ran() == [job.name for job in [*JOBS, JOB]]
    assert not os.path.exists(output)


_HELD = "error: --output_dir=x %s process 9: delete x/y" % run_lock.HELD


@pytest.mark.parametrize(
    ("status", "tail", "kind", "reason"),
    [
        (1, "error: training diverged in step 9", "diverged", "in step 9"),
        (1, "error: 3 of 4 predictions for dev are not finite, so", "diverged", "3 of"),
        (1, "Traceback\n\nFile x\nKeyError: 1", "failed", "File x | KeyError: 1"),
        (-9, "step 3", "failed", "signal 9"),
        (1, "", "failed", "it wrote nothing"),
        (1, "error: a\x1b[2J", "failed", r"a\x1b[2J"),
        (143, "stopped", "interrupted", ""),
        (-signal.SIGUSR1, "", "interrupted", ""),
        (1, _HELD, results.HELD, "delete x/y"),
    ],
)
def test_the_result_of_an_ended_process(status, tail, kind, reason, bench):
    found = processes.make_result(JOB, bench.settings, status, tail, 2.04)
    assert found.status == kind
    assert reason in found.reason
    assert found.seconds == 2.0


def test_a_folder_in_which_another_process_trains_is_no_failure(bench, capsys):
    bench.behave(_1="sys.exit(%r)" % _HELD)
    assert processes.run([JOB], bench.settings)[JOB].status == results.HELD
    assert "delete x/y" in capsys.readouterr().err
    assert results.read(bench.settings.work_dir, JOB) is None


def test_a_run_without_results_has_failed(bench):
    bench.behave(_1="sys.exit(0)")
    known = processes.run([JOB], bench.settings)
    assert known[JOB].status == results.FAILED
    assert known[JOB].reason == "it left no eval_results.json"


def test_an_error_leaves_no_process_behind(bench, monkeypatch):
    bench.behave(_2="time.sleep(60)")
    started = []

    class Noted(processes.Process):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(results, "write", full)
    with pytest.raises(UserError, match="the disk is full"):
        processes.run(JOBS[:2], bench.settings, 2, Noted)
    assert started[1]._process.wait(30) == -signal.SIGTERM


def test_an_evaluation_waits_for_its_training_run(bench):
    known = processes.run([WITHOUT, *JOBS], bench.settings, at_a_time=2)
    assert bench.ran().index(JOB.name) < bench.ran().index(WITHOUT.name)
    flags = known[WITHOUT].flags
    assert flags["adapters"] == os.path.join(bench.folder(JOB), "adapters")
    assert flags["ablate_adapter_layers"] == "0-1"
    assert "do_train" not in flags


def test_the_evaluation_of_a_failed_training_run_is_left_out(bench):
    bench.behave(_1="sys.exit(1)")
    known = processes.run([JOB, WITHOUT], bench.settings)
    assert list(known) == [JOB]
    assert bench.ran() == [JOB.name]


def test_only_a_failed_job_keeps_its_checkpoints(bench):
    fails = "open(os.path.join(folder, 'model.ckpt-7.index'), 'w'); sys.exit(1)"
    bench.behave(_2=fails)
    processes.run(JOBS, bench.settings)
    kept = ["adapters", "eval_results.json", "result.json"]
    assert sorted(os.listdir(bench.folder(JOB))) == kept
    assert "model.ckpt-7.index" in os.listdir(bench.folder(JOBS[1]))


def test_an_evaluation_without_adapters_is_left_out(bench, capsys):
    results.write(bench.settings.work_dir, JOB, result(0.9))
    assert list(processes.run([JOB, WITHOUT], bench.settings)) == [JOB]
    assert not bench.ran()
    assert "delete the folder %s " % bench.folder(JOB) in capsys.readouterr().err


def test_checkpoints_that_a_killed_sweep_left_are_removed(bench):
    for job in JOBS[:2]:
        results.write(bench.settings.work_dir, job, result(0.9))
        for name in (processes.LOCK, "checkpoint"):
            open(os.path.join(bench.folder(job), name), "w").close()
    with filelock.FileLock(os.path.join(bench.folder(JOBS[1]), processes.LOCK)):
        processes.run(JOBS[:2], bench.settings)
    assert os.listdir(bench.folder(JOB)) == ["result.json"]
    assert "checkpoint" in os.listdir(bench.folder(JOBS[1]))


def test_features_are_shared(bench):
    processes.run(JOBS, bench.settings)
    found = [{*there} - {processes.LOCK} for _, _, there in bench.calls()]
    features = {"train.tf_record", "train.tf_record.key"}
    assert found == [set(), features, features]


def test_gpus_are_dealt_out_and_shared(bench, monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    bench.behave(**{"_%d" % seed: "time.sleep(0.5)" for seed in (1, 2, 3)})
    settings = bench.settings._replace(gpus=("4", "GPU-ab"))
    processes.run(JOBS, settings, at_a_time=3)
    seen = sorted(gpu for _, gpu, _ in bench.calls())
    assert seen == [["4", "true"], ["4", "true"], ["GPU-ab", "true"]]


def test_signals_end_the_processes_which_resume_later(bench, capsys):
    # Behaves as run_classifier.py: a checkpoint, and the status of the signal.
    bench.behave(
        _2="import signal\n"
        "received = []\n"
        "def end(number, frame):\n"
        "  received.append(number)\n"
        "  open(os.path.join(folder, 'checkpoint'), 'w')\n"
        "  if len(received) == 2: sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(os.path.join(folder, 'ready'), 'w')\n"
        "for _ in range(600): time.sleep(0.1)"
    )

    def send_when_there(number, name):
        path = os.path.join(bench.folder(JOBS[1]), name)
        for _ in range(2000):
            if os.path.exists(path):
                break
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    def send():
        send_when_there(signal.SIGUSR1, "ready")
        send_when_there(signal.SIGTERM, "checkpoint")

    thread = threading.Thread(target=send)
    thread.start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        processes.run(JOBS, bench.settings)
    thread.join()
    said = capsys.readouterr().err
    assert [job for job in JOBS if "%s: started" % job.name in said] == [*JOBS[:2]]
    assert "SIGUSR1" in said
    assert "SIGTERM" not in said
    assert ended.value.code == 128 + signal.SIGUSR1
    assert signal.getsignal(signal.SIGTERM) == before
    known = results.read_all(bench.settings.work_dir, JOBS)
    assert [result.status for result in known.values()] == ["ok", "interrupted"]
    # The seconds of all runs of a job are added.
    interrupted = known[JOBS[1]]._replace(seconds=100.0)
    results.write(bench.settings.work_dir, JOBS[1], interrupted)
    bench.behave()
    found = processes.run(JOBS, bench.settings)
    assert [result.status for result in found.values()] == ["ok"] * 3
    assert bench.ran() == [job.name for job in (*JOBS[:2], *JOBS[1:])]
    assert found[JOBS[1]].seconds >= 100


def test_time_left_follows_from_what_has_ended():
    long, short = (JOB._replace(epochs=epochs) for epochs in (10, 5))
    known = {short: result(0.8, seconds=100.0)}
    # 3668 training examples, and a third of 408 + 1725 others.
    rate = 100 / (3668 * 5 + 2133 / 3)
    expected = rate * (3668 * 10 + 2133 / 3)
    assert processes.seconds_left([short, long], known) == pytest.approx(expected)
    assert processes.seconds_left([short], known) == 0
    assert processes.seconds_left([long], {}) is None
    own = JOB._replace(task="mail")
    assert processes.seconds_left([short, own], known) == pytest.approx(100)
