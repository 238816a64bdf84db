"""Jobs as processes of a made-up program: what runs, what is kept, what is repeated."""

import json
import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from errors import UserError
from experiments import processes, results
from experiments.grid import Job
from tests.experiments.made_up import result
from tests.experiments.made_up_program import Bench
from training import run_lock

JOB = Job("mrpc", "adapters", "1e-3", 5, 1, adapter_size=8, init_scale="1e-2")
JOBS = [JOB._replace(seed=seed) for seed in (1, 2, 3)]
WITHOUT = JOB._replace(without="0-1")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROGRAM", str(tmp_path / "program.py"))
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.005)
    return Bench(tmp_path)


def test_each_job_runs_once(bench):
    known = processes.run(JOBS, bench.place)
    assert bench.ran() == [job.name for job in JOBS]
    assert list(known) == JOBS
    first = known[JOB]
    assert (first.status, first.metric, first.score) == ("ok", "f1", 0.8)
    assert (first.baseline, first.accuracy) == (0.6, 0.7)
    assert first.flags["learning_rate"] == "1e-3"
    assert first.flags["data_dir"] == os.path.join("glue", "MRPC")
    assert "labels" not in first.sets["dev"]
    assert results.read_all(bench.place.work_dir, JOBS) == known
    assert processes.run(JOBS, bench.place) == known
    assert len(bench.ran()) == 3


def test_what_others_have_done_meanwhile_is_not_repeated(bench):
    of_second = JOBS[1]._replace(without="0-1")

    def start(job, place, number):
        if job == JOB:
            results.write(place.work_dir, JOBS[1], result(0.9))
        return processes.Process(job, place, number)

    known = processes.run([*JOBS, of_second], bench.place, start=start)
    assert bench.ran() == [JOB.name, JOBS[2].name, of_second.name]
    assert known[JOBS[1]].score == 0.9


def test_what_failed_is_repeated_and_does_not_end_the_sweep(bench):
    bench.behave(_1='sys.exit("error: no such file")', _3="findings = ['all the same']")
    known = processes.run(JOBS, bench.place)
    assert [known[job].status for job in JOBS] == ["failed", "ok", "collapsed"]
    assert known[JOB].reason == "error: no such file"
    assert known[JOB].score is None
    assert known[JOBS[2]].reason == "all the same"
    bench.behave()
    assert processes.run(JOBS, bench.place)[JOB].status == "ok"
    assert bench.ran() == [job.name for job in [*JOBS, JOB]]


@pytest.mark.parametrize(
    ("status", "tail", "kind", "reason"),
    [
        (1, "error: the training diverged in step 9", "diverged", "in step 9"),
        (1, "error: 3 of 4 predictions for dev are not finite, so", "diverged", "3 of"),
        (1, "Traceback\n\nFile x\nKeyError: 1", "failed", "File x | KeyError: 1"),
        (-9, "step 3", "failed", "signal 9"),
        (1, "", "failed", "it wrote nothing"),
        (1, "error: a\x1b[2J", "failed", r"a\x1b[2J"),
    ],
)
def test_what_a_process_came_to(status, tail, kind, reason, bench):
    found = processes.outcome(JOB, bench.place, status, tail, 2.04)
    assert found.status == kind
    assert reason in found.reason
    assert found.seconds == 2.0


def test_a_run_without_results_has_failed(bench):
    bench.behave(_1="sys.exit(0)")
    known = processes.run([JOB], bench.place)
    assert known[JOB].status == results.FAILED
    assert known[JOB].reason == "it left no eval_results.json"


def test_what_goes_wrong_here_leaves_no_process(bench, monkeypatch):
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
        processes.run(JOBS[:2], bench.place, 2, Noted)
    assert started[1]._process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("status", "tail"),
    [
        (143, "SIGTERM: ended"),
        (130, ""),
        (-15, ""),
        (1, "error: --output_dir=x is held by the training of process 9 on host y"),
    ],
)
def test_what_was_ended_or_runs_elsewhere_has_no_result(status, tail, bench):
    assert processes.outcome(JOB, bench.place, status, tail, 2) is None


def test_a_folder_that_another_process_holds_is_told_from_a_failure(bench, tmp_path):
    holder = {"host": "elsewhere", "process": 9, "since": "today"}
    (tmp_path / run_lock.FILE_NAME).write_text(json.dumps(holder))
    with pytest.raises(UserError) as refused:
        run_lock.take(str(tmp_path))
    tail = "error: %s" % refused.value
    assert processes.outcome(JOB, bench.place, 1, tail, 2) is None


def test_what_evaluates_waits_for_its_training(bench):
    known = processes.run([WITHOUT, *JOBS], bench.place, at_a_time=2)
    assert bench.ran().index(JOB.name) < bench.ran().index(WITHOUT.name)
    flags = known[WITHOUT].flags
    assert flags["adapters"] == os.path.join(bench.folder(JOB), "adapters")
    assert flags["ablate_adapter_layers"] == "0-1"
    assert "do_train" not in flags


