"""Evaluation every `eval_steps` steps, early stopping, and the best checkpoint.

An evaluation is a line of `eval_steps.jsonl`. On one device, evaluations do not change
the trained weights, bit for bit.
"""

import contextlib
import json
import os
import time

import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import text_lines
from system import console, files, schema
from training import estimators, scoring
from training.estimator_compat import estimator
from weights import (
    adapter_package,
    checkpoints,
    diagnosis,
    run_package,
    run_record,
)

HISTORY_NAME = "eval_steps.jsonl"
BEST_FOLDER = "best"
BEST_NAME = "best.json"  # in `BEST_FOLDER`

BEST_SCHEMA = schema.Object(
    {
        "metric": schema.LINE,
        "set": schema.LINE,
        "score": schema.number(),
        "global_step": schema.integer(),
    },
    others=schema.ANY,
)

_EVALUATION = schema.Object(
    {
        "global_step": schema.integer(),
        "sets": schema.Object({}, others=schema.Object({}, others=schema.ANY)),
    },
    others=schema.ANY,
)

_REMEDY = "delete the folder to select the best of later evaluations"


def stop_steps(eval_steps, step_reached, last_step):
    """Steps after which training on TPU stops for an evaluation, a list."""
    first = (step_reached // eval_steps + 1) * eval_steps
    return [*range(first, last_step, eval_steps), last_step]


def check(output_dir, keep_best):
    """Refuses best/ if it is damaged, of another metric or not of this program."""
    best, folder = read_best(output_dir), os.path.join(output_dir, BEST_FOLDER)
    if not keep_best:
        return
    files.check_replaceable(folder, _is_best)
    if best and best["metric"] != keep_best:
        raise UserError(
            "`keep_best`=%s: %s keeps the best by %s; give that metric, or %s"
            % (keep_best, folder, best["metric"], _REMEDY)
        )


def _is_best(names):
    own = {BEST_NAME, "checkpoint", run_record.FILE_NAME, adapter_package.FOLDER}
    return BEST_NAME in names and all(
        name in own or name.startswith("model.ckpt-") for name in names
    )


def read_best(output_dir):
    """The content of best.json, see `BEST_SCHEMA`; None if there is none."""
    folder = files.find_stored_folder(os.path.join(output_dir, BEST_FOLDER))
    path = os.path.join(folder, BEST_NAME)
    return files.read_json_if_there(path, _REMEDY, BEST_SCHEMA)


def log_best(output_dir):
    """Logs the step and score of the best checkpoint, if one is kept."""
    best = read_best(output_dir)
    if best:
        console.say(
            "Best %(metric)s: step %(global_step)d, %(score).4f on %(set)s, kept in "
            "%(folder)s with its package; all other files are of the last step",
            {**best, "folder": os.path.join(output_dir, BEST_FOLDER)},
        )


def is_due(run, step):
    """Whether an evaluation is due after a step and not in `eval_steps.jsonl`."""
    eval_steps, last_step = run.dev_evaluation.eval_steps, run.settings.num_train_steps
    if not eval_steps or not step or (step % eval_steps and step != last_step):
        return False
    history = _read_history(run.settings.output_dir)
    return step not in [entry["global_step"] for entry in history]


def stops_early(run, step):
    """Whether training stops early after a step; logs the reason.

    The last `early_stopping` evaluations, up to that of the step, have no better score
    than an earlier one.
    """
    patience = run.dev_evaluation.early_stopping
    if not patience or step == run.settings.num_train_steps:
        return False
    history = _read_history(run.settings.output_dir)
    history = [entry for entry in history if entry["global_step"] <= (step or 0)]
    if not history or history[-1]["global_step"] != step:
        return False
    metric = run.dev_evaluation.keep_best or run.task.metrics[0]
    dev_set = run.task.dev[0].name
    scores = [entry["sets"][dev_set][metric] for entry in history]
    best = scores.index(max(scores))
    if len(scores) - 1 - best < patience:
        return False
    console.say(
        "Stopped early, after step %d of %d: no better %s on %s since step %d, %.4f",
        step,
        run.settings.num_train_steps,
        metric,
        dev_set,
        history[best]["global_step"],
        scores[best],
    )
    return True


class Evaluation(tf.train.CheckpointSaverListener):
    """Evaluates after checkpoints, in the training session.

    Attributes:
      results: dict from a dev set's name to its `scoring.SplitScores` after the last
        step; {} before.
      stop_request: a `signals.StopRequest`, which ends an evaluation; set by
        `estimators.train`.
    """

    def __init__(self, run, progress_hook):
        """Takes a `task_run.TaskRun` and the `progress.ProgressHook` of training."""
        self._run, self._progress_hook = run, progress_hook
        self.eval_steps, self.results = run.dev_evaluation.eval_steps, {}

    def begin(self):
        run = self._run
        params = {"batch_size": run.settings.eval_batch_size}
        batches = [
            run.inputs.make_input_fn(split, "eval")(params) for split in run.task.dev
        ]
        iterator = tf.data.Iterator.from_structure(
            tf.data.get_output_types(batches[0]), tf.data.get_output_shapes(batches[0])
        )
        self._initializers = [iterator.make_initializer(each) for each in batches]
        # Metrics are variables of a replica, here the first.
        replica = tf.distribute.ReplicaContext(tf.distribute.get_strategy(), 0)
        with replica, tf.variable_scope(tf.get_variable_scope(), reuse=True):
            spec = run.model_fn(
                iterator.get_next(), None, estimator.ModeKeys.EVAL, params
            ).as_estimator_spec()
            metrics = {**spec.eval_metric_ops, "loss": tf.metrics.mean(spec.loss)}
        if not run.task.type.has_dev_loss:
            metrics = {}
        self._values = {name: value for name, (value, _) in metrics.items()}
        self._updates = [update for _, update in metrics.values()]
        self._reset = tf.variables_initializer(
            tf.get_collection(tf.GraphKeys.METRIC_VARIABLES)
        )
        (self._scores,) = tf.get_collection(scoring.SCORES)

    def after_save(self, session, global_step_value):
        run, step, started = self._run, global_step_value, time.monotonic()
        if not is_due(run, step):
            return None
        results = {}
        for split, initializer in zip(run.task.dev, self._initializers):
            session.run([initializer, self._reset])
            scores = []
            for _ in range(scoring.count_batches(run, split)):
                if self.stop_request.number is not None:
                    return None
                scores.extend(session.run([self._scores, self._updates])[0])
            metrics = {**session.run(self._values), "global_step": step}
            predictions = scoring.decode(run, split, scores, len(scores))
            results[split.name] = scoring.score(run, split, predictions, metrics)
        record(run, results, self._progress_hook)
        stops = stops_early(run, step)
        if stops or step == run.settings.num_train_steps:
            self.results = results
        self._progress_hook.add_pause(time.monotonic() - started)
        return stops  # The hook that saves checkpoints then stops training.


def record(run, results, progress_hook):
    """Records `Evaluation.results`, and keeps the last checkpoint if it is the best."""
    entry: dict = {"sets": {}}
    summaries = {}
    for split in run.task.dev:
        name, scored = split.name, results[split.name]
        summaries.update(scoring.summary_values(split, scored))
        entry["global_step"] = step = scored.step
        metrics = {key: float(value) for key, value in scored.metrics.items()}
        entry["sets"][name] = {**metrics, **scored.scores}
        scores = ["%s %.4f" % (key, scored.scores[key]) for key in run.task.metrics]
        console.say("  %s at step %d: %s", name, step, ", ".join(scores))
    folder = os.path.join(run.settings.output_dir, "eval")
    estimators.write_scalars(folder, step, summaries)
    if run.dev_evaluation.keep_best:
        diagnostics = diagnosis.Diagnostics(training=progress_hook.diagnose())
        _keep_if_best(run, entry, diagnostics)
    history = _read_history(run.settings.output_dir)
    history = [earlier for earlier in history if earlier["global_step"] < step]
    lines = [json.dumps(each, sort_keys=True) for each in (*history, entry)]
    path = os.path.join(run.settings.output_dir, HISTORY_NAME)
    files.write_whole(path, "".join(line + "\n" for line in lines))


def _read_history(output_dir):
    """The entries of `eval_steps.jsonl`, a list; invalid lines are ignored."""
    path = os.path.join(output_dir, HISTORY_NAME)
    if not tf.io.gfile.exists(path):
        return []
    history = []
    for line in text_lines.file_lines(path, path):
        with contextlib.suppress(ValueError):
            entry = files.parse_json_object(line)
            _EVALUATION.check(entry)
            history.append(entry)
    return history


def _keep_if_best(run, entry, diagnostics):
    """Writes checkpoint, package and record into best/, if the score is the best."""
    output_dir, metric = run.settings.output_dir, run.dev_evaluation.keep_best
    dev_set, eval_steps = run.task.dev[0].name, run.dev_evaluation.eval_steps
    score = entry["sets"][dev_set][metric]
    best = read_best(output_dir)
    if best and not score > best["score"]:
        return
    folder = os.path.join(output_dir, BEST_FOLDER)
    record = {
        "metric": metric,
        "set": dev_set,
        "score": score,
        "global_step": entry["global_step"],
        "evaluated_every": eval_steps,
    }
    dev_scores = {
        name: {key: values[key] for key in run.task.metrics}
        for name, values in entry["sets"].items()
    }
    selection = "best by %s on %s, of evaluations every %d steps"
    selection %= (metric, dev_set, eval_steps)
    config = {**run.package.config, "selection": selection}
    with files.atomic_folder(folder, is_own=_is_best) as partial:
        checkpoints.copy(checkpoints.latest(output_dir), partial)
        run_record.copy(output_dir, partial)
        if run.package.has_package:
            package = run.package._replace(config=config)
            run_package.write(partial, package, diagnostics, dev_scores)
        path = os.path.join(partial, BEST_NAME)
        files.write_whole(path, json.dumps(record, indent=2) + "\n")
    console.say("  best %s so far, kept in %s", metric, folder)
