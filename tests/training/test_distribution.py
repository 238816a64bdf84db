"""Training on two devices and on two machines gives what one device gives."""

import json
import os
import re
import signal
import socket
from unittest import mock

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

from errors import UserError
from model import random_seeds
from system import console
from tasks import task_type
from tests import programs
from training import distribution


def assert_the_same(actual_dir, expected_dir):
    actual = small_run.last_values(actual_dir)
    expected = small_run.last_values(expected_dir)
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=1e-5, atol=1e-5, err_msg=name
        )


def losses(output_dir):
    found = {}
    for path in sorted(os.listdir(output_dir)):
        if path.startswith("events"):
            for event in tf.train.summary_iterator(os.path.join(output_dir, path)):
                for value in event.summary.value:
                    if value.tag == "loss":
                        found[event.step] = value.simple_value
    return found


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("setting")
    return {
        **small_run.write_model(folder / "bert", dropout=0.0),
        **small_run.write_mrpc(folder / "MRPC"),
        "do_train": True,
        "num_train_epochs": 4.0,
        "learning_rate": 1e-3,
        "save_checkpoints_steps": 5,
        "adam_bias_correction": True,
        # Dynamic padding: test_adapters_run.py.
        "dynamic_padding": False,
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory, setting):
    """The output directory of a run on one device."""
    output = tmp_path_factory.mktemp("one") / "output"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(task_type, "HEAD_DROPOUT", 0.0)
        small_run.run(output_dir=str(output), **setting)
    return output


@pytest.fixture
def two_cpus(monkeypatch):
    monkeypatch.setattr(distribution, "local_devices", lambda: ["/cpu:0", "/cpu:1"])


def test_two_devices_train_as_one(tmp_path, setting, one, two_cpus, monkeypatch):
    monkeypatch.setattr(task_type, "HEAD_DROPOUT", 0.0)
    two = tmp_path / "two"
    small_run.run(
        do_eval=True,
        eval_steps=6,
        output_dir=str(two),
        distribution_strategy="mirrored",
        # On one device they change nothing: test_computation.py.
        gradient_accumulation_steps=2,
        recompute_activations=True,
        **setting,
    )
    assert_the_same(two, one)
    assert len(losses(one)) == 12
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert (two / "eval_results.txt").exists()


def test_two_devices_train_the_whole_model(tmp_path, setting, two_cpus, monkeypatch):
    monkeypatch.setattr(task_type, "HEAD_DROPOUT", 0.0)
    given = dict(setting, train_policy="full", num_train_epochs=1.0)
    one, two = tmp_path / "one", tmp_path / "two"
    small_run.run(output_dir=str(one), **given)
    small_run.run(output_dir=str(two), distribution_strategy="mirrored", **given)
    assert_the_same(two, one)


HOSTS = ["host:1", "other:2"]
WORKER_0 = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ([], "not a JSON object"),
        ({"cluster": {"worker": HOSTS}}, "task is missing"),
        ({"cluster": {"ps": HOSTS}, "task": WORKER_0}, 'cluster."ps"'),
        ({"cluster": {"worker": "host:1"}, "task": WORKER_0}, "cluster.worker"),
        ({"cluster": {"worker": ["host"]}, "task": WORKER_0}, '"host:port"'),
        ({"cluster": {"chief": HOSTS}, "task": WORKER_0}, "cluster.chief"),
        ({"cluster": {"worker": HOSTS}, "task": {"type": "x"}}, "task.index"),
        ({"cluster": {"worker": HOSTS}, "task": {**WORKER_0, "index": 2}}, "worker 2"),
        ({"cluster": {"worker": HOSTS[:1] * 2}, "task": WORKER_0}, "twice"),
    ],
    ids=str,
)
def test_wrong_tf_config_is_refused(config, reason):
    with pytest.raises(UserError, match="TF_CONFIG=.*" + reason):
        distribution.parse_cluster(json.dumps(config))


@pytest.mark.parametrize("text", [None, "{", "[" * 100_000])
def test_tf_config_that_is_no_json_is_refused(text):
    with pytest.raises(UserError, match="TF_CONFIG"):
        distribution.parse_cluster(text)


