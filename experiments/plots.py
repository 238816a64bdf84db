"""Figures in the style of the paper; lines differ in colour, marker and dashes."""

import io
import math
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# The colour-blind safe palette of Okabe and Ito.
_STYLES = (
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", ":"),
    ("#cc79a7", "D", "-."),
    ("#56b4e9", "v", (0, (5, 1))),
    ("#000000", "P", (0, (1, 1))),
    ("#e69f00", "X", (0, (3, 1, 1, 1, 1, 1))),
)
_DPI = 150
_MAX_COLUMNS = 3  # panels beside each other
_MAX_NUMBERED = 12  # layers of a heat map with numbers in it
_COLLAPSED = "collapsed seed"


class Line(NamedTuple):
    """One line of a plot; lists have the length of `x`."""

    name: str
    x: list
    y: list
    errors: list | None = None  # half the height of error bars
    low: list | None = None  # lower edge of a band
    high: list | None = None
    crosses: list | tuple = ()  # pairs of x and y of collapsed seeds


def render(figure, ending):
    """Renders a figure as deterministic bytes of "png" or "svg"."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if ending == "svg" else None
    with rc_context({"svg.hashsalt": "adapter-bert"}):
        figure.savefig(buffer, format=ending, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()


def lines(panels, x_label, y_label, baselines, baseline_name="baseline"):
    """Plots panels of lines with a logarithmic x axis.

    `panels` is a dict from title to a list of `Line`, `baselines` from title to y of a
    horizontal line.
    """
    columns = min(len(panels), _MAX_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    size = (1 + 4.2 * columns, 0.6 + 3.2 * rows)
    figure = Figure(figsize=size, layout="constrained")
    handles: dict = {}
    baseline = None
    names = list(dict.fromkeys(line.name for each in panels.values() for line in each))
    for number, (title, panel) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label if number % columns == 1 % columns else "")
        every_x = [x for line in panel for x in line.x]
        axes.set_xlim(min(every_x) / 1.7, max(every_x) * 1.7)
        for line in panel:
            colour, marker, dashes = _STYLES[names.index(line.name) % len(_STYLES)]
            handles[line.name] = axes.errorbar(
                line.x, line.y, line.errors, color=colour, marker=marker,
                markersize=5, linestyle=dashes, linewidth=1.6, capsize=3,
            )  # fmt: skip
            if line.crosses:
                (handles[_COLLAPSED],) = axes.plot(
                    *zip(*line.crosses), color="0.2", marker="x", markersize=7,
                    linestyle="none", zorder=3,
                )  # fmt: skip
            if line.low is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15)
                for edge in (line.low, line.high):
                    axes.plot(line.x, edge, color=colour, linewidth=0.8, alpha=0.7)
        if title in baselines:
            baseline = axes.axhline(
                baselines[title], color="0.4", linestyle="--", linewidth=1
            )
    if _COLLAPSED in handles:
        handles[_COLLAPSED] = handles.pop(_COLLAPSED)
    if baseline is not None:
        handles[baseline_name] = baseline  # The last of the legend.
    if len(handles) > 1:
        figure.legend(
            handles.values(), handles, loc="outside lower center",
            ncols=min(2 * columns, len(handles)), frameon=False, fontsize=9,
        )  # fmt: skip
    return figure


def heat_maps(maps):
    """Plots heat maps of layer ablations with a common colour scale.

    `maps` is a dict from title to relative changes of accuracy, float [first layer,
    last layer]; NaN: no value.
    """
    figure = Figure(figsize=(1.2 + 4.4 * len(maps), 4.4), layout="constrained")
    lowest = min(-0.01, *(float(np.nanmin(values)) for values in maps.values()))
    image = None
    for number, (title, values) in enumerate(maps.items(), 1):
        axes = figure.add_subplot(1, len(maps), number)
        axes.set_title(title, fontsize=10)
        # The colour map is monotonic in grey too.
        image = axes.imshow(values, cmap="viridis", vmin=lowest, vmax=0)
        axes.set_xlabel("last layer removed")
        axes.set_ylabel("first layer removed" if number == 1 else "")
        axes.set_xticks(range(len(values)))
        axes.set_yticks(range(len(values)))
        if len(values) > _MAX_NUMBERED:
            continue
        size = 9 if len(values) < 9 else 7
        style = {"ha": "center", "va": "center", "fontsize": size}
        for row, column in np.argwhere(~np.isnan(values)):
            value = values[row, column]
            color = "white" if value < 0.55 * lowest else "black"
            axes.text(column, row, "%d" % round(100 * value), color=color, **style)
    # Gains have the color of 0.
    gains = any(float(np.nanmax(values)) > 0 for values in maps.values())
    figure.colorbar(
        image, ax=figure.axes, label="relative change of accuracy",
        format=PercentFormatter(1, decimals=0), extend="max" if gains else "neither",
    )  # fmt: skip
    return figure
