"""Tunes BERT with adapters to answer questions (SQuAD), and answers with it."""

import system.startup  # noqa: F401  (before TensorFlow)

import functools
import random

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
from errors import UserError, explain_value_errors, reports_user_errors
from system import console
from tasks import data_report, task_data
from tasks.question_answering import QuestionAnswering
from tasks.squad import answer_files, answer_text, answers, examples, features, scores
from training import classifier, distribution, run_flags, runner, settings
from training.estimator_compat import estimator

# Names that the original program exposes here, beside its flags and `main`.
SquadExample = examples.SquadExample
InputFeatures = features.InputFeatures
RawResult = answers.RawResult
read_squad_examples = examples.read_squad_examples
convert_examples_to_features = features.convert_examples_to_features
write_predictions = answer_files.write_predictions
get_final_text = answer_text.get_final_text

# A program that imports this module has flags of its own.
FLAGS = flags.FLAGS if __name__ == "__main__" else flags.FlagValues()

_SHUFFLE_SEED = 12345  # of the training questions, as in the original

_TEXTS = {
    **run_flags.TEXTS,
    "train_file": "Questions to train on, JSON in SQuAD's format.",
    "predict_file": "Questions to answer, JSON in SQuAD's format; --do_eval and "
    "--eval_steps need their answers.",
    "version_2_with_negative": "Questions may have no answer, as in SQuAD 2.0.",
    "max_seq_length": "Longest window in word pieces: question, part of the context, "
    "[CLS] and two [SEP].",
    "doc_stride": "Word pieces from the start of a window to that of the next.",
    "max_query_length": "Word pieces of a question; more is truncated.",
    "do_train": "Train on --train_file.",
    "do_eval": "Score the answers to --predict_file: exact match and F1.",
    "do_predict": "Write the answers to --predict_file.",
    "check": "Report on the questions, with warnings, and do nothing else. Needs no "
    "model; with --vocab_file it counts windows.",
    "n_best_size": "Candidates for start and end in each window, and answers in "
    "nbest_predictions.json.",
    "max_answer_length": "Longest answer in word pieces.",
    "null_score_diff_threshold": "With --version_2_with_negative: a question has no "
    "answer if its entry in null_odds.json is above it.",
    "verbose_logging": "Log which answers cannot be aligned with the context's words.",
    "train_batch_size": "Windows (not questions) in a training batch.",
    "predict_batch_size": "Windows in a prediction batch.",
    "num_train_epochs": "Training epochs. Steps count questions, but batches hold "
    "windows, as in the original: with long contexts, not all windows are seen.",
}
_define = command_line.flag_definer(_TEXTS, FLAGS)
_path, _bool = command_line.DEFINE_path, flags.DEFINE_bool
_integer, _float = flags.DEFINE_integer, flags.DEFINE_float

FLAG_GROUPS = {
    "Required": (
        _define(_path, "bert_config_file"),
        _define(_path, "vocab_file"),
        _define(_path, "output_dir", has_checkpoint=True),
    ),
    "Questions": (
        _define(_path, "train_file"),
        _define(_path, "predict_file"),
        _define(_bool, "version_2_with_negative", False),
        _define(_integer, "max_seq_length", 384),
        _define(_integer, "doc_stride", 128),
        _define(_integer, "max_query_length", 64),
    ),
    "Model": run_flags.define_model(_define, FLAGS),
    "What to do": run_flags.define_actions(_define),
    "Answers": (
        _define(_integer, "n_best_size", 20),
        _define(_integer, "max_answer_length", 30),
        _define(_float, "null_score_diff_threshold", 0.0),
        _define(_bool, "verbose_logging", False),
    ),
    "Training and evaluation": (
        _define(_integer, "train_batch_size", 32),
        _define(_integer, "predict_batch_size", 8),
        *run_flags.define_training(_define),
    ),
    **run_flags.define_computation(_define),
}


def create_model(
    bert_config,
    is_training,
    input_ids,
    input_mask,
    segment_ids,
    use_one_hot_embeddings,
):
    """BERT with adapters, and the question-answering head.

    For the arguments see `classifier.create_model`. Returns the logits of start and
    end, float32 [B, S].
    """
    output = classifier.create_model(
        bert_config,
        is_training,
        input_ids,
        input_mask,
        segment_ids,
        labels=tf.zeros_like(input_ids)[:, :2],
        num_labels=0,
        use_one_hot_embeddings=use_one_hot_embeddings,
        variant=classifier.Variant(task_type=QuestionAnswering()),
    )
    return tf.unstack(output.logits, axis=1)


