"""Measures training and prediction on a GPU, with TensorFlow and with PyTorch.

    python -m benchmarks.gpu --output=gpu.jsonl
    python -m benchmarks.gpu --output=tiny.jsonl --tiny

1. Losses on the GPU and in PyTorch, in float32, against those on the CPU.
2. BERT-base and BERT-large with adapters, length 128, batches of 32 and 256, in
   bfloat16 and TF32: benchmarks/step.py, plain and compiled, and in bfloat16
   benchmarks/torch_adapters.py, eager and with torch.compile.
3. With the first model, the slowest operations of TensorFlow's training step.
4. MiniLM on the CPU of the machine, batches of 32 in 1, 2, 4, ... shards.

Each measurement is a process with a time limit. Results are printed, and appended to
--output as lines of JSON. Measurements without time left are skipped.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
from benchmarks import step
from errors import UserError
from system import wording

FLAGS = flags.FLAGS

_LIMIT, _COMPILED_LIMIT = 90, 150  # seconds of a measurement
_MIN_SECONDS = 10  # of a measurement
_TOLERANCE = 1e-3  # of losses
_RESULT_TEXT = (
    "%(step)-10s %(milliseconds)8.1f ms %(examples_per_second)8.1f examples/s, "
    "%(fraction_of_limit).2f of the limit, first step %(first_step_seconds).1f s, "
    "peak %(peak_gb).2f GB"
)


class MeasurementError(Exception):
    """A measurement has no result."""


def read_results(command, limit, environment):
    """Yields a command's output lines of JSON, parsed.

    Raises:
      MeasurementError: the command failed, or was stopped after `limit` seconds.
    """
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        ) as process,
    ):

        def stop():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            status = process.wait()
        finally:
            timer.cancel()
            stop()  # with its child processes
        log.seek(0)
        lines = log.read().split("\n")
    if status == -signal.SIGKILL:
        raise MeasurementError("stopped after %d s" % limit)
    if status:
        last_line = next(filter(None, reversed(lines)), status)
        raise MeasurementError("no result: %s" % last_line)


class Report:
    """Runs measurements within a time limit; prints and writes their results."""

    def __init__(self, path, minutes):
        self._path = path
        self._end = time.monotonic() + 60 * minutes
        # Milliseconds at the speed of plain matrix products, by case and step.
        self._limits = {}
        self.has_failed = False

    def write(self, title, text, **result):
        """Prints a line, and appends a result to the file."""
        print("%-40s %s" % (title, text), flush=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"part": title, **result}) + "\n")

    def run(self, title, command, limit=_LIMIT, **environment):
        """Yields the results of a measurement; writes its error."""
        try:
            left = self._end - time.monotonic()
            if left < _MIN_SECONDS:
                raise MeasurementError("skipped: no time is left, see --minutes")
            yield from read_results(command, min(limit, left), environment)
        except (MeasurementError, OSError) as error:
            self.write(title, error, error=str(error))

    def compare(self, title, actual, expected):
        """Writes whether numbers agree within `_TOLERANCE`."""
        distance = max(abs(x - y) for x, y in zip(actual, expected))
        is_equal = distance <= _TOLERANCE  # False for NaN
        self.has_failed |= not is_equal
        text = "%s: differs by at most %.1e, %.0e is allowed" % (
            *("as on the CPU" if is_equal else "FAILED", distance, _TOLERANCE),
        )
        self.write(title, text, found=actual, expected=expected)

    def time_steps(self, case, method, command, limit=_LIMIT, **environment):
        """Times the steps of a case, such as model and batch size, with a method."""
        title = "%s, %s" % (case, method)
        with tempfile.TemporaryDirectory() as folder:
            # The first step includes compilation: no cache is shared.
            environment.update(USE_TF="0", TMPDIR=folder)
            for result in self.run(title, command, limit, **environment):
                self._write_times(title, (case, result["step"]), result)

    def _write_times(self, title, key, result):
        duration = result["milliseconds"]
        if "fraction_of_limit" in result:
            self._limits[key] = result["fraction_of_limit"] * duration
        else:  # PyTorch
            result["fraction_of_limit"] = self._limits.get(key, math.nan) / duration
        self.write(title, _RESULT_TEXT % result, **result)
        for name, microseconds in result.get("operations", ()):
            print("%40s %9.3f ms  %s" % ("", microseconds / 1e3, name))


def compare_losses(report, ours, theirs):
    """Compares losses on the GPU and in PyTorch with those on the CPU.

    `ours` and `theirs` are the commands.

    Raises:
      UserError: TensorFlow does not use the GPU.
    """

    def run(title, command, **environment):
        return next(report.run(title, command, **environment), None)

    with tempfile.TemporaryDirectory() as folder:
        options = ["--precision=float32", "--losses=%s/weights.npz" % folder]
        # Another number of shards would draw other random numbers.
        ours = [*ours, *options, "--shards=1"]
        on_cpu = run("losses on the CPU", ours, CUDA_VISIBLE_DEVICES="")
        title = "losses on the GPU"
        on_gpu = on_cpu and run(title, ours, NVIDIA_TF32_OVERRIDE="0")
        if on_gpu:
            if on_gpu["device"] != "GPU" and not FLAGS.tiny:
                raise UserError(
                    "TensorFlow does not use the GPU: TF_CPP_MIN_LOG_LEVEL=0 shows "
                    'why. pip install "tensorflow[and-cuda]==%s" installs its libraries'
                    % tf.version.VERSION
                )
            losses = (each["training_losses"] for each in (on_gpu, on_cpu))
            report.compare(title, *losses)
        title = "loss and trained parameters in PyTorch"
        environment = {"CUDA_VISIBLE_DEVICES": "", "USE_TF": "0"}
        in_torch = on_cpu and run(title, [*theirs, *options], **environment)
        if in_torch:
            names = ("loss", "trained_parameters")
            values = ([each[name] for name in names] for each in (in_torch, on_cpu))
            report.compare(title, *values)


def describe_gpu():
    """Name, memory and driver of the first GPU, from nvidia-smi.

    Raises:
      UserError: no GPU.
    """
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.check_output(["nvidia-smi", *query], text=True).split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        raise UserError(
            "nvidia-smi finds no GPU; give --tiny to try the script on the CPU"
        ) from None


def make_commands(config, batch_size):
    """The commands of benchmarks/step.py and benchmarks/torch_adapters.py."""
    length, seconds = (16, 0.2) if FLAGS.tiny else (128, 2.0)
    shared = [
        *("--batch_size=%d" % batch_size, "--seq_length=%d" % length),
        *("--adapter_size=64", "--seconds=%s" % seconds),
    ]
    sizes = zip(("hidden_size", "layers", "heads"), step.SIZES[config])
    ours = [sys.executable, "-m", "benchmarks.step", "--json", "--config=" + config]
    theirs = [FLAGS.torch_python, os.path.join("benchmarks", "torch_adapters.py")]
    theirs += ["--%s=%d" % size for size in sizes]
    return [*ours, *shared], [*theirs, *shared]


def time_shards(report):
    """Times steps on the CPU: in one shard on all cores, in N shards on N cores."""
    ours = [sys.executable, "-m", "benchmarks.step", "--json", "--seq_length=56"]
    ours += ["--seconds=0.2", "--config=tiny"] if FLAGS.tiny else ["--seconds=5"]
    shards = 1
    while shards <= os.cpu_count():
        command = [*ours, "--shards=%d" % shards]
        method = wording.pluralize(shards, "shard")
        report.time_steps("CPU", method, command, CUDA_VISIBLE_DEVICES="")
        shards *= 2


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    torch_text = "Python that has PyTorch and transformers; this one if not given."
    return {
        "Flags": (
            command_line.DEFINE_path("output", "File of the results.", **to),
            flags.DEFINE_float("minutes", 10.0, "Time for all measurements.", **to),
            flags.DEFINE_string("torch_python", sys.executable, torch_text, **to),
            flags.DEFINE_bool("tiny", False, "A tiny model, also on the CPU.", **to),
        )
    }


def main(argv):
    del argv
    command_line.check_required(FLAGS, ["output"])
    report = Report(FLAGS.output, FLAGS.minutes)
    machine = "tiny model" if FLAGS.tiny else describe_gpu()
    report.write("TensorFlow %s" % tf.version.VERSION, machine, machine=machine)
    configs, batch_sizes = ["bert-base", "bert-large"], [32, 256]
    compiled_limit = _COMPILED_LIMIT
    if FLAGS.tiny:
        configs, batch_sizes = ["tiny"], [4]
        compiled_limit *= 2  # torch.compile runs a C++ compiler on the CPU.
    compare_losses(report, *make_commands(configs[0], batch_sizes[0]))
    trace = ["--trace=10"]
    for precision, config, batch_size in itertools.product(
        ("bfloat16", "float32"), configs, batch_sizes
    ):
        name = "TF32" if precision == "float32" else precision
        case = "%s, %s, batch %d" % (config, name, batch_size)
        ours, theirs = (
            [*command, "--precision=" + precision]
            for command in make_commands(config, batch_size)
        )
        report.time_steps(case, "plain", [*ours, "--xla=false", *trace])
        report.time_steps(
            case, "compiled", [*ours, "--xla=true", *trace], compiled_limit
        )
        if precision == "bfloat16":
            report.time_steps(case, "PyTorch eager", theirs)
            theirs.append("--compile")
            report.time_steps(case, "torch.compile", theirs, compiled_limit)
        trace = []
    time_shards(report)
    return 1 if report.has_failed else 0


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
