"""Counting in time: what happened in the last so many seconds."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from mvx.common.metrics._text import show
from mvx.common.metrics._validation import seconds

from ._options import Clock, sequence_of
from ._state import State

SHORTEST = 1e-6
"""Seconds in a window at least: clocks are no finer, and time by time must not leave the range of a float."""
SLOTS = 10
"""Slots in the shortest window: a window's edge is that sharp."""
MAX_SLOTS = 10_000
"""Slots in memory, for each series."""


def checked_windows(argument: str, given: object, *, finest: float = math.inf) -> tuple[float, ...]:
    """Return the lengths of windows, in seconds.

    :param finest: seconds that a slot has at most
    :raises TypeError: if it is not a sequence of numbers
    :raises ValueError: if it is empty, repeats one, or would take too many slots
    """
    windows = tuple(checked_window(argument, item) for item in sequence_of("seconds", argument, given))
    if not windows or len({window_name(window) for window in windows}) < len(windows):
        raise ValueError(f"argument {argument!r} must hold different numbers of seconds, got {show(given)}")
    slot = min(min(windows) / SLOTS, finest)
    if not max(windows) / slot <= MAX_SLOTS:
        limit = f"windows of at most {MAX_SLOTS * slot:g} seconds beside the shortest"
        raise ValueError(f"argument {argument!r} must hold {limit}, got {show(given)}")
    return windows


def checked_window(argument: str, given: object) -> float:
    """Return the length of a window, in seconds.

    :raises TypeError: if it is not a number
    :raises ValueError: if it is not a finite one of a millionth of a second or more
    """
    window = seconds(argument, given)
    if window < SHORTEST:
        raise ValueError(f"argument {argument!r} must be at least {SHORTEST:g} seconds, got {show(given)}")
    return window


def window_name(window: float) -> str:
    """Return a window's name among the dimensions: ``10s``."""
    return f"{window:.10g}s"


class Timeline:
    """Time from the instrument's start, cut into slots of equal length, numbered from zero."""

    __slots__ = ("clock", "size", "slot", "start", "windows")

    def __init__(self, clock: Clock, windows: Sequence[float], *, finest: float = math.inf) -> None:
        self.clock = clock
        self.windows = tuple(windows)
        """The lengths of the windows, seconds."""
        self.slot = min(min(windows) / SLOTS, finest)
        """Seconds in a slot."""
        self.size = max(self.slots_of(window) for window in windows) + 1
        """Slots to remember: the longest window, and the slot under way."""
        self.start = clock()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        # Nothing in it changes; and the clock is the user's, whose copy might stand still.
        return self

    def slots_of(self, window: float) -> int:
        """Return how many slots a window has besides the one under way."""
        return math.ceil(round(window / self.slot, 6))

    def number_of(self, now: float) -> int:
        """Return the slot of a reading of the clock; a time before the start is in the first."""
        return max(int((now - self.start) / self.slot), 0)

    def covered(self, window: float, now: float) -> float:
        """Return the seconds that a window covers: its slots, and the part of the one under way.

        Near the start they are fewer, yet never less than a slot: a rate is not divided by nothing.
        """
        first = max(self.number_of(now) - self.slots_of(window), 0)
        return max(now - self.start - first * self.slot, self.slot)


class Ring:
    """Amounts by slot, of the last slots that are over."""

    __slots__ = ("_amounts", "_newest")

    def __init__(self, size: int) -> None:
        self._amounts = [0] * size
        self._newest = 0

    def put(self, number: int, amount: int) -> None:
        """Put the amount of a slot that is newer than all before; those between were empty."""
        amounts = self._amounts
        size = len(amounts)
        for empty in range(self._newest + 1, min(number, self._newest + size) + 1):
            amounts[empty % size] = 0
        amounts[number % size] = amount
        self._newest = number

    def sum(self, first: int) -> int:
        """Return what is in slot ``first`` and all newer ones."""
        amounts, newest = self._amounts, self._newest
        size = len(amounts)
        return sum([amounts[number % size] for number in range(max(first, newest - size + 1, 0), newest + 1)])


class SlottedState(State):
    """Counts by slot: those of the slot under way, and those that are over when the next event comes.

    A clock that stands still or runs backwards stays in the slot where it was.
    """

    __slots__ = ("_next", "number", "timeline")

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self.timeline = timeline
        self.number = timeline.number_of(timeline.clock())
        """The slot under way when the last event came."""
        self._next = self._edge()

    def at(self, now: float) -> None:
        """Begin a new slot if it is time; to be called before an event is counted."""
        if now >= self._next:
            number = self.timeline.number_of(now)
            if number > self.number:
                self.close(number - self.number - 1)
                self.number = number
                self._next = self._edge()

    @abstractmethod
    def close(self, idle: int) -> None:
        """Put the counts of the slot under way with those that are over; ``idle`` empty ones come after it."""
        ...

    def _edge(self) -> float:
        # A little early: at an edge that rounding has moved, the division in `number_of` decides.
        return self.timeline.start + (self.number + 1 - 1e-6) * self.timeline.slot

    def in_window(self, ring: Ring, under_way: int, window: float, number: int) -> int:
        """Return what has been counted in a window that ends in slot ``number``."""
        first = number - self.timeline.slots_of(window)
        return ring.sum(first) + (under_way if self.number >= first else 0)
