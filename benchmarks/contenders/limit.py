"""The limit: a function that appends to a deque, which is the least that an accepted event can cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a deque that counts what was in it."""
    events: deque[bool] = deque()
    seen = 0

    def append(event: bool) -> None:  # noqa: FBT001 — the workload's form of an event
        events.append(event)

    def clear() -> None:
        nonlocal seen
        seen += len(events)
        events.clear()

    def total() -> int:
        clear()
        return seen

    yield Contender(append, OUTCOMES, clear, total, [append] * recorders)
