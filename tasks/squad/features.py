"""Windows of `[CLS] question [SEP] context [SEP]`, and their features."""

import dataclasses
import functools
import sys
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from errors import UserError, printable

FIRST_UNIQUE_ID = 1000000000
_LOGGED_EXAMPLES = 20


@dataclasses.dataclass(eq=False)
class InputFeatures:
    """The features of one window, padded to the sequence length S."""

    unique_id: int  # counts windows from `FIRST_UNIQUE_ID`
    example_index: int
    doc_span_index: int  # number of the window among those of its question
    tokens: list[str]  # without padding
    token_to_orig_map: dict[int, int]  # position of a context token -> word
    token_is_max_context: dict[int, bool]  # position -> no other window suits it better
    input_ids: list[int]  # S word pieces
    input_mask: list[int]  # S times 1 for tokens, 0 for padding
    segment_ids: list[int]  # S times 1 for the context, 0 elsewhere
    start_position: int | None = None  # of the answer; 0: the window does not hold it
    end_position: int | None = None
    is_impossible: bool | None = None


class Window(NamedTuple):
    """A part of a context."""

    start: int  # its first token
    length: int


@functools.lru_cache(maxsize=1)  # Questions of a paragraph share its words.
class _Context:
    """The tokens of a context's words."""

    def __init__(self, words, tokenizer):
        self.tokens, self.words, self.first_tokens = [], [], []
        for number, word in enumerate(words):
            self.first_tokens.append(len(self.tokens))
            pieces = tokenizer.tokenize(word)
            self.tokens.extend(pieces)
            self.words.extend([number] * len(pieces))

    def answer_span(self, example, tokenizer):
        """First and last token of an example's answer; (-1, -1) without one."""
        if example.is_impossible:
            return -1, -1
        # The last word may have no token, or be the last.
        ends = [*self.first_tokens[1:], len(self.tokens)]
        return improve_answer_span(
            self.tokens,
            self.first_tokens[example.start_position],
            ends[example.end_position] - 1,
            tokenizer,
            example.orig_answer_text,
        )


def convert_examples_to_features(
    examples,
    tokenizer,
    max_seq_length,
    doc_stride,
    max_query_length,
    is_training,
    output_fn,
):
    """Calls `output_fn` with the features of each question's windows, in order.

    See `make_features` for the arguments, and `check_lengths` for errors. With
    `is_training`, the examples have answers.
    """
    check_lengths(max_seq_length, doc_stride, max_query_length)
    unique_id = FIRST_UNIQUE_ID
    for index, example in enumerate(examples):
        if not is_training:
            example = dataclasses.replace(example, start_position=None)
        found = make_features(
            *(example, index, unique_id, tokenizer),
            *(max_seq_length, doc_stride, max_query_length),
        )
        log_first(index, found)
        unique_id += len(found)
        for feature in found:
            output_fn(feature)


def check_lengths(max_seq_length, doc_stride, max_query_length):
    """Raises a `UserError` if windows have no room for text, or no stride."""
    if doc_stride < 1:
        raise UserError(
            "`doc_stride`=%d: windows must be at least 1 token apart" % doc_stride
        )
    if max_query_length < 0:
        raise UserError(
            "`max_query_length`=%d: it must be 0 or more" % max_query_length
        )
    if max_seq_length <= max_query_length + 3:
        raise UserError(
            "`max_seq_length`=%d leaves no room for text: it must be above "
            "`max_query_length`=%d plus 3, for [CLS] and two [SEP]"
            % (max_seq_length, max_query_length)
        )


