"""From an event's class to the metrics that want it, and what to do when one of them fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ._event import MAX_KNOWN_CLASSES, MetricEvent, is_event_class
from ._interrupt import forget_traceback, is_for_the_thread
from ._log import LimitedLog
from ._metric import Metric
from ._statistics import Ledger
from ._text import name_of, say, show
from .errors import RecorderUnexpectedError

Handler = Callable[[MetricEvent], object]


class FailurePolicy(StrEnum):
    """What to do when a metric or ``_on_metric_changed`` raises.

    Under each policy the exception is counted and logged with its traceback, at a limited rate.
    """

    ISOLATE = "ISOLATE"
    """Go on: the other metrics see the event, the failing one sees the next."""
    QUARANTINE = "QUARANTINE"
    """Like ISOLATE, and set a metric aside that fails several times running; its snapshot says so."""
    FAIL = "FAIL"
    """Stop working: the recorder goes to FAILURE, what is pending is abandoned."""


class MetricSlot:
    """One registered metric and what is known of its failures."""

    __slots__ = ("consecutive_failures", "metric", "name", "quarantine")

    def __init__(self, name: str, metric: Metric) -> None:
        self.name = name
        self.metric = metric
        self.consecutive_failures = 0
        self.quarantine: dict[str, Any] | None = None
        """If the metric has been set aside: what its snapshot says of that."""

    def handle_counted(self, event: MetricEvent) -> bool:
        """Hand ``event`` to the metric, and forget earlier failures if it does not raise."""
        changed = bool(self.metric.handle_event(event))  # what a metric returns may raise when it is asked
        self.consecutive_failures = 0
        return changed


@dataclass(frozen=True, slots=True, eq=False)
class _Route:
    """What to call for an event of one class."""

    handlers: tuple[Handler, ...]
    slots: tuple[MetricSlot, ...]
    """The metric behind each handler, at the same index."""
    wanted: bool
    """Whether any registered metric, quarantined ones included, wants the class."""


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The metrics of one moment, and for each event class seen since, the route to those that want it.

    Registering a metric makes a new table: the actor, in the midst of an event, goes on with the
    old one and looks the next event up in the new one.
    """

    slots: tuple[MetricSlot, ...]
    routes: dict[type, _Route] = field(default_factory=dict)


