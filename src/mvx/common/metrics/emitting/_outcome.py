"""How a block ended: well, with an error, or because somebody did not want it any more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mvx.common.metrics._event import MetricEvent

OutcomeStatus = Literal["ok", "error", "cancelled"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a block ended, and how long it took.

    It holds no exception, only its class: an exception would keep the frames alive that it came through, and
    with them whatever the block was at work on.
    """

    status: OutcomeStatus
    """``"ok"``; ``"error"`` for an exception; ``"cancelled"``, which is not a failure, for one that says
    that the block is not wanted any more."""
    seconds: float
    """From the block's begin to its end, by the clock of :func:`observe`."""
    error: type[BaseException] | None
    """The class of the exception if the status is ``"error"``, else None."""


# A dataclass, unlike the Outcome, because users derive events from it, and theirs are.
@dataclass(frozen=True, slots=True)
class OutcomeEvent(MetricEvent):
    """Base class of the events that tell how a block ended: :func:`observe` makes one of its outcome.

    A subclass says what kind of event it is, and is done::

        class OrderHandled(OutcomeEvent):
            event_type = "orders.handled"

        handle = observe(MetricsEmitter(None), OrderHandled)

    Instruments and metrics find ``status``, ``seconds`` and ``error`` under these names.  A subclass may be a dataclass
    with fields of its own, which ``observe`` then needs a function to fill in.
    """

    outcome: Outcome
    """How the block ended, and how long it took."""

    @property
    def status(self) -> OutcomeStatus:
        """``"ok"``, ``"error"`` or ``"cancelled"``."""
        return self.outcome.status

    @property
    def seconds(self) -> float:
        """How long the block took."""
        return self.outcome.seconds

    @property
    def error(self) -> type[BaseException] | None:
        """The class of the exception if the status is ``"error"``, else None."""
        return self.outcome.error


def outcome_of(error: BaseException | None, seconds: float) -> Outcome:
    """Return the outcome of a block that was left with ``error``, or without one."""
    if error is None:
        return Outcome(status="ok", seconds=seconds, error=None)
    if is_cancellation(error):
        return Outcome(status="cancelled", seconds=seconds, error=None)
    return Outcome(status="error", seconds=seconds, error=type(error))


def is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` says that the block is not wanted any more, rather than that it failed.

    That is ``asyncio.CancelledError``, ``trio.Cancelled``, ``greenlet.GreenletExit``; ``GeneratorExit``,
    with which an abandoned generator ends; ``KeyboardInterrupt`` and ``SystemExit``, with which the program does
    (``Ctrl-C`` cancels the main task under asyncio and is a KeyboardInterrupt in it under trio: one act,
    one answer); and a group in which there is nothing else.
    """
    # Most of what is raised; no group that is an Exception can hold a cancellation.
    if issubclass(type(error), Exception):
        return False
    kinds = _cancellations()
    return all(issubclass(type(leaf), kinds) for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and the groups in it, or the one that is no group."""
    # Not by recursion: groups may be nested deeper than the stack.
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            # Not its own attribute: a subclass may have spoilt it.
            waiting.extend(vars(BaseExceptionGroup)["exceptions"].__get__(one))
        else:
            yield one


def _cancellations() -> tuple[type[BaseException], ...]:
    """Return the classes that mean a cancellation; a library that nobody has imported cannot have raised its own.

    Not every BaseException that is no Exception: a library's panic, say, is a failure.
    """
    kinds: list[type[BaseException]] = [GeneratorExit, KeyboardInterrupt, SystemExit]
    for module, name in (("asyncio", "CancelledError"), ("trio", "Cancelled"), ("greenlet", "GreenletExit")):
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            kinds.append(kind)
    return tuple(kinds)
