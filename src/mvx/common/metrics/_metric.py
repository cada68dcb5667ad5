"""What is measured: the base class of every metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ._event import MetricEvent, is_event_class
from ._interrupt import is_for_the_thread
from ._text import show


class Metric(ABC):
    """Turns events into measured state, beside the domain code that emits them.

    A recorder never shows a metric an event while another of its methods runs, so a metric needs no
    lock of its own.  Once the recorder has ended, several threads may call :meth:`snapshot` at once.
    Registering one metric with two recorders gives all that up.
    """

    __slots__ = ()

    event_types: ClassVar[tuple[type[MetricEvent], ...] | None] = None
    """The event classes, subclasses included, that this metric wants; ``None`` means every event.

    A recorder calls :meth:`handle_event` only for events of these classes, so the cost of an
    event grows with the interested metrics and not with the registered ones.
    """

    @property
    @abstractmethod
    def metric_name(self) -> str:
        """The name under which a recorder keeps this metric; read once, at registration."""
        ...

    @abstractmethod
    def handle_event(self, event: MetricEvent) -> bool:
        """Take notice of ``event``; return True if that changed this metric's state."""
        ...

    @abstractmethod
    def snapshot(self) -> Mapping[str, Any]:
        """Return the current state as a mapping of its own; reading changes nothing."""
        ...


def ensure_metric(metric: object) -> tuple[str, Metric]:
    """Return the name and the metric itself if a recorder can register ``metric``.

    :raises ValueError: if it is None, or its ``metric_name`` raises or is blank, or its ``event_types`` raises
    :raises TypeError: if it is not a Metric, its ``metric_name`` is not a str, or its
        ``event_types`` is neither None nor a tuple of MetricEvent classes
    """
    if metric is None:
        msg = "argument 'metric' must be a Metric, got None"
        raise ValueError(msg)
    if not isinstance(metric, Metric):
        msg = f"argument 'metric' must be a Metric, got {show(metric)} of type {type(metric).__qualname__!r}"
        raise TypeError(msg)
    _check_event_types(metric)
    return _name_of(metric), metric


def _name_of(metric: Metric) -> str:
    owner = type(metric).__qualname__
    try:
        name: object = metric.metric_name
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        msg = f"argument 'metric': {owner}.metric_name raised {show(exc)}"
        raise ValueError(msg) from exc
    if not isinstance(name, str):
        msg = f"argument 'metric': {owner}.metric_name must be a str, got {show(name)}"
        raise TypeError(msg)
    name = str.__str__(name)  # exactly a str: a subclass may have its own ideas about being a key
    if not name.strip():
        msg = f"argument 'metric': {owner}.metric_name must not be blank, got {show(name)}"
        raise ValueError(msg)
    return name


def _check_event_types(metric: Metric) -> None:
    owner = type(metric).__qualname__
    try:
        wanted: object = metric.event_types
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        msg = f"argument 'metric': {owner}.event_types raised {show(exc)}"
        raise ValueError(msg) from exc
    if wanted is None:
        return
    if not isinstance(wanted, tuple):
        wish = "None or a tuple of MetricEvent classes"
        msg = f"argument 'metric': {owner}.event_types must be {wish}, got {show(wanted)}"
        raise TypeError(msg)
    for item in wanted:
        if not is_event_class(item):
            msg = f"argument 'metric': {owner}.event_types must hold MetricEvent classes only, got {show(item)}"
            raise TypeError(msg)
