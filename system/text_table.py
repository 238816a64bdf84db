"""Tables for the terminal, with aligned columns."""

import shutil

from errors import printable

_MAX_LENGTH = 1000  # characters of a cell
_MAX_SCREEN_LENGTH = 40
_GAP = "  "


def align_columns(rows, widths=None):
    """Formats rows of texts as lines with aligned columns; None: fitting widths."""
    rows = [[printable(cell, _MAX_LENGTH) for cell in row] for row in rows]
    widths = widths or [max(map(len, column)) for column in zip(*rows)]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in rows
    ]


class TextTable:
    """A table in chunks of rows; the first chunk fixes the column widths.

    The last columns are hidden if they do not fit the terminal.

    Attributes:
      num_hidden: number of hidden columns.
    """

    def __init__(self, names):
        self._names, self._widths, self.num_hidden = names, None, 0

    def format(self, rows):
        """Formats the next chunk, dicts from column to value; the first with header."""
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
    text = "" if value is None else printable(str(value), _MAX_LENGTH)
    length = _MAX_SCREEN_LENGTH
    return text if len(text) <= length else text[: length - 3] + "..."
