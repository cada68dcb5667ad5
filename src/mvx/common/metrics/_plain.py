"""One run of a recorder without hooks, in a loop that is the library's own: no task, but turns.

Nothing in it ever awaits anything, so nothing needs a task: the loop's hub calls :meth:`PlainRun.turn` when there is
something to do.  At rest such a recorder is an inbox and some numbers, and to create one the loop need not be woken.
Nobody can cancel what is no task, so whoever ends the loop tells it, by :meth:`PlainRun.loop_ends`.
"""

from __future__ import annotations

import logging
import math
from contextvars import Context, copy_context
from typing import Any

from ._backends import LoopGoneError
from ._hosting import Home
from ._lifecycle import OperationOwner, RecorderOp, RecorderState, RecorderWaitHandle, settled
from ._rounds import ROUND
from ._run import DEFAULT_DRAIN_TIMEOUT, MAX_BATCH, Run
from .errors import RecorderDispatcherCancelledError, RecorderDrainTimeoutError, RecorderUnexpectedError


class PlainRun(Run):
    """A run that works in turns, as long as it has something to do; it has started as soon as it is there."""

    __slots__ = ("_answers", "_context", "_deadline", "_events", "_launched", "_owner")

    def __init__(self, *, owner: OperationOwner, **belongings: Any) -> None:
        """Make a run that has not been launched; see :class:`Run` for the rest of the arguments."""
        super().__init__(owner=owner, **belongings)
        self._owner = owner
        self._context: Context | None = None
        """What the metrics see of context variables; None before the first turn."""
        self._deadline = math.inf
        """When the drain has to be over, by the loop's clock."""
        # What is left of the pass under way: the events that were there when it began, and the requests before it.
        self._events = 0
        self._answers = 0
        self._started = True
        self._launched = False

    @property
    def starting(self) -> RecorderWaitHandle:
        return settled(RecorderOp.START, self._owner, None if self._launched else self.error)

    def attend(self) -> None:
        inbox = self.inbox
        # Whoever wants another linger than the rounds give has one of its own.
        roster = self._hub if inbox.options.linger == ROUND else None
        self._hub.enlist(self, inbox.events if roster else ())
        inbox.attend_in_turn(self.ring, self._ask_for_a_turn, roster)
        # Behind the entry in the roster: a stop may have come between, and the end looks the other way round.
        if self._final is not None:
            self._hub.detach(self)

    def launch(self, home: Home) -> None:
        del home  # it needs no task there
        inbox = self.inbox
        # The loop is not woken for nothing: somebody may be making one recorder after the other.
        if (inbox.events or inbox.requests or inbox.closed) and not self.ring():
            raise LoopGoneError
        self._launched = True

    def withdraw(self, error: BaseException) -> bool:
        if not super().withdraw(error):
            return False
        self._hub.detach(self)
        return True

    # --- in the loop -----------------------------------------------------------------------------

    def _in_a_pass(self) -> bool:
        return bool(self._events or self._answers)

    def wake_up(self) -> None:
        """The hub has found events."""
        self.inbox.wake()

    def _ask_for_a_turn(self) -> None:
        self._hub.await_turn(self)

    def turn(self) -> bool:
        """Work until there is nothing left to do, or the hub is tired; return whether there is more."""
        if self._final is not None:
            return False
        if self._context is None:
            try:
                del self._right_to_begin
            except AttributeError:  # withdrawn
                return False
            self._context = copy_context()
        # In a context of its own, as a task would be: what a metric sets there is its recorder's alone.
        return self._context.run(self._work)

    def _work(self) -> bool:
        inbox = self.inbox
        try:
            while True:
                if self._events or self._answers or inbox.events or inbox.requests or self._owed:
                    self._pass()
                    if self._hub.is_tired():
                        if inbox.events and self._hub.loop.now() >= self._deadline:
                            break
                        return True
                elif inbox.sealed:
                    break
                elif inbox.closed:
                    inbox.seal()
                else:
                    inbox.doze(self._hub)
                    return False
        except RecorderUnexpectedError as exc:
            self._end(RecorderState.FAILURE, exc)
        except BaseException as exc:
            self._end(RecorderState.FAILURE, RecorderUnexpectedError(exc))
            self._tell(logging.ERROR, "the recorder failed", error=exc)
        self._account_for_the_rest()
        self.conclude()
        return False

    def _pass(self) -> None:
        """Handle the events that were there when the pass began, then answer the requests that were there before."""
        inbox = self.inbox
        if not (self._events or self._answers):
            # Requests first, events second: what was accepted before a request is among the events.
            self._fetch_requests()
            self._answers = len(self._owed)
            self._events = len(inbox.events)
            if self._events:
                self._hub.rounds.events_came = True
            self._note_high_water(self._events)
        self._drain()
        if not self._events:
            self._answer(self._answers)
            self._answers = 0
            self._tell_losses()

    def _drain(self) -> None:
        inbox, dispatch, take = self.inbox, self._dispatcher.dispatch, self.inbox.events.popleft
        # The clock is looked at between batches: small ones for slow metrics, large ones for fast ones.
        batch = 1
        while self._events > 0:
            inbox.begin_handling()
            try:
                handled = dispatch(take, min(batch, self._events))
            finally:
                inbox.end_handling()
            if inbox.line:
                inbox.line.grant()
            self._events -= handled
            if handled == 0:
                self._events = 0  # evicted meanwhile
            elif self._hub.is_tired():
                return
            batch = min(2 * batch, MAX_BATCH)

    # --- the end ---------------------------------------------------------------------------------

    def begin_stop(self) -> None:
        if not self._stopping_begun:
            self._stopping_begun = True
            if self._drain_timeout is not None:
                self._limit(self._drain_timeout)
        self.inbox.wake()

    def interrupt(self) -> None:
        self.call(self.loop_ends)

    def loop_ends(self) -> None:
        """Process what was accepted all the same, but in bounded time."""
        self._limit(DEFAULT_DRAIN_TIMEOUT if self._drain_timeout is None else self._drain_timeout)
        if not self._stop_requested:
            self._end_cancelled()
            self._stop_requested = True
        self.inbox.close()
        self.inbox.wake()

    def _limit(self, seconds: float) -> None:
        self._deadline = min(self._deadline, self._hub.loop.now() + seconds)

    def _account_for_the_rest(self) -> None:
        self._stop_requested = True  # before the entry is closed, whatever has ended the work
        lost = self._abandon()
        if self._verdict is RecorderState.CANCELLED:
            self.error = RecorderDispatcherCancelledError(lost)
        elif lost and self.error is None:
            self.error = RecorderDrainTimeoutError(lost, self._drain_timeout)
            self._tell(logging.ERROR, self.error.message)
