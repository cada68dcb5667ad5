"""What happened: the base class of every structured metric event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeGuard

from ._interrupt import is_for_the_thread
from ._text import show

MAX_KNOWN_CLASSES = 4096
"""Event classes that anything is remembered of; a program that makes classes without end must not leak them."""


class MetricEvent(ABC):
    """A fact that production code reports: it says what happened and counts nothing.

    Subclass it with whatever fits: ``@dataclass(frozen=True, slots=True)``, ``@attrs.frozen``
    or a plain class.  Keep events immutable: one object is handed to another thread and to
    every interested metric.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def event_type(self) -> str:
        """The stable name of this kind of event, for example ``"document_storage.save.attempt"``."""
        ...


def is_event_class(kind: object) -> TypeGuard[type[MetricEvent]]:
    """Whether ``kind`` is a MetricEvent class.

    Python asks all subclasses of MetricEvent about a class that is none, by their own code, which may raise.
    """
    try:
        return isinstance(kind, type) and issubclass(kind, MetricEvent)
    except RecursionError:  # it may be an event's class: there is no room to find out
        raise
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        return False


def _is_event(event: object) -> TypeGuard[MetricEvent]:
    # The class first: an instance is asked for it by code of its own.
    if is_event_class(type(event)):
        return True
    try:
        return isinstance(event, MetricEvent)
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        return False


def ensure_event(event: object) -> MetricEvent:
    """Return ``event`` if a recorder can accept it.

    Costs an ``isinstance`` against an ABC and a property: meant for the first event of a class.

    :raises ValueError: if it is None, or its ``event_type`` raises or is not a str
    :raises TypeError: if it is not a MetricEvent
    """
    if event is None:
        msg = "argument 'event' must be a MetricEvent, got None"
        raise ValueError(msg)
    if not _is_event(event):
        msg = f"argument 'event' must be a MetricEvent, got {show(event)} of type {type(event).__qualname__!r}"
        raise TypeError(msg)
    try:
        event_type: object = event.event_type
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        msg = f"argument 'event': {type(event).__qualname__}.event_type raised {show(exc)}"
        raise ValueError(msg) from exc
    if not isinstance(event_type, str):
        msg = f"argument 'event': {type(event).__qualname__}.event_type must be a str, got {show(event_type)}"
        raise ValueError(msg)  # noqa: TRY004 — the event is of the right type, its content is not
    return event
