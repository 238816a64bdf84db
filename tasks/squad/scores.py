"""Exact match and F1 by the rules of SQuAD's official evaluation, and a baseline."""

import collections
import re
import string
from typing import NamedTuple

from errors import UserError
from system import schema
from tasks.squad import examples

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_QUESTION = schema.Object(
    {"answers": schema.List(schema.Object({"text": schema.TEXT}, others=schema.ANY))},
    others=schema.ANY,
)


class Reference(NamedTuple):
    """The reference answers of a question."""

    golds: tuple[str, ...]  # the annotated answers; (): the question has none
    baseline: str  # see `guess_answer`


def read_references(input_file, version_2_with_negative=False):
    """Reads the annotated answers of a file in SQuAD's format.

    Returns:
      Dict from id to `Reference`.

    Raises:
      UserError: see `examples.iterate_examples`; also for a file without questions and,
        without `version_2_with_negative`, a question without answers.
    """
    references = {}
    for question in examples.iterate_questions(input_file):
        question.check(_QUESTION)
        golds = tuple(answer["text"] for answer in question.entries["answers"])
        if not golds and not version_2_with_negative:
            raise question.error(
                "it has no answer: evaluate with `version_2_with_negative`, or add one"
            )
        baseline = guess_answer(question.words.text)
        references[question.entries["id"]] = Reference(golds, baseline)
    if not references:
        raise UserError("%s has no questions: give a file to evaluate" % input_file)
    return references


# --- one prediction -------------------------------------------------------------


def normalize_answer(text):
    """Lower-cases a text; drops ASCII punctuation, articles and excess white space."""
    text = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def score_prediction(prediction, golds, version_2_with_negative=False):
    """Compares a prediction with the golds, each score by its best gold.

    Two texts without words have an F1 of 1 in version 2.0, and of 0 in 1.1.

    Args:
      prediction: text.
      golds: the annotated answers; there must be some in version 1.1.
      version_2_with_negative: whether to score by the rules of version 2.0, where golds
        without words do not count, and no gold is the gold "".

    Returns:
      Exact match and F1, from 0 to 1.
    """
    prediction = normalize_answer(prediction)
    golds = [normalize_answer(gold) for gold in golds]
    if version_2_with_negative:
        golds = [gold for gold in golds if gold] or [""]
    return (
        float(prediction in golds),
        max(_f1(prediction, gold, version_2_with_negative) for gold in golds),
    )


def _f1(prediction, gold, version_2_with_negative):
    """F1 of the bags of words of two normalized texts."""
    prediction, gold = prediction.split(), gold.split()
    if version_2_with_negative and not (prediction and gold):
        return float(prediction == gold)
    common = collections.Counter(prediction) & collections.Counter(gold)
    same = sum(common.values())
    if not same:
        return 0.0
    precision, recall = same / len(prediction), same / len(gold)
    return 2 * precision * recall / (precision + recall)


# --- all questions --------------------------------------------------------------


def evaluate(references, predictions):
    """Scores by the rules of version 1.1.

    Args:
      references: dict from id to `Reference`.
      predictions: dict from id to text; a question without one scores 0.

    Returns:
      Dict of "exact_match" and "f1", in percent.
    """
    scores = [
        score_prediction(predictions[qas_id], reference.golds)
        for qas_id, reference in references.items()
        if qas_id in predictions
    ]
    exact, f1 = (100.0 * sum(each) / len(references) for each in _columns(scores))
    return {"exact_match": exact, "f1": f1}


def evaluate_v2(references, predictions, null_odds=None):
    """Scores by the rules of version 2.0.

    Args:
      references: dict from id to `Reference`.
      predictions: dict from each id to a text; "": no answer.
      null_odds: dict from each id to a number that is high if there is no answer. It
        adds the best scores that are reached by answering "" above a threshold.

    Returns:
      Dict of "exact", "f1" and "total"; "HasAns_exact" and so on of the questions that
      have an answer, and "NoAns_exact" of others, if there are any; with null odds also
      "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh". In percent.
    """
    scores = {
        qas_id: score_prediction(predictions[qas_id], reference.golds, True)
        for qas_id, reference in references.items()
    }
    groups = {
        "": scores,
        "HasAns_": [i for i in scores if references[i].golds],
        "NoAns_": [i for i in scores if not references[i].golds],
    }
    results = {}
    for prefix, ids in groups.items():
        if ids:
            exact, f1 = _columns([scores[qas_id] for qas_id in ids])
            results[prefix + "exact"] = 100.0 * sum(exact) / len(ids)
            results[prefix + "f1"] = 100.0 * sum(f1) / len(ids)
            results[prefix + "total"] = len(ids)
    if null_odds is not None:
        changes = {
            qas_id: pair if references[qas_id].golds else (-1, -1)
            for qas_id, pair in scores.items()
            if references[qas_id].golds or predictions[qas_id]
        }
        unanswerable = len(groups["NoAns_"])
        for index, name in enumerate(("best_exact", "best_f1")):
            best, threshold = _best_threshold(changes, index, unanswerable, null_odds)
            results[name] = 100.0 * best / len(scores)
            results[name + "_thresh"] = threshold
    return results


def _columns(pairs):
    return list(zip(*pairs)) or [(), ()]


def _best_threshold(changes, index, unanswerable, null_odds):
    """The highest sum of scores, and the null odds above which the answer is "".

    Args:
      changes: dict from id to what an answer adds to the sums in place of "".
      index: which of the sums.
      unanswerable: the sum if all questions are answered with "".
      null_odds: dict from id to a number.
    """
    total = best = unanswerable
    threshold = 0.0
    for qas_id in sorted(null_odds, key=null_odds.get):
        if qas_id in changes:
            total += changes[qas_id][index]
            if total > best:
                best, threshold = total, null_odds[qas_id]
    return best, threshold


# --- baseline -------------------------------------------------------------------


def guess_answer(context):
    """The longest run of capitalized words in the first sentence; "" without one.

    It is the baseline: an answer that does not depend on the question.
    """
    sentence = re.split(r"(?<=[.!?])\s", context.strip(), maxsplit=1)[0]
    runs, run = [], []
    for word in [*sentence.split(), ""]:
        if word[:1].isupper():
            run.append(word)
        else:
            runs.append(" ".join(run))
            run = []
    return max(runs, key=len).strip(string.punctuation)


def predict_baseline(references, version_2_with_negative=False):
    """The answers of a constant rule: dict from id to text.

    The rule is `guess_answer`; in version 2.0 it is "" for all questions, if that has
    the higher F1.
    """
    guesses = {i: reference.baseline for i, reference in references.items()}
    if not version_2_with_negative:
        return guesses
    rules = guesses, dict.fromkeys(references, "")
    return max(rules, key=lambda each: evaluate_v2(references, each)["f1"])
