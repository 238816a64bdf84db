"""Classification: one of 2 or more labels."""

import dataclasses

import numpy as np
import scipy.stats
import sklearn.metrics
import tensorflow.compat.v1 as tf

from errors import printable
from inputs import metrics
from system import schema
from system.wording import list_names
from tasks import head_form, task_type

_MOST_LABELS_SHOWN = 20
_LONGEST_LABEL = 40  # characters


@task_type.register
@dataclasses.dataclass(frozen=True)
class Classification(task_type.TaskType):
    """A task whose label is a text out of a list; predictions are probabilities [L]."""

    labels: tuple[str, ...] = ()  # by id; (): those of the training set
    # Factors of the losses in training, by id; (): all 1.
    class_weights: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    head: head_form.HeadForm = head_form.DEFAULT

    name = "classification"
    metrics = metrics.CLASSIFICATION
    default_metrics = ("accuracy", "macro_f1")
    label_feature = tf.FixedLenFeature([], tf.int64)
    library_head = task_type.SEQUENCE_CLASSIFICATION

    @classmethod
    def numbered(cls, count):
        """The labels "0", "1" and so on."""
        return cls(tuple(map(str, range(count))))

    @property
    def num_outputs(self):
        return len(self.labels)

    @property
    def needs_labels(self):
        return not self.labels

    @classmethod
    def from_entries(cls, entries):
        labels = tuple(entries.get("labels") or ())
        return cls(labels, head=head_form.from_entries(entries))

    @classmethod
    def takes_outputs(cls, count):
        return count >= 2

    def task_file_entries(self):
        return {"labels": list(self.labels), "regression": False}

    def training_entries(self):
        return {"class_weights": list(self.class_weights) or None}

    def weigh_classes(self, weights, labels=()):
        if weights == task_type.BALANCED:
            counts = np.bincount(labels, minlength=self.num_outputs)
            # Those of scikit-learn; a class without examples has no loss.
            weights = len(labels) / (self.num_outputs * np.maximum(counts, 1))
        elif len(weights) != len(self.labels):
            allowed = 'as long as "labels", of which %d are listed' % len(self.labels)
            raise schema.SchemaError("class_weights", weights, allowed)
        return dataclasses.replace(self, class_weights=tuple(map(float, weights)))

    def find_metrics_problem(self, names):
        if "f1" in names and len(self.labels) not in (0, 2):
            return "f1 needs exactly two labels; use macro_f1"
        return super().find_metrics_problem(names)

    def describe(self):
        return "%d labels (%s)" % (len(self.labels), list_names(self.labels))

    def find_label_problem(self, label):
        if self.needs_labels:
            is_valid = label.strip() and schema.PRINTABLE.accepts(label)
            return "" if is_valid else "%.80r is not a printable text" % label
        if label in self.labels:
            return ""
        return "%.80r is not one of %s" % (label, list_names(self.labels))

    def parse_label(self, label):
        return self.labels.index(label)

    def compute_losses(self, logits, labels):
        """Cross-entropy, as in the original program."""
        log_probs = tf.nn.log_softmax(logits, axis=-1)
        one_hot = tf.one_hot(labels, depth=self.num_outputs, dtype=tf.float32)
        return -tf.reduce_sum(one_hot * log_probs, axis=-1)

    def training_weights(self, labels):
        if not self.class_weights:
            return None
        return tf.gather(tf.constant(self.class_weights, tf.float32), labels)

    @staticmethod
    def compute_scores(logits, is_own=None):
        if is_own is not None:
            # -inf, not a large negative number: where weights overflow, the result is
            # NaN instead of a label of another task.
            logits = tf.where_v2(is_own, logits, -np.inf)
        return tf.nn.softmax(logits, axis=-1)

    def eval_metrics(self, logits, labels, weights):
        predictions = tf.argmax(logits, axis=-1, output_type=tf.int32)
        accuracy = tf.metrics.accuracy(labels, predictions, weights=weights)
        return {"eval_accuracy": accuracy}

    def parse_predictions(self, predictions):
        return np.argmax(list(predictions), axis=-1)

    def prediction_text(self, prediction):
        return self.labels[np.argmax(prediction)]

    def prediction_fields(self, prediction):
        probabilities = dict(zip(self.labels, prediction.tolist()))
        label = self.prediction_text(prediction)
        return {
            "label": label,
            "probability": probabilities[label],
            "probabilities": probabilities,
        }

    def prediction_columns(self):
        labels = ["probability_" + label for label in self.labels]
        return ["label", "probability", *labels]

    def predict_baseline(self, labels):
        """The majority class."""
        return np.full_like(labels, np.bincount(labels).argmax())

    def baseline_loss(self, labels):
        """The entropy of the label frequencies in nats, weighted as in training."""
        frequencies = np.bincount(labels, minlength=self.num_outputs) / len(labels)
        if self.class_weights:
            frequencies *= self.class_weights
        # The best constant prediction has these frequencies, divided by their sum.
        return float(frequencies.sum() * scipy.stats.entropy(frequencies))

    def report(self, labels, predictions):
        table = metrics.class_report(labels, predictions, self.num_outputs)
        return {"labels": list(self.labels), **table}

    def format_table(self, labels, predictions):
        """scikit-learn's report, of three labels to as many as fit on a screen."""
        if not 3 <= self.num_outputs <= _MOST_LABELS_SHOWN:
            return ""
        return sklearn.metrics.classification_report(
            labels,
            predictions,
            labels=range(self.num_outputs),
            target_names=[printable(label, _LONGEST_LABEL) for label in self.labels],
            zero_division=0,
        )

    def check_predictions(self, labels, predictions):
        # Where all labels are the same, predicting a single class may be right.
        if len(set(predictions)) > 1 or len(set(labels)) == 1:
            return ""
        text = 'a single class is predicted for all %d examples, "%s"'
        return text % (len(predictions), self.labels[predictions[0]])
