"""``observe``: as a block, as a decorator, and as a decorator of methods."""

from __future__ import annotations

import inspect
import logging
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from types import FrameType, TracebackType
from typing import Any, TypeVar, overload

from mvx.common.metrics import _validation as valid
from mvx.common.metrics._event import MetricEvent
from mvx.common.metrics._log import LimitedLog
from mvx.common.metrics._protocols import MetricsRecorderProto
from mvx.common.metrics._text import show

from ._emitter import MetricsEmitter, check_recorder
from ._outcome import Outcome
from ._timing import Timing
from ._wrapping import Find, wrapped

F = TypeVar("F", bound=Callable[..., Any])

_frame = sys._getframe  # noqa: SLF001 — the underscore says CPython, which this library is for

_log = LimitedLog()
"""For calls of which nobody can be told, as no emitter was found."""


@overload
def observe(
    emitter: str, make_event: Callable[[Outcome], MetricEvent | None], *, clock: Callable[[], float] = ...
) -> MethodObservation: ...
@overload
def observe(
    emitter: MetricsEmitter | MetricsRecorderProto | None,
    make_event: Callable[[Outcome], MetricEvent | None],
    *,
    clock: Callable[[], float] = ...,
) -> Observation: ...
def observe(
    emitter: str | MetricsEmitter | MetricsRecorderProto | None,
    make_event: Callable[[Outcome], MetricEvent | None],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> MethodObservation | Observation:
    """Time a block, or what it decorates, and emit the event that ``make_event`` makes of its :class:`Outcome`.

    As a block::

        emitter = MetricsEmitter(None)
        with observe(emitter, lambda outcome: OrderPlaced()):
            ...

    As a decorator of a method, whose instance has its emitter in an attribute::

        class Shop:
            def __init__(self, metrics_recorder: MetricsRecorderProto | None = None) -> None:
                self._metrics = MetricsEmitter(metrics_recorder, (OrdersPlaced(),))

            @observe("_metrics", lambda outcome: OrderPlaced() if outcome.status == "ok" else None)
            async def place(self) -> None:
                ...

    A decorator does what a block around the whole body would, and knows functions, coroutine functions, generators
    and async generators, which stay what they are.  So the time of a coroutine contains what it waits for, and
    that of a generator goes from its first ``next`` to its end and contains what its consumer does between two
    items; one that is never begun emits nothing.  A generator that is abandoned, or closed, is cancelled,
    unless its body sees to its end itself and returns.  Put the decorator right above ``def``: below
    ``@staticmethod``, ``@classmethod``, ``@property`` and ``@contextmanager``, and below others, which may hide what
    kind of function it is.

    Exceptions pass through as they are.  What ``make_event``, the clock or the recorder raises is swallowed, counted
    and logged by the emitter; nothing in here is a checkpoint.  In ``make_event``, return None to emit nothing,
    for instance for what was cancelled.  It does not get the arguments or the result of a function: where those matter,
    use a block, in which a closure sees every variable.

    Without a recorder, a block does nothing, and a function is called without being timed; where that is known
    already as it is decorated, the decorator returns it as it is.

    :param emitter: an emitter; a recorder; None to do nothing; or, for methods, the name of the attribute of the
        instance, or of the class, that holds one of these, which is looked up as a call begins; dots lead on from
        there (``"_storage.metrics"``)
    :param make_event: makes an event of an outcome, in the thread of the block, as it ends; an event class that takes
        an outcome is one
    :param clock: tells seconds that never go back
    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if the name of an attribute is none
    """
    timing = Timing(make_event, clock)
    if isinstance(emitter, str):
        return MethodObservation(emitter, timing)
    if not isinstance(emitter, MetricsEmitter):
        check_recorder("emitter", emitter, "an emitter, a recorder, the name of an attribute or None")
        emitter = MetricsEmitter(emitter)
    return Observation(emitter, timing)


class Observation:
    """What :func:`observe` returns for an emitter: ``with``, ``async with``, a decorator; as often as you like.

    One observation may time any number of blocks and calls at once, in any threads and tasks, and within each
    other.  What it knows of a block under way it keeps by the frame of its ``with``; so give a block that
    is entered by other means, such as an ``ExitStack``, an observation of its own.
    """

    def __init__(self, emitter: MetricsEmitter, timing: Timing) -> None:
        """Use :func:`observe`."""
        self._emitter = emitter if emitter.enabled else None
        self._timing = timing
        self._under_way: dict[FrameType, list[float | None]] = {}

    def __call__(self, function: F) -> F:
        """Return ``function``, timed.

        :raises TypeError: if it is no function or method, but a class, a property or anything that cannot be called
        """
        emitter = self._emitter
        timed: F = _decorated(function, None if emitter is None else lambda _args: emitter, self._timing)
        return timed

    def __enter__(self) -> None:
        if self._emitter is not None:
            self._begin(_frame(1))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._emitter is not None:
            self._end(self._emitter, _frame(1), exc)

    async def __aenter__(self) -> None:
        if self._emitter is not None:
            self._begin(_frame(1))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Without waiting for room: cancelled there, it would put its own exception in the place of the block's.
        if self._emitter is not None:
            self._end(self._emitter, _frame(1), exc)

    def _begin(self, frame: FrameType) -> None:
        # Neither a stack for each thread or task nor a context variable would do: generators, which share
        # those of their consumer, need not end in the opposite order.
        self._under_way.setdefault(frame, []).append(self._timing.begin())

    def _end(self, emitter: MetricsEmitter, frame: FrameType, error: BaseException | None) -> None:
        stack = self._under_way.pop(frame, None)
        if stack is None:  # entered or left by something else than a `with`: the last one
            try:
                frame, stack = self._under_way.popitem()
            except KeyError:
                return
        began = stack.pop()
        if stack:
            self._under_way[frame] = stack
        self._timing.end(emitter, began, error)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_under_way": {}}


class MethodObservation:
    """What :func:`observe` returns for the name of an attribute: a decorator of methods, and nothing else."""

    def __init__(self, attribute: str, timing: Timing) -> None:
        """Use :func:`observe`."""
        for name in attribute.split("."):
            if not name.isidentifier():
                msg = f"argument 'emitter' must be the name of an attribute, got {show(attribute)}"
                raise ValueError(msg)
            if name.startswith("__") and not name.endswith("__"):
                msg = f"argument 'emitter': in a class, {name!r} is another name; write '_NameOfTheClass{name}'"
                raise ValueError(msg)
        self._attribute = attribute
        self._timing = timing

    def __call__(self, function: F) -> F:
        """Return the method ``function``, timed.

        :raises TypeError: if it is none, but a static method, a class, a property or anything that cannot be called
        """
        if isinstance(function, staticmethod):
            msg = "a static method has no instance with an emitter; decorate it with the emitter itself"
            raise TypeError(msg)
        timed: F = _decorated(function, _finder(self._attribute, function), self._timing)
        return timed


def _finder(attribute: str, function: object) -> Find:
    look_up = attrgetter(attribute)

    def find(args: tuple[Any, ...]) -> MetricsEmitter | None:
        try:
            found = look_up(args[0])
            if type(found) is MetricsEmitter:
                return found if found.enabled else None
            return None if found is None else MetricsEmitter(found)
        except Exception as exc:
            name = getattr(function, "__qualname__", show(function))
            try:
                _log.log(
                    logging.ERROR,
                    (name, attribute, type(exc)),
                    "observe(%r, …) found no emitter for a call of %s",
                    attribute,
                    name,
                    error=exc,
                    fields={"entity_id": None, "namespace": None},
                )
            except Exception:  # noqa: S110 — no stack is left to say so
                pass
            return None

    return find


def _decorated(function: Any, find: Find | None, timing: Timing) -> Any:
    """Return ``function``, timed, or as it is if there is nobody to find."""
    hidden = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
    if not callable(hidden) and hasattr(type(hidden), "__get__"):
        msg = f"put observe() below @{type(hidden).__name__}, right above 'def'"
        raise TypeError(msg)
    if inspect.isclass(hidden):
        msg = f"observe() would hide that {hidden.__qualname__} is a class; decorate its methods"
        raise TypeError(msg)
    valid.function("function", hidden)
    if find is None:
        return function
    timed = wrapped(hidden, find, timing)
    return timed if hidden is function else type(function)(timed)
