"""Tables for the terminal, with aligned columns."""

import shutil

from errors import printable

_LONGEST = 40  # characters of a cell
_GAP = "  "


class TextTable:
    """A table that is written in parts; the first rows fix the widths of its columns.

    Columns that do not fit the terminal are left out, the last ones first.

    Attributes:
      num_hidden: number of the columns that are left out.
    """

    def __init__(self, names):
        """Takes the columns' names."""
        self._names, self._widths, self.num_hidden = names, None, 0

    def format(self, rows):
        """The next rows, dicts of values by column, as text; at first with a header."""
        cells = [[_format_cell(row.get(name)) for name in self._names] for row in rows]
        if self._widths is None:
            cells.insert(0, [_format_cell(name) for name in self._names])
            self._fix_widths([max(map(len, column)) for column in zip(*cells)])
        lines = (
            _GAP.join(cell.ljust(width) for cell, width in zip(row, self._widths))
            for row in cells
        )
        return "".join(line.rstrip() + "\n" for line in lines)

    def _fix_widths(self, widths):
        room = shutil.get_terminal_size().columns + len(_GAP)
        self._widths = []
        for width in widths:
            room -= width + len(_GAP)
            if room < 0 and self._widths:
                break
            self._widths.append(width)
        self.num_hidden = len(widths) - len(self._widths)


def _format_cell(value):
    if isinstance(value, float):
        return "%.4f" % value
    text = "" if value is None else printable(str(value), 1000)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
