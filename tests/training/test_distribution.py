"""Training on two devices and on two machines gives what one device gives."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf

from errors import UserError
from model import random_seeds
from system import console
from tests.places import ROOT
from training import classifier, distribution


def weights(output_dir):
    kept = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(output_dir)))
    return {name: kept.get_tensor(name) for name in kept.get_variable_to_shape_map()}


def assert_the_same(actual_dir, expected_dir):
    actual, expected = weights(actual_dir), weights(expected_dir)
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


@pytest.fixture()
def setting(tmp_path):
    model = small_run.write_model(tmp_path / "bert", dropout=0.0)
    rows = small_run.write_mrpc(tmp_path / "MRPC")
    return {
        **model,
        **rows,
        "num_train_epochs": 4.0,
        "learning_rate": 1e-3,
        "save_checkpoints_steps": 5,
    }


@pytest.fixture()
def two_cpus(monkeypatch):
    monkeypatch.setattr(distribution, "local_devices", lambda: ["/cpu:0", "/cpu:1"])


@pytest.fixture()
def no_head_dropout(monkeypatch):
    monkeypatch.setattr(classifier, "HEAD_DROPOUT", 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 2, "adam_bias_correction": True},
        {"recompute_activations": True},
        {"dynamic_padding": False},
        {"train_policy": "full"},
    ],
    ids=str,
)
def test_two_devices_train_as_one(
    tmp_path, setting, two_cpus, no_head_dropout, changes
):
    setting.update(changes)
    one, two = tmp_path / "one", tmp_path / "two"
    small_run.run(do_train=True, output_dir=str(one), **setting)
    small_run.run(
        do_train=True,
        do_eval=True,
        output_dir=str(two),
        distribution_strategy="mirrored",
        **setting,
    )
    assert_the_same(two, one)
    assert len(losses(one)) == 12
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert (two / "eval_results.txt").exists()


HOSTS = ["host:1", "other:2"]
WORKER_0 = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("{", "not JSON"),
        ([], "no JSON object"),
        ("[" * 100_000, "more than 32 objects or lists"),
        ({}, '"cluster" and "task" are needed'),
        ({"cluster": {"worker": HOSTS}}, '"cluster" and "task" are needed'),
        ({"cluster": {"ps": HOSTS}, "task": WORKER_0}, 'jobs are "worker"'),
        ({"cluster": {"worker": "host:1"}, "task": WORKER_0}, 'list of "host:port"'),
        ({"cluster": {"worker": ["host"]}, "task": WORKER_0}, 'list of "host:port"'),
        ({"cluster": {"chief": HOSTS}, "task": WORKER_0}, "one chief only"),
        ({"cluster": {"worker": HOSTS}, "task": {"type": "x"}}, '"task" needs'),
        (
            {"cluster": {"worker": HOSTS}, "task": {"type": "worker", "index": 2}},
            "there is no worker 2",
        ),
        ({"cluster": {"worker": HOSTS[:1] * 2}, "task": WORKER_0}, "there twice"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_tf_config_is_refused(monkeypatch, value, reason):
    text = value if isinstance(value, str) else json.dumps(value)
    if value is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=reason) as caught:
        distribution.check("multi_worker", 8, 1)
    assert "TF_CONFIG" in str(caught.value)


@pytest.mark.parametrize("text", ["junk", json.dumps({"cluster": {"worker": HOSTS}})])
@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_tf_config_is_left_out_of_account_on_one_machine(
    monkeypatch, capsys, strategy, text
):
    monkeypatch.setenv("TF_CONFIG", text)
    console.start()
    distribution.check(strategy, 8, 1)
    assert "TF_CONFIG" not in os.environ
    said = capsys.readouterr().err
    assert said.count("TF_CONFIG is left out of account") == 1
    assert "--distribution_strategy=%s" % strategy in said
    distribution.check(strategy, 8, 1)
    assert "TF_CONFIG" not in capsys.readouterr().err


def test_chief_is_the_first_machine(monkeypatch):
    cluster = {"chief": HOSTS[1:], "worker": HOSTS[:1]}
    for job, is_chief in (("chief", True), ("worker", False)):
        task = {"type": job, "index": 0}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        found = distribution.read_cluster()
        assert found.addresses == HOSTS[::-1]
        assert found.is_chief == is_chief


def test_batch_that_does_not_divide_is_refused(two_cpus):
    distribution.check("mirrored", 12, 3)
    with pytest.raises(UserError, match=r"--train_batch_size=12.*multiple of 8"):
        distribution.check("mirrored", 12, 4)


def test_strategy_is_refused_on_tpu(tmp_path, setting):
    with pytest.raises(SystemExit):
        small_run.run(
            do_train=True,
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
        seeds = strategy.extended.call_for_each_replica(random_seeds.of_step, (2,))
        config = tf.ConfigProto(device_count={"CPU": 2})
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            first, second = session.run(strategy.experimental_local_results(seeds))
    assert (first != second).any(axis=1).all()


def test_waiting_for_the_chief_ends(tmp_path):
    with pytest.raises(UserError, match="one folder that all machines share"):
        distribution.wait_for(str(tmp_path / "run.json"), "record", 0.2, 0.05)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


# A machine of the cluster: the program, with the dropout of the head off.
MACHINE = """
import sys
sys.path[:0] = %r
import conftest
import tensorflow.compat.v1 as tf
import run_classifier
from training import classifier, distribution
from absl import app
classifier.HEAD_DROPOUT = 0.0
distribution.PING_INTERVAL = 0.5
app.run(run_classifier.main, argv=["run_classifier.py", *sys.argv[1:]])
""" % [str(ROOT / "tests"), str(ROOT)]


def start_machines(output_dir, setting, count=2):
    ports = free_ports(count)
    addresses = ["127.0.0.1:%d" % port for port in ports]
    flags = ["--%s=%s" % item for item in setting.items()]
    flags += ["--do_train", "--do_eval", "--distribution_strategy=multi_worker"]
    machines = []
    for index in range(count):
        tf_config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        machines.append(
            subprocess.Popen(
                [sys.executable, "-c", MACHINE, "--output_dir=%s" % output_dir, *flags],
                env=dict(os.environ, TF_CONFIG=json.dumps(tf_config)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return machines


def finished(machine, timeout=240):
    try:
        text, _ = machine.communicate(timeout=timeout)
    finally:
        machine.kill()
    return machine.returncode, text


def test_two_machines_train_as_one(tmp_path, setting, no_head_dropout):
    one, two = tmp_path / "one", tmp_path / "two"
    small_run.run(do_train=True, output_dir=str(one), **setting)
    machines = start_machines(two, setting)
    for status, text in [finished(machine) for machine in machines]:
        assert status == 0, text[-3000:]
    assert_the_same(two, one)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert (two / "eval_results.txt").exists()
    assert not [name for name in os.listdir(two) if name.startswith("tmp")]
    # One device goes on from it.
    small_run.run(do_eval=True, output_dir=str(two), **setting)


def test_a_signal_to_one_machine_stops_all_at_the_same_step(tmp_path, setting):
    two = tmp_path / "two"
    setting["num_train_epochs"] = 200.0
    machines = start_machines(two, setting)
    try:
        end = time.monotonic() + 120
        while not (two / "model.ckpt-10.index").exists():
            assert time.monotonic() < end, "no checkpoint was written"
            assert machines[0].poll() is None, machines[0].communicate()[0][-3000:]
            time.sleep(0.05)
        machines[1].send_signal(signal.SIGTERM)
        ends = [finished(machine, timeout=120) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
            machine.wait()
    for status, text in ends:
        assert status == 143, text[-3000:]
    reached = int(tf.train.latest_checkpoint(str(two)).rsplit("-", 1)[1])
    assert 10 < reached < 600
    for _, text in ends:
        assert "SIGTERM: stopped after step %d of 600" % reached in text
    assert not [name for name in os.listdir(two) if name.startswith(("tmp", "adapt"))]


def test_lost_machine_ends_the_others_and_training_resumes(
    tmp_path, setting, no_head_dropout
):
    two = tmp_path / "two"
    setting["num_train_epochs"] = 50.0
    machines = start_machines(two, setting)
    try:
        end = time.monotonic() + 120
        while not (two / "model.ckpt-10.index").exists():
            assert time.monotonic() < end, "no checkpoint was written"
            assert machines[0].poll() is None, machines[0].communicate()[0][-3000:]
            time.sleep(0.05)
        machines[1].send_signal(signal.SIGKILL)
        status, text = finished(machines[0], timeout=120)
    finally:
        for machine in machines:
            machine.kill()
            machine.wait()
    assert status == distribution.LOST_EXIT_STATUS, text[-3000:]
    assert "no longer answers: training ended in step" in text
    reached = int(tf.train.latest_checkpoint(str(two)).rsplit("-", 1)[1])
    assert 10 <= reached < 150
    # The same commands again.
    for status, text in [finished(machine) for machine in start_machines(two, setting)]:
        assert status == 0, text[-3000:]
        assert "from step %d" % reached in text
    assert weights(two)["global_step"] == 150
