"""What a run of `run_classifier.py` says to the person who started it."""

import os

import tensorflow.compat.v1 as tf

import modeling
from model import layer_ranges
from system import console
from training import distribution
from weights import adapter_package, checkpoints, run_record

_GROUPS = {
    modeling.ADAPTERS: "adapters",
    modeling.LAYER_NORM: "layer norms",
    modeling.HEAD: "head",
    modeling.OTHER: "other weights of BERT",
}


def say_task(task, config, settings, precision):
    """Says what is run, and on what.

    Args:
      task: a `tasks.Task`.
      config: a `modeling.BertConfig`.
      settings: a `estimators.RunSettings`.
      precision: one of `classifier.PRECISIONS`.
    """
    outputs = "a score" if task.is_regression else "%d labels" % len(task.labels)
    console.say(
        "Task %s, %s; BERT of %d layers, hidden size %d",
        task.title,
        outputs,
        config.num_hidden_layers,
        config.hidden_size,
    )
    if settings.use_tpu:
        device = "TPU, %d cores" % settings.num_tpu_cores
    elif tf.config.list_physical_devices("GPU"):
        names = ", ".join(distribution.local_devices())
        device = "GPU: %s" % names
    else:
        device = "CPU, %d cores" % (os.cpu_count() or 1)
    if settings.distribution_strategy != distribution.NONE:
        device += ", --distribution_strategy=" + settings.distribution_strategy
    console.say("Computed on: %s, in %s", device, precision)


def show_trained_variables(variables, counts, policy):
    """Shows how much is trained, and logs each trained variable.

    Args:
      variables: a `variable_shapes.VariableSet`.
      counts: what `checkpoints.parameter_counts` gives.
      policy: an `optimization.TrainPolicy`.
    """
    for collection, names in variables.collections.items():
        for name in names:
            console.detail(
                "Trained: %s, %s, shape = %s",
                collection,
                name,
                variables.shapes[name],
            )
    parts = [
        "{:,} {}".format(counts[collection], name)
        for collection, name in _GROUPS.items()
        if counts.get(collection)
    ]
    where = ""
    if policy.adapter_layers:
        layers = layer_ranges.format_layers(policy.adapter_layers)
        where = " (adapters in layers %s)" % layers
    console.say(
        "Trains by --train_policy=%s%s: %s = %s of %s parameters, %.2f %% of the "
        "base's %s%s",
        policy.text,
        where,
        " + ".join(parts),
        "{:,}".format(counts["trained"]),
        "{:,}".format(counts["total"]),
        100.0 * counts["share"],
        "{:,}".format(counts["base"]),
        "; all else is frozen" if counts["trained"] < counts["total"] else "",
    )


def say_training(settings, num_warmup_steps, rows, by_flag):
    """Says how it will be trained.

    Args:
      settings: a `estimators.RunSettings`.
      num_warmup_steps: steps of the warm-up.
      rows: number of training rows.
      by_flag: the training's settings by their flags' names.
    """
    steps, batch_size = settings.num_train_steps, settings.train_batch_size
    console.say(
        "Training: %d steps of %d rows (%.3g epochs), learning rate %g after %d steps "
        "of warm-up, Adam's moments %scorrected, seed %d",
        steps,
        batch_size,
        steps * batch_size / rows,
        by_flag["learning_rate"],
        num_warmup_steps,
        "" if by_flag["adam_bias_correction"] else "not ",
        by_flag["seed"],
    )


def say_scores(split, step, count, scores, baseline):
    """Says a dev set's scores beside the baseline's.

    Args:
      split: a `tasks.Split`.
      step: the global step of the weights.
      count: number of rows.
      scores: dict from metric to float.
      baseline: the same, of always giving one answer.
    """
    console.say("Scores on %s, %d rows, step %d:", split.name, count, step)
    for name, score in scores.items():
        console.say(
            "  %-15s %.4f    (always the same answer: %.4f)",
            name,
            score,
            baseline[name],
        )
    if all(score <= baseline[name] for name, score in scores.items()):
        # Its answers differ from each other, and its training loss may be low.
        console.warn("%s: no score is above that of always the same answer", split.name)


def say_dev_step(entry, task):
    """Says what an evaluation within a training gave, a line for each dev set.

    Args:
      entry: dict with "global_step" and "sets", see `dev_steps`.
      task: the `tasks.Task`.
    """
    for name, found in entry["sets"].items():
        scores = ["%s %.4f" % (metric, found[metric]) for metric in task.metrics]
        console.say(
            "  %s at step %d: %s", name, entry["global_step"], ", ".join(scores)
        )


def say_best(best, output_dir):
    """Says which step is kept as the best; `best` as `dev_steps.read_best` gives it."""
    if best is None:
        return
    console.say(
        "Kept as the best by %s: step %d, %.4f on %s, in %s; its package is there too. "
        "All else is of the last step",
        best["metric"],
        best["global_step"],
        best["score"],
        best["set"],
        os.path.join(output_dir, "best"),
    )


def say_files(output_dir, task, result_name):
    """Lists the files that a run has written.

    Args:
      output_dir: its folder.
      task: a `tasks.Task`.
      result_name: see `task_inputs.TaskRun`.
    """
    probabilities = "each test example's probabilities, or score"
    predicted = "each test example's label, in the format of the evaluation server"
    if task.config_file:
        predicted = "each test example's %s" % (
            "score" if task.is_regression else "label"
        )
    results = [
        ("eval_results.txt", "scores; eval_results.json has the baseline and more"),
        *(("test_results%s.tsv" % split.suffix, probabilities) for split in task.test),
        *((split.submission_file, predicted) for split in task.test),
        ("test_scores.json", "scores of the test set, which has labels"),
        *(
            ("confusion_matrix_%s.png" % split.name, "predictions of each label")
            for split in (*task.dev, *task.test)
        ),
    ]
    listed = [
        (adapter_package.FOLDER, "the adapter package: all trained variables"),
        *((result_name(name), what) for name, what in results),
        (run_record.FILE_NAME, "settings, counts, diagnostics"),
        (console.LOG_NAME, "all that was logged, with times"),
    ]
    console.say("Files in %s:", output_dir)
    for name, what in listed:
        if tf.io.gfile.exists(os.path.join(output_dir, name)):
            console.say("  %-25s %s", name, what)
    checkpoint = checkpoints.latest(output_dir)
    if checkpoint:
        console.say(
            "  %-25s the last checkpoint; curves: tensorboard --logdir=%s",
            os.path.basename(checkpoint),
            output_dir,
        )
