"""Training, evaluation and prediction of one GLUE task, and the files they write."""

import glob
import json
import os
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

import tokenization
from errors import UserError
from inputs import data_report, feature_cache, features, metrics, submission_file, tasks
from system import console, disk
from training import estimators, plots, progress, run_text
from weights import checkpoints, health, run_package, run_record


class TaskRun(NamedTuple):
    """What is run on, once every check has passed."""

    task: tasks.Task
    examples: dict[str, list[features.InputExample]]  # by the split's name
    data_dir: str
    vocab_file: str
    do_lower_case: bool
    tokenizer: tokenization.FullTokenizer  # of `vocab_file` and `do_lower_case`
    max_seq_length: int
    dynamic_padding: bool  # ignored on TPU
    length_multiple: int  # what dynamic padding pads to a multiple of
    settings: estimators.RunSettings
    package: run_package.PackageSettings  # that training leaves behind
    num_warmup_steps: Optional[int]
    leaves_out_infinite: bool  # see `progress.ProgressSettings`
    training: dict[str, Any]  # settings of the training by their flags' names
    known: health.Health  # what is known against the weights that it starts from
    plots: bool  # whether evaluations draw their confusion matrices
    written: dict[tuple[str, str], tuple]  # what `write_features` has given


def write_features(run, split, kind, batch_size):
    """Writes the features of a split, unless they are there.

    Args:
      run: a `TaskRun`.
      split: a `tasks.Split`.
      kind: "train", "eval" or "predict", which names the file.
      batch_size: on TPU the last batch of "eval" and "predict" is filled up to it.

    Returns:
      The path, the number of examples in the file, and their `features.TextCounts`.
    """
    if (kind, split.name) in run.written:
        return run.written[kind, split.name]
    settings, task = run.settings, run.task
    examples = list(run.examples[split.name])
    if settings.use_tpu and kind != "train":
        while len(examples) % batch_size:
            examples.append(features.PaddingInputExample())
    label_list = None if task.is_regression else list(task.labels)
    folder = settings.output_dir
    if not settings.is_chief:
        # It shares `output_dir` with the chief.
        folder = run_package.temporary_folder()
    path = os.path.join(folder, "%s%s.tf_record" % (kind, split.suffix))
    key = feature_cache.cache_key(
        os.path.join(run.data_dir, split.filename),
        split,
        run.vocab_file,
        run.do_lower_case,
        label_list,
        run.max_seq_length,
        len(examples),
    )
    counts = feature_cache.write(
        examples, label_list, run.max_seq_length, run.tokenizer, path, key
    )
    run.written[kind, split.name] = path, len(examples), counts
    return path, len(examples), counts


def make_input_fn(run, split, kind, batch_size):
    """Reads the features of a split; see `write_features`.

    Returns:
      The input function, and the number of examples in the file.
    """
    path, count, _ = write_features(run, split, kind, batch_size)
    is_training = kind == "train"
    input_fn = features.input_fn_builder(
        path,
        run.max_seq_length,
        is_training,
        drop_remainder=is_training or run.settings.use_tpu,
        is_regression=run.task.is_regression,
        dynamic_padding=run.dynamic_padding and not run.settings.use_tpu,
        num_examples=count,
        seed=run.settings.seed,
        length_multiple=run.length_multiple,
    )
    return input_fn, count


def say_data(run):
    """Writes the features of all splits and says what the rows are."""
    task, settings = run.task, run.settings
    kinds = (
        ("train", (task.train,) if task.train else (), settings.train_batch_size),
        ("eval", task.dev, settings.eval_batch_size),
        ("predict", task.test, settings.predict_batch_size),
    )
    texts: dict[str, features.TextCounts] = {}
    rows: dict[str, dict] = {}
    for kind, splits, batch_size in kinds:
        needed = [split for split in splits if split.name in run.examples]
        rows[kind] = {split.name: run.examples[split.name] for split in needed}
        for split in needed:
            texts[split.name] = write_features(run, split, kind, batch_size)[2]
    report = data_report.examine(
        rows["train"], rows["eval"], rows["predict"], task.labels
    )
    run_text.say_data(report, texts, run.max_seq_length)


