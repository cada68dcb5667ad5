"""How many at once: what has begun and not ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from mvx.common.metrics._event import MAX_KNOWN_CLASSES
from mvx.common.metrics._text import show

from ._base import Instrument
from ._numbers import LARGEST, NAN, converted
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, Value, event_classes, monotonic, one, resolve
from ._state import State


class UpDownState(State):
    """A level, its extremes, and what made it."""

    __slots__ = ("down", "max", "min", "up", "value")

    def __init__(self) -> None:
        super().__init__()
        self.value: float = 0
        self.min: float = 0
        self.max: float = 0
        self.up: float = 0
        self.down: float = 0

    def add(self, amount: float) -> None:
        """Move the level."""
        self.value = value = self.value + amount
        if amount > 0:
            self.up += amount
            self.max = max(self.max, value)
        else:
            self.down -= amount
            self.min = min(self.min, value)

    def may_expire(self) -> bool:
        """Whether nothing is in flight: otherwise the ends that are still to come would be counted from zero."""
        return self.value == 0

    def values(self) -> dict[str, Any]:
        """Return all of it."""
        return {"value": self.value, "min": self.min, "max": self.max, "up": self.up, "down": self.down}


class UpDownCounter(Instrument[E, UpDownState]):
    """Counts what is in flight: requests being served, connections open, jobs queued.

    Either ``up`` and ``down`` name the events that begin and end something, each worth one or, with
    ``value``, that much; or ``on`` and ``value`` name events that carry a signed change.

    Dimensions: ``value``, the level; ``min`` and ``max``, its extremes since the start, where it was zero; ``up`` and
    ``down``, the sums of the rises and of the falls.  A level that is not a whole number is rounded as sums
    of floats are.  A series expires only at level zero.

    :param up: the event class or classes that begin something
    :param down: the event class or classes that end it; of an event that both mean, this is what counts
    :param on: instead: the class or classes of events with a signed change
    :param value: an attribute's name, or a function of the event; negative is invalid with ``up`` and ``down``

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "updown"

    @overload
    def __init__(
        self,
        name: str,
        *,
        up: Events[E],
        down: Events[E],
        value: Value[E] | None = None,
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None: ...

    @overload
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
    ) -> None: ...

    def __init__(
        self,
        name: str,
        *,
        up: Events[E] | None = None,
        down: Events[E] | None = None,
        on: Events[E] | None = None,
        value: Value[E] | None = None,
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._down: tuple[type[E], ...] | None = None
        if on is None:
            if up is None or down is None:
                raise TypeError("either arguments 'up' and 'down', or 'on' and 'value' must be given")
            self._down = event_classes("down", down)
            rising = event_classes("up", up)
            if all(issubclass(event, self._down) for event in rising):
                raise ValueError(f"argument 'up' must name an event that 'down' does not mean as well, got {show(up)}")
            on = rising + self._down
        elif up is not None or down is not None:
            raise TypeError("argument 'on' excludes 'up' and 'down'")
        elif value is None:
            raise TypeError(f"argument 'value' must say what an event of {show(on)} adds")
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
        super().__init__(options if value is None else options.measuring("value", value))

    def _new(self) -> UpDownState:
        return UpDownState()

    def _tagged(self, find: Callable[[Any], UpDownState]) -> Callable[[Any], bool]:
        overall, amount_of, reject = self._overall, self._amount(), self._reject

        def move(event: Any) -> bool:
            raw, amount = amount_of(event)
            if not overall.up + overall.down + abs(amount) <= LARGEST:
                return reject(raw)
            find(event).add(amount)
            overall.add(amount)
            return True

        return move

    def _untagged(self) -> Callable[[Any], bool]:
        overall, amount_of, reject = self._overall, self._amount(), self._reject

        def move(event: Any) -> bool:
            raw, amount = amount_of(event)
            if not overall.up + overall.down + abs(amount) <= LARGEST:
                return reject(raw)
            overall.add(amount)
            return True

        return move

    def _amount(self) -> Callable[[Any], tuple[Any, float]]:
        """Return what gives an event's raw value and its signed change, which is NaN if that is invalid."""
        value_of, down = self._options.value_of, self._down
        if value_of is one:
            return _Signs(down or ())

        def signed(event: Any) -> tuple[Any, float]:
            raw = value_of(event)
            return raw, _in_range(raw, -LARGEST)

        if down is None:
            return signed
        sign_of = _Signs(down)

        def unsigned(event: Any) -> tuple[Any, float]:
            raw = value_of(event)
            return raw, _in_range(raw, 0) * sign_of(event)[1]

        return unsigned


def _in_range(raw: Any, least: float) -> float:
    number = raw if raw.__class__ is int or raw.__class__ is float else converted(raw)
    return number if least <= number <= LARGEST else NAN


class _Signs:
    """Tells the events that end something from those that begin it; remembers the classes seen."""

    __slots__ = ("_down", "_known")

    def __init__(self, down: tuple[type[Any], ...]) -> None:
        self._down = down
        self._known: dict[type[Any], tuple[Any, int]] = {}

    def __call__(self, event: Any) -> tuple[Any, int]:
        sign = self._known.get(event.__class__)
        if sign is None:
            amount = -1 if isinstance(event, self._down) else 1
            sign = (amount, amount)
            if len(self._known) >= MAX_KNOWN_CLASSES:
                self._known.clear()
            self._known[event.__class__] = sign
        return sign
