"""The evaluation server's file of one test set.

UTF-8 with LF line ends and no quotes: the header `index<TAB>prediction`, then a line
for each test row with its index, from 0 in every file, and its label as in the task's
files. Scores have three decimals and are clipped to the task's range.
"""

import numpy as np

from errors import UserError
from system import files

HEADER = "index\tprediction"


def _format_predictions(task, split, predictions):
    """The second column, a list of strings."""
    if task.is_regression:
        bad = np.flatnonzero(~np.isfinite(predictions))
        if bad.size:
            raise UserError(
                "the prediction for row %d of %s is %s: the model diverged. Train with "
                "a lower `learning_rate`"
                % (bad[0], split.filename, predictions[bad[0]])
            )
        # Adding zero turns -0.0 into 0.0.
        scores = np.clip(predictions, *(task.label_range or (None, None))) + 0.0
        return ["%.3f" % score for score in scores]
    return [task.labels[class_id] for class_id in predictions]


def write_submission(task, split, predictions, path):
    """Writes the evaluation server's file for one test set, whole or not at all.

    Args:
      task: a `task_data.Task`.
      split: one of its test splits; its `submission_file` is the server's name.
      predictions: 1-D array in the order of the test file: class ids (int), or scores
        (float) for a regression.
      path: the file to write or replace, local or `gs://`.

    Raises:
      UserError: a score is not a finite number, or the file cannot be written.
    """
    lines = [HEADER]
    for index, value in enumerate(_format_predictions(task, split, predictions)):
        lines.append("%d\t%s" % (index, value))
    files.write_whole(path, "\n".join(lines) + "\n")
