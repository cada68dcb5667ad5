"""The keyword options that every instrument takes, checked and resolved when it is made."""

from __future__ import annotations

import inspect
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast

from mvx.common.metrics import _validation as validation
from mvx.common.metrics._event import MetricEvent, is_event_class
from mvx.common.metrics._text import show

from ._fields import check_attribute

E = TypeVar("E", bound=MetricEvent)

Events: TypeAlias = type[E] | tuple[type[E], ...]
"""An event class, or several; their subclasses are meant as well."""
Value: TypeAlias = str | Callable[[E], float]
"""Where a number comes from: the name of an attribute, dots included, or a function of the event."""
Predicate: TypeAlias = Callable[[E], object]
"""Which events are meant; its result is asked for its truth."""
Tags: TypeAlias = Sequence[str] | Mapping[str, str | Callable[[E], object]]
"""Names of attributes that tell the series apart; or each tag's name with its attribute or function."""
Clock: TypeAlias = Callable[[], float]
"""Monotonic seconds."""

MAX_SERIES = 1000
monotonic: Clock = time.monotonic


def one(_event: object) -> int:
    """Return what an event is worth where nobody says otherwise."""
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Generic[E]):
    """What the user asked for, found to make sense."""

    name: str
    events: tuple[type[E], ...]
    tags: tuple[str, ...]
    """The names of the tags, in order."""
    tags_of: Callable[[E], Any]
    """Return an event's raw tag value if there is one tag, otherwise the tuple of them."""
    when: Predicate[E] | None
    unit: str | None
    description: str | None
    max_series: int
    expire_after: float | None
    clock: Clock
    value_of: Callable[[E], Any] = one
    """Return what of an event is to be measured, raw."""

    def measuring(self, argument: str, given: object) -> Self:
        """Return these options, where ``given`` tells what is to be measured.

        :raises TypeError: if it is neither a str nor callable
        :raises ValueError: if it names an attribute that the events do not have
        """
        return replace(self, value_of=getter(argument, given, self.events))

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        # Nothing in it changes; and the clock and the functions are the user's, who may not want them twice.
        return self


def resolve(
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
) -> Options[E]:
    """Check the options that all instruments share.

    :raises TypeError: if one is of the wrong type
    :raises ValueError: if one is of the right type and makes no sense, as an attribute that no event has
    """
    events = event_classes("on", on)
    if when is not None:
        _check_function("when", when)
    _check_function("clock", clock)
    names, tags_of = _resolve_tags(tags, events)
    if expire_after is not None:
        expire_after = validation.seconds("expire_after", expire_after)
        if not expire_after:
            raise ValueError(f"argument 'expire_after' must be above zero seconds, got {show(expire_after)}")
        if not names:
            raise ValueError("argument 'expire_after' needs tags: the one series of an untagged instrument stays")
    return Options(
        name=validation.identifier("name", name),
        events=events,
        tags=names,
        tags_of=tags_of,
        when=when,
        unit=_text("unit", unit),
        description=_text("description", description),
        max_series=validation.positive_int("max_series", max_series),
        expire_after=expire_after,
        clock=clock,
    )


def event_classes(argument: str, given: Events[E]) -> tuple[type[E], ...]:
    """Return ``given`` as a tuple.

    :raises TypeError: if it holds anything but event classes
    :raises ValueError: if it is empty
    """
    events = given if isinstance(given, tuple) else (given,)
    if not events:
        raise ValueError(f"argument {argument!r} must name an event class at least, got ()")
    for found in cast("tuple[object, ...]", events):  # what the types promise is not known at run time
        if not is_event_class(found):
            msg = f"argument {argument!r} must be a MetricEvent class or a tuple of them, got {show(found)}"
            raise TypeError(msg)
    return events


def getter(argument: str, given: object, events: tuple[type[E], ...]) -> Callable[[E], Any]:
    """Return a function that gets what ``given`` names from an event.

    :raises TypeError: if it is neither a str nor callable
    :raises ValueError: if it names an attribute that the events do not have
    """
    if isinstance(given, str):
        if not all(part.isidentifier() for part in given.split(".")):
            raise ValueError(f"argument {argument!r} must be the name of an attribute, got {show(given)}")
        check_attribute(argument, given, events)
        return operator.attrgetter(given)
    if not callable(given):
        raise TypeError(f"argument {argument!r} must be an attribute's name or a callable, got {show(given)}")
    _check_function(argument, given)
    return given


def sequence_of(wanted: str, argument: str, given: object) -> Sequence[Any]:
    """Return ``given``.

    :raises TypeError: if it is no sequence of what is wanted, but text, bytes or none at all
    """
    if isinstance(given, (str, bytes, bytearray)) or not isinstance(given, Sequence):
        raise TypeError(f"argument {argument!r} must be a sequence of {wanted}, got {show(given)}")
    return given


def _check_function(argument: str, given: object) -> None:
    validation.function(argument, given)
    if inspect.iscoroutinefunction(given):  # a coroutine is always true, and never a number
        raise TypeError(f"argument {argument!r} must return an answer, not a coroutine: got {show(given)}")


def _text(argument: str, given: str | None) -> str | None:
    # Exactly a str, as snapshots are plain values: it may be a member of an enum.
    return None if given is None else str.__str__(validation.text(argument, given))


def _resolve_tags(given: object, events: tuple[type[E], ...]) -> tuple[tuple[str, ...], Callable[[E], Any]]:
    if isinstance(given, str):
        hint = f"write ({given!r},) for one tag"
        raise TypeError(f"argument 'tags' must be a sequence of names or a mapping, got {show(given)}; {hint}")
    if isinstance(given, Mapping):
        sources: dict[Any, Any] = dict(given)
    elif isinstance(given, Sequence):
        for name in given:
            if not isinstance(name, str):
                hint = "a mapping gives a function its name"
                raise TypeError(f"argument 'tags' must hold names of attributes, got {show(name)}; {hint}")
        sources = {name: name for name in given}
    else:
        raise TypeError(f"argument 'tags' must be a sequence of names or a mapping, got {show(given)}")
    names = tuple(validation.identifier("tags", name) for name in sources)
    if len(set(names)) < len(given):
        raise ValueError(f"argument 'tags' must not repeat a name, got {show(given)}")
    getters = [getter("tags", source, events) for source in sources.values()]
    if len(getters) > 1 and all(isinstance(source, str) for source in sources.values()):
        return names, operator.attrgetter(*sources.values())  # one call in C for all of them
    if len(getters) == 1:
        return names, getters[0]
    return names, partial(_all_of, tuple(getters))


def _all_of(getters: tuple[Callable[[E], Any], ...], event: E) -> tuple[Any, ...]:
    return tuple([get(event) for get in getters])
