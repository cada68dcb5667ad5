"""The line of those who wait for room in an inbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._waiting import Waiter


class WaitingLine:
    """First come, first told; whoever is told looks whether there still is room, and may have to wait again."""

    __slots__ = ("_room", "_waiters")

    def __init__(self, room: Callable[[], int]) -> None:
        """Make an empty line.

        :param room: tells how many events there is room for
        """
        self._room = room
        self._waiters: list[Waiter] = []

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def waiting(self, waiter: Waiter) -> Iterator[None]:
        """Keep ``waiter`` in line; if it is told and leaves without taking the room, the next is told."""
        self._waiters.append(waiter)
        try:
            yield
        finally:
            try:
                self._waiters.remove(waiter)
            except ValueError:
                self.grant()

    def grant(self) -> None:
        """Tell as many as there is room for."""
        self._tell(self._room())

    def dismiss(self) -> None:
        """Tell everybody: there will be no room any more."""
        self._tell(len(self._waiters))

    def _tell(self, count: int) -> None:
        while count > 0:
            try:
                self._waiters.pop(0).notify()
            except IndexError:
                return
            count -= 1