def model_fn_builder(
    bert_config,
    init_checkpoint,
    learning_rate,
    num_train_steps,
    num_warmup_steps,
    use_tpu,
    use_one_hot_embeddings,
):
    """Builds the original's `model_fn`; see `classifier.model_fn_builder`.

    Predictions are "unique_ids", int32 [B], "start_logits" and "end_logits", float32
    [B, S].
    """
    task_model_fn = classifier.model_fn_builder(
        bert_config,
        0,
        init_checkpoint,
        learning_rate,
        num_train_steps,
        num_warmup_steps,
        use_tpu,
        use_one_hot_embeddings,
        classifier.Variant(task_type=QuestionAnswering()),
    )

    def model_fn(features, labels, mode, params):
        is_predicted = mode == estimator.ModeKeys.PREDICT
        if is_predicted:
            nowhere = tf.zeros_like(features["unique_ids"])
            features = {
                **features,
                "start_positions": nowhere,
                "end_positions": nowhere,
            }
        spec = task_model_fn(features, labels, mode, params)
        if not is_predicted:
            return spec
        start, end = tf.unstack(spec.predictions["probabilities"], axis=1)
        predictions = {
            "unique_ids": features["unique_ids"],
            "start_logits": start,
            "end_logits": end,
        }
        return spec._replace(predictions=predictions)

    return model_fn


def make_task(values):
    """The `task_data.Task` of --train_file and --predict_file."""
    decoding = settings.from_flags(answers.Decoding, values)
    task_type = settings.from_flags(QuestionAnswering, values, decoding=decoding)
    with explain_value_errors("a flag has no such value"):
        length = {"max_seq_length": values.max_seq_length}
        task_type.from_entries({**task_type.package_entries(), **length})

    def make_split(name, path):
        columns = QuestionAnswering.text_columns
        return task_data.Split(name, path, 0, *columns) if path else None

    dev_split = make_split("dev", values.predict_file)
    dev = (dev_split,) if dev_split else ()
    return task_data.Task(
        name="squad",
        title="SQuAD",
        type=task_type,
        metrics=task_type.default_metrics,
        train=make_split("train", values.train_file),
        dev=dev,
        test=dev,
    )


def read_examples(values, has_references, split):
    """The questions of a split; those of the training set are shuffled.

    With `has_references`, those of the dev set have their answers as references.
    """
    is_training, version_2 = split.name == "train", values.version_2_with_negative
    found = read_squad_examples(split.filename, is_training, version_2)
    if is_training:
        random.Random(_SHUFFLE_SEED).shuffle(found)
    elif has_references:
        references = scores.read_references(split.filename, version_2)
        for example in found:
            example.reference = references[example.qas_id]
    return found


def prepare_run(values):
    """Checks all flags, and reads all questions, into a `task_run.TaskRun`."""
    command_line.check_required(
        values, ["bert_config_file", "vocab_file", "output_dir"]
    )
    for needing, file in (
        ("do_train", "train_file"),
        ("do_predict", "predict_file"),
        ("do_eval", "predict_file"),
        ("eval_steps", "predict_file"),
    ):
        if values[needing].value and not values[file].value:
            raise UserError("--%s needs --%s: %s" % (needing, file, values[file].help))
    from_flags = functools.partial(settings.from_flags, flags=values)
    given = from_flags(
        settings.Settings,
        # Logits of padding are part of the loss, and of the choice of answers.
        data=from_flags(settings.Data, data_dir="", dynamic_padding=False),
        tuning=from_flags(settings.Tuning, ablate_adapter_layers=None),
        run=from_flags(settings.Run, eval_batch_size=values.predict_batch_size),
    )
    return runner.prepare(
        given,
        make_task(values),
        functools.partial(
            read_examples, values, values.do_eval or values.eval_steps > 0
        ),
        values["do_lower_case"].present,
    )


def run(**arguments):
    """Trains, evaluates and predicts, as the program does with flags of these names.

    Returns a `runner.RunResult`, see `runner.run`; raises a `UserError`.
    """
    return runner.run(prepare_run, arguments, FLAG_GROUPS, FLAGS)


@reports_user_errors(FLAGS)
def main(argv):
    del argv
    console.start(flags.FLAGS.verbosity)
    if FLAGS.check:
        _check_data()
    else:
        runner.execute(functools.partial(prepare_run, FLAGS), FLAGS.output_dir)


def _check_data():
    """Checks the data, without a model."""
    task = make_task(FLAGS)
    if not task.splits:
        raise UserError("`check` needs files: `train_file`, `predict_file`, or both")
    found = {each.name: read_examples(FLAGS, False, each) for each in task.splits}
    data_report.check_task(
        task, found, FLAGS.vocab_file, FLAGS.do_lower_case, FLAGS.max_seq_length
    )


def _run_process(argv):
    with distribution.process_exit(FLAGS.distribution_strategy):
        main(argv)


if __name__ == "__main__":
    command_line.run_program(
        _run_process, "python run_squad.py: " + __doc__, FLAG_GROUPS, FLAGS
    )
