"""What a component holds in place of an optional recorder."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, ParamSpec, Self, final
from weakref import WeakKeyDictionary

from mvx.common.metrics._event import MetricEvent
from mvx.common.metrics._fork import reset_in_child
from mvx.common.metrics._interrupt import forget_traceback
from mvx.common.metrics._log import LimitedLog
from mvx.common.metrics._metric import Metric
from mvx.common.metrics._protocols import MetricsRecorderProto
from mvx.common.metrics._statistics import AtomicCounter
from mvx.common.metrics._text import name_of, say, show
from mvx.common.metrics.errors import RecorderError

P = ParamSpec("P")

_logs: WeakKeyDictionary[Any, LimitedLog] = WeakKeyDictionary()
"""The limited log of each recorder: emitters may be made and thrown away by the thousand."""


class _Tally:
    """Counts from any thread, in one step of C; begins at zero in a forked child."""

    __slots__ = ("__weakref__", "_counter", "increment")

    def __init__(self) -> None:
        self.after_fork_in_child()
        reset_in_child(self)

    def after_fork_in_child(self) -> None:
        self._counter = AtomicCounter()
        self.increment = self._counter.increment

    def value(self) -> int:
        return self._counter.value()


@final
class MetricsEmitter:
    """Registers a component's metrics, emits its events, and never raises into production.

    With it a component needs neither a test for a recorder nor a ``try``::

        class Shop:
            def __init__(self, *, metrics_recorder: MetricsRecorderProto | None = None) -> None:
                self._metrics = MetricsEmitter(metrics_recorder, (OrdersPlaced(),))

            def place(self) -> None:
                self._metrics.emit(OrderPlaced())

    Without a recorder it does nothing.  With one, whatever the recorder raises is swallowed, counted in
    :attr:`swallowed`, and logged once a minute for each kind and recorder: a full inbox under RAISE_ERROR or
    BLOCK, a recorder that is stopped or has failed, a metric that cannot be registered; and, as an error with a
    traceback, an event that is none, because a slip in what is measured must not stop what is done.  In tests,
    assert that ``swallowed`` is zero.  What passes is only what is no ``Exception``: cancellation, Ctrl-C,
    ``SystemExit``.

    An emitter may be used in any thread and on any loop, as its recorder.  It belongs to its process: a copy, a deep
    copy included, is the same emitter, and one that has been pickled comes back without a recorder, so that
    metrics do not decide whether a component can be copied or sent elsewhere.  In a forked child it goes on with
    its recorder, and ``swallowed`` begins at zero.
    """

    def __init__(self, recorder: MetricsRecorderProto | None, metrics: Iterable[Metric] = ()) -> None:
        """Register ``metrics`` with ``recorder``, in order.

        :param recorder: anything that fulfils MetricsRecorderProto, or None to do nothing
        :param metrics: the component's metrics; not even iterated over without a recorder, so a generator
            makes none in vain
        :raises TypeError: if ``recorder`` is something else, or ``metrics`` cannot be iterated over; what the recorder
            says of a metric is swallowed
        """
        check_recorder("recorder", recorder, "a recorder or None")
        waiting = _iterated(metrics)
        self._recorder = recorder
        self._register_event: Callable[[MetricEvent], object] | None = None
        self._aregister_event: Callable[[MetricEvent], Awaitable[object]] | None = None
        self._log: LimitedLog | None = None
        if recorder is None:
            return
        self._tally = _Tally()
        self._register_event = recorder.register_event
        in_own_time = getattr(recorder, "aregister_event", None)
        if inspect.iscoroutinefunction(in_own_time):  # a stand-in may answer to any name
            self._aregister_event = in_own_time
        self._register(recorder, waiting)

    def _register(self, recorder: MetricsRecorderProto, metrics: Iterator[Metric]) -> None:
        while True:
            try:
                metric = next(metrics)
            except StopIteration:
                return
            except Exception as exc:
                self._tally.increment()
                self._tell("the metrics could not be made", exc)
                return
            try:
                recorder.register_metric(metric)
            except Exception as exc:
                self._tally.increment()
                self._tell(f"a metric of class {name_of(type(metric))} could not be registered", exc)

    def __repr__(self) -> str:
        return f"<MetricsEmitter to {'nobody' if self._recorder is None else show(self._recorder)}>"

    @property
    def recorder(self) -> MetricsRecorderProto | None:
        """What events are handed to."""
        return self._recorder

    @property
    def enabled(self) -> bool:
        """Whether there is a recorder; not whether it accepts events at this moment."""
        return self._register_event is not None

    @property
    def swallowed(self) -> int:
        """How many events and metrics did not reach the recorder, because it, or what makes them, raised."""
        return 0 if self._recorder is None else self._tally.value()

    def emit(self, event: MetricEvent) -> None:
        """Hand ``event`` to the recorder's ``register_event``, and carry on.

        From any thread, signal handler or finalizer; may wait under BLOCK, as ``register_event`` does.  Events that
        the recorder's own policy drops are its own to count, and not swallowed.
        """
        register = self._register_event
        if register is None:
            return
        try:
            register(event)
        except Exception as exc:
            try:
                self._tally.increment()
                self._tell_of_event(event, exc)
            except Exception:  # noqa: S110 — no stack is left to count it and to say so
                pass

    def emit_lazily(self, make_event: Callable[P, MetricEvent | None], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Emit ``make_event(*args, **kwargs)``, unless that is None; without a recorder, call nothing.

        For an event that is not for nothing to make, or whose making may fail: that is swallowed, too.  An event
        class is a ``make_event``: ``emit_lazily(OrderPlaced, amount=3)``.
        """
        register = self._register_event
        if register is None:
            return
        try:
            event = make_event(*args, **kwargs)
        except Exception as exc:
            try:
                self._tally.increment()
                self._tell(f"no event was emitted: {show(make_event)} raised", exc)
            except Exception:  # noqa: S110 — as above
                pass
            return
        if event is not None:
            self.emit(event)

    async def aemit(self, event: MetricEvent) -> None:
        """Hand ``event`` over, and wait for room as long as it takes, where the recorder can do that.

        That is, by its ``aregister_event`` if it has one, and else as :meth:`emit`.  On any event loop.  Lets a
        cancellation through, and the event was not accepted then.  A checkpoint if the recorder's
        ``aregister_event`` is one; never without a recorder, as emitting to nobody costs next to nothing.
        """
        register = self._aregister_event
        if register is None:
            self.emit(event)
            return
        try:
            await register(event)
        except Exception as exc:
            try:
                self._tally.increment()
                self._tell_of_event(event, exc)
            except Exception:  # noqa: S110 — as above
                pass

    # --- saying what was swallowed ---------------------------------------------------------------

    def _tell_of_event(self, event: object, error: Exception) -> None:
        self._tell(f"an event of class {name_of(type(event))} was not emitted", error)

    def _tell(self, what: str, error: Exception) -> None:
        if self._log is None:
            self._log = _log_of(self._recorder)
        # The recorder says no: that may come and go.  Anything else is a mistake, and its traceback says where.
        refused = isinstance(error, RecorderError)
        told = self._log.log(
            logging.WARNING if refused else logging.ERROR,
            (type(error), "" if refused else what),
            "%s: %s",
            what,
            say(error),
            error=None if refused else error,
            fields={
                "entity_id": _said(self._recorder, "entity_id"),
                "namespace": _said(self._recorder, "namespace"),
                "swallowed": self.swallowed,
            },
        )
        if not told:
            forget_traceback(error)

    # --- copies ----------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[None]]:
        return type(self), (None,)


