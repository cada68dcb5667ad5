"""How much: a sum of what events carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._base import Instrument
from ._numbers import LARGEST, converted
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, Value, monotonic, resolve
from ._state import State


class SumState(State):
    """A total of values and their number."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        super().__init__()
        self.total: float = 0
        self.count = 0

    def values(self) -> dict[str, Any]:
        """Return the total and the number of values."""
        return {"total": self.total, "count": self.count}


class Sum(Instrument[E, SumState]):
    """Adds up what events carry: bytes sent, items sold, seconds spent.

    It only grows: a negative value is invalid, as are NaN, an infinity, what is no number, and a value that
    would take the total beyond a float's range.  For what goes up and down, see :class:`UpDownCounter`.

    Dimensions: ``total``, an int as long as every value is one; ``count``, how many values.

    :param value: an attribute's name, or a function of the event

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "sum"

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

    def _new(self) -> SumState:
        return SumState()

    def _tagged(self, find: Callable[[Any], SumState]) -> Callable[[Any], bool]:
        overall, value_of, reject = self._overall, self._options.value_of, self._reject

        def add(event: Any) -> bool:
            raw = number = value_of(event)
            if number.__class__ is not int and number.__class__ is not float:
                number = converted(number)
            if not 0 <= number <= LARGEST or not overall.total + number <= LARGEST:
                return reject(raw)
            series = find(event)
            series.total += number
            series.count += 1
            overall.total += number
            overall.count += 1
            return True

        return add

    def _untagged(self) -> Callable[[Any], bool]:
        overall, value_of, reject = self._overall, self._options.value_of, self._reject

        def add(event: Any) -> bool:
            raw = number = value_of(event)
            if number.__class__ is not int and number.__class__ is not float:
                number = converted(number)
            if not 0 <= number <= LARGEST or not overall.total + number <= LARGEST:
                return reject(raw)
            overall.total += number
            overall.count += 1
            return True

        return add
