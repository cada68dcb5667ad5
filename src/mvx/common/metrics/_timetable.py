"""Who wants to be looked at when, on one event loop: one alarm for thousands of lingers."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Protocol

LEFT_OVER = 64
"""Entries that nobody wants any more, kept before they are cleared away."""


class Sleeper(Protocol):
    """Something that wants to be looked at later: an inbox in its linger."""

    def look(self) -> None:
        """The set time has come; must not raise."""
        ...


class Timetable:
    """Belongs to the hub of one loop, which looks when it is time; in the loop.

    A heap of times and numbers; not of sleepers, as an entry may stay for hours when nobody wants it any more.
    """

    def __init__(self) -> None:
        """Begin with nobody on it."""
        self._due: list[tuple[float, int]] = []
        self._sleepers: dict[int, Sleeper] = {}
        # When each sleeper is to be looked at, and its number: one that dozes again only changes its time here.
        self._wanted: dict[Sleeper, tuple[float, int]] = {}
        self._order = itertools.count()

    def note(self, sleeper: Sleeper, due: float) -> None:
        """Have ``sleeper`` looked at when the clock shows ``due``, and not when it was told before."""
        if sleeper in self._wanted:
            self._wanted[sleeper] = due, self._wanted[sleeper][1]
            return
        number = next(self._order)
        heapq.heappush(self._due, (due, number))
        self._sleepers[number] = sleeper
        self._wanted[sleeper] = due, number

    def strike(self, sleeper: Sleeper) -> None:
        """Forget that ``sleeper`` wanted to be looked at, if it did."""
        if sleeper in self._wanted:
            del self._sleepers[self._wanted.pop(sleeper)[1]]
        if len(self._due) > 2 * len(self._wanted) + LEFT_OVER:
            self.tidy_up()

    def tidy_up(self) -> None:
        """Clear away what nobody wants any more."""
        self._due = [entry for entry in self._due if entry[1] in self._sleepers]
        heapq.heapify(self._due)

    @property
    def next(self) -> float:
        """When somebody has to be looked at, or earlier."""
        return self._due[0][0] if self._due else math.inf

    def look(self, now: float) -> None:
        """Look at those whose time has come."""
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            sleeper = self._sleepers.get(number)
            if sleeper is None:
                continue
            wanted = self._wanted[sleeper][0]
            if wanted > now:
                heapq.heappush(self._due, (wanted, number))
            else:
                del self._wanted[sleeper], self._sleepers[number]
                sleeper.look()

    def look_at_all(self) -> None:
        """Look at everybody now, and forget all of it."""
        sleepers, self._wanted, self._sleepers, self._due = self._wanted, {}, {}, []
        for sleeper in sleepers:
            sleeper.look()