def check_recorder(argument: str, value: object, wanted: str) -> None:
    """Check that ``value`` is None, or has what an emitter needs of a recorder.

    :raises TypeError: if not; the message says what was ``wanted``
    """
    if value is None:
        return
    if not isinstance(value, type) and all(
        callable(getattr(value, method, None)) for method in ("register_metric", "register_event")
    ):
        return
    msg = f"argument {argument!r} must be {wanted}, got {show(value)} of type {type(value).__qualname__!r}"
    raise TypeError(msg)


def _iterated(metrics: Iterable[Metric]) -> Iterator[Metric]:
    try:
        return iter(metrics)
    except TypeError:
        hint = "; write a tuple, (metric,)" if isinstance(metrics, Metric) else ""
        msg = f"argument 'metrics' must be an iterable of metrics, got {show(metrics)}{hint}"
        raise TypeError(msg) from None


def _log_of(recorder: object) -> LimitedLog:
    try:
        return _logs.setdefault(recorder, LimitedLog())
    except Exception:  # a stand-in that cannot be hashed, or weakly referred to
        return LimitedLog()


def _said(recorder: object, attribute: str) -> str | None:
    """Return what a recorder calls itself; a stand-in need not call itself anything."""
    try:
        value = getattr(recorder, attribute, None)
    except Exception:
        return None
    return value if isinstance(value, str) else None
