"""Tunes BERT with adapters on a GLUE task, evaluates it and predicts with it."""

import json
import os
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf
from absl import app, flags

import checkpoints
import classifier
import features
import glue_data
import glue_submission
import metrics
import modeling
import run_record
import tokenization
import training
from errors import UserError, reports_user_errors

# Names that the original program exposes here, beside its flags and `main`.
InputExample = features.InputExample
InputFeatures = features.InputFeatures
PaddingInputExample = features.PaddingInputExample
convert_single_example = features.convert_single_example
file_based_convert_examples_to_features = (
    features.file_based_convert_examples_to_features
)
file_based_input_fn_builder = features.input_fn_builder
DataProcessor = glue_data.DataProcessor
ColaProcessor = glue_data.ColaProcessor
MnliProcessor = glue_data.MnliProcessor
MrpcProcessor = glue_data.MrpcProcessor
create_model = classifier.create_model
model_fn_builder = classifier.model_fn_builder

FLAGS = flags.FLAGS

# What the run needs
flags.DEFINE_string(
    "data_dir", None, "Folder of the task's .tsv files, such as glue_data/MRPC."
)
flags.DEFINE_string(
    "bert_config_file", None, "bert_config.json of the pre-trained BERT."
)
flags.DEFINE_string(
    "task_name",
    None,
    "Task of GLUE, in any case: %s." % ", ".join(glue_data.GLUE_TASKS),
)
flags.DEFINE_string("vocab_file", None, "vocab.txt of the pre-trained BERT.")
flags.DEFINE_string(
    "output_dir", None, "Folder for checkpoints, scores and predictions."
)

# The model
flags.DEFINE_string(
    "init_checkpoint",
    None,
    "Checkpoint to start from, without file endings: a pre-trained BERT "
    "(.../bert_model.ckpt) or an earlier adapter run.",
)
flags.DEFINE_bool(
    "allow_random_base",
    False,
    "Go on where frozen BERT variables would stay at random values, because there "
    "is no --init_checkpoint or it lacks them.",
)
flags.DEFINE_bool(
    "do_lower_case", True, "Lower-case the text: True for uncased models."
)
flags.DEFINE_integer(
    "max_seq_length",
    128,
    "Longest input in word pieces, [CLS] and [SEP] included; longer ones are cut.",
)
flags.DEFINE_integer("adapter_size", 64, "Width of the adapters' bottleneck.")
flags.DEFINE_float(
    "adapter_init_scale",
    1e-3,
    "Standard deviation of the adapters' initial weights (the paper: 1e-2).",
)

# What is done
flags.DEFINE_bool("do_train", False, "Train on the task's training set.")
flags.DEFINE_bool("do_eval", False, "Evaluate on the task's dev set(s).")
flags.DEFINE_bool("do_predict", False, "Predict the task's test set(s).")

# Training
flags.DEFINE_integer("train_batch_size", 32, "Examples in a training batch.")
flags.DEFINE_integer("eval_batch_size", 8, "Examples in an evaluation batch.")
flags.DEFINE_integer("predict_batch_size", 8, "Examples in a prediction batch.")
flags.DEFINE_float("learning_rate", 5e-5, "Peak learning rate of Adam.")
flags.DEFINE_float("num_train_epochs", 3.0, "Passes over the training set.")
flags.DEFINE_float(
    "warmup_proportion", 0.1, "Share of the steps with rising learning rate, 0 to 1."
)
flags.DEFINE_integer("save_checkpoints_steps", 1000, "Steps between checkpoints.")
flags.DEFINE_integer("seed", 1, "Seed of initial weights, dropout and shuffling.")
flags.DEFINE_bool(
    "dynamic_padding",
    True,
    "Pad a batch to its longest example, not to --max_seq_length, and group training "
    "examples by length. Ignored on TPU, whose shapes are static.",
)

