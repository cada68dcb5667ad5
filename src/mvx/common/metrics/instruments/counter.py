"""How many: a counter of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._base import Instrument
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, monotonic, resolve
from ._state import State


class CounterState(State):
    """A number of events."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def values(self) -> dict[str, Any]:
        """Return the total."""
        return {"total": self.total}


class Counter(Instrument[E, CounterState]):
    """Counts events: requests served, orders placed, attempts that failed.

    Dimensions: ``total``, a number of events that never falls; with tags, over all series, expired ones
    included.

    :param name: the metric's name
    :param on: the event class or classes, subclasses included
    :param tags: what tells series apart: names of attributes, or tag names with attribute names or functions
    :param when: count only the events for which this is true
    :param unit: what is counted, for readers
    :param description: what it means, for readers
    :param max_series: how many series there are at most; what exceeds them goes to one more
    :param expire_after: seconds after which an idle series ends; None: never
    :param clock: monotonic seconds, for ``expire_after``
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "counter"

    def __init__(
        self,
        name: str,
        *,
        on: Events[E],
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None:
        super().__init__(
            resolve(
                name,
                on=on,
                tags=tags,
                when=when,
                unit=unit,
                description=description,
                max_series=max_series,
                expire_after=expire_after,
                clock=clock,
            )
        )

    def _new(self) -> CounterState:
        return CounterState()

    def _tagged(self, find: Callable[[Any], CounterState]) -> Callable[[Any], bool]:
        overall = self._overall

        def count(event: Any) -> bool:
            find(event).total += 1
            overall.total += 1
            return True

        return count

    def _untagged(self) -> Callable[[Any], bool]:
        overall = self._overall

        def count(_event: Any) -> bool:
            overall.total += 1
            return True

        return count
