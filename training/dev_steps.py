"""Evaluations in the middle of a training, and the best checkpoint of them.

Each stands as one line in `eval_steps.jsonl`. The training stops for it and goes on
with the same steps as without: its end is the same, bit for bit on one device.
"""

import json
import os
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import optimization
from errors import UserError
from inputs import text_lines
from system import console, files, schema
from training import run_text, scoring
from weights import checkpoints, run_package, run_record

HISTORY_NAME = "eval_steps.jsonl"
BEST_FOLDER = "best"
BEST_NAME = "best.json"  # within it

BEST_SCHEMA = schema.Object(
    {
        "metric": schema.LINE,
        "set": schema.LINE,
        "score": schema.number(),
        "global_step": schema.integer(),
    },
    others=schema.ANY,
)

_REMEDY = "delete the folder to choose anew from the next evaluation on"


class Settings(NamedTuple):
    """When to evaluate, and what to keep."""

    every: int = 0  # steps; 0: never
    keep_best: str | None = None  # a metric of the task; None: nothing is kept


def stops(settings, reached, last):
    """The steps to stop at, from the first after `reached` to the last."""
    if not settings.every:
        return [last]
    first = (reached // settings.every + 1) * settings.every
    return [*range(first, last, settings.every), last]


def check(output_dir, settings):
    """Refuses a folder of other files, a damaged best, or one by another metric.

    Raises:
      UserError: saying which.
    """
    files.check_replaceable(os.path.join(output_dir, BEST_FOLDER), _is_best)
    best = read_best(output_dir)
    if best and settings.keep_best and best["metric"] != settings.keep_best:
        raise UserError(
            "--keep_best=%s: %s keeps the best by %s; give that, or %s"
            % (
                settings.keep_best,
                os.path.join(output_dir, BEST_FOLDER),
                best["metric"],
                _REMEDY,
            )
        )


def _is_best(names):
    return BEST_NAME in names


def read_best(output_dir):
    """The entries of `BEST_SCHEMA`, a dict, for what is kept; None: nothing is."""
    folder = os.path.join(output_dir, BEST_FOLDER)
    files.restore(folder)
    path = os.path.join(folder, BEST_NAME)
    if not tf.io.gfile.exists(path):
        return None
    return files.read_json(path, _REMEDY, schema=BEST_SCHEMA)


def is_due(run, step):
    """Whether a step that a training has reached has still to be evaluated."""
    every, last = run.dev_steps.every, run.settings.num_train_steps
    if not every or not step or (step % every and step != last):
        return False
    return step not in [entry["global_step"] for entry in _history(run)]


def evaluate(estimator, run, diagnostics):
    """Scores the dev sets with the last checkpoint, and keeps it if it is the best.

    Args:
      estimator: the Estimator.
      run: a `task_inputs.TaskRun`.
      diagnostics: a `diagnosis.Diagnostics`.
    """
    entry: dict = {"sets": {}}
    for split in run.task.dev:
        result, scored = scoring.score_dev(estimator, run._replace(plots=False), split)
        entry["global_step"] = int(result.pop("global_step"))
        entry["sets"][split.name] = {
            **{name: float(value) for name, value in result.items()},
            **scored.scores,
        }
    step = entry["global_step"]
    run_text.say_dev_step(entry, run.task)
    _draw(estimator.eval_dir(), run.task, entry)
    if run.dev_steps.keep_best:
        _keep_if_best(run, entry, diagnostics)
    earlier = [other for other in _history(run) if other["global_step"] < step]
    lines = [json.dumps(each, sort_keys=True) for each in (*earlier, entry)]
    path = os.path.join(run.settings.output_dir, HISTORY_NAME)
    files.write_whole(path, "".join(line + "\n" for line in lines))


def _history(run):
    """The evaluations so far, a list; what cannot be read is left out."""
    path = os.path.join(run.settings.output_dir, HISTORY_NAME)
    if not tf.io.gfile.exists(path):
        return []
    found = []
    for line in text_lines.file_lines(path, path):
        try:
            entry = files.parse_json_object(line)
        except ValueError:
            continue  # Of a file that somebody else has written to.
        if isinstance(entry.get("global_step"), int):
            found.append(entry)
    return found


def _draw(folder, task, entry):
    """Adds the task's own scores to the curves beside those of the Estimator."""
    writer = tf.summary.FileWriterCache.get(folder)
    summary = tf.Summary()
    for split in task.dev:
        for name in task.metrics:
            score = entry["sets"][split.name][name]
            summary.value.add(tag=name + split.suffix, simple_value=score)
    writer.add_summary(summary, entry["global_step"])
    writer.flush()


def _keep_if_best(run, entry, diagnostics):
    """Puts checkpoint, package and record into the folder of the best, if they are."""
    settings, metric = run.settings, run.dev_steps.keep_best
    first = run.task.dev[0].name
    score = entry["sets"][first][metric]
    best = read_best(settings.output_dir)
    if best and not score > best["score"]:
        return
    folder = os.path.join(settings.output_dir, BEST_FOLDER)
    record = {
        "metric": metric,
        "set": first,
        "score": score,
        "global_step": entry["global_step"],
        "evaluated_every": run.dev_steps.every,
    }
    dev_scores = {
        name: {each: found[each] for each in run.task.metrics}
        for name, found in entry["sets"].items()
    }
    description = run.package.description._replace(
        selection="best by %s on %s, of evaluations every %d steps"
        % (metric, first, run.dev_steps.every)
    )
    with files.atomic_folder(folder, is_own=_is_best) as partial:
        checkpoints.copy(checkpoints.latest(settings.output_dir), partial)
        if description.policy.name != optimization.FULL:
            package = run.package._replace(description=description)
            run_package.write(partial, package, diagnostics, dev_scores)
        run_record.copy(settings.output_dir, partial)
        files.write_whole(
            os.path.join(partial, BEST_NAME), json.dumps(record, indent=2) + "\n"
        )
    console.say("  the best so far by %s, kept in %s", metric, folder)
