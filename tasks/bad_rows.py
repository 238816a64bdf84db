"""The rows of a task's files that cannot be used, counted by kind."""

import collections

from system.wording import pluralize

MOST_LISTED = 20  # rows of each kind


class BadRows:
    """Collects bad rows: their number, and the first ones of each kind.

    Readers of examples add bad rows and leave them out; without a `BadRows` the first
    one is an error.
    """

    def __init__(self):
        self._counts: dict[str, collections.Counter] = {}  # by path and kind
        self._first: dict[tuple[str, str], list[str]] = {}  # by path and kind

    def start_file(self, path):
        """Begins to read a file, also again."""
        self._counts[path] = collections.Counter()

    def add(self, path, kind, line, problem):
        """Takes the line (from 1) of a row of the file, and why it cannot be used."""
        self._counts[path][kind] += 1
        if self._counts[path][kind] == 1:
            self._first[path, kind] = []
        if self._counts[path][kind] <= MOST_LISTED:
            self._first[path, kind].append("line %d: %s" % (line, problem))

    def counts(self):
        """The number of bad rows of each file that was read: dict by path."""
        return {path: sum(kinds.values()) for path, kinds in self._counts.items()}

    def describe(self):
        """Yields the bad rows as lines of a message: files, kinds, rows."""
        for path, kinds in self._counts.items():
            for kind, count in kinds.items():
                first = self._first[path, kind]
                more = ", the first %d" % len(first) if len(first) < count else ""
                rows = pluralize(count, "bad row")
                yield "%s: %s (%s)%s" % (path, rows, kind, more)
                yield from ("  " + row for row in first)
