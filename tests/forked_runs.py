"""Runs of `run_classifier.py` as processes, which pay once for their imports.

`run` starts one process that imports the program and forks for each run.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import importlib
import json
import os
import subprocess
import sys
from typing import NamedTuple, Optional
from unittest import mock

import tensorflow.compat.v1 as tf
from absl import app

import run_classifier
from tests.places import ROOT
from training import progress


class Run(NamedTuple):
    """One run of the program."""

    flags: dict
    tf_config: Optional[dict] = None  # the environment variable TF_CONFIG
    signal: Optional[int] = None  # that the run sends itself
    after_steps: int = 0  # when it does so


class Ended(NamedTuple):
    """How a run ended."""

    status: int  # minus the number of the signal that ended it
    text: str  # what it wrote to standard output and error


def run(rounds, folder, patches=None, as_built=False):
    """Runs the program several times.

    Args:
      rounds: lists of `Run`. Those of one list run side by side; the next list begins
        when all of them have ended.
      folder: a `pathlib.Path` of a folder for what they write on the screen.
      patches: constants of the project's modules to change: from names such as
        "training.classifier.HEAD_DROPOUT" to values.
      as_built: whether graphs are run as in this process: see conftest.py.

    Returns:
      Lists of `Ended`, as `rounds`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.forked_runs"],
        input=json.dumps([rounds, str(folder), patches or {}, as_built]),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    statuses = json.loads(done.stdout.splitlines()[-1])
    return [
        [
            Ended(status, (folder / _log_name(i, j)).read_text())
            for j, status in enumerate(of_round)
        ]
        for i, of_round in enumerate(statuses)
    ]


def _log_name(number, index):
    return "round-%d-run-%d.txt" % (number, index)


def _main():
    tf.disable_v2_behavior()
    rounds, folder, patches, as_built = json.load(sys.stdin)
    if as_built:
        importlib.import_module("tests.conftest")
    for name, value in patches.items():
        module, _, constant = name.rpartition(".")
        mock.patch.object(importlib.import_module(module), constant, value).start()
    statuses = []
    for i, runs in enumerate(rounds):
        children = [
            _fork(Run(*one), os.path.join(folder, _log_name(i, j)))
            for j, one in enumerate(runs)
        ]
        ends = [os.waitpid(child, 0)[1] for child in children]
        statuses.append([os.waitstatus_to_exitcode(end) for end in ends])
    print(json.dumps(statuses))


def _fork(one, log_path):
    """Starts a run; returns the id of its process."""
    child = os.fork()
    if child:
        return child
    with open(log_path, "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if one.tf_config:
        os.environ["TF_CONFIG"] = json.dumps(one.tf_config)
    if one.signal:
        _signal_after(one.after_steps, one.signal)
    arguments = ["--%s=%s" % item for item in one.flags.items()]
    app.run(run_classifier.main, argv=["run_classifier.py", *arguments])
    raise AssertionError("it ends the process")


def _signal_after(steps, number):
    after_run = progress.ProgressHook.after_run

    def count(hook, *values):
        nonlocal steps
        after_run(hook, *values)
        steps -= 1
        if not steps:
            os.kill(os.getpid(), number)

    progress.ProgressHook.after_run = count


if __name__ == "__main__":
    _main()
