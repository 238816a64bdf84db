"""Compares the training speed of this program and AdapterHub's on MRPC.

    python3 -m venv /tmp/adapterhub
    /tmp/adapterhub/bin/pip install -r benchmarks/requirements-adapterhub.txt
    python -m benchmarks.compare --encoder_dir=HF_DIR --checkpoint_dir=DIR \\
      --data_dir=glue_data/MRPC --adapterhub_python=/tmp/adapterhub/bin/python

Times runs with their input pipelines, without the first step, and measures the peak
memory of each process. If the machine's speed varies, --rounds=3 alternates three runs
of each.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import os
import re
import statistics
import subprocess
import sys
import tempfile

from absl import flags

import command_line
from errors import UserError

FLAGS = flags.FLAGS

_RATE = re.compile(r"Trained steps 0 to \d+: ([\d.]+) examples/s")


def _run(program, **flag_values):
    """Runs a program with flags; returns its output, and its peak memory in GB."""
    command = [*program, *("--%s=%s" % pair for pair in flag_values.items())]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        text = log.read()
    if process.returncode:
        raise UserError("%s failed: %s" % (" ".join(command), text[-2000:].strip()))
    return text, usage.ru_maxrss * 1024 / 1e9


def time_ours(precision):
    """Examples per second and peak GB of `run_classifier.py`."""
    with tempfile.TemporaryDirectory() as output:
        text, peak = _run(
            [sys.executable, "run_classifier.py"],
            task_name="MRPC",
            do_train="true",
            data_dir=FLAGS.data_dir,
            vocab_file=os.path.join(FLAGS.checkpoint_dir, "vocab.txt"),
            bert_config_file=os.path.join(FLAGS.checkpoint_dir, "bert_config.json"),
            init_checkpoint=os.path.join(FLAGS.checkpoint_dir, "bert_model.ckpt"),
            learning_rate="3e-4",
            num_train_epochs=FLAGS.epochs,
            precision=precision,
            output_dir=output,
        )
    return float(_RATE.search(text).group(1)), peak


def time_adapterhub(precision):
    """Examples per second and peak GB of benchmarks/adapterhub.py."""
    values = {name: FLAGS[name].value for name in ("encoder_dir", "data_dir", "epochs")}
    program = [FLAGS.adapterhub_python, os.path.join("benchmarks", "adapterhub.py")]
    text, peak = _run(program, precision=precision, **values)
    return float(text.splitlines()[-1]), peak


_TEXTS = {
    "encoder_dir": "The encoder in Hugging Face's layout.",
    "checkpoint_dir": "The same, from convert_checkpoint.py.",
    "adapterhub_python": "Python that has `adapters`.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    precisions = ["float32", "bfloat16"]
    return {
        "Flags": (
            *(flags.DEFINE_string(n, None, text, **to) for n, text in _TEXTS.items()),
            command_line.DEFINE_path("data_dir", "Folder of MRPC.", **to),
            flags.DEFINE_integer("epochs", 1, "Epochs of each run.", **to),
            flags.DEFINE_integer(
                "rounds", 1, "Runs of each program, in turns.", lower_bound=1, **to
            ),
            flags.DEFINE_list("precisions", precisions, "Precisions to compare.", **to),
        )
    }


def main(argv):
    del argv
    command_line.check_required(FLAGS, [*_TEXTS, "data_dir"])
    for precision in FLAGS.precisions:
        ratios = []
        for _ in range(FLAGS.rounds):
            ours, our_peak = time_ours(precision)
            theirs, their_peak = time_adapterhub(precision)
            ratios.append(ours / theirs)
            print(
                "%-9s this program %.1f examples/s, %.2f GB; AdapterHub %.1f "
                "examples/s, %.2f GB; ratio %.2f"
                % (precision, ours, our_peak, theirs, their_peak, ratios[-1]),
                flush=True,
            )
        if len(ratios) > 1:
            median = statistics.median(ratios)
            print("%-9s median ratio %.2f of %d" % (precision, median, len(ratios)))


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
