"""What every run of a recorder has: its state, the requests that it owes an answer, its accounts.

A run begins with a start and ends with :meth:`Run.conclude`, which is synchronous and runs exactly once, come what
may.  How the work gets done in between is for the subclasses: :class:`~._actor.ActorRun` has a task of its own and
calls hooks, :class:`~._plain.PlainRun` has neither.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from ._backends import LoopGoneError
from ._dispatch import Dispatcher
from ._hosting import Home
from ._hub import LoopHub
from ._inbox import Inbox
from ._lifecycle import OperationOwner, RecorderOp, RecorderState, RecorderWaitHandle, settle
from ._log import LimitedLog
from ._statistics import Ledger
from .errors import (
    RecorderDispatcherCancelledError,
    RecorderError,
    RecorderLoopUnavailableError,
    RecorderUnexpectedError,
)

DEFAULT_DRAIN_TIMEOUT = 30.0
"""Seconds that a drain may take; also after a cancellation where ``drain_timeout`` is None."""
MAX_BATCH = 32
"""Events handled between two looks at the clock, at the most."""


class Request(Protocol):
    """Something to do once every event accepted before has been processed."""

    position: int | None
    """How many events the recorder had accepted before, if the answer speaks of them."""

    def answer(self, error: RecorderError | None) -> None:
        """Do it; ``error`` says why some of those events were not processed.  Raises nothing but Ctrl-C."""
        ...


class Run(ABC):
    """One run; made in any thread, works and ends on the hub's loop.

    Its state is deduced from what has happened, each fact being written by one side only.  So the
    actor needs no lock, which a thread might hold that waits for the actor.
    """

    __slots__ = (
        "_dispatcher",
        "_drain_timeout",
        "_fields",
        "_final",
        "_hub",
        "_ledger",
        "_log",
        "_owed",
        "_right_to_begin",
        "_right_to_conclude",
        "_started",
        "_stop_requested",
        "_stopping_begun",
        "_verdict",
        "error",
        "inbox",
        "lost",
        "stopping",
        "task",
        "was_asked_to_stop",
    )

    def __init__(
        self,
        *,
        owner: OperationOwner,
        inbox: Inbox,
        dispatcher: Dispatcher,
        ledger: Ledger,
        hub: LoopHub,
        drain_timeout: float | None,
        log: LimitedLog,
        fields: dict[str, Any],
    ) -> None:
        self.inbox = inbox
        """Where its events come in."""
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._hub = hub
        self._drain_timeout = drain_timeout
        self._log = log
        self._fields = fields
        self.stopping = RecorderWaitHandle(RecorderOp.STOP, owner)
        """Done when the run has ended, whether it was asked to or not."""
        self.task: object | None = None
        """The identity of its task, if it has one, while that runs."""
        self.error: RecorderError | None = None
        """What ended the run, or spoilt its stop."""
        self.lost = 0
        """How many of the run's events were abandoned."""
        self.was_asked_to_stop = False
        self._final: RecorderState | None = None
        self._started = False
        self._stop_requested = False
        self._stopping_begun = False
        # Whoever deletes one of these, which is one step, has it.
        self._right_to_begin: None = None
        self._right_to_conclude: None = None
        self._verdict = RecorderState.STOPPED
        self._owed: list[Request] = []

    @property
    def state(self) -> RecorderState:
        """The recorder's state, as far as this run is concerned."""
        if self._final is not None:
            return self._final
        if self._stop_requested:
            return RecorderState.STOPPING
        return RecorderState.RUNNING if self._started else RecorderState.STARTING

    # --- for the subclasses ----------------------------------------------------------------------

    @property
    @abstractmethod
    def starting(self) -> RecorderWaitHandle:
        """Done when the run has started, or has ended without."""
        ...

    @abstractmethod
    def attend(self) -> None:
        """Have the inbox tell this run of what comes in; from any thread, before the launch."""
        ...

    @abstractmethod
    def launch(self, home: Home) -> None:
        """Begin, soon; from any thread.

        :raises LoopGoneError: if the loop has ended
        """
        ...

    @abstractmethod
    def begin_stop(self) -> None:
        """Drain from now on, within the time limit; in the loop, after the inbox was closed; again is once."""
        ...

    @abstractmethod
    def interrupt(self) -> None:
        """Cancel the run as its surroundings would; in the loop."""
        ...

    @abstractmethod
    def _in_a_pass(self) -> bool:
        """Whether a metric may be at work, or an event on its way; in the loop."""
        ...

    def loop_ends(self) -> None:  # noqa: B027 — a task is told by its task group
        """Come to an end, soon, if nobody else sees to that; in the loop."""

    def _settle(self, error: RecorderError | None) -> None:
        """Tell everybody who waits for the start or the stop."""
        settle(self.stopping, error)

    def _wind_up(self) -> None:  # noqa: B027 — only a hook can be cut short
        """Account for an event whose handling was cut short; at the very end."""

    # --- any thread ------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Close the entry and have the actor drain; again if an exception cut the first request short."""
        self.was_asked_to_stop = True
        self._stop_requested = True
        self.inbox.close()
        self.call(self.begin_stop)

    def ring(self) -> bool:
        """Get the actor's attention; return False if its loop is gone."""
        try:
            self._hub.call_soon(self._look_in)
        except LoopGoneError:
            return False
        return True

    def call(self, function: Callable[[], object]) -> None:
        """Run ``function`` in the loop soon; if the loop is gone, conclude in its stead."""
        try:
            self._hub.call_soon(function)
        except LoopGoneError:
            self.lose_loop()

    def can_be_heard(self) -> bool:
        """Whether somebody runs the loop, so that a request may be answered; from any thread."""
        return self._hub.loop.is_running()

    def forget(self, request: Request) -> None:
        """Take back a request that nobody waits for any more, if it has not been answered; from any thread."""
        for place in (self.inbox.requests, self._owed):
            try:
                place.remove(request)
            except ValueError:
                continue

    # --- requests --------------------------------------------------------------------------------

    def _fetch_requests(self) -> None:
        """Take the requests that are there now."""
        requests = self.inbox.requests
        for _ in range(len(requests)):
            try:
                self._owed.append(requests.pop(0))
            except IndexError:  # its own emitter has taken it back
                return

    def _take_owed(self) -> Request | None:
        try:
            return self._owed.pop(0)
        except IndexError:  # also behind a look that saw one: whoever asked may have taken it back
            return None

    def _answer(self, count: int) -> None:
        """Answer up to ``count`` requests: every event accepted before them has been processed."""
        for _ in range(count):
            if (request := self._take_owed()) is not None:
                request.answer(None)

    def _look_in(self) -> None:
        """Somebody rang: answer what can be answered at once, else see to the rest; in the loop.

        Between two passes, and before the first, no metric is at work and no event on its way.
        """
        inbox = self.inbox
        if self._in_a_pass() or not inbox.requests:
            inbox.wake()
            return
        self._fetch_requests()
        # Looked at after the requests: an event accepted before one of them is there by now.
        if inbox.events:
            inbox.wake()
            return
        inbox.heal()  # the ring may have been for an event, since evicted, too
        # Last, so that whoever is woken finds the interpreter free.
        self._answer(len(self._owed))

    def _note_high_water(self, pending: int) -> None:
        self._ledger.high_water = max(self._ledger.high_water, pending)

    def heal(self) -> None:
        """Make up for a call from another thread that an exception cut short; in the loop."""
        if self._stop_requested and not self.inbox.sealed:
            self.inbox.close()
            self.begin_stop()
        self.inbox.heal()

    # --- the end ---------------------------------------------------------------------------------

    def _end_cancelled(self) -> None:
        self._end(RecorderState.CANCELLED, RecorderDispatcherCancelledError())

    def _end(self, state: RecorderState, error: RecorderError) -> None:
        """Remember how the run ends; what came first counts."""
        if self._verdict is RecorderState.STOPPED:
            self._verdict, self.error = state, error

    def _abandon(self) -> int:
        lost = self.inbox.abandon()
        self._ledger.abandoned += lost
        self.lost += lost
        return lost

    def conclude(self) -> None:
        """Settle the account and tell everybody who waits; once, synchronously, come what may."""
        try:
            del self._right_to_conclude
        except AttributeError:
            return
        if not self._started:
            # The task was cancelled before its first step, or the loop took no task any more.
            self._end_cancelled()
        self._wind_up()
        self._stop_requested = True  # before the entry is closed, so that nobody is refused in a state that accepts
        self._abandon()
        # The state first, so that whoever is woken by an answer sees it; the handles last, so that
        # whoever is woken by them sees every answer.
        self._final = self._verdict
        self._hub.look_no_more(self.inbox)
        self._hub.detach(self)
        self._answer_the_rest()
        self._settle(self.error)

    def _answer_the_rest(self) -> None:
        self._hear_no_more()
        # What was lost was accepted last: the drain is in order.
        kept = self.inbox.position() - self.lost
        while (request := self._take_owed()) is not None:
            concerned = request.position is not None and request.position > kept
            request.answer(self.loss if concerned else None)

    def _hear_no_more(self) -> None:
        """Take the last requests: from now on whoever asks finds all events accounted for."""
        self.inbox.deaf = True
        self._fetch_requests()

    @property
    def loss(self) -> RecorderError | None:
        """Why events of this run were not processed, if there are any."""
        return self.error if self.lost else None

    def lose_loop(self) -> None:
        """The loop has ended without a word: conclude in its stead, from any thread."""
        self._end(RecorderState.FAILURE, RecorderLoopUnavailableError("the recorder's event loop has ended"))
        self.conclude()

    def withdraw(self, error: BaseException) -> bool:
        """Take the run back if it has neither begun nor ended; from any thread."""
        try:
            del self._right_to_begin
            del self._right_to_conclude
        except AttributeError:
            return False
        reason = RecorderUnexpectedError(error, "the recorder could not be started")
        self._settle(reason)
        return True

    def leave_behind(self, error: RecorderError) -> None:
        """In a forked child, where nobody works for this run: whoever waits for it here is told."""
        with suppress(AttributeError):
            del self._right_to_conclude
        self._end(RecorderState.FAILURE, error)
        self._final = self._verdict
        self._fetch_requests()
        while (request := self._take_owed()) is not None:
            request.answer(error)
        self._settle(error)

    # --- diagnostics -----------------------------------------------------------------------------

    def _tell(self, level: int, message: str, *, error: BaseException | None = None) -> bool:
        return self._log.log(level, (message, type(error)), message, error=error, fields=self._fields)

    def _tell_losses(self) -> None:
        if not self._ledger.full:
            return
        lost = self._ledger.dropped.value() + self._ledger.evicted.value()
        if lost > self._ledger.losses_told and self._log.log(
            logging.WARNING,
            "losses",
            "the inbox overflowed: %d events thrown away since the last word of it",
            lost - self._ledger.losses_told,
            fields=self._fields,
        ):
            self._ledger.losses_told = lost
