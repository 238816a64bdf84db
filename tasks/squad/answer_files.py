"""The files of answers, with the original's names, order and bytes."""

import collections
import contextlib
import itertools
import json

import tensorflow.compat.v1 as tf

from system import console, files
from system.wording import pluralize
from tasks.squad.answers import NO_CANDIDATE, Decoding, choose_answers


def write_predictions(
    all_examples,
    all_features,
    all_results,
    n_best_size,
    max_answer_length,
    do_lower_case,
    output_prediction_file,
    output_nbest_file,
    output_null_log_odds_file,
    version_2_with_negative=False,
    null_score_diff_threshold=0.0,
):
    """Writes the answers to questions; see `choose_answers` and `answer_files`.

    Args:
      all_examples: iterable of `SquadExample`s.
      all_features: iterable of the `InputFeatures` of their windows.
      all_results: iterable of a `RawResult` for each, in any order.
      n_best_size: this and the others, see `Decoding`.
    """
    results = {result.unique_id: result for result in all_results}
    windows = collections.defaultdict(list)
    for feature in all_features:
        windows[feature.example_index].append((feature, results[feature.unique_id]))
    decoding = Decoding(
        n_best_size,
        max_answer_length,
        do_lower_case,
        version_2_with_negative,
        null_score_diff_threshold,
    )
    null_odds_file = output_null_log_odds_file if version_2_with_negative else None
    paths = output_prediction_file, output_nbest_file, null_odds_file
    with answer_files(*paths) as add:
        for index, example in enumerate(all_examples):
            add(choose_answers(example, windows[index], decoding))


@contextlib.contextmanager
def answer_files(prediction_file, n_best_file, null_odds_file=None):
    """Yields a function that adds a `QuestionAnswers` to JSON files.

    The files are written whole or not at all. A warning at the end counts questions
    without a candidate.

    Args:
      prediction_file: path of a file from id to text.
      n_best_file: path of a file from id to a list of texts, probabilities and logits.
      null_odds_file: path of a file from id to null odds; None for v1.1.
    """
    count = without_candidate = 0

    def add(answers):
        nonlocal count, without_candidate
        count += 1
        without_candidate += not any(answer.span for answer in answers.n_best)
        add_prediction(answers.qas_id, answers.best.text)
        add_n_best(
            answers.qas_id,
            [
                {
                    "text": answer.text,
                    "probability": answer.probability,
                    "start_logit": answer.start_logit,
                    "end_logit": answer.end_logit,
                }
                for answer in answers.n_best
            ],
        )
        if add_null_odds:
            add_null_odds(answers.qas_id, answers.null_odds)

    with contextlib.ExitStack() as stack:
        add_prediction = stack.enter_context(_json_file(prediction_file))
        add_n_best = stack.enter_context(_json_file(n_best_file))
        add_null_odds = null_odds_file and stack.enter_context(
            _json_file(null_odds_file)
        )
        yield add
    if without_candidate:
        console.warn(
            "%s: %d of %s have no candidate for an answer in their context, and are "
            "answered with %r: raise `n_best_size` or `max_answer_length`, or look for "
            "empty contexts",
            prediction_file,
            without_candidate,
            pluralize(count, "question"),
            NO_CANDIDATE.text if null_odds_file is None else "",
        )


@contextlib.contextmanager
def _json_file(path):
    """Yields a function that adds an entry to a file like `json.dumps`, indent 4."""
    with files.atomic_file(path) as partial, tf.io.gfile.GFile(partial, "w") as writer:
        separators = itertools.chain("{", itertools.repeat(","))

        def add(key, value):
            text = json.dumps(value, indent=4).replace("\n", "\n    ")
            writer.write("%s\n    %s: %s" % (next(separators), json.dumps(key), text))

        yield add
        writer.write("{}\n" if next(separators) == "{" else "\n}\n")
