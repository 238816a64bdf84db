"""Runs programs as processes that share the time for their imports.

A process that has imported TensorFlow and the packages forks for each command, and the
fork runs the program's file as Python does. A test of a program's own imports has to
start Python.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple
from unittest import mock

from exchange import conversion, packages  # noqa: F401  (for the programs)
from serving import predictor, saved_model  # noqa: F401  (for the programs)
from tests.places import ROOT
from training import progress, runner  # noqa: F401  (for the programs)

MOST_SECONDS = 240  # of one command; less than pytest.ini gives a test


class Command(NamedTuple):
    """One run of a program."""

    program: str  # its file's name
    arguments: list
    cwd: str = str(ROOT)
    input: str = ""
    environment: dict = {}  # noqa: RUF012 (not mutated)  variables to set
    patches: dict = {}  # noqa: RUF012  constants to change, by module and name
    as_built: bool = False  # whether graphs are run as in this process: conftest.py
    signal_number: int | None = None  # what the program sends itself
    after_steps: int = 0  # after how many steps of its training,
    at_text: str = ""  # or when its standard error has this text


def run(program, *arguments, **others):
    """Runs a program; `others` are further fields of `Command`.

    Returns:
      A `subprocess.CompletedProcess`, with text.
    """
    return run_parallel([Command(program, list(arguments), **others)])[0]


def run_parallel(commands):
    """Runs `Command`s in parallel; returns a list of what `run` returns."""
    with tempfile.TemporaryDirectory() as folder:
        server = _server()
        server.stdin.write(json.dumps([folder, commands]) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that forks has ended"
        found = []
        for index, status in enumerate(json.loads(answer)):
            texts = []
            for stream in ("stdout", "stderr"):
                with open(_path(folder, index, stream), encoding="utf-8") as reader:
                    texts.append(reader.read())
            arguments = commands[index].arguments
            found.append(subprocess.CompletedProcess(arguments, status, *texts))
        return found


def _path(folder, index, stream):
    return os.path.join(folder, "%d.%s" % (index, stream))


@functools.cache
def _server():
    """The process that forks; it ends with this one, which holds its input open."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.programs"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _serve():
    while request := sys.stdin.readline():
        folder, commands = json.loads(request)
        children = []
        for index, fields in enumerate(commands):
            child = os.fork()
            if not child:
                _run_command(Command(*fields), folder, index)
                return  # Python ends as it does after a program.
            children.append(child)
        ends = [os.waitpid(child, 0)[1] for child in children]
        print(json.dumps([os.waitstatus_to_exitcode(end) for end in ends]), flush=True)


def _run_command(command, folder, index):
    """Runs a command in a forked process."""
    signal.alarm(MOST_SECONDS)
    with open(_path(folder, index, "stdin"), "w+") as stream:
        stream.write(command.input)
        stream.seek(0)
        os.dup2(stream.fileno(), 0)
    sys.stdin = os.fdopen(0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        with open(_path(folder, index, name), "wb") as stream:
            os.dup2(stream.fileno(), number)
    os.environ.update(command.environment)
    os.chdir(command.cwd)
    if command.as_built:
        importlib.import_module("tests.conftest")
    for name, value in command.patches.items():
        module, _, constant = name.rpartition(".")
        mock.patch.object(importlib.import_module(module), constant, value).start()
    if command.after_steps:
        _signal_after(command.after_steps, command.signal_number)
    elif command.at_text:
        threading.Thread(
            target=_signal_at,
            args=(command.at_text, _path(folder, index, "stderr"), command),
            daemon=True,
        ).start()
    path = str(ROOT / command.program)
    sys.argv = [path, *command.arguments]
    runpy.run_path(path, run_name="__main__")


def _signal_after(steps, number):
    after_run = progress.ProgressHook.after_run

    def count(hook, *values):
        nonlocal steps
        after_run(hook, *values)
        steps -= 1
        if not steps:
            os.kill(os.getpid(), number)

    progress.ProgressHook.after_run = count


def _signal_at(text, path, command):
    while True:
        with open(path, encoding="utf-8") as reader:
            if text in reader.read():
                break
        time.sleep(0.1)
    os.kill(os.getpid(), command.signal_number)


if __name__ == "__main__":
    gc.freeze()  # What is imported is shared with the forks, and stays.
    gc.set_threshold(200_000, 50, 50)  # See conftest.py.
    _serve()