@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_tf_config_is_ignored_on_one_machine(monkeypatch, capsys, strategy):
    monkeypatch.setenv("TF_CONFIG", "junk")
    console.start()
    for count in (1, 0):
        assert distribution.take_cluster(strategy) is None
        assert "TF_CONFIG" not in os.environ
        text = capsys.readouterr().err
        assert text.count("`distribution_strategy`=%s" % strategy) == count


def test_chief_is_the_first_machine():
    cluster = {"chief": HOSTS[1:], "worker": HOSTS[:1]}
    for job, is_chief in (("chief", True), ("worker", False)):
        config = {"cluster": cluster, "task": {"type": job, "index": 0}}
        parsed = distribution.parse_cluster(json.dumps(config))
        assert parsed.addresses == HOSTS[::-1]
        assert parsed.is_chief == is_chief


def test_batch_that_does_not_divide_is_refused(two_cpus):
    distribution.check_batch("mirrored", None, 12, 3)
    with pytest.raises(UserError, match=r"`train_batch_size`=12.*multiple of 8"):
        distribution.check_batch("mirrored", None, 12, 4)


def test_strategy_is_refused_on_tpu(tmp_path, setting):
    with pytest.raises(SystemExit):
        small_run.run(
            output_dir=str(tmp_path / "out"),
            use_tpu=True,
            tpu_name="grpc://127.0.0.1:1",
            distribution_strategy="mirrored",
            **setting,
        )


def test_replicas_draw_different_dropout(two_cpus):
    strategy = tf.distribute.MirroredStrategy(distribution.local_devices())
    with tf.Graph().as_default(), strategy.scope():
        tf.train.create_global_step()
        seeds = strategy.extended.call_for_each_replica(random_seeds.step_seeds, (2,))
        config = tf.ConfigProto(device_count={"CPU": 2})
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            first, second = session.run(strategy.experimental_local_results(seeds))
    assert (first != second).any(axis=1).all()


def test_waiting_for_the_chief_ends(tmp_path):
    with pytest.raises(UserError, match="one folder that all machines share"):
        distribution.wait_for(str(tmp_path / "run.json"), 0.2, 0.05)


def test_a_port_that_another_process_uses_is_refused(monkeypatch):
    with socket.create_server(("", 0)) as server:
        address = "localhost:%d" % server.getsockname()[1]
        cluster = {"worker": [address, "host:1"]}
        monkeypatch.setenv(
            "TF_CONFIG", json.dumps({"cluster": cluster, "task": WORKER_0})
        )
        with pytest.raises(UserError, match="TF_CONFIG.*" + address):
            distribution.take_cluster("multi_worker")


@pytest.fixture
def peer_watch(monkeypatch):
    """Makes a `PeerWatch` of a fast pace for a peer, and the list of its messages."""
    for name, seconds in (
        ("PING_INTERVAL", 0.02),
        ("WAITING_REPORT_DELAY", 0.05),
        ("START_TIMEOUT", 0.3),
    ):
        monkeypatch.setattr(distribution, name, seconds)
    watches = []

    def make(peer):
        lost = []
        monkeypatch.setattr(distribution, "_exit_with_error", lost.append)
        cluster = distribution.Cluster(["here:1", peer], {}, 0, "worker", 0)
        watch = distribution.PeerWatch(cluster, 1000)
        watches.append(watch)
        with tf.Graph().as_default():
            tf.train.create_global_step()
            watch.begin()
        return watch, lost

    yield make
    for watch in watches:
        watch.end(None)
        watch._thread.join()


def unused_address():
    return "localhost:%d" % free_ports(1)[0]


class Step:
    """The values of a finished step, as hooks get them."""

    results = 3


def test_a_machine_that_never_starts_is_named(peer_watch, capsys):
    console.start()
    peer = unused_address()
    watch, lost = peer_watch(peer)
    watch._thread.join()
    assert len(lost) == 1 and peer in lost[0]
    assert "Waiting for %s" % peer in capsys.readouterr().err


def test_a_machine_that_is_lost_before_it_answered_once(peer_watch):
    peer = unused_address()
    watch, lost = peer_watch(peer)
    watch.after_run(None, Step)  # All machines took part in it.
    watch._thread.join()
    assert len(lost) == 1 and peer in lost[0] and "step 3" in lost[0]


