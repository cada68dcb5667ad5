"""From the begin and the end of a block to an event."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CodeType

from mvx.common.metrics import _validation as valid
from mvx.common.metrics._event import MetricEvent
from mvx.common.metrics._text import show

from ._emitter import MetricsEmitter
from ._outcome import Outcome, outcome_of


class Timing:
    """A clock, and what makes an event of an outcome; neither can hurt the block."""

    __slots__ = ("_clock", "_make_event")

    def __init__(self, make_event: Callable[[Outcome], MetricEvent | None], clock: Callable[[], float]) -> None:
        valid.function("make_event", make_event)
        valid.function("clock", clock)
        # Not by inspect, which takes longer than all the rest of a block.
        code = getattr(make_event, "__code__", None)
        if isinstance(code, CodeType) and code.co_flags & inspect.CO_COROUTINE:
            msg = f"argument 'make_event' must return an event, not a coroutine: got {show(make_event)}"
            raise TypeError(msg)
        self._make_event = make_event
        self._clock = clock

    def begin(self) -> float | None:
        """Return the time, or None if the clock raised; then the end says so."""
        try:
            return self._clock()
        except Exception:
            return None

    def end(self, emitter: MetricsEmitter, began: float | None, error: BaseException | None) -> None:
        """Emit the event of a block that has been left with ``error``, or without one."""
        emitter.emit_lazily(self._event, began, error)

    def _event(self, began: float | None, error: BaseException | None) -> MetricEvent | None:
        now = self._clock()
        if began is None:
            msg = "the clock raised when the block began"
            raise ValueError(msg)
        return self._make_event(outcome_of(error, now - began))
