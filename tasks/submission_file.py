"""The evaluation server's file of one test set.

UTF-8 with LF line ends and no quotes: the header `index<TAB>prediction`, then a line
for each test row with its index, from 0 in every file, and its label as in the task's
files. Scores have three decimals and are clipped to the task's range.
"""

from system import files

HEADER = "index\tprediction"


def write_submission(texts, path):
    """Writes the evaluation server's file for one test set, whole or not at all.

    `texts` are the predictions in the order of the test file, by the task type's
    `prediction_text`. Raises a `UserError` if the file cannot be written.
    """
    lines = [HEADER, *("%d\t%s" % item for item in enumerate(texts))]
    files.write_whole(path, "\n".join(lines) + "\n")