def test_a_session_is_not_created_again_without_end(peer_watch, capsys):
    console.start()
    with socket.create_server(("localhost", 0)) as server:
        peer = "localhost:%d" % server.getsockname()[1]
        watch, lost = peer_watch(peer)
        watch.after_create_session(None, None)
        for has_step in (True, False):
            for _ in range(distribution.MAX_SESSIONS):
                assert not lost
                watch.after_create_session(None, None)
                assert capsys.readouterr().err.count("broke") == 1
                if has_step:
                    watch.after_run(None, Step)
    assert len(lost) == 1 and peer in lost[0]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, 0), (SystemExit(143), 143), (SystemExit(None), 0), (OSError("full"), 1)],
)
def test_a_process_of_several_machines_ends_with_its_program(
    monkeypatch, capsys, error, status
):
    class Exited(BaseException):
        pass

    def leave(status):
        raise Exited(status)

    monkeypatch.setattr(distribution.os, "_exit", leave)
    monkeypatch.setattr(distribution.atexit, "_run_exitfuncs", lambda: None)
    monkeypatch.setattr(distribution.threading, "Timer", mock.Mock())
    with pytest.raises(Exited) as exited, distribution.process_exit("multi_worker"):
        if error is not None:
            raise error
    assert exited.value.args == (status,)
    assert ("OSError: full" in capsys.readouterr().err) == (status == 1)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def on_machines(setting, output_dir, count=2, **last):
    """Runs the program on the first `count` of two machines.

    Args:
      setting: flags.
      output_dir: folder that the machines share.
      count: number of machines that are there.
      **last: fields of the last one's `Command`.
    """
    addresses = ["127.0.0.1:%d" % port for port in free_ports(2)]
    flags = {
        **setting,
        "output_dir": str(output_dir),
        "distribution_strategy": "multi_worker",
    }
    commands = []
    for index in range(count):
        tf_config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        command = programs.Command(
            "run_classifier.py",
            ["--%s=%s" % item for item in flags.items()],
            environment={"TF_CONFIG": json.dumps(tf_config)},
            patches={
                "tasks.task_type.HEAD_DROPOUT": 0.0,
                "training.distribution.PING_INTERVAL": 0.5,
                "training.distribution.WAITING_REPORT_DELAY": 2.0,
                "training.signals.GRACE": 0.5,
            },
            as_built=True,
        )
        commands.append(command)
    commands[-1] = commands[-1]._replace(**last)
    return programs.run_parallel(commands)


def test_a_signal_ends_the_wait_for_a_machine_that_is_missing(tmp_path, setting):
    ended = on_machines(
        setting,
        tmp_path / "output",
        count=1,
        signal_number=signal.SIGTERM,
        at_text="Waiting for ",
    )[0]
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr[-3000:]
    assert "SIGTERM" in ended.stderr.splitlines()[-1]


def test_two_machines_stop_and_resume_together_and_train_as_one(tmp_path, setting, one):
    two = tmp_path / "two"
    # A signal to one stops both at the same step.
    stopped = on_machines(setting, two, signal_number=signal.SIGTERM, after_steps=2)
    said = re.search(r"SIGTERM: stopped after step (\d+) of 12", stopped[0].stderr)
    assert said, stopped[0].stderr[-3000:]
    for ended in stopped:
        assert ended.returncode == 128 + signal.SIGTERM, ended.stderr[-3000:]
        assert said[0] in ended.stderr
    assert not (two / "adapters").exists()
    reached = int(said[1])
    # The next checkpoint comes later than in the three steps of the next run.
    assert 2 <= reached < 8

    # The loss of one ends the other, and nothing is lost that was kept.
    lost = on_machines(setting, two, signal_number=signal.SIGKILL, after_steps=3)
    assert lost[1].returncode == -signal.SIGKILL, lost[1].stderr[-3000:]
    text = lost[0].stderr
    assert lost[0].returncode == distribution.LOST_EXIT_STATUS, text[-3000:]
    assert "from step %d\n" % reached in text
    # By pings that are not answered, or by sessions that fail again and again.
    assert ": training ended in step" in text

    # The same commands again.
    for ended in on_machines({**setting, "do_eval": True}, two):
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert "from step %d\n" % reached in ended.stderr
    assert_the_same(two, one)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert (two / "eval_results.txt").exists()
    assert not [name for name in os.listdir(two) if name.startswith("tmp")]
    # One device resumes from it.
    small_run.run(**{**setting, "do_train": False}, do_eval=True, output_dir=str(two))