# Cloud TPU
flags.DEFINE_bool("use_tpu", False, "Run on TPU; otherwise on GPU or CPU.")
flags.DEFINE_string("tpu_name", None, "Name of the Cloud TPU, or its grpc:// address.")
flags.DEFINE_string("tpu_zone", None, "Zone of the Cloud TPU; found out if not given.")
flags.DEFINE_string(
    "gcp_project", None, "Project of the Cloud TPU; found out if not given."
)
flags.DEFINE_string("master", None, "Address of a TensorFlow master.")
flags.DEFINE_integer("num_tpu_cores", 8, "Cores of the TPU, with --use_tpu.")
flags.DEFINE_integer("iterations_per_loop", 1000, "Steps of one call of the TPU.")

REQUIRED_FLAGS = (
    "data_dir",
    "bert_config_file",
    "task_name",
    "vocab_file",
    "output_dir",
)


class Plan(NamedTuple):
    """All that is known once the checks have passed."""

    task: glue_data.GlueTask
    config: modeling.BertConfig
    tokenizer: tokenization.FullTokenizer
    examples: dict[str, list[features.InputExample]]  # by the split's name
    num_train_steps: Optional[int]
    num_warmup_steps: Optional[int]
    step_reached: Optional[int]  # of the checkpoint in output_dir


# --- checks, before anything slow -----------------------------------------------


def check_flags():
    """Refuses values that no run can have.

    Raises:
      UserError: naming the flag, its value and what is allowed.
    """
    for name in REQUIRED_FLAGS:
        if not FLAGS[name].value:
            raise UserError("--%s is required: %s" % (name, FLAGS[name].help))
    if not FLAGS.do_train and not FLAGS.do_eval and not FLAGS.do_predict:
        raise UserError(
            "At least one of `do_train`, `do_eval` or `do_predict` must be True: say "
            "what to do with --do_train=true, --do_eval=true or --do_predict=true"
        )
    for name in (
        "train_batch_size",
        "eval_batch_size",
        "predict_batch_size",
        "adapter_size",
        "save_checkpoints_steps",
        "iterations_per_loop",
        "num_tpu_cores",
    ):
        if FLAGS[name].value < 1:
            raise UserError("--%s=%d: at least 1 is needed" % (name, FLAGS[name].value))
    for name in ("learning_rate", "num_train_epochs", "adapter_init_scale"):
        if not 0 < FLAGS[name].value < float("inf"):
            raise UserError(
                "--%s=%r: a finite number above 0 is needed" % (name, FLAGS[name].value)
            )
    if not 0 <= FLAGS.warmup_proportion <= 1:
        raise UserError(
            "--warmup_proportion=%r: a number from 0 to 1 is needed"
            % FLAGS.warmup_proportion
        )
    if not 0 <= FLAGS.seed < 2**31:
        raise UserError(
            "--seed=%d: a whole number from 0 to %d is needed" % (FLAGS.seed, 2**31 - 1)
        )
    if FLAGS.use_tpu:
        check_tpu_flags()


def check_tpu_flags():
    """Refuses what a TPU cannot do.

    Raises:
      UserError: no TPU is named, or a batch does not divide over its cores.
    """
    if not FLAGS.tpu_name and not FLAGS.master:
        raise UserError(
            "--use_tpu=true needs the TPU: its name, --tpu_name, or address, --master"
        )
    for wanted, name in (
        (FLAGS.do_train, "train_batch_size"),
        (FLAGS.do_eval, "eval_batch_size"),
        (FLAGS.do_predict, "predict_batch_size"),
    ):
        if wanted and FLAGS[name].value % FLAGS.num_tpu_cores:
            raise UserError(
                "--%s=%d does not divide over --num_tpu_cores=%d: give a multiple of it"
                % (name, FLAGS[name].value, FLAGS.num_tpu_cores)
            )


def splits_needed(task):
    """The splits of a task that this run reads.

    Raises:
      UserError: the task has no such set.
    """
    needed = []
    for wanted, flag, splits in (
        (FLAGS.do_train, "do_train", (task.train,) if task.train else ()),
        (FLAGS.do_eval, "do_eval", task.dev),
        (FLAGS.do_predict, "do_predict", task.test),
    ):
        if wanted and not splits:
            raise UserError(
                "--%s: task %s has no set for it; it is predicted with the model of %s "
                "(--do_predict=true with the --output_dir of that task)"
                % (flag, task.title, task.model_of)
            )
        needed += splits if wanted else ()
    return needed


