"""Regression: the label is a number."""

import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf

from inputs import metrics
from tasks import head_form, label_texts, task_type

# Largest absolute label: squared errors stay finite in float32.
LARGEST_NUMBER = 1e18

# Predicted scores whose deviation is below this fraction of the labels' are constant.
_MIN_SPREAD_RATIO = 0.01


@task_type.register
@dataclasses.dataclass(frozen=True)
class Regression(task_type.TaskType):
    """A task whose label is a number; predictions are scores [1].

    The loss is the squared error of a single output (as BERT was tuned on STS-B).
    """

    label_range: tuple[float, float] | None = None  # of labels; None: any number
    head: head_form.HeadForm = head_form.DEFAULT

    name = "regression"
    metrics = metrics.REGRESSION
    default_metrics = ("spearman", "pearson")
    label_feature = tf.FixedLenFeature([], tf.float32)
    num_outputs = 1
    library_head = task_type.SEQUENCE_CLASSIFICATION

    def task_file_entries(self):
        return {"regression": True}

    def package_entries(self):
        return {**super().package_entries(), "is_regression": True}

    def find_label_problem(self, label):
        low, high = self.label_range or (-LARGEST_NUMBER, LARGEST_NUMBER)
        if label_texts.is_number(label) and low <= float(label) <= high:
            return ""
        return "%.80r is not a number from %g to %g" % (label, low, high)

    def parse_label(self, label):
        return float(label)

    def initial_bias(self, labels):
        """The labels' mean.

        Adam moves a bias too slowly to reach it, so that the pooled output does, and
        becomes the same for any text.
        """
        return float(np.mean(labels))

    def compute_losses(self, logits, labels):
        return tf.square(tf.squeeze(logits, axis=-1) - labels)

    @staticmethod
    def compute_scores(logits, is_own=None):
        return logits if is_own is None else tf.where_v2(is_own, logits, 0.0)

    def parse_predictions(self, predictions):
        return np.reshape(list(predictions), [-1])

    def prediction_text(self, prediction):
        score = np.clip(prediction[0], *self.label_range or (-np.inf, np.inf))
        # Adding zero turns -0.0 into 0.0.
        return "%.3f" % (score + 0.0)

    def prediction_fields(self, prediction):
        return {"score": float(prediction[0])}

    def prediction_columns(self):
        return ["score"]

    def predict_baseline(self, labels):
        return np.full_like(labels, labels.mean())

    def baseline_loss(self, labels):
        """The labels' variance."""
        return float(np.var(np.asarray(labels, np.float64)))

    def check_predictions(self, labels, predictions):
        spread, expected = float(np.std(predictions)), float(np.std(labels))
        is_varied = spread >= _MIN_SPREAD_RATIO * expected
        if len(predictions) < 2 or expected == 0 or is_varied:
            return ""
        text = "the %d predicted scores are nearly constant, from %.4f to %.4f; the "
        text += "labels go from %.4f to %.4f"
        low, high = min(predictions), max(predictions)
        return text % (len(predictions), low, high, min(labels), max(labels))