def test_what_evaluates_a_failed_training_is_left_out(bench):
    bench.behave(_1="sys.exit(1)")
    known = processes.run([JOB, WITHOUT], bench.place)
    assert list(known) == [JOB]
    assert bench.ran() == [JOB.name]


def test_only_a_failed_job_keeps_its_checkpoints(bench):
    fails = "open(os.path.join(folder, 'model.ckpt-7.index'), 'w'); sys.exit(1)"
    bench.behave(_2=fails)
    processes.run(JOBS, bench.place)
    assert sorted(os.listdir(bench.folder(JOB))) == ["eval_results.json", "result.json"]
    assert "model.ckpt-7.index" in os.listdir(bench.folder(JOBS[1]))


def test_features_are_handed_on(bench):
    processes.run(JOBS, bench.place)
    found = [sorted(there) for _, _, there in bench.calls()]
    features = ["train.tf_record", "train.tf_record.key"]
    assert found == [[], features, features]


def test_gpus_are_dealt_out_and_shared(bench, monkeypatch):
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    bench.behave(**{"_%d" % seed: "time.sleep(0.5)" for seed in (1, 2, 3)})
    processes.run(JOBS, bench.place._replace(gpus=2), at_a_time=3)
    seen = sorted(gpu for _, gpu, _ in bench.calls())
    assert seen == [["0", "true"], ["0", "true"], ["1", "true"]]


def test_sigterm_ends_the_processes_and_goes_on_later(bench):
    # As run_classifier.py: a checkpoint, and the status of the signal.
    waits = (
        "import signal\n"
        "def end(*_):\n"
        "  open(os.path.join(folder, 'checkpoint'), 'w')\n"
        "  sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "open(os.path.join(folder, 'ready'), 'w')\n"
        "time.sleep(60)"
    )
    bench.behave(_2=waits)

    def end_when_ready():
        ready = os.path.join(bench.folder(JOBS[1]), "ready")
        for _ in range(2000):
            if os.path.exists(ready):
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end_when_ready)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        processes.run(JOBS, bench.place)
    thread.join()
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert os.path.exists(os.path.join(bench.folder(JOBS[1]), "checkpoint"))
    assert list(results.read_all(bench.place.work_dir, JOBS)) == [JOB]
    bench.behave()
    assert len(processes.run(JOBS, bench.place)) == 3
    assert bench.ran() == [job.name for job in (*JOBS[:2], *JOBS[1:])]


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ('"status": "ok"', '"status": "fine"'),
        ('"baseline"', '"base line"'),
        ('"metric": "f1"', '"metric": "accuracy"'),
        ('"seconds": 60.0', '"seconds": "long"'),
        ("{", "["),
    ],
)
def test_a_damaged_result_is_named(then, now, bench):
    results.write(bench.place.work_dir, JOB, result(0.5))
    path = pathlib.Path(bench.folder(JOB), results.FILE_NAME)
    text = path.read_text()
    assert then in text
    path.write_text(text.replace(then, now, 1))
    with pytest.raises(UserError, match=r"result\.json is damaged.*delete it"):
        processes.run([JOB], bench.place)


def test_another_base_is_refused(bench):
    known = processes.run([JOB], bench.place)
    results.check_same_base(known, {"init_checkpoint": "bert/x.ckpt"})
    with pytest.raises(UserError, match=r"init_checkpoint=bert/x\.ckpt .*other\.ckpt"):
        results.check_same_base(known, {"init_checkpoint": "other.ckpt"})


def test_time_left_follows_from_what_has_ended():
    long, short = (JOB._replace(epochs=epochs) for epochs in (10, 5))
    known = {short: result(0.8, seconds=100.0)}
    # 3668 rows, and a third of 408 + 1725 others.
    rate = 100 / (3668 * 5 + 2133 / 3)
    expected = rate * (3668 * 10 + 2133 / 3)
    assert processes.seconds_left([short, long], known) == pytest.approx(expected)
    assert processes.seconds_left([short], known) == 0
    assert processes.seconds_left([long], {}) is None
    own = JOB._replace(task="mail")
    assert processes.seconds_left([short, own], known) == pytest.approx(100)


def test_commands_are_those_of_the_program(bench):
    place = bench.place._replace(
        task_files={"mail": "own/mail.json"},
        flags={"xla": "true", "train_batch_size": "16"},
    )
    words = processes.command_of(JOB._replace(task="mail"), place)
    assert words[:2] == [sys.executable, processes.PROGRAM]
    assert {"--xla=true", "--train_batch_size=16", "--seed=1"} <= set(words)
    assert "--task_config=own/mail.json" in words
    assert not [word for word in words if "data_dir" in word or "task_name" in word]