def check_model(task, config, tokenizer):
    """Holds config, vocabulary, checkpoint and output directory against each other.

    Returns:
      The step of the checkpoint in `output_dir`, or None.

    Raises:
      UserError: they do not fit.
    """
    features.check_seq_length(FLAGS.max_seq_length, config.max_position_embeddings)
    if len(tokenizer.vocab) > config.vocab_size:
        raise UserError(
            "--vocab_file=%s has %d entries but vocab_size in --bert_config_file=%s is "
            "%d: give the two files of the same model"
            % (
                FLAGS.vocab_file,
                len(tokenizer.vocab),
                FLAGS.bert_config_file,
                config.vocab_size,
            )
        )
    variables = classifier.variable_set(
        config, _num_outputs(task), _adapter_fn(), task.is_regression
    )
    trained = variables.trained()
    identity, settings = _identity(task, config), _training_settings()
    step_reached = run_record.check(
        FLAGS.output_dir,
        identity,
        settings if FLAGS.do_train else None,
        variables.shapes,
        trained,
    )
    if FLAGS.init_checkpoint:
        report = checkpoints.check_fit(
            FLAGS.init_checkpoint, variables.shapes, trained, FLAGS.allow_random_base
        )
        tf.logging.info("Checkpoint %s:", FLAGS.init_checkpoint)
        for line in report.lines():
            tf.logging.info("  %s", line)
    elif step_reached is None and not FLAGS.allow_random_base:
        raise UserError(
            "no --init_checkpoint: BERT would be frozen at random values; give the "
            "bert_model.ckpt of a pre-trained BERT, or --allow_random_base to go on"
        )
    counts = checkpoints.parameter_counts(variables.shapes, variables.collections)
    _log_trained(variables, counts)
    tf.io.gfile.makedirs(FLAGS.output_dir)
    run_record.write(
        FLAGS.output_dir, identity, settings if FLAGS.do_train else None, counts
    )
    return step_reached


def _num_outputs(task):
    return 1 if task.is_regression else len(task.labels)


def _adapter_fn():
    return classifier.adapter_function(FLAGS.adapter_size, FLAGS.adapter_init_scale)


def _identity(task, config):
    checkpoint = FLAGS.init_checkpoint
    return {
        "task": task.model_of or task.name,
        "labels": list(task.labels),
        "adapter_size": FLAGS.adapter_size,
        "bert_config": config.to_dict(),
        "vocabulary": features.file_digest(FLAGS.vocab_file),
        "do_lower_case": FLAGS.do_lower_case,
        "max_seq_length": FLAGS.max_seq_length,
        # Not given: the checkpoint in output_dir holds the base.
        **({"base": checkpoints.fingerprint(checkpoint)} if checkpoint else {}),
    }


def _training_settings():
    names = (
        "train_batch_size",
        "learning_rate",
        "num_train_epochs",
        "warmup_proportion",
        "adapter_init_scale",
        "seed",
    )
    return {name: FLAGS[name].value for name in names}


def _log_trained(variables, counts):
    tf.logging.info("**** Trained variables ****")
    for collection, names in variables.collections.items():
        for name in names:
            tf.logging.info(
                "  %s, %s, shape = %s", collection, name, variables.shapes[name]
            )
    tf.logging.info(
        "Trained: %s adapters + %s layer norms + %s head = %s parameters, %.2f %% of "
        "the base's %s; all else is frozen",
        *(
            "{:,}".format(counts[key])
            for key in (
                modeling.ADAPTERS,
                modeling.LAYER_NORM,
                modeling.HEAD,
                "trained",
            )
        ),
        100.0 * counts["share"],
        "{:,}".format(counts["base"]),
    )


