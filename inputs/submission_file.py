"""The evaluation server's file of one test set.

UTF-8 text with LF line ends and without quotes: the header `index<TAB>prediction`, then
one line for each test row with its index, from 0 in every file, and the label as the
task's files spell it. Numbers have three decimals, clipped to the task's range.
"""

import contextlib

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError

HEADER = "index\tprediction"


def write_whole(path, data):
    """Writes bytes under a temporary name, then renames; a `UserError` if it cannot."""
    temporary = path + ".tmp"
    try:
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(data)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(temporary)
        raise UserError("cannot write %s: %s" % (path, error.message)) from None


def _values(task, split, predictions):
    """The second column, a list of strings."""
    if task.is_regression:
        bad = np.flatnonzero(~np.isfinite(predictions))
        if bad.size:
            raise UserError(
                "the prediction for row %d of %s is %s: the model diverged. Train with "
                "a lower --learning_rate"
                % (bad[0], split.filename, predictions[bad[0]])
            )
        # Adding zero turns -0.0, which would print with its sign, into 0.0.
        scores = np.clip(predictions, *(task.label_range or (None, None))) + 0.0
        return ["%.3f" % score for score in scores]
    if not np.issubdtype(predictions.dtype, np.integer):
        raise ValueError("class ids must be integers, got %s" % predictions.dtype)
    if predictions.size and not (
        predictions.min() >= 0 and predictions.max() < len(task.labels)
    ):
        raise ValueError("class ids must be in [0, %d)" % len(task.labels))
    return [task.labels[class_id] for class_id in predictions]


def write_submission(task, split, predictions, path):
    """Writes the evaluation server's file for one test set, whole or not at all.

    Args:
      task: a `tasks.Task`.
      split: one of its test splits; `split.submission_file` is the name that the
        server expects.
      predictions: 1-D array in the order of the test file: class ids (int) in the
        order of `task.labels`, or scores (float) for a regression.
      path: where to write, local or `gs://`; a file that is there is replaced.

    Raises:
      UserError: a score is not a finite number, or the file cannot be written.
      ValueError: not 1-D, not integers, or not class ids of the task.
    """
    predictions = np.asarray(predictions)
    if predictions.ndim != 1:
        raise ValueError("predictions must be 1-D, got shape %s" % (predictions.shape,))
    lines = [HEADER]
    for index, value in enumerate(_values(task, split, predictions)):
        lines.append("%d\t%s" % (index, value))
    write_whole(path, ("\n".join(lines) + "\n").encode("utf-8"))
