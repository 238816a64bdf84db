"""A signal stops training with a checkpoint, and other work with one line."""

import json
import os
import queue
import signal
import threading

import pytest
import small_run
import tensorflow.compat.v1 as tf
from tensorflow_estimator.python.estimator.tpu import tpu_estimator

import errors
from inputs import feature_cache
from system import console
from training import periodic_evaluation, progress, scoring, signals

STATUS = {number: 128 + number for number in signals.STOP_SIGNALS}


@pytest.fixture(autouse=True)
def handlers():
    """Handlers as of a process in the foreground, which a test must restore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    now = [signal.getsignal(number) for number in STATUS]
    yield
    assert [signal.getsignal(number) for number in STATUS] == now
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def settings(tmp_path):
    return {
        **small_run.write_model(tmp_path / "bert"),
        **small_run.write_mrpc(tmp_path / "MRPC"),
        "output_dir": str(tmp_path / "output"),
        "num_train_epochs": 4.0,  # 12 steps
    }


def send_in(monkeypatch, place, name, number, when=lambda *_: True):
    """Sends this process a signal when a function is called."""
    called = getattr(place, name)

    def call(*args, **kwargs):
        if when(*args):
            os.kill(os.getpid(), number)
        return called(*args, **kwargs)

    monkeypatch.setattr(place, name, call)


def test_training_stops_with_a_checkpoint_and_resumes(settings, monkeypatch, capsys):
    output = settings["output_dir"]
    for number, name, step in (
        (signal.SIGINT, "Ctrl-C", 5),
        (signal.SIGUSR1, "SIGUSR1", 9),
    ):
        with monkeypatch.context() as patched:
            send_in(
                patched,
                progress.ProgressHook,
                "after_run",
                number,
                lambda hook, *_, step=step: hook.steps_done == step - 1,
            )
            with pytest.raises(SystemExit) as ended:
                small_run.run(do_train=True, do_eval=True, **settings)
        assert ended.value.code == STATUS[number]
        said = capsys.readouterr().err
        assert "Traceback" not in said
        last = said.splitlines()[-1]
        assert last.startswith("%s: stopped after step %d of 12" % (name, step))
        assert ("from step 5" in said) == (step == 9)
        assert tf.train.latest_checkpoint(output).endswith("model.ckpt-%d" % step)
        # No files of a finished run.
        assert not {"adapters", "eval_results.txt"} & set(os.listdir(output))
    small_run.run(do_train=True, do_eval=True, **settings)
    assert "from step 9" in capsys.readouterr().err
    assert tf.train.latest_checkpoint(output).endswith("model.ckpt-12")
    assert {"adapters", "eval_results.txt"} <= set(os.listdir(output))


def test_a_signal_ends_an_evaluation(settings, monkeypatch, capsys):
    settings = {**settings, "do_train": True, "eval_steps": 4}
    history = os.path.join(settings["output_dir"], periodic_evaluation.HISTORY_NAME)
    with monkeypatch.context() as patched:
        send_in(patched, scoring, "count_batches", signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            small_run.run(**settings)
    assert ended.value.code == STATUS[signal.SIGTERM]
    assert "SIGTERM: stopped after step 4 of 12" in capsys.readouterr().err
    assert not os.path.exists(history)
    small_run.run(**settings)
    with open(history) as lines:
        steps = [json.loads(line)["global_step"] for line in lines]
    assert steps == [4, 8, 12]


def test_other_work_ends_with_one_line(settings, monkeypatch, capsys):
    send_in(monkeypatch, feature_cache, "cache_key", signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        small_run.run(do_train=True, **settings)
    assert ended.value.code == 130
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "Ctrl-C" in line] == lines[-1:]


def test_other_programs_end_with_one_line(capsys):
    @errors.reports_user_errors(())
    def main(argv):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ended by Ctrl-C\n"


@pytest.fixture
def exits(monkeypatch):
    """The statuses with which a thread would end the process, as a queue."""
    statuses = queue.Queue()
    monkeypatch.setattr(signals.os, "_exit", statuses.put)
    return statuses


def test_a_second_signal_ends_the_process(monkeypatch, exits):
    monkeypatch.setattr(signals, "_REPEAT_SECONDS", 1000)
    with signals.exit_on_signal(), signals.record_signal() as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.number == signal.SIGUSR1
        # A scheduler may signal a sweep and its jobs at the same time.
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGUSR1
    with signals.exit_on_signal(), signals.record_signal():
        os.kill(os.getpid(), signal.SIGUSR1)
        monkeypatch.setattr(signals, "_REPEAT_SECONDS", 0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert exits.get(timeout=60) == 128 + signal.SIGTERM
    assert exits.empty()


@pytest.mark.parametrize("is_in_step", [False, True])
def test_a_signal_while_the_main_thread_is_in_tensorflow(
    monkeypatch, exits, capsys, is_in_step
):
    """No handler of Python is called: `is_handled` stays unset."""
    monkeypatch.setattr(signals, "GRACE", 0.05)
    monkeypatch.setattr(signals, "_REPEAT_SECONDS", 0)
    console.start()
    reader, writer = os.pipe()
    is_asked = threading.Event()

    def may_exit():
        is_asked.set()
        return not is_in_step

    watcher = threading.Thread(
        target=signals._watch_signals, args=(reader, threading.Event(), may_exit)
    )
    watcher.start()
    os.write(writer, bytes([signal.SIGTERM]))
    assert is_asked.wait(60)
    if is_in_step:
        os.write(writer, bytes([signal.SIGHUP]))
    status = exits.get(timeout=60)
    os.close(writer)
    watcher.join()
    os.close(reader)
    assert status == 128 + (signal.SIGHUP if is_in_step else signal.SIGTERM)
    assert "SIGTERM" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    with signals.exit_on_signal():
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_IGN
    signal.signal(number, before)


def test_the_estimator_on_tpu_leaves_the_handlers_alone():
    before = signal.getsignal(signal.SIGINT)
    tpu_estimator.InstallSignalHandlerHook().before_run(None)
    assert signal.getsignal(signal.SIGINT) == before
