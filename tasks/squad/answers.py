"""From the logits of a question's windows to its answers."""

import functools
import itertools
import math
import operator
from typing import NamedTuple

import numpy as np

from tasks.squad.answer_text import TextAligner

# A null score above any window's, as in the original.
_NO_NULL_SCORE = 1000000


class RawResult(NamedTuple):
    """The logits of a window."""

    unique_id: int
    start_logits: np.ndarray  # float [S]
    end_logits: np.ndarray  # float [S]


class Decoding(NamedTuple):
    """How answers are chosen; the names are those of `run_squad.py`'s flags."""

    n_best_size: int = 20  # candidates for start and for end of a window, and answers
    max_answer_length: int = 30  # word pieces
    do_lower_case: bool = True  # as the tokenizer's
    version_2_with_negative: bool = False  # "" may be the answer
    null_score_diff_threshold: float = 0.0  # "" is given if the null odds are above
    verbose_logging: bool = False  # log which words cannot be aligned with tokens


class Answer(NamedTuple):
    """A candidate for an answer."""

    text: str  # "": no answer
    start_logit: float
    end_logit: float
    # Its characters in the context, whose words, joined by spaces, are the text.
    # None: it is no part of the context.
    span: slice | None = None
    probability: float = 1.0  # among the question's n best

    @property
    def score(self):
        return self.start_logit + self.end_logit


class QuestionAnswers(NamedTuple):
    """The answers to one question."""

    qas_id: str
    best: Answer
    n_best: list[Answer]  # by falling score, but "" may stand at the end
    null_odds: float | None  # null score less that of the best text; None: v1.1


# The original's text where no candidate of a v1.1 question is a part of the context.
NO_CANDIDATE = Answer("empty", 0.0, 0.0)


class _Candidate(NamedTuple):
    feature: object  # an `InputFeatures`; None: no answer
    start: int  # positions in the window
    end: int
    start_logit: float
    end_logit: float


def choose_answers(example, windows, decoding):
    """Chooses the answers to a question.

    Candidates are pairs of the positions with the highest logits of each window, ties
    in order of position. The start must have its most context in the window. The
    original fails on a question with `version_2_with_negative` of whose candidates none
    is a part of the context; here it has no answer, and the null odds are the null
    score.

    Args:
      example: a `SquadExample`.
      windows: list of pairs of `InputFeatures` and `RawResult`.
      decoding: a `Decoding`.

    Returns:
      A `QuestionAnswers`.
    """
    candidates, null = [], _Candidate(None, 0, 0, 0.0, 0.0)
    null_score = _NO_NULL_SCORE
    for feature, result in windows:
        candidates.extend(_window_candidates(feature, result, decoding))
        logits = float(result.start_logits[0]), float(result.end_logits[0])
        if sum(logits) < null_score:
            null_score, null = sum(logits), _Candidate(None, 0, 0, *logits)
    if decoding.version_2_with_negative:
        candidates.append(null)
    candidates.sort(key=lambda c: c.start_logit + c.end_logit, reverse=True)

    aligner = TextAligner(
        example.doc_tokens, decoding.do_lower_case, decoding.verbose_logging
    )
    n_best = {}
    for candidate in candidates:
        if len(n_best) >= decoding.n_best_size:
            break
        answer = _make_answer(candidate, aligner)
        n_best.setdefault(answer.text, answer)
    if decoding.version_2_with_negative:
        n_best.setdefault("", Answer("", null.start_logit, null.end_logit))
    n_best = list(n_best.values()) or [NO_CANDIDATE]
    probabilities = compute_softmax([answer.score for answer in n_best])
    n_best = [a._replace(probability=p) for a, p in zip(n_best, probabilities)]

    if not decoding.version_2_with_negative:
        return QuestionAnswers(example.qas_id, n_best[0], n_best, None)
    no_answer = next(answer for answer in n_best if not answer.text)
    best = next((answer for answer in n_best if answer.text), None)
    if best is None:
        return QuestionAnswers(example.qas_id, no_answer, n_best, float(null_score))
    null_odds = null_score - best.start_logit - best.end_logit
    if null_odds > decoding.null_score_diff_threshold:
        best = no_answer
    return QuestionAnswers(example.qas_id, best, n_best, null_odds)


def _window_candidates(feature, result, decoding):
    starts = [
        i
        for i in get_best_indexes(result.start_logits, decoding.n_best_size)
        if feature.token_is_max_context.get(i)
    ]
    ends = [
        i
        for i in get_best_indexes(result.end_logits, decoding.n_best_size)
        if i in feature.token_to_orig_map
    ]
    for start, end in itertools.product(starts, ends):
        if start <= end < start + decoding.max_answer_length:
            start_logit = float(result.start_logits[start])
            yield _Candidate(
                feature, start, end, start_logit, float(result.end_logits[end])
            )


def _make_answer(candidate, aligner):
    feature, start, end, *logits = candidate
    if feature is None:
        return Answer("", *logits)
    text, characters = aligner.align(feature, start, end)
    return Answer(text, *logits, characters)


def get_best_indexes(logits, n_best_size):
    """The positions of the highest logits, best first, ties in order of position."""
    best = np.argsort(-np.asarray(logits, np.float64), kind="stable")
    return best[:n_best_size].tolist()


def compute_softmax(scores):
    """Probabilities of scores, as lists of float."""
    largest = max(scores, default=0.0)
    exponentials = [math.exp(score - largest) for score in scores]
    # Added one after the other; from Python 3.12 on, `sum` rounds differently.
    total = functools.reduce(operator.add, exponentials, 0.0)
    return [each / total for each in exponentials]
