"""The log lines of a run."""

import os

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from system import console, wording
from system.wording import list_names
from training import distribution, scoring
from weights import adapter_package, checkpoints, run_record

_COLLECTION_NAMES = {
    modeling.ADAPTERS: "adapters",
    modeling.LAYER_NORM: "layer norms",
    modeling.HEAD: "head",
    modeling.OTHER: "other weights of BERT",
}


def log_task(task, config, devices, precision):
    """Logs task, `modeling.BertConfig`, `settings.Devices` and precision."""
    console.say(
        "Task %s, %s; BERT of %s, hidden size %d",
        task.title,
        task.type.describe(),
        wording.pluralize(config.num_hidden_layers, "layer"),
        config.hidden_size,
    )
    if devices.use_tpu:
        text = "TPU, %s" % wording.pluralize(devices.num_tpu_cores, "core")
    elif tf.config.list_physical_devices("GPU"):
        text = "GPU: %s" % ", ".join(distribution.local_devices())
    else:
        text = "CPU, %s" % wording.pluralize(distribution.available_cores(), "core")
    if devices.distribution_strategy != distribution.NONE:
        text += ", `distribution_strategy`=" + devices.distribution_strategy
    console.say("Computed on: %s, in %s", text, precision)


def log_trained_variables(variables, counts, method):
    """Logs the trained variables of a `VariableSet`, and its `parameter_counts`."""
    for collection, names in variables.collections.items():
        for name in names:
            shape = variables.shapes[name]
            console.detail("Trained: %s, %s, shape = %s", collection, name, shape)
    parts = [
        "%s %s" % (wording.thousands(counts[collection]), name)
        for collection, name in _COLLECTION_NAMES.items()
        if counts.get(collection)
    ]
    console.say(
        "Trained by `train_policy`=%s%s: %s = %s of %s parameters, %.2f %% of the "
        "base model's %s%s",
        method.text,
        "" if method.description == method.help else " (%s)" % method.description,
        " + ".join(parts),
        wording.thousands(counts["trained"]),
        wording.thousands(counts["total"]),
        100.0 * counts["share"],
        wording.thousands(counts["base"]),
        "; all others are frozen" if counts["trained"] < counts["total"] else "",
    )


def log_training(settings, examples, features, training):
    """Logs steps, batch size, learning rate and seed.

    `settings` are a `settings.Run`, `training` the `training` of a `task_run.TaskRun`,
    `examples` and `features` their numbers in the training set.
    """
    steps, batch_size = settings.num_train_steps, settings.train_batch_size
    console.say(
        "Training: %s of %s (%.3g epochs%s), learning rate %g after %s of warm-up, "
        "Adam's moments %scorrected, seed %d",
        wording.pluralize(steps, "step"),
        wording.pluralize(batch_size, "example"),
        steps * batch_size / examples,
        ""
        if features == examples
        else ", %.3g over all %d windows" % (steps * batch_size / features, features),
        training["learning_rate"],
        wording.pluralize(settings.num_warmup_steps, "step"),
        "" if training["adam_bias_correction"] else "not ",
        training["seed"],
    )


def log_scores(split, scored):
    """Logs the `scoring.SplitScores` of a split."""
    count = wording.pluralize(len(scored.labels), "example")
    console.say("Scores on %s, %s, step %d:", split.name, count, scored.step)
    for name, score in scored.scores.items():
        console.say(
            "  %-15s %.4f    (baseline: %.4f)", name, score, scored.baseline[name]
        )
    for line in scored.table.splitlines():
        console.say("  %s", line)
    if all(score <= scored.baseline[name] for name, score in scored.scores.items()):
        console.warn("%s: no score is above the baseline", split.name)
    # The diagnosis of a single predicted class includes this.
    if "confusion_matrix" in scored.report and not scored.diagnosis:
        _warn_about_labels(split, scored.report)


def _warn_about_labels(split, report):
    """Warns about labels of examples that are never predicted."""
    matrix = np.array(report["confusion_matrix"])
    missing = matrix.any(axis=1) & ~matrix.any(axis=0)
    if missing.any():
        labels = [report["labels"][i] for i in np.flatnonzero(missing)]
        console.warn("%s: never predicted: %s", split.name, list_names(labels))


def log_files(output_dir, task, result_name):
    """Logs the files of a run; `result_name` is the method of its `TaskRun`."""
    results = {"eval_results.txt": "scores; eval_results.json adds the baseline"}
    for split in task.dev if task.type.has_task_files else ():
        results[scoring.dev_predictions_file(split)] = (
            "each dev example's label and prediction"
        )
    for split in task.test:
        results.update(task.type.prediction_files(split))
    results["test_scores.json"] = "scores of the test set"
    for split in (*task.dev, *task.test):
        results["confusion_matrix_%s.png" % split.name] = "predictions of each label"
    descriptions = {
        adapter_package.FOLDER: "the adapter package: all trained variables",
        **{result_name(name): text for name, text in results.items()},
        run_record.FILE_NAME: "settings, counts, diagnostics",
        console.LOG_NAME: "the full log, with times",
    }
    console.say("Files in %s:", output_dir)
    for name, text in descriptions.items():
        if tf.io.gfile.exists(os.path.join(output_dir, name)):
            console.say("  %-25s %s", name, text)
    checkpoint = checkpoints.latest(output_dir)
    if checkpoint:
        console.say(
            "  %-25s the last checkpoint; curves: tensorboard --logdir=%s",
            os.path.basename(checkpoint),
            output_dir,
        )
