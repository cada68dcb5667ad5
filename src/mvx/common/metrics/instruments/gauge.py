"""How it stands: the last value that was reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._base import Instrument
from ._numbers import LARGEST, converted
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, Value, monotonic, resolve
from ._state import State


class GaugeState(State):
    """The last value, and the extremes."""

    __slots__ = ("count", "last", "max", "min")

    def __init__(self) -> None:
        super().__init__()
        self.last: float | None = None
        self.min: float | None = None
        self.max: float | None = None
        self.count = 0

    def put(self, number: float) -> None:
        """Take the next value."""
        self.last = number
        if self.count:
            # Not None once there has been a value.
            if number < self.min:  # type: ignore[operator]  # because of what the line above says
                self.min = number
            elif number > self.max:  # type: ignore[operator]  # likewise
                self.max = number
        else:
            self.min = self.max = number
        self.count += 1

    def values(self) -> dict[str, Any]:
        """Return the last value, the extremes, and how many values there were."""
        return {"last": self.last, "min": self.min, "max": self.max, "count": self.count}


class Gauge(Instrument[E, GaugeState]):
    """Keeps the last value of what rises and falls by itself: a queue's length, a temperature.

    Dimensions: ``last``; ``min`` and ``max`` since the start; ``count``, how many values.  They are None
    before the first value.  With tags, ``last`` is the last value of any series.

    :param value: an attribute's name, or a function of the event

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "gauge"

    def __init__(
        self,
        name: str,
        *,
        on: Events[E],
        value: Value[E],
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None:
        options = resolve(
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
        super().__init__(options.measuring("value", value))

    def _new(self) -> GaugeState:
        return GaugeState()

    def _tagged(self, find: Callable[[Any], GaugeState]) -> Callable[[Any], bool]:
        put_overall, value_of, reject = self._overall.put, self._options.value_of, self._reject

        def put(event: Any) -> bool:
            raw = number = value_of(event)
            if number.__class__ is not float and number.__class__ is not int:
                number = converted(number)
            if not -LARGEST <= number <= LARGEST:
                return reject(raw)
            find(event).put(number)
            put_overall(number)
            return True

        return put

    def _untagged(self) -> Callable[[Any], bool]:
        return self._measuring(self._overall.put)
