"""Tables for the terminal, with aligned columns."""

import shutil

from errors import printable

_LONGEST = 1000  # characters of a cell
_LONGEST_ON_SCREEN = 40
_GAP = "  "


def align_columns(rows, widths=None):
    """Rows of texts as lines with aligned columns, wide enough or of given widths."""
    rows = [[printable(cell, _LONGEST) for cell in row] for row in rows]
    widths = widths or [max(map(len, column)) for column in zip(*rows)]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    ]


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
        return "".join(line + "\n" for line in align_columns(cells, self._widths))

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
    text = "" if value is None else printable(str(value), _LONGEST)
    most = _LONGEST_ON_SCREEN
    return text if len(text) <= most else text[: most - 3] + "..."