def train(model_fn, run, step_reached=None):
    """Trains up to the last step, or says that it has been reached.

    The chief writes the adapter package.

    Returns:
      What is known against the weights, a `health.Health`.
    """
    settings = run.settings
    known = run.known
    if step_reached is not None and step_reached >= settings.num_train_steps:
        console.say(
            "Training in %s has already reached step %d of %d: nothing to train",
            settings.output_dir,
            step_reached,
            settings.num_train_steps,
        )
        if tf.io.gfile.exists(run_package.folder_of(settings.output_dir)):
            return known
    else:
        known = health.Health(training=_train_on(model_fn, run, step_reached))
    if settings.is_chief:
        run_record.write_health(settings.output_dir, known)
        run_package.write(settings.output_dir, run.package, known)
    return known


def _train_on(model_fn, run, step_reached):
    """Trains; returns the findings."""
    settings = run.settings
    rows = run.examples[run.task.train.name]
    progress_settings = progress.ProgressSettings(
        settings.train_batch_size,
        settings.num_train_steps,
        run.num_warmup_steps,
        health.constant_loss(gold_of(run.task, rows), run.task.is_regression),
        run.leaves_out_infinite,
    )
    input_fn, _ = make_input_fn(run, run.task.train, "train", settings.train_batch_size)
    run_text.say_training(settings, run.num_warmup_steps, len(rows), run.training)
    if step_reached is not None:
        console.say(
            "Resuming the run in %s from step %d", settings.output_dir, step_reached
        )
    if settings.is_chief:
        _warn_of_space(settings)
    loss = estimators.train(model_fn, settings, input_fn, progress_settings)
    findings = health.of_training(loss, progress_settings.baseline_loss)
    for finding in findings:
        console.warn("%s", finding)
    return findings


def _warn_of_space(settings):
    """Compares what the training's checkpoints will take with what is free."""
    record = run_record.read(settings.output_dir)
    size = checkpoints.checkpoint_bytes(
        record["parameters"], record["identity"]["checkpoint_content"]
    )
    # At the start, at each interval and at the end; one is deleted after the next.
    written = 2 + (settings.num_train_steps - 1) // settings.save_checkpoints_steps
    count = min(written, estimators.CHECKPOINTS_KEPT + 1)
    files = os.path.join(glob.escape(settings.output_dir), "model.ckpt-*")
    there = sum(tf.io.gfile.stat(path).length for path in tf.io.gfile.glob(files))
    disk.warn_of_space(
        settings.output_dir,
        count * size - there,
        "%d checkpoints of %s" % (count, disk.size_text(size)),
    )


def predict(estimator, run, split, kind):
    """Predictions for the real examples of a split.

    Returns:
      Float array [examples, C] of probabilities; [examples] of scores for regression.

    Raises:
      UserError: one is not finite.
    """
    settings = run.settings
    input_fn, _ = make_input_fn(run, split, kind, settings.predict_batch_size)
    count = len(run.examples[split.name])
    rows = []
    for prediction in estimator.predict(input_fn=input_fn):
        rows.append(prediction["probabilities"])
        if len(rows) == count:
            break
    if len(rows) != count:
        raise RuntimeError("%d predictions for %d examples" % (len(rows), count))
    probabilities = np.array(rows)
    if not np.isfinite(probabilities).all():
        raise UserError(
            "%d of %d predictions for %s are not finite, so nothing is written: the "
            "weights of %s give no numbers; train anew with a lower --learning_rate"
            % (
                np.sum(~np.isfinite(probabilities).reshape(count, -1).all(axis=1)),
                count,
                split.name,
                tf.train.latest_checkpoint(settings.output_dir) or "--init_checkpoint",
            )
        )
    return probabilities


def decide(task, probabilities):
    """Class ids int [examples], or the scores themselves for regression."""
    return probabilities if task.is_regression else np.argmax(probabilities, axis=-1)


def gold_of(task, examples):
    """The labels of examples: class ids int [examples], or scores float."""
    if task.is_regression:
        return np.array([float(example.label) for example in examples])
    return np.array([task.labels.index(example.label) for example in examples])


