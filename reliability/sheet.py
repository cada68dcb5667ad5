"""How a process writes down what it counts: in a file that is mapped into memory.

A process that hangs and is killed, or that vanishes by ``os._exit()``, can tell nobody any more, but its file
is still there.
"""

from __future__ import annotations

import itertools
import mmap
import os
from pathlib import Path

COLUMNS = ("tried", "accepted", "told", "processed", "counted")
"""Of each row: calls of register_event(), how many returned, how many raised, how many events a metric saw, and
how many events the library itself counts as accepted and not processed."""
TRIED, ACCEPTED, TOLD, PROCESSED, COUNTED = range(len(COLUMNS))
ROWS = 8192
SIZE = 8 * ROWS * len(COLUMNS)


class _Sheet:
    """The file of this process."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.cells = memoryview(bytearray(SIZE)).cast("q")
        self.rows = itertools.count()

    def open(self) -> None:
        """Begin a file; what the parent of a forked process has counted stays in the parent's."""
        if self.directory is not None:
            with (self.directory / f"{os.getpid()}.sheet").open("w+b") as file:
                file.truncate(SIZE)
                self.cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")


_sheet = _Sheet()
os.register_at_fork(after_in_child=_sheet.open)


def open_sheet(directory: Path) -> None:
    """Begin a file in ``directory``."""
    _sheet.directory = directory
    _sheet.open()


class Tally:
    """A row of the sheet; each cell of it is to be written by one thread."""

    def __init__(self) -> None:
        self._first = next(_sheet.rows) * len(COLUMNS)

    def add(self, column: int, number: int = 1) -> None:
        """Count."""
        _sheet.cells[self._first + column] += number