def make_features(
    example,
    index,
    unique_id,
    tokenizer,
    max_seq_length,
    doc_stride,
    max_query_length,
    counts=None,
):
    """The features of a question's windows.

    A context without tokens has no window. If the example has an answer, a window that
    does not hold all of it has [CLS], position 0, as its answer.

    Args:
      example: a `SquadExample`.
      index: its number.
      unique_id: id of its first window.
      tokenizer: a `tokenization.FullTokenizer`.
      max_seq_length: length S of the features.
      doc_stride: tokens from the start of a window to that of the next.
      max_query_length: tokens of a question that are kept, its first.
      counts: a `features.TextCounts` to which the example is added, or None; the
        question is what can be truncated.

    Returns:
      List of `InputFeatures`.
    """
    context = _Context(example.doc_tokens, tokenizer)
    question = tokenizer.tokenize(example.question_text)
    if counts is not None:
        counts.add(question, context.tokens, sys.maxsize)
        counts.truncated += len(question) > max_query_length
    answer, found = None, []
    if example.start_position is not None:
        answer = context.answer_span(example, tokenizer)
    question = question[:max_query_length]
    room = max_seq_length - len(question) - 3
    windows = split_windows(len(context.tokens), room, doc_stride)
    best_windows = find_best_windows(windows)
    for number, window in enumerate(windows):
        inside = slice(window.start, window.start + window.length)
        tokens = ["[CLS]", *question, "[SEP]", *context.tokens[inside], "[SEP]"]
        first = len(question) + 2  # position of the window's text
        padding = [0] * (max_seq_length - len(tokens))
        feature = InputFeatures(
            unique_id + number,
            index,
            number,
            tokens,
            dict(enumerate(context.words[inside], first)),
            {i: n == number for i, n in enumerate(best_windows[inside], first)},
            tokenizer.convert_tokens_to_ids(tokens) + padding,
            [1] * len(tokens) + padding,
            [0] * first + [1] * (len(tokens) - first) + padding,
            is_impossible=example.is_impossible,
        )
        if answer is not None:
            _set_answer(feature, answer, window, first)
        found.append(feature)
    return found


def split_windows(length, room, stride):
    """Splits a context.

    Args:
      length: its number of tokens.
      room: the most tokens of a window.
      stride: from the start of a window to that of the next; at most the room counts.

    Returns:
      List of `Window`s; the last ends with the context. Without tokens it is empty.
    """
    step = min(room, stride)
    starts = [0] if length else []
    starts.extend(range(step, length - room + step, step))
    return [Window(start, min(length - start, room)) for start in starts]


def find_best_windows(windows):
    """For each token the number of the window with the most context on both sides.

    That is the smaller side's number of tokens, plus a hundredth of the window's; the
    first window wins a tie.
    """
    best, scores = [], []
    for number, (start, length) in enumerate(windows):
        for i in range(length):
            score = min(i, length - 1 - i) + 0.01 * length
            if start + i == len(best):
                best.append(number)
                scores.append(score)
            elif score > scores[start + i]:
                best[start + i], scores[start + i] = number, score
    return best


def improve_answer_span(
    doc_tokens, input_start, input_end, tokenizer, orig_answer_text
):
    """Narrows an answer from whole words to its own tokens.

    In "(1895-1943).", the answer "1895" is a part of a word. If there is no such
    part, as of "Japan" in "Japanese", the words are kept.

    Args:
      doc_tokens: tokens of the context.
      input_start: first token of the words.
      input_end: their last token.
      tokenizer: a `tokenization.FullTokenizer`.
      orig_answer_text: the answer.

    Returns:
      First and last token of the first match.
    """
    answer = tokenizer.tokenize(orig_answer_text)
    for start in range(input_start, input_end - len(answer) + 2):
        if answer and doc_tokens[start : start + len(answer)] == answer:
            return start, start + len(answer) - 1
    return input_start, input_end


def _set_answer(feature, answer, window, first):
    """Sets the answer's positions in a window whose text begins at `first`."""
    start, end = answer
    feature.start_position = feature.end_position = 0
    if window.start <= start and end < window.start + window.length:
        feature.start_position = start - window.start + first
        feature.end_position = end - window.start + first


def log_first(index, features):
    """Logs the windows of a question, if its number is among the first."""
    if index < _LOGGED_EXAMPLES:
        for feature in features:
            _log(feature)


def _log(feature):
    tf.logging.info("*** Example ***")
    tf.logging.info("unique_id: %d", feature.unique_id)
    tf.logging.info("example_index: %d", feature.example_index)
    tf.logging.info("doc_span_index: %d", feature.doc_span_index)
    tf.logging.info("tokens: %s", printable(" ".join(feature.tokens), 10000))
    if feature.is_impossible:
        tf.logging.info("impossible example")
    elif feature.start_position is not None:
        answer = feature.tokens[feature.start_position : feature.end_position + 1]
        tf.logging.info("answer: %s", printable(" ".join(answer)))