def make_plan():
    """Runs every check and reads every row that this run will need.

    Returns:
      A `Plan`.

    Raises:
      UserError: the first thing that is wrong.
    """
    check_flags()
    tokenization.validate_case_matches_checkpoint(
        FLAGS.do_lower_case, FLAGS.init_checkpoint
    )
    task = glue_data.get_task(FLAGS.task_name)
    needed = splits_needed(task)
    config = modeling.BertConfig.from_json_file(FLAGS.bert_config_file)
    tokenizer = tokenization.FullTokenizer(FLAGS.vocab_file, FLAGS.do_lower_case)
    examples = {
        split.name: glue_data.read_examples(task, FLAGS.data_dir, split)
        for split in needed
    }
    num_train_steps = num_warmup_steps = None
    if FLAGS.do_train:
        count = len(examples[task.train.name])
        num_train_steps = int(count / FLAGS.train_batch_size * FLAGS.num_train_epochs)
        num_warmup_steps = int(num_train_steps * FLAGS.warmup_proportion)
        if num_train_steps < 1:
            raise UserError(
                "no training step: %d examples / --train_batch_size=%d * "
                "--num_train_epochs=%g is below 1"
                % (count, FLAGS.train_batch_size, FLAGS.num_train_epochs)
            )
    step_reached = check_model(task, config, tokenizer)
    return Plan(
        task,
        config,
        tokenizer,
        examples,
        num_train_steps,
        num_warmup_steps,
        step_reached,
    )


# --- the three jobs ---------------------------------------------------------------


def make_estimator(plan):
    """The `TPUEstimator` of this run."""
    model_fn = classifier.model_fn_builder(
        bert_config=plan.config,
        num_labels=_num_outputs(plan.task),
        init_checkpoint=FLAGS.init_checkpoint,
        learning_rate=FLAGS.learning_rate,
        num_train_steps=plan.num_train_steps,
        num_warmup_steps=plan.num_warmup_steps,
        use_tpu=FLAGS.use_tpu,
        use_one_hot_embeddings=FLAGS.use_tpu,
        adapter_fn=_adapter_fn(),
        is_regression=plan.task.is_regression,
        progress=training.ProgressSettings(
            FLAGS.train_batch_size, plan.num_train_steps, FLAGS.output_dir
        ),
    )
    return training.make_estimator(
        model_fn,
        training.RunSettings(
            output_dir=FLAGS.output_dir,
            train_batch_size=FLAGS.train_batch_size,
            eval_batch_size=FLAGS.eval_batch_size,
            predict_batch_size=FLAGS.predict_batch_size,
            save_checkpoints_steps=FLAGS.save_checkpoints_steps,
            num_train_steps=plan.num_train_steps,
            seed=FLAGS.seed,
            use_tpu=FLAGS.use_tpu,
            tpu_name=FLAGS.tpu_name,
            tpu_zone=FLAGS.tpu_zone,
            gcp_project=FLAGS.gcp_project,
            master=FLAGS.master,
            num_tpu_cores=FLAGS.num_tpu_cores,
            iterations_per_loop=FLAGS.iterations_per_loop,
        ),
    )


def make_input_fn(plan, split, kind, batch_size):
    """Writes the features of a split, unless they are there, and reads them.

    Args:
      plan: a `Plan`.
      split: a `glue_data.Split`.
      kind: "train", "eval" or "predict", which names the file.
      batch_size: on TPU the last batch of "eval" and "predict" is filled up to it.

    Returns:
      The input function, and the number of examples in the file.
    """
    task = plan.task
    is_training = kind == "train"
    examples = list(plan.examples[split.name])
    if FLAGS.use_tpu and not is_training:
        while len(examples) % batch_size:
            examples.append(features.PaddingInputExample())
    label_list = None if task.is_regression else list(task.labels)
    path = os.path.join(FLAGS.output_dir, "%s%s.tf_record" % (kind, split.suffix))
    key = features.cache_key(
        os.path.join(FLAGS.data_dir, split.filename),
        FLAGS.vocab_file,
        FLAGS.do_lower_case,
        label_list,
        FLAGS.max_seq_length,
        len(examples),
    )
    features.write_cached(
        examples, label_list, FLAGS.max_seq_length, plan.tokenizer, path, key
    )
    input_fn = features.input_fn_builder(
        path,
        FLAGS.max_seq_length,
        is_training,
        drop_remainder=is_training or FLAGS.use_tpu,
        is_regression=task.is_regression,
        dynamic_padding=FLAGS.dynamic_padding and not FLAGS.use_tpu,
        num_examples=len(examples),
        seed=FLAGS.seed,
    )
    return input_fn, len(examples)