def evaluate(estimator, run, known):
    """Scores the dev sets; writes `eval_results.txt` and `eval_results.json`.

    Args:
      estimator: the Estimator.
      run: a `TaskRun`.
      known: what is known against the weights, a `health.Health`.

    Returns:
      What is known now.
    """
    settings = run.settings
    task = run.task
    lines: dict[str, Any] = {}
    report: dict[str, Any] = {}
    findings: list[str] = []
    estimators.prepare_summaries(estimator.eval_dir(), write_graph=False)
    for split in task.dev:
        examples = run.examples[split.name]
        input_fn, count = make_input_fn(run, split, "eval", settings.eval_batch_size)
        steps = count // settings.eval_batch_size if settings.use_tpu else None
        result = estimator.evaluate(input_fn=input_fn, steps=steps)
        answers = decide(task, predict(estimator, run, split, "eval"))
        gold = gold_of(task, examples)
        scores = metrics.compute(task.metrics, gold, answers)
        baseline = metrics.compute(task.metrics, gold, _one_answer(task, gold))
        step = result.pop("global_step")
        lines["global_step"] = step
        for key, value in [*result.items(), *scores.items()]:
            lines[key + split.suffix] = value
        report[split.name] = {
            "examples": len(examples),
            "scores": scores,
            "baseline": baseline,
            **_classes(run, split, gold, answers),
            **{key: float(value) for key, value in result.items()},
        }
        run_text.say_scores(split, step, len(examples), scores, baseline)
        problems = health.of_answers(
            split.name, answers, gold, task.labels, task.is_regression
        )
        beside = health.score_line(scores, baseline)
        findings += ["%s; %s" % (problem, beside) for problem in problems]
    if task.note:
        console.say("Note: %s", task.note)
    known = known._replace(evaluation=findings)
    _write_results(run, int(step), lines, report, known)
    return known


def _classes(run, split, gold, answers):
    """The entries of a report that tell classes apart; {} for regression."""
    if run.task.is_regression:
        return {}
    labels = list(run.task.labels)
    table = metrics.by_class(gold, answers, len(labels))
    if run.plots:
        path = os.path.join(
            run.settings.output_dir, "confusion_matrix_%s.png" % split.name
        )
        title = "%s, %s: %d rows" % (run.task.title, split.name, len(gold))
        plots.confusion_matrix(path, title, labels, table["confusion_matrix"])
    return {"labels": labels, **table}


def _one_answer(task, gold):
    """The baseline: the labels' mean, or the most frequent label, for each row."""
    if task.is_regression:
        return np.full_like(gold, gold.mean())
    return np.full_like(gold, np.bincount(gold).argmax())


def _write_results(run, step, lines, report, known):
    output_dir = run.settings.output_dir
    run_record.write_whole(
        os.path.join(output_dir, "eval_results.txt"),
        "".join("%s = %s\n" % (key, lines[key]) for key in sorted(lines)),
    )
    record = {
        "task": run.task.name,
        "global_step": step,
        "sets": report,
        "health": known.as_json(),
    }
    run_record.write_whole(
        os.path.join(output_dir, "eval_results.json"),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )
    run_record.write_health(output_dir, known)
    scores = {name: entry["scores"] for name, entry in report.items()}
    run_package.add_scores(output_dir, step, scores, known)


def write_predictions(estimator, run):
    """Predicts the test sets; writes `test_results.tsv` and the server's files."""
    settings = run.settings
    task = run.task
    for split in task.test:
        probabilities = predict(estimator, run, split, "predict")
        name = "test_results%s.tsv" % split.suffix
        rows = probabilities[:, np.newaxis] if task.is_regression else probabilities
        run_record.write_whole(
            os.path.join(settings.output_dir, name),
            "".join("\t".join(str(p) for p in row) + "\n" for row in rows),
        )
        submission = os.path.join(settings.output_dir, split.submission_file)
        submission_file.write_submission(
            task, split, decide(task, probabilities), submission
        )
        console.say(
            "Predicted %d rows of %s: %s, %s",
            len(run.examples[split.name]),
            split.name,
            name,
            split.submission_file,
        )
        if split.has_labels:
            _score_test(estimator, run, split, probabilities)


def _score_test(estimator, run, split, probabilities):
    """Scores a test set that has labels; writes `test_scores.json`."""
    task = run.task
    gold, answers = gold_of(task, run.examples[split.name]), decide(task, probabilities)
    scores = metrics.compute(task.metrics, gold, answers)
    baseline = metrics.compute(task.metrics, gold, _one_answer(task, gold))
    step = int(estimator.get_variable_value(tf.GraphKeys.GLOBAL_STEP))
    run_text.say_scores(split, step, len(gold), scores, baseline)
    record = {
        "task": task.name,
        "global_step": step,
        "examples": len(gold),
        "scores": scores,
        "baseline": baseline,
        **_classes(run, split, gold, answers),
    }
    run_record.write_whole(
        os.path.join(run.settings.output_dir, "test_scores.json"),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )
