"""Questions, contexts and answers, read from a file in SQuAD's format."""

import bisect
import dataclasses
import functools
import re
from collections.abc import Sequence

from errors import UserError, explain_value_errors, printable
from inputs import json_stream
from system import console, schema
from system.wording import pluralize

# Other white space, such as a no-break space, stays inside a word.
_WORD = re.compile(r"[^ \t\r\n\u202f]+")

_PARAGRAPH = schema.Object(
    {"context": schema.TEXT, "qas": schema.List(schema.ANY)}, others=schema.ANY
)
_ASKED = {"id": schema.TEXT, "question": schema.TEXT}
_GOLD_ANSWERS = schema.List(
    schema.Object(
        {"text": schema.TEXT, "answer_start": schema.integer()}, others=schema.ANY
    )
)


class ContextWords(Sequence):
    """The words of a context, split when they are asked for.

    The questions of a paragraph share one object. A list of the words would take ten
    times the memory of the text.

    Attributes:
      text: the context.
    """

    def __init__(self, text):
        self.text = text

    def spans(self):
        """List of pairs: each word's first character and the one after its last."""
        return [match.span() for match in _WORD.finditer(self.text)]

    def __iter__(self):
        return iter(_WORD.findall(self.text))

    def __len__(self):
        return len(self.spans())

    def __getitem__(self, index):
        return list(self)[index]


@dataclasses.dataclass(eq=False)
class SquadExample:
    """One question; the answer is None in prediction, "" if there is none."""

    qas_id: str
    question_text: str
    doc_tokens: ContextWords | list[str]  # words of the context; kept as ContextWords
    orig_answer_text: str | None = None
    start_position: int | None = None  # the answer's first word; -1: no answer
    end_position: int | None = None  # its last word
    is_impossible: bool = False  # whether the context holds no answer
    reference: object = None  # in evaluation, a `scores.Reference`

    line = label = None  # as a `features.InputExample`

    def __post_init__(self):
        if not isinstance(self.doc_tokens, ContextWords):
            self.doc_tokens = ContextWords(" ".join(self.doc_tokens))

    @property
    def guid(self):
        return self.qas_id

    @property
    def text_a(self):
        return self.question_text

    @property
    def text_b(self):
        return self.doc_tokens.text


def read_squad_examples(input_file, is_training, version_2_with_negative=False):
    """Returns the list of what `iterate_examples` yields."""
    return list(iterate_examples(input_file, is_training, version_2_with_negative))


def iterate_examples(input_file, is_training, version_2_with_negative=False):
    """Yields the questions of a file in its order, with one paragraph in memory.

    In training, a question is skipped if the words at its answer's place do not hold
    the answer. Warnings at the end count these, answers that are beside their place but
    in the same words, and empty answers. Answers are not read in prediction.

    Args:
      input_file: path of a JSON file in the format of SQuAD 1.1 or 2.0.
      is_training: whether to read answers.
      version_2_with_negative: whether questions may have no answer.

    Yields:
      `SquadExample`s.

    Raises:
      UserError: the file cannot be read or has another format, an id is a duplicate,
        or in training an answer cannot be used.
    """
    read_answer = _read_no_answer
    faults = {
        "skipped": _Fault("is skipped: its answer is not in the words at answer_start"),
        "shifted": _Fault("has its answer in the words at answer_start, but not there"),
        "empty": _Fault("has an empty answer, and is trained on words at answer_start"),
    }
    if is_training:
        read_answer = functools.partial(_read_answer, version_2_with_negative, faults)
    count = 0
    for question in iterate_questions(input_file):
        count += 1
        example = read_answer(question)
        if example is not None:
            yield example
    for fault in faults.values():
        fault.warn(input_file, count)


@dataclasses.dataclass
class Question:
    """A question as it stands in a file, without its answers' check."""

    words: ContextWords
    entries: dict  # of the file; "id" and "question" are checked
    source: str  # file, paragraph and id, for messages

    def check(self, item_schema):
        """Checks the entries; raises a `UserError`."""
        with explain_value_errors(self.source):
            item_schema.check(self.entries)

    def error(self, problem):
        return UserError("%s: %s" % (self.source, problem))


