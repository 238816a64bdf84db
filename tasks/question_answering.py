"""Question answering: the answer to a question is a part of a context (SQuAD)."""

import dataclasses
import math

import numpy as np
import tensorflow.compat.v1 as tf

from inputs.features import SEQUENCES
from system import schema
from system.wording import pluralize
from tasks import head_form, task_type
from tasks.squad import answer_files, answers, examples, features, scores

# Entries of packages beside those of all types; missing ones have the default.
_LENGTH = schema.integer(0, 2**31 - 1)
_WINDOWS = {
    "doc_stride": _LENGTH,
    "max_query_length": _LENGTH,
    "version_2_with_negative": schema.BOOLEAN,
}
_DECODING = {
    "n_best_size": schema.integer(1, 2**31 - 1),
    "max_answer_length": schema.integer(1, 2**31 - 1),
    "null_score_diff_threshold": schema.number(),
}


@task_type.register
@dataclasses.dataclass(frozen=True)
class QuestionAnswering(task_type.TaskType):
    """A task of `SquadExample`s; predictions are `QuestionAnswers`.

    "Labels" are the examples themselves, which have their answers. Logits and scores
    are [B, 2, S]: of each position as the answer's start, and as its end.
    """

    doc_stride: int = 128  # these two: see `features.make_features`
    max_query_length: int = 64
    version_2_with_negative: bool = False  # questions may have no answer
    # `version_2_with_negative` in it is not looked at.
    decoding: answers.Decoding = dataclasses.field(
        default=answers.Decoding(), repr=False, compare=False
    )

    name = "question_answering"
    metrics = dict.fromkeys(("exact_match", "exact", "f1"), None)  # see `score`
    uses_sequence_output = True
    hub_task = "question-answering"
    keeps_padding = True  # It may be among the best positions, as in the original.
    signature = "question_answering"
    has_task_files = False
    text_columns = ("question", "context")
    has_dev_loss = False  # Dev sets have several answers to a question.
    num_outputs = 2
    output_variables = ("cls/squad/output_weights", "cls/squad/output_bias")
    library_head = task_type.LibraryHead(
        "BertForQuestionAnswering", "qa_outputs", "question_answering", "QUESTION_ANS"
    )

    @property
    def default_metrics(self):
        return ("exact" if self.version_2_with_negative else "exact_match", "f1")

    # --- entries of files ---

    @classmethod
    def from_entries(cls, entries):
        windows, decoding = (
            {name: entries[name] for name in known if name in entries}
            for known in (_WINDOWS, _DECODING)
        )
        for name, value in {**windows, **decoding}.items():
            {**_WINDOWS, **_DECODING}[name].check(value, name)
        if "do_lower_case" in entries:
            decoding["do_lower_case"] = entries["do_lower_case"]
        decoding = answers.Decoding(**decoding)
        found = dataclasses.replace(
            super().from_entries(entries), **windows, decoding=decoding
        )
        if "max_seq_length" in entries:
            lengths = found.doc_stride, found.max_query_length
            features.check_lengths(entries["max_seq_length"], *lengths)
        return found

    def package_entries(self):
        decoding = {name: getattr(self.decoding, name) for name in _DECODING}
        return {**super().package_entries(), **self.training_entries(), **decoding}

    def training_entries(self):
        return {
            "doc_stride": self.doc_stride,
            "max_query_length": self.max_query_length,
            "version_2_with_negative": self.version_2_with_negative,
        }

    def describe(self):
        text = "questions about a context"
        return text + ", or without an answer" * self.version_2_with_negative

    def describe_head(self):
        return "linear at each position"

    def describe_truncation(self, counts, max_seq_length):
        text = "%s, at most %d long and %d apart; %s truncated at max_query_length %d"
        windows = pluralize(counts.features, "window")
        questions = pluralize(counts.truncated, "question")
        lengths = max_seq_length, self.doc_stride
        return text % (windows, *lengths, questions, self.max_query_length)

    # --- features ---

    def make_example(self, text_a, text_b=None):
        """A `SquadExample` of a question and its context."""
        return examples.SquadExample(None, text_a, examples.ContextWords(text_b or ""))

    def read_labels(self, examples):
        return list(examples)

    def feature_spec(self, seq_length):
        number = tf.FixedLenFeature([], tf.int64)
        sequence = tf.FixedLenFeature([seq_length], tf.int64)
        return {
            "unique_ids": number,
            **dict.fromkeys(SEQUENCES, sequence),
            "start_positions": number,
            "end_positions": number,
            "is_impossible": number,
            "is_real_example": number,
        }

    def featurize(self, index, example, max_seq_length, tokenizer, counts=None):
        """The features of a `SquadExample`'s windows, see `features.make_features`."""
        unique_id = features.FIRST_UNIQUE_ID + (counts.features if counts else 0)
        found = features.make_features(
            *(example, index, unique_id, tokenizer, max_seq_length),
            *(self.doc_stride, self.max_query_length, counts),
        )
        features.log_first(index, found)
        return [
            {
                **vars(feature),
                "window": feature,
                "unique_ids": feature.unique_id,
                "start_positions": feature.start_position,
                "end_positions": feature.end_position,
                "is_impossible": int(feature.is_impossible),
                "is_real_example": 1,
            }
            for feature in found
        ]

    # --- the graph ---

    def head_shapes(self, hidden_size):
        return dict(zip(self.output_variables, ([2, hidden_size], [2])))

    def compute_logits(self, output, is_training, initial_bias=0.0):
        """The head: float32 [B, 2, S], from float32 [B, S, H].

        In the original, its variables are missing in the collection of the head, so
        that they are not trained.
        """
        del is_training, initial_bias
        zeros = tf.zeros_initializer()
        logits = head_form.linear(output, self.output_variables, 2, zeros, 0.0)
        return tf.transpose(logits, [0, 2, 1])

    def read_label_features(self, batch):
        """First and last position of the answer, int32 [B, 2]."""
        return tf.stack([batch["start_positions"], batch["end_positions"]], axis=1)

    def compute_losses(self, logits, labels):
        """Cross-entropy over the positions, mean of start and end: float32 [B]."""
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=labels, logits=logits
        )
        return tf.reduce_mean(losses, axis=1)

    @staticmethod
    def compute_scores(logits, is_own=None):
        return logits

    @staticmethod
    def serving_outputs(scores, is_own, label_texts, num_outputs):
        return {"start_logits": scores[:, 0], "end_logits": scores[:, 1]}

    # --- predictions ---

    def decode(self, examples, scores, featurize):
        """Yields `QuestionAnswers`."""
        decoding = self.decoding._replace(
            version_2_with_negative=self.version_2_with_negative
        )
        for example in examples:
            windows = [values["window"] for values in featurize(example)]
            results = []
            for window in windows:
                # In a batch, shorter windows of another task have more padding.
                logits = next(scores)[:, : len(window.input_ids)]
                results.append((window, answers.RawResult(window.unique_id, *logits)))
            yield answers.choose_answers(example, results, decoding)

    def parse_predictions(self, predictions):
        return [each._replace(n_best=[]) for each in predictions]

    def prediction_files(self, split):
        files = {
            "predictions.json": "the answer to each question",
            "nbest_predictions.json": "the best answers, with their probabilities",
        }
        if self.version_2_with_negative:
            files["null_odds.json"] = "how much better no answer is, in logits"
        return files

    def write_predictions(self, predictions, paths):
        with answer_files.answer_files(*paths) as add:
            for each in predictions:
                add(each)
                yield each

    def prediction_text(self, prediction):
        return prediction.best.text

    def prediction_fields(self, prediction):
        best, span = prediction.best, prediction.best.span
        if span is None and best.text:  # `answers.NO_CANDIDATE`
            return {"answer": ""}
        fields = {
            "answer": best.text,
            "score": best.score,
            "probability": best.probability,
        }
        if span is not None:
            fields.update(start=span.start, end=span.stop)
        if self.version_2_with_negative:
            none = next(answer for answer in prediction.n_best if not answer.text)
            fields["null_score"] = none.score
        return fields

    def prediction_columns(self):
        columns = ["answer", "start", "end", "score", "probability"]
        return columns + ["null_score"] * self.version_2_with_negative

    # --- scores and diagnostics ---

    def score(self, names, labels, predictions):
        """Scores by the official rules, in percent; also of version 2.0's two groups.

        Args:
          names: which of them, see `default_metrics`.
          labels: `SquadExample`s with references.
          predictions: `QuestionAnswers` or, as those of a baseline, texts by id.
        """
        found = self._evaluate(labels, predictions)
        groups = [group + name for group in ("HasAns_", "NoAns_") for name in names]
        return {name: found[name] for name in (*names, *groups) if name in found}

    def _evaluate(self, labels, predictions):
        references = {each.qas_id: each.reference for each in labels}
        if isinstance(predictions, dict):
            texts, null_odds = predictions, None
        else:
            texts = {each.qas_id: each.best.text for each in predictions}
            null_odds = {each.qas_id: each.null_odds for each in predictions}
        if not self.version_2_with_negative:
            return scores.evaluate(references, texts)
        return scores.evaluate_v2(references, texts, null_odds)

    def predict_baseline(self, labels):
        """The texts of a rule that does not look at the question, by id."""
        references = {each.qas_id: each.reference for each in labels}
        return scores.predict_baseline(references, self.version_2_with_negative)

    def baseline_loss(self, labels):
        """The loss where each word of the context is as likely, in nats.

        A degenerate model has a higher one, as windows have more tokens than words.
        """
        answerable = [each for each in labels if not each.is_impossible]
        words = [max(1, len(each.doc_tokens)) for each in answerable]
        share = len(answerable) / len(labels)
        loss = share * float(np.mean(np.log(words))) if words else 0.0
        return loss - sum(p * math.log(p) for p in (share, 1 - share) if p)

    def report(self, labels, predictions):
        """The best scores with another threshold for no answer, and the threshold."""
        found = self._evaluate(labels, predictions)
        return {name: found[name] for name in found if name.startswith("best_")}

    def check_predictions(self, labels, predictions):
        texts = {each.best.text for each in predictions}
        golds = {tuple(each.reference.golds) for each in labels}
        if len(texts) > 1 or len(golds) == 1:
            return ""
        text = "all %d questions have the same answer, %r"
        return text % (len(predictions), texts.pop())
