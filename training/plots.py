"""Plots of a run."""

import io

import numpy as np
from matplotlib.figure import Figure

from system import files

_MAX_NAMED = 40  # labels with their names at the axes
_MAX_COUNTED = 20  # labels with counts in the cells
_MAX_NAME = 24  # characters


def confusion_matrix(path, title, labels, matrix):
    """Writes a confusion matrix, counts [C, C] of labels by predictions, as a PNG."""
    matrix = np.asarray(matrix)
    # Normalized per label, so that rare labels are visible too.
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(12.0, 3.0 + 0.45 * len(labels))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="fraction of the label's examples")
    axes.set_title(title, parse_math=False)
    unit = ""
    if len(labels) <= _MAX_NAMED:
        names = [_format_label(label) for label in labels]
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, parse_math=False, **slanted)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    else:
        unit = " (number from 0, in the order of eval_results.json)"
    axes.set_xlabel("predicted" + unit)
    axes.set_ylabel("label" + unit)
    if len(labels) <= _MAX_COUNTED:
        for row, column in np.ndindex(*matrix.shape):
            color = "white" if fractions[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    files.write_whole(path, buffer.getvalue())


def _format_label(label):
    """A label, shortened in its middle."""
    if len(label) > _MAX_NAME:
        half = _MAX_NAME // 2
        label = label[:half] + "…" + label[-half:]
    return label