def iterate_questions(input_file):
    """Yields the `Question`s of a file; see `iterate_examples` for the errors."""
    ids = set()
    asked = schema.Object(_ASKED, others=schema.ANY)
    for place, paragraph in json_stream.iterate_items(input_file, "data", "paragraphs"):
        with explain_value_errors(input_file):
            _PARAGRAPH.check(paragraph, place)
        words = ContextWords(paragraph["context"])
        for number, entries in enumerate(paragraph["qas"]):
            source = "%s, %s.qas[%d]" % (input_file, place, number)
            if isinstance(entries, dict) and isinstance(entries.get("id"), str):
                source += ", id %s" % printable(entries["id"])
            question = Question(words, entries, source)
            question.check(asked)
            if entries["id"] in ids:
                raise question.error("the id is a duplicate: change it")
            ids.add(entries["id"])
            yield question


@dataclasses.dataclass
class _Fault:
    """Counts questions with a fault, and keeps the first one's description."""

    problem: str
    count: int = 0
    first: str = ""

    def add(self, question, answer, found):
        self.count += 1
        self.first = self.first or "%s: %r, and there is %r" % (
            question.source,
            printable(answer, 80),
            printable(found, 80),
        )

    def warn(self, input_file, questions):
        if self.count:
            text = "%s: %d of %s: the question %s. The first: %s"
            total = pluralize(questions, "question")
            console.warn(text, input_file, self.count, total, self.problem, self.first)


def _read_no_answer(question):
    entries = question.entries
    return SquadExample(entries["id"], entries["question"], question.words)


def _read_answer(version_2_with_negative, faults, question):
    """A `SquadExample` with its answer; None if it is skipped."""
    entries = question.entries
    required = {"answers": _GOLD_ANSWERS}
    if version_2_with_negative:
        required["is_impossible"] = schema.BOOLEAN
    question.check(schema.Object(required, others=schema.ANY))
    answers = entries["answers"]
    example = _read_no_answer(question)
    if entries.get("is_impossible"):
        if not version_2_with_negative:
            raise question.error(
                "is_impossible is true: train with `version_2_with_negative`, or take "
                "such questions out"
            )
        if answers:
            raise question.error(
                "is_impossible is true, but there is an answer, %r: remove one of them"
                % printable(answers[0]["text"], 80)
            )
        example.orig_answer_text, example.is_impossible = "", True
        example.start_position = example.end_position = -1
        return example
    if len(answers) != 1:
        raise question.error(
            "it has %s, for training it must have 1" % pluralize(len(answers), "answer")
        )
    return _add_answer(example, question, answers[0], faults)


def _add_answer(example, question, answer, faults):
    text, start = answer["text"], answer["answer_start"]
    context, end = question.words.text, start + len(text)
    if start >= len(context) or end > len(context):
        raise question.error(
            "the answer %r ends at character %d, the context at %d: correct its "
            "answer_start, %d, which counts characters from 0"
            % (printable(text, 80), end, len(context), start)
        )
    # White space belongs to the word before it, at the beginning of a text to none.
    spans = question.words.spans()
    starts = [first for first, _ in spans]
    first_word = bisect.bisect_right(starts, start) - 1
    # An empty answer ends before its start, at 0 with the text, as in the original.
    last_word = bisect.bisect_right(starts, (end - 1) % len(context)) - 1
    # From word -1 to word n the slice is empty, and the question skipped.
    words = " ".join(context[a:b] for a, b in spans[first_word : last_word + 1])
    if " ".join(text.split()) not in words:
        faults["skipped"].add(question, text, words)
        return None
    if not text:
        faults["empty"].add(question, text, words)
    elif context[start:end].split() != text.split():
        faults["shifted"].add(question, text, context[start:end])
    example.orig_answer_text = text
    example.start_position, example.end_position = first_word, last_word
    return example
