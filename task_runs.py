"""Training, evaluation and prediction of one GLUE task, and the files they write."""

import json
import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import feature_cache
import features
import glue_data
import glue_submission
import metrics
import run_package
import run_record
import tokenization
import training


class TaskRun(NamedTuple):
    """What is run on, once every check has passed."""

    task: glue_data.GlueTask
    examples: dict[str, list[features.InputExample]]  # by the split's name
    data_dir: str
    vocab_file: str
    do_lower_case: bool
    tokenizer: tokenization.FullTokenizer  # of `vocab_file` and `do_lower_case`
    max_seq_length: int
    dynamic_padding: bool  # ignored on TPU
    length_multiple: int  # what dynamic padding pads to a multiple of
    settings: training.RunSettings
    package: run_package.PackageSettings  # that training leaves behind


def make_input_fn(run, split, kind, batch_size):
    """Writes the features of a split, unless they are there, and reads them.

    Args:
      run: a `TaskRun`.
      split: a `glue_data.Split`.
      kind: "train", "eval" or "predict", which names the file.
      batch_size: on TPU the last batch of "eval" and "predict" is filled up to it.

    Returns:
      The input function, and the number of examples in the file.
    """
    settings = run.settings
    task = run.task
    is_training = kind == "train"
    examples = list(run.examples[split.name])
    if settings.use_tpu and not is_training:
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
        run.vocab_file,
        run.do_lower_case,
        label_list,
        run.max_seq_length,
        len(examples),
    )
    feature_cache.write(
        examples, label_list, run.max_seq_length, run.tokenizer, path, key
    )
    input_fn = features.input_fn_builder(
        path,
        run.max_seq_length,
        is_training,
        drop_remainder=is_training or settings.use_tpu,
        is_regression=task.is_regression,
        dynamic_padding=run.dynamic_padding and not settings.use_tpu,
        num_examples=len(examples),
        seed=settings.seed,
        length_multiple=run.length_multiple,
    )
    return input_fn, len(examples)


def train(model_fn, run, step_reached=None):
    """Trains up to the last step, or says that it has been reached.

    The chief writes the adapter package.
    """
    settings = run.settings
    if step_reached is not None and step_reached >= settings.num_train_steps:
        tf.logging.info(
            "Training in %s has already reached step %d of %d: nothing to train",
            settings.output_dir,
            step_reached,
            settings.num_train_steps,
        )
        if tf.io.gfile.exists(run_package.folder_of(settings.output_dir)):
            return
    else:
        _train_on(model_fn, run, step_reached)
    if settings.is_chief:
        run_package.write(settings.output_dir, run.package)


def _train_on(model_fn, run, step_reached):
    settings = run.settings
    if step_reached is not None:
        tf.logging.info(
            "Resuming the run in %s from step %d", settings.output_dir, step_reached
        )
    input_fn, _ = make_input_fn(run, run.task.train, "train", settings.train_batch_size)
    tf.logging.info("***** Running training *****")
    tf.logging.info("  Num examples = %d", len(run.examples[run.task.train.name]))
    tf.logging.info("  Batch size = %d", settings.train_batch_size)
    tf.logging.info("  Num steps = %d", settings.num_train_steps)
    training.train(model_fn, settings, input_fn)


def predict(estimator, run, split, kind):
    """Predictions for the real examples of a split.

    Returns:
      Float array [examples, C] of probabilities; [examples] of scores for regression.
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
    return np.array(rows)


def decide(task, probabilities):
    """Class ids int [examples], or the scores themselves for regression."""
    return probabilities if task.is_regression else np.argmax(probabilities, axis=-1)


def evaluate(estimator, run):
    """Scores the dev sets; writes `eval_results.txt` and `eval_results.json`."""
    settings = run.settings
    task = run.task
    lines: dict[str, Any] = {}
    report: dict[str, Any] = {}
    for split in task.dev:
        examples = run.examples[split.name]
        input_fn, count = make_input_fn(run, split, "eval", settings.eval_batch_size)
        tf.logging.info("***** Running evaluation: %s *****", split.name)
        tf.logging.info("  Num examples = %d", len(examples))
        steps = count // settings.eval_batch_size if settings.use_tpu else None
        result = estimator.evaluate(input_fn=input_fn, steps=steps)
        predictions = decide(task, predict(estimator, run, split, "eval"))
        if task.is_regression:
            gold = np.array([float(example.label) for example in examples])
            constant = np.full_like(gold, gold.mean())
        else:
            gold = np.array([task.labels.index(example.label) for example in examples])
            constant = np.full_like(gold, np.bincount(gold).argmax())
        scores = metrics.compute(task.metrics, gold, predictions)
        step = result.pop("global_step")
        lines["global_step"] = step
        for key, value in [*result.items(), *scores.items()]:
            lines[key + split.suffix] = value
        report[split.name] = {
            "examples": len(examples),
            "scores": scores,
            "baseline": metrics.compute(task.metrics, gold, constant),
            **{key: float(value) for key, value in result.items()},
        }
    tf.logging.info("***** Eval results *****")
    text = "".join("%s = %s\n" % (key, lines[key]) for key in sorted(lines))
    for line in text.splitlines():
        tf.logging.info("  %s", line)
    if task.note:
        tf.logging.info("  Note: %s", task.note)
    run_record.write_whole(os.path.join(settings.output_dir, "eval_results.txt"), text)
    record = {"task": task.name, "global_step": int(step), "sets": report}
    run_record.write_whole(
        os.path.join(settings.output_dir, "eval_results.json"),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )
    scores = {name: entry["scores"] for name, entry in report.items()}
    run_package.add_scores(settings.output_dir, int(step), scores)


def write_predictions(estimator, run):
    """Predicts the test sets; writes `test_results.tsv` and the server's files."""
    settings = run.settings
    task = run.task
    for split in task.test:
        tf.logging.info("***** Running prediction: %s *****", split.name)
        tf.logging.info("  Num examples = %d", len(run.examples[split.name]))
        probabilities = predict(estimator, run, split, "predict")
        name = "test_results%s.tsv" % split.suffix
        rows = probabilities[:, np.newaxis] if task.is_regression else probabilities
        run_record.write_whole(
            os.path.join(settings.output_dir, name),
            "".join("\t".join(str(p) for p in row) + "\n" for row in rows),
        )
        submission = os.path.join(settings.output_dir, split.submission_file)
        glue_submission.write_submission(
            task, split, decide(task, probabilities), submission
        )
        tf.logging.info("Wrote %s and %s", name, submission)