def train(estimator, plan):
    """Trains up to the last step, or says that it has been reached."""
    if plan.step_reached is not None:
        if plan.step_reached >= plan.num_train_steps:
            tf.logging.info(
                "Training in %s has already reached step %d of %d: nothing to train",
                FLAGS.output_dir,
                plan.step_reached,
                plan.num_train_steps,
            )
            return
        tf.logging.info(
            "Resuming the run in %s from step %d", FLAGS.output_dir, plan.step_reached
        )
    input_fn, _ = make_input_fn(plan, plan.task.train, "train", FLAGS.train_batch_size)
    tf.logging.info("***** Running training *****")
    tf.logging.info("  Num examples = %d", len(plan.examples[plan.task.train.name]))
    tf.logging.info("  Batch size = %d", FLAGS.train_batch_size)
    tf.logging.info("  Num steps = %d", plan.num_train_steps)
    estimator.train(input_fn=input_fn, max_steps=plan.num_train_steps)


def predict(estimator, plan, split, kind):
    """Predictions for the real examples of a split.

    Returns:
      Float array [examples, C] of probabilities; [examples] of scores for regression.
    """
    input_fn, _ = make_input_fn(plan, split, kind, FLAGS.predict_batch_size)
    count = len(plan.examples[split.name])
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


def evaluate(estimator, plan):
    """Scores the dev sets; writes `eval_results.txt` and `eval_results.json`."""
    task = plan.task
    lines: dict[str, Any] = {}
    report: dict[str, Any] = {}
    for split in task.dev:
        examples = plan.examples[split.name]
        input_fn, count = make_input_fn(plan, split, "eval", FLAGS.eval_batch_size)
        tf.logging.info("***** Running evaluation: %s *****", split.name)
        tf.logging.info("  Num examples = %d", len(examples))
        steps = count // FLAGS.eval_batch_size if FLAGS.use_tpu else None
        result = estimator.evaluate(input_fn=input_fn, steps=steps)
        predictions = decide(task, predict(estimator, plan, split, "eval"))
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
    run_record.write_whole(os.path.join(FLAGS.output_dir, "eval_results.txt"), text)
    record = {"task": task.name, "global_step": int(step), "sets": report}
    run_record.write_whole(
        os.path.join(FLAGS.output_dir, "eval_results.json"),
        json.dumps(record, indent=2, sort_keys=True) + "\n",
    )


def write_predictions(estimator, plan):
    """Predicts the test sets; writes `test_results.tsv` and the server's files."""
    task = plan.task
    for split in task.test:
        tf.logging.info("***** Running prediction: %s *****", split.name)
        tf.logging.info("  Num examples = %d", len(plan.examples[split.name]))
        probabilities = predict(estimator, plan, split, "predict")
        name = "test_results%s.tsv" % split.suffix
        rows = probabilities[:, np.newaxis] if task.is_regression else probabilities
        run_record.write_whole(
            os.path.join(FLAGS.output_dir, name),
            "".join("\t".join(str(p) for p in row) + "\n" for row in rows),
        )
        submission = os.path.join(FLAGS.output_dir, split.submission_file)
        glue_submission.write_submission(
            task, split, decide(task, probabilities), submission
        )
        tf.logging.info("Wrote %s and %s", name, submission)


@reports_user_errors
def main(_):
    tf.logging.set_verbosity(tf.logging.INFO)
    # Its own handler prints; absl's root handler would print each line again.
    tf.get_logger().propagate = False
    plan = make_plan()
    estimator = make_estimator(plan)
    if FLAGS.do_train:
        train(estimator, plan)
    if FLAGS.do_eval:
        evaluate(estimator, plan)
    if FLAGS.do_predict:
        write_predictions(estimator, plan)


if __name__ == "__main__":
    tf.disable_v2_behavior()
    app.run(main)
