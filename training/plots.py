"""What a run draws."""

import io

import numpy as np
from matplotlib.figure import Figure

from system import files

# More labels are not written beside their rows, nor the counts into the cells.
_MOST_NAMED = 40
_MOST_COUNTED = 20
_LONGEST_NAME = 24


def confusion_matrix(path, title, labels, matrix):
    """Draws how the rows of each label were predicted, as a PNG.

    Args:
      path: where to write, local or `gs://`.
      title: what stands above it.
      labels: the C label strings.
      matrix: C lists of C counts; row: the label, column: the prediction.
    """
    matrix = np.asarray(matrix)
    # Of each label's rows, so that rare ones are seen too.
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(12.0, 3.0 + 0.45 * len(labels))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the label's rows")
    axes.set_title(title)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(labels) <= _MOST_NAMED:
        names = [_shown(label) for label in labels]
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(labels) <= _MOST_COUNTED:
        for row, column in np.ndindex(*matrix.shape):
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "black",
            )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    files.write_whole(path, buffer.getvalue())


def _shown(label):
    """A label as matplotlib shows it: cut, and without its mathematics."""
    cut = label if len(label) <= _LONGEST_NAME else label[: _LONGEST_NAME - 1] + "…"
    return cut.replace("$", r"\$")
