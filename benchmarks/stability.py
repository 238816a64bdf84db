"""How many trainings learn: learning rates, with and without bias correction, seeds.

    python -m benchmarks.stability --checkpoint_dir=DIR --work_dir=stability/sample_data

trains sample_data/ with the demo's recipe, each training a process of its own. For a
task of GLUE, with the README's recipe:

    python -m benchmarks.stability --checkpoint_dir=DIR --work_dir=stability/mrpc \\
      --task=MRPC --rows=glue_data/MRPC --batch=32 --length=128 --epochs=5 \\
      --learning_rates=3e-4,1e-3 --seeds=1,2,3

A training that has ended is not repeated, so the same command goes on after a stop.
In --work_dir it leaves a folder for each training, results.md (a table), results.json
and stability.png. A seed counts as one that learned where its accuracy, or the task's
first score, is more than 0.05 above that of giving the same answer to every row.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import itertools
import json
import os
import statistics
import subprocess
import sys
from typing import NamedTuple

import matplotlib
from absl import app, flags

import command_line
import glue_data
from errors import UserError, reports_user_errors

matplotlib.use("Agg")
# It has to be told of the backend first.
from matplotlib import pyplot

FLAGS = flags.FLAGS

_REQUIRED = ("checkpoint_dir", "work_dir")

# What a score has to be above the baseline's to count as learned.
MARGIN = 0.05

# --adam_bias_correction, as it is called in folders and tables.
_CORRECTIONS = {"plain": False, "corrected": True}
_IN_WORDS = {"plain": "as in BERT", "corrected": "corrected"}


class Result(NamedTuple):
    """What a training came to."""

    learning_rate: str
    correction: str  # a key of `_CORRECTIONS`
    seed: str
    metric: str
    score: float  # on the (first) dev set
    baseline: float

    @property
    def learned(self):
        """Whether it is well above the baseline."""
        return self.score > self.baseline + MARGIN


def command_of(learning_rate, correction, seed, output_dir):
    """The command line of one training."""
    values = {
        "task_name": FLAGS.task,
        "data_dir": FLAGS.rows,
        "train_batch_size": FLAGS.batch,
        "max_seq_length": FLAGS.length,
        "num_train_epochs": FLAGS.epochs,
        "do_train": "true",
        "do_eval": "true",
        "vocab_file": "%s/vocab.txt" % FLAGS.checkpoint_dir,
        "bert_config_file": "%s/bert_config.json" % FLAGS.checkpoint_dir,
        "init_checkpoint": "%s/bert_model.ckpt" % FLAGS.checkpoint_dir,
        "learning_rate": learning_rate,
        "adam_bias_correction": str(_CORRECTIONS[correction]).lower(),
        "seed": seed,
        "checkpoint_content": "trained",  # Small, and the same numbers.
        "output_dir": output_dir,
    }
    flags_of_run = ["--%s=%s" % pair for pair in sorted(values.items())]
    return [sys.executable, "run_classifier.py", *flags_of_run]


def run(learning_rate, correction, seed):
    """Trains, unless that was done.

    Returns:
      A `Result`.

    Raises:
      UserError: the training failed.
    """
    name = "lr%s-%s-seed%s" % (learning_rate, correction, seed)
    output_dir = os.path.join(FLAGS.work_dir, name)
    results = os.path.join(output_dir, "eval_results.json")
    if not os.path.exists(results):
        command = command_of(learning_rate, correction, seed, output_dir)
        with open(output_dir + ".txt", "w") as log:
            status = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT)
        if status:
            raise UserError(
                "a training failed, see %s.txt: %s" % (output_dir, " ".join(command))
            )
    task = glue_data.get_task(FLAGS.task)
    with open(results) as reader:
        dev = json.load(reader)["sets"][task.dev[0].name]
    names = task.metrics
    metric = "accuracy" if "accuracy" in names else names[0]
    return Result(
        learning_rate,
        correction,
        seed,
        metric,
        dev["scores"][metric],
        dev["baseline"][metric],
    )


def table(results):
    """The results as Markdown, one line a cell of the grid."""
    lines = [
        "| learning rate | moments | seeds that learned | %s of each seed | mean | "
        "standard deviation |" % results[0].metric,
        "|---|---|---|---|---|---|",
    ]
    for (rate, correction), cell in cells(results).items():
        scores = [100 * result.score for result in cell]
        lines.append(
            "| %s | %s | %d of %d | %s | %.1f | %s |"
            % (
                rate,
                correction,
                sum(result.learned for result in cell),
                len(cell),
                " ".join("%.1f" % score for score in scores),
                statistics.mean(scores),
                "%.1f" % statistics.stdev(scores) if len(scores) > 1 else "-",
            )
        )
    lines.append("")
    lines.append("The same answer for every row: %.1f." % (100 * results[0].baseline))
    return "\n".join(lines) + "\n"


def cells(results):
    """Results by learning rate and correction, in their order."""
    found: dict = {}
    for result in results:
        found.setdefault((result.learning_rate, result.correction), []).append(result)
    return found


def plot(results, path):
    """Draws the share of seeds that learned, and each seed's score.

    Args:
      results: list of `Result`.
      path: the PNG file to write.
    """
    figure, (shares, scores) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    by_cell = cells(results)
    rates = list(dict.fromkeys(result.learning_rate for result in results))
    # Told apart by shape too, for print and for the colour-blind.
    styles = {"plain": ("#d55e00", "o", "//"), "corrected": ("#0072b2", "s", "")}
    for offset, (correction, (colour, marker, hatch)) in zip(
        (-0.2, 0.2), styles.items()
    ):
        found = [
            (i, by_cell[rate, correction])
            for i, rate in enumerate(rates)
            if (rate, correction) in by_cell
        ]
        shares.bar(
            [i + offset for i, _ in found],
            [sum(r.learned for r in cell) / len(cell) for _, cell in found],
            width=0.36,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=correction,
        )
        scores.plot(
            [
                i + offset + 0.04 * (k - len(c) / 2)
                for i, c in found
                for k in range(len(c))
            ],
            [100 * result.score for _, cell in found for result in cell],
            marker,
            color=colour,
            markersize=5,
            alpha=0.8,
            label=correction,
        )
    baseline = 100 * results[0].baseline
    scores.axhline(baseline, color="grey", linestyle="--", linewidth=1)
    scores.annotate(
        "same answer for all", (-0.45, baseline + 0.5), va="bottom", fontsize=8
    )
    shares.set_ylim(0, 1.05)
    shares.set_ylabel("share of seeds that learned")
    scores.set_ylabel("%s on the dev set, times 100" % results[0].metric)
    for axes in (shares, scores):
        axes.set_xticks(range(len(rates)), rates)
        axes.set_xlim(-0.5, len(rates) - 0.5)
        axes.set_xlabel("learning rate")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("%s, %s" % (FLAGS.task, FLAGS.rows), fontsize=10, x=0.2)
    handles, labels = shares.get_legend_handles_labels()
    names = ["Adam's moments %s" % _IN_WORDS[label] for label in labels]
    figure.legend(handles, names, ncols=2, loc="upper right", frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    return {
        "Flags": (
            flags.DEFINE_string(
                "checkpoint_dir",
                None,
                "An encoder, as convert_checkpoint.py left it.",
                **to,
            ),
            flags.DEFINE_string(
                "work_dir", None, "Folder for trainings and results.", **to
            ),
            flags.DEFINE_string(
                "task", "SST-2", "Task, for the format of --rows.", **to
            ),
            flags.DEFINE_string(
                "rows", "sample_data", "Folder of the task's rows.", **to
            ),
            flags.DEFINE_list(
                "learning_rates", ["3e-4", "1e-3", "3e-3"], "Learning rates.", **to
            ),
            flags.DEFINE_list("seeds", ["1", "2", "3", "4", "5"], "Seeds.", **to),
            flags.DEFINE_integer("batch", 16, "Examples in a batch.", **to),
            flags.DEFINE_integer("length", 64, "Longest input in word pieces.", **to),
            flags.DEFINE_float("epochs", 8, "Passes over the training set.", **to),
        )
    }


@reports_user_errors
def main(argv):
    command_line.refuse_words(argv, "--seeds=1,2,3")
    command_line.check_required(FLAGS, _REQUIRED)
    os.makedirs(FLAGS.work_dir, exist_ok=True)
    grid = list(itertools.product(FLAGS.learning_rates, _CORRECTIONS, FLAGS.seeds))
    results = []
    for number, (rate, correction, seed) in enumerate(grid, 1):
        results.append(run(rate, correction, seed))
        print(
            "%d of %d: learning rate %s, %s, seed %s: %s %.4f%s"
            % (
                number,
                len(grid),
                rate,
                correction,
                seed,
                results[-1].metric,
                results[-1].score,
                "" if results[-1].learned else " (learned nothing)",
            ),
            flush=True,
        )
    text = table(results)
    with open(os.path.join(FLAGS.work_dir, "results.json"), "w") as writer:
        json.dump([result._asdict() for result in results], writer, indent=2)
    with open(os.path.join(FLAGS.work_dir, "results.md"), "w") as writer:
        writer.write(text)
    plot(results, os.path.join(FLAGS.work_dir, "stability.png"))
    print("\n" + text, end="")


if __name__ == "__main__":
    app.run(
        main,
        flags_parser=command_line.flags_parser(__doc__, define_flags(FLAGS), FLAGS),
    )