class Dispatcher:
    """Keeps the metrics of one recorder and hands events to them.

    Registering is for any thread; dispatching is the actor's alone.
    """

    def __init__(
        self,
        *,
        policy: FailurePolicy,
        quarantine_after: int,
        ledger: Ledger,
        log: LimitedLog,
        fields: dict[str, Any],
        lock: threading.RLock | None = None,
    ) -> None:
        self.policy = policy
        self._quarantine_after = quarantine_after
        self._ledger = ledger
        self._log = log
        self._fields = fields
        self._lock = threading.RLock() if lock is None else lock
        self._table = _Table(())

    # --- any thread ------------------------------------------------------------------------------

    def register(self, name: str, metric: Metric) -> None:
        """Add ``metric``, or put it in the place of the one named so; every later event finds it."""
        with self._lock:
            slots = {slot.name: slot for slot in self._table.slots}
            slots[name] = MetricSlot(name, metric)
            self._table = _Table(tuple(slots.values()))

    def metrics(self) -> tuple[Metric, ...]:
        """Return the registered metrics, in the order of their first registration."""
        return tuple(slot.metric for slot in self._table.slots)

    def after_fork(self, lock: threading.RLock | None = None) -> None:
        """In the child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock() if lock is None else lock

    def snapshots(self) -> dict[str, Mapping[str, Any]]:
        """Return every metric's snapshot; one that fails shows its failure in its place."""
        return {slot.name: self._snapshot(slot) for slot in self._table.slots}

    def _snapshot(self, slot: MetricSlot) -> Mapping[str, Any]:
        try:
            snapshot: object = slot.metric.snapshot()
            if not isinstance(snapshot, Mapping):
                msg = f"{type(slot.metric).__qualname__}.snapshot() must return a mapping, got {show(snapshot)}"
                raise TypeError(msg)  # noqa: TRY301 — told like an exception of the metric's own
            return _with_quarantine(slot, snapshot)
        except BaseException as exc:
            if is_for_the_thread(exc):
                raise
            self._count_and_log(slot, exc, "snapshot() of metric %r raised", slot.name)
            return _with_quarantine(slot, {"name": slot.name, "dimensions": {}, "error": _describe(exc)})

    # --- the actor -------------------------------------------------------------------------------

    def dispatch(self, take: Callable[[], MetricEvent], limit: int) -> int:
        """Take up to ``limit`` events and hand each to the metrics that want it; return how many there were.

        The path of every event of a recorder without ``_on_metric_changed``.

        :raises RecorderUnexpectedError: if a metric fails under FailurePolicy.FAIL
        """
        ledger = self._ledger
        before = taken = ledger.taken
        try:
            for _ in range(limit):
                try:
                    event = take()
                except IndexError:
                    break
                taken += 1
                ledger.taken = taken
                # Looked up anew for every event: a metric may have been registered meanwhile.
                try:
                    route = self._table.routes[type(event)]
                except KeyError:
                    route = self._route(event)
                try:
                    for handler in route.handlers:
                        handler(event)
                except BaseException as exc:
                    self._recover(event, route, handler, exc)
                ledger.processed = taken
        finally:
            ledger.processed = taken
        return taken - before

    def wanting(self, event: MetricEvent) -> tuple[MetricSlot, ...]:
        """Return the slots of the metrics that want ``event``; none at all is counted as unmatched."""
        route = self._table.routes.get(type(event)) or self._route(event)
        if not route.wanted:
            self._ledger.unmatched += 1
        return route.slots

    def handle(self, slot: MetricSlot, event: MetricEvent) -> bool:
        """Hand ``event`` to one metric; return whether its state changed.

        :raises RecorderUnexpectedError: if it fails under FailurePolicy.FAIL
        """
        try:
            return slot.handle_counted(event)
        except BaseException as exc:
            self._failed(slot, type(event), exc)
            return False

    def _route(self, event: MetricEvent) -> _Route:
        table = self._table
        event_class = type(event)
        genuine = is_event_class(event_class)
        if not genuine:
            event_class = _class_said(event)
        answers = {slot: self._wants(slot, event_class) for slot in table.slots}
        wanting = [slot for slot, wants in answers.items() if wants]
        slots = tuple(slot for slot in wanting if slot.quarantine is None)
        if not wanting:
            handlers: tuple[Handler, ...] = (self._count_unmatched,)
        elif self.policy is FailurePolicy.QUARANTINE:
            handlers = tuple(slot.handle_counted for slot in slots)
        else:
            handlers = tuple(slot.metric.handle_event for slot in slots)
            if len({id(handler) for handler in handlers}) < len(handlers):
                # The same callable for two metrics: a failure could not be told apart.
                handlers = tuple(slot.handle_counted for slot in slots)
        route = _Route(handlers, slots, bool(wanting))
        if genuine and None not in answers.values():  # who could not say gets the next event
            if len(table.routes) >= MAX_KNOWN_CLASSES:
                table.routes.clear()
            table.routes[event_class] = route
        return route

    def _wants(self, slot: MetricSlot, event_class: type) -> bool | None:
        """Whether a metric wants the events of a class; None if what answers, its own code perhaps, raised."""
        try:
            wanted = slot.metric.event_types
            return wanted is None or issubclass(event_class, wanted)
        except BaseException as exc:
            self._failed(slot, event_class, exc)
            return None

    def _count_unmatched(self, _event: MetricEvent) -> None:
        self._ledger.unmatched += 1

    def _recover(self, event: MetricEvent, route: _Route, failed: Handler, error: BaseException) -> None:
        """Judge the failure of one handler, and hand the event to those that come after it."""
        index = next(i for i, handler in enumerate(route.handlers) if handler is failed)
        self._failed(route.slots[index], type(event), error)
        for slot in route.slots[index + 1 :]:
            self.handle(slot, event)

    def _failed(self, slot: MetricSlot, event_class: type, error: BaseException) -> None:
        if is_for_the_thread(error):
            raise error
        slot.consecutive_failures += 1
        kind = name_of(event_class)
        self._count_and_log(slot, error, "metric %r raised on an event of class %s", slot.name, kind)
        if self.policy is FailurePolicy.FAIL:
            raise RecorderUnexpectedError(error, f"metric {slot.name!r} raised on {kind}") from error
        if self.policy is FailurePolicy.QUARANTINE and slot.consecutive_failures >= self._quarantine_after:
            # In words: the exception would keep the frames alive that it came through.
            slot.quarantine = {"failures": slot.consecutive_failures, "error": _describe(error)}
            # Not a new table: that would take the lock, which a thread may hold that waits for the actor.
            self._table.routes.clear()

    def _count_and_log(self, slot: MetricSlot, error: BaseException, message: str, *args: object) -> None:
        self._ledger.metric_errors.increment()
        told = self._log.log(
            logging.ERROR,
            (slot.name, message, type(error)),
            message,
            *args,
            error=error,
            fields={**self._fields, "metric_name": slot.name},
        )
        if not told and self.policy is not FailurePolicy.FAIL:
            forget_traceback(error)


def _class_said(event: MetricEvent) -> type:
    """Return what an event that is not of a MetricEvent's class says its class is, as a mock does."""
    try:
        return event.__class__
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        return type(event)


def _with_quarantine(slot: MetricSlot, snapshot: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``snapshot``, which says so if the metric has been set aside."""
    return snapshot if slot.quarantine is None else {**snapshot, "quarantined": slot.quarantine}


def _describe(error: BaseException) -> dict[str, str]:
    return {"type": name_of(type(error)), "message": say(error)}
