"""The interface of task types: everything that depends on the kind of a task.

A task type says how labels are written, what the model learns from an example, how it
predicts, and how predictions are scored and written. A module of this package registers
its types by name; task files and packages name them.

Axis letters: B features of a batch, L outputs of the head, H hidden size, S sequence,
N examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from inputs import features
from system import files, schema, wording
from tasks import head_form, submission_file

BALANCED = "balanced"  # weights of classes

HEAD_DROPOUT = 0.1

TYPES: dict[str, type["TaskType"]] = {}


class UnknownTypeError(schema.SchemaError):
    """No task type has the name."""


def register(task_type):
    """Class decorator: makes a `TaskType` known by its `name`."""
    if TYPES.setdefault(task_type.name, task_type) is not task_type:
        raise ValueError("two task types have the name %r" % task_type.name)
    return task_type


def find_type(name):
    """The class of a name; raises an `UnknownTypeError` with all names."""
    if name not in TYPES:
        raise UnknownTypeError("type", name, "one of %s" % ", ".join(sorted(TYPES)))
    return TYPES[name]


class LibraryHead(NamedTuple):
    """The names of a head of one linear layer in other libraries."""

    model_class: str  # of transformers
    layer: str  # in that model
    adapterhub: str  # "head_type" of AdapterHub
    peft: str  # "task_type" of peft

    @property
    def tensors(self):
        """Names of its weight and its bias in that model."""
        return "%s.weight" % self.layer, "%s.bias" % self.layer


SEQUENCE_CLASSIFICATION = LibraryHead(
    "BertForSequenceClassification", "classifier", "classification", "SEQ_CLS"
)


class TaskType:
    """The answers of one task type; an object is immutable, and equal by its values.

    The defaults are those of rows of text with a linear head on the pooled output, with
    one feature and one row of scores per example.
    """

    name: ClassVar[str]
    metrics: ClassVar[dict[str, Callable]]  # score by name, of two arrays [N, ...]
    default_metrics: ClassVar[tuple[str, ...]]
    label_feature: ClassVar[tf.FixedLenFeature]  # of "label_ids" in records
    uses_sequence_output = False  # whether the head is on [B, S, H] instead of [B, H]
    keeps_padding = False  # whether scores at positions of padding count
    hub_task: ClassVar[str] = "text-classification"  # of Hugging Face's hub
    has_task_files = True  # whether a task file can name it; its examples are rows
    text_columns: ClassVar[tuple[str, str]]  # without task files: of rows to predict
    has_dev_loss = True  # whether dev sets have the labels that the loss needs
    labels: tuple[str, ...] = ()  # all texts of labels, by id; (): not a closed list
    needs_labels = False  # whether they are still to be found in the training set
    num_outputs: int  # L
    library_head: LibraryHead | None = None  # with the same logits; None: there is none
    head: head_form.HeadForm = head_form.DEFAULT  # a field if there can be another

    # --- entries of files ---

    @classmethod
    def from_entries(cls, entries):
        """Reads the type from entries of a task file or package, checked by a schema.

        Those of a package include its "do_lower_case" and "max_seq_length".

        Raises:
          ValueError: they contradict each other.
        """
        has_form = any(field.name == "head" for field in dataclasses.fields(cls))
        for name in ("labels",) if has_form else ("labels", "head"):
            if entries.get(name):
                allowed = "left out: a task of the type %s has none" % cls.name
                raise schema.SchemaError(name, entries[name], allowed)
        return cls().adopt_head(head_form.from_entries(entries))

    def task_file_entries(self):
        """The entries of a task file from which `from_entries` reads the type."""
        return {"type": self.name}

    def package_entries(self):
        """The entries of a package from which `from_entries` reads the type."""
        return {
            "type": self.name,
            "labels": list(self.labels),
            "is_regression": False,
            **self.head.entries(),
        }

    def describe_head(self):
        """The head in words."""
        return self.head.describe()

    def adopt_head(self, form):
        """The type with a `head_form.HeadForm`, one that its package can have."""
        return self if form == self.head else dataclasses.replace(self, head=form)

    @classmethod
    def takes_outputs(cls, count):
        """Whether a `library_head` of `count` outputs is of this type."""
        return count == cls.num_outputs

    def find_metrics_problem(self, names):
        """The problem of some metrics, as text; "" if all names are allowed."""
        for name in names:
            if name not in self.metrics:
                allowed = ", ".join(self.metrics) + wording.suggest(name, self.metrics)
                return "it must be one or more of " + allowed
        return ""

    def describe(self):
        """The type in one line of a log."""
        return self.name

    def training_entries(self):
        """Settings of the type that a resumed run must share, a dict."""
        return {}

    def describe_truncation(self, counts, max_seq_length):
        """Describes truncation, by `features.TextCounts`, for a log."""
        return "%s (%.1f %%) truncated at max_seq_length %d" % (
            wording.pluralize(counts.truncated, "example"),
            100 * counts.truncated_fraction,
            max_seq_length,
        )

    def weigh_classes(self, weights, labels=()):
        """The type with factors of the classes' losses in training.

        `weights` are a list of numbers by class, or `BALANCED`: each class contributes
        equally to the loss on training labels, `labels`. A `ValueError` is raised if
        there are no such classes.
        """
        raise ValueError("a task of the type %s has no classes" % self.name)

    # --- labels and features ---

    def find_label_problem(self, label):
        """The problem of a label's text; "" without one."""
        raise NotImplementedError

    def parse_label(self, label):
        """A label as a number or array, for `label_feature` and metrics."""
        raise NotImplementedError

    def read_labels(self, examples):
        """The labels of `features.InputExample`s, an array [N, ...]."""
        return np.array([self.parse_label(example.label) for example in examples])

    def make_example(self, text_a, text_b=None):
        """An example without a label, of a text or a pair of texts."""
        return features.InputExample(None, text_a, text_b)

    def feature_spec(self, seq_length):
        """The features of a record: dict from name to `tf.FixedLenFeature`."""
        return features.feature_spec(seq_length, self.label_feature)

    def featurize(self, index, example, max_seq_length, tokenizer, counts=None):
        """The features of a `features.InputExample`.

        See `features.encode_example` for the arguments. Returns a list of dicts, whose
        entries of the names in `feature_spec` are written; missing ones are zero.
        """
        is_labeled = example.label is not None
        label = self.parse_label(example.label) if is_labeled else None
        return [
            features.encode_example(
                index, example, label, max_seq_length, tokenizer, counts
            )
        ]

    @classmethod
    def takes_plain_text(cls):
        """Whether the features are those of `features.encode_example`."""
        return cls.featurize is TaskType.featurize

    # --- the graph ---

    @property
    def signature(self):
        """Name in a SavedModel. Types that share it have the same head, and batches."""
        return self.head.signature

    @property
    def output_variables(self):
        """Names of the head's variables whose first axis is that of the outputs."""
        return self.head.output_variables

    def select_output(self, model):
        """The head's input: an output of a `modeling.BertModel`."""
        if self.uses_sequence_output:
            return model.get_sequence_output()
        return self.head.select_output(model)

    def initial_bias(self, labels):
        """The head's bias before training on labels, see `read_labels`."""
        del labels
        return 0.0

    def head_shapes(self, hidden_size):
        """The variables of `compute_logits`: dict from name to list of ints."""
        return self.head.shapes(hidden_size, self.num_outputs)

    def compute_logits(self, output, is_training, initial_bias=0.0):
        """The head: float32 [B, L], from float32 [B, H].

        Its variables can be weights by example, see `modeling.apply_weights`.
        """
        dropout = HEAD_DROPOUT if is_training else 0.0
        return self.head.compute_logits(output, self.num_outputs, dropout, initial_bias)

    def read_label_features(self, batch):
        """The labels in a batch of features, one tensor [B, ...]."""
        return batch["label_ids"]

    def compute_losses(self, logits, labels):
        """The loss of each feature, float32 [B]."""
        raise NotImplementedError

    @staticmethod
    def compute_scores(logits, is_own=None):
        """The prediction of each feature, float32 [B, L].

        When tasks of several sizes share a batch, `is_own`, bool [B, L], is whether an
        output belongs to the feature's task; the scores of others are 0.
        """
        raise NotImplementedError

    def training_weights(self, labels):
        """Factors of the losses in training, float32 [B]; None: all are 1."""
        del labels

    def eval_metrics(self, logits, labels, weights):
        """Further `tf.metrics` of an evaluation; weights are float32 [B]."""
        del logits, labels, weights
        return {}

    @staticmethod
    def serving_outputs(scores, is_own, label_texts, num_outputs):
        """The outputs of a SavedModel: dict from name to tensor [B, ...].

        Args:
          scores, is_own: see `compute_scores`.
          label_texts: string [B, L], "" for an output that is no label.
          num_outputs: the largest of all tasks, an int.
        """
        best = tf.where_v2(is_own, scores, -np.inf)
        predicted = tf.argmax(best, axis=-1, output_type=tf.int32)
        label = tf.gather(label_texts, predicted[:, tf.newaxis], batch_dims=1)
        scores = tf.pad(scores, [[0, 0], [0, num_outputs - tf.shape(scores)[1]]])
        scores.set_shape([None, num_outputs])
        return {"scores": scores, "label_id": predicted, "label": label[:, 0]}

    # --- predictions ---

    def decode(self, examples, scores, featurize):
        """Yields a prediction for each example: by default its one row of scores.

        Args:
          examples: iterable of `features.InputExample`.
          scores: iterator of the features' arrays, see `compute_scores`.
          featurize: function that gives the features of an example again.
        """
        del featurize
        for _, row in zip(examples, scores):
            yield row

    def parse_predictions(self, predictions):
        """An iterable of predictions as `read_labels` gives labels: [N, ...]."""
        raise NotImplementedError

    def prediction_files(self, split):
        """The files of a `task_data.Split`'s predictions: dict from name to content."""
        return {
            "test_results%s.tsv" % split.suffix: "each test example's probabilities, "
            "or score",
            split.submission_file: "each test example's prediction, in the format of "
            "the evaluation server",
        }

    def write_predictions(self, predictions, paths):
        """Writes predictions to the paths of `prediction_files`; yields each again."""
        predictions = list(predictions)
        results, submission = paths
        rows = ("\t".join(map(str, row)) + "\n" for row in predictions)
        files.write_whole(results, "".join(rows))
        texts = map(self.prediction_text, predictions)
        submission_file.write_submission(texts, submission)
        yield from predictions

    def prediction_text(self, prediction):
        """The prediction as a label in files."""
        raise NotImplementedError

    def prediction_fields(self, prediction):
        """Dict of the fields of a `predictor.Prediction`, but the task."""
        raise NotImplementedError

    def prediction_columns(self):
        """The columns of `predict.py`'s output with these fields, a list of names."""
        raise NotImplementedError

    # --- scores and diagnostics, from arrays of `read_labels`, `parse_predictions` ---

    def score(self, names, labels, predictions):
        """Scores by the names of some `metrics`, a dict of floats."""
        return {name: float(self.metrics[name](labels, predictions)) for name in names}

    def predict_baseline(self, labels):
        """The best constant prediction, repeated for each label."""
        raise NotImplementedError

    def baseline_loss(self, labels):
        """The mean loss of the best constant prediction of the scores."""
        raise NotImplementedError

    def report(self, labels, predictions) -> dict[str, Any]:
        """Further entries of reports; a "confusion_matrix" is drawn, with "labels"."""
        del labels, predictions
        return {}

    def format_table(self, labels, predictions):
        """Scores by label as text; "" if they are not reported."""
        del labels, predictions
        return ""

    def check_predictions(self, labels, predictions):
        """A warning if the predictions are those of a degenerate model, or ""."""
        del labels, predictions
        return ""
