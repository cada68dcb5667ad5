"""What the recorders of one event loop share: one pending wake-up, one clock, one heartbeat, and turns to work.

With a wake-up and a timer of its own for each of thousands of mostly idle recorders, every event
would pay for waking a loop that is awake already, and the loop would do little but run timers.

Neither the clock nor the turns are tasks: a call that the loop makes costs a fraction of a task's step, and
there is nothing that somebody could cancel.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sized
from weakref import WeakValueDictionary

import anyio

from ._backends import EventLoop, LoopGoneError
from ._fork import never_finalise, reset_in_child
from ._log import emit
from ._rounds import Attached, Rounds, Worker
from ._timetable import Sleeper, Timetable
from ._waiting import HEARTBEAT

SLACK = 0.000_5
"""Seconds that something may be done early, because clocks of event loops are as coarse as that."""
SLICE = 0.001
"""Seconds of work after which a busy loop lets others have the interpreter."""
REST = 0.000_05
"""Seconds that it then really sleeps.

A thread that merely yields wins the interpreter lock back before the waiting ones notice; they
were measured to wait for seconds.  A real sleep of this length brings that down to milliseconds.
"""


class LoopHub:
    """Belongs to one event loop, whose own all of it is but for what any thread may call."""

    def __init__(self, loop: EventLoop, *, may_block: bool) -> None:
        """Make a hub that does nothing until something is attached or called."""
        self.loop = loop
        loop.listen(alone=may_block)
        self.active = 0
        """How many actors' tasks are at work; for telling a busy loop from an idle one."""
        self.may_block = may_block
        """Whether the loop is ours alone, so that a rest may block it and work may be done in its callbacks."""
        self._rested_at = 0.0
        self._calls: deque[Callable[[], object]] = deque()
        self._posted = False
        self._poster: int | None = None
        self._gone = False
        self._attached: dict[Attached, None] = {}
        self._turns: deque[Worker] = deque()
        self._awake = False
        self._alarm_at = math.inf
        self._beating = False
        self._timetable = Timetable()
        self.rounds = Rounds(loop)
        self.nap = self.rounds.nap
        """For whoever emits to somebody on the roster."""
        reset_in_child(self)

    # --- from any thread -------------------------------------------------------------------------

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` soon in the loop; calls made before the loop gets to it share one wake-up.

        Legal in a signal handler and a finalizer.  What ``callback`` raises is logged.

        :raises LoopGoneError: if the loop has ended, or was left behind by a fork
        """
        if self._gone:
            raise LoopGoneError
        self._calls.append(callback)
        self._post()

    def ring(self) -> bool:
        """Begin the rounds, whose sleep the caller has ended; return False if the loop has ended; from any thread."""
        try:
            self.call_soon(self.rounds.look)
        except LoopGoneError:
            return False
        return True

    def enlist(self, worker: Worker, events: Sized) -> None:
        """Put ``worker`` on the roster: look after it, and wake it when there are ``events``; from any thread.

        :raises LoopGoneError: if the loop has ended
        """
        if self._gone:
            raise LoopGoneError
        self.rounds.enlist(worker, events)
        if not self._beating:
            self.call_soon(self._start_heartbeat)

    def _post(self) -> None:
        # The thread that is about to post may have been interrupted by a signal handler, which makes this call
        # and waits for it: then the post is still to be made.
        me = threading.get_ident()
        if self._posted and self._poster != me:
            return
        self._poster = me
        self._posted = True
        try:
            self.loop.post(self._deliver)
        except LoopGoneError:
            self._gone = True
            raise
        except BaseException:  # Ctrl-C, say: let the next call post
            self._posted = False
            raise
        finally:
            self._poster = None

    def is_gone(self) -> bool:
        """Find out whether the loop has ended; costs a wake-up."""
        if not self._gone:
            try:
                self.loop.post(self._deliver)
            except LoopGoneError:
                self._gone = True
        return self._gone

    def close(self) -> None:
        """The loop has ended: refuse calls from now on."""
        self._gone = True

    def after_fork_in_child(self) -> None:
        """The loop is the parent's; a wake-up would reach the parent."""
        self._gone = True
        never_finalise(self)

    # --- in the loop -----------------------------------------------------------------------------

    def _deliver(self) -> None:
        # Cleared first: whoever appends from now on posts again.
        self._posted = False
        self._begin()
        try:
            self._make_calls()
            if self._turns:
                self._let_work()
        finally:
            self._awake = False
        self._keep_time()
        self._go_on()

    def _begin(self) -> None:
        self._awake = True
        # Work in a callback ends with a rest, if not before; an actor's task goes on from one callback to the next.
        if not self.active:
            self._rested_at = time.monotonic()

    def _make_calls(self) -> None:
        for _ in range(len(self._calls)):
            try:
                callback = self._calls.popleft()
            except IndexError:
                return
            try:
                callback()
            except Exception as exc:
                emit(logging.ERROR, "a call into the event loop failed", error=exc, fields={})

    def _go_on(self) -> None:
        """See to it that what is left is done, behind what else the loop has to do."""
        if (self._calls or self._turns) and not self._posted:
            self._posted = True
            try:
                self.loop.go_on(self._deliver)
            except LoopGoneError:
                self._gone = True  # whoever waits for it finds that out

    def _start_heartbeat(self) -> None:
        if not self._beating:
            self._beating = self.loop.alarm(self.loop.now() + HEARTBEAT, self._beat)

    def attach(self, run: Attached) -> None:
        """Look after ``run`` from now on."""
        self._attached[run] = None
        self._start_heartbeat()

    def detach(self, run: Attached) -> None:
        """Forget ``run``; with the last one the heartbeat ends."""
        self._attached.pop(run, None)
        self.rounds.strike(run)
        # A coroutine of a loop that is gone may be finalised anywhere.
        if not (self._attached or self.rounds) and self.loop.is_current():
            self._beating = False
            self.loop.no_alarm(self._beat)
            self._timetable.tidy_up()
            if self._next_event() == math.inf:
                self._alarm_at = math.inf
                self.loop.no_alarm(self._tick)

    def look_later(self, sleeper: Sleeper, delay: float) -> bool:
        """Call ``sleeper.look()`` in ``delay`` seconds; return False if the hub cannot."""
        self._timetable.note(sleeper, self.loop.now() + delay)
        if self._set_alarm():
            return True
        self._timetable.strike(sleeper)
        return False

    def look_no_more(self, sleeper: Sleeper) -> None:
        """Forget that ``sleeper`` wanted to be looked at."""
        self._timetable.strike(sleeper)

    def _set_alarm(self) -> bool:
        """Have :meth:`_tick` called in time for whatever comes first; return False if the loop does not do that."""
        when = self._next_event()
        if when < self._alarm_at:
            if not self.loop.alarm(when, self._tick):
                return False
            self._alarm_at = when
        return True

    def _next_event(self) -> float:
        return min(self.rounds.due, self._timetable.next)

    def _tick(self) -> None:
        self._alarm_at = math.inf
        self._begin()
        try:
            now = self.loop.now() + SLACK
            self._timetable.look(now)
            if now >= self.rounds.due:
                self.rounds.look()
            self._let_work()
        finally:
            self._awake = False
        self._keep_time()
        self._go_on()

    def _keep_time(self) -> None:
        """Set the alarm; where the loop takes none any more, look at everybody now, and let nobody count on a look."""
        if not self._set_alarm():
            self._timetable.look_at_all()
            self.rounds.end()

    def _beat(self) -> None:
        self._begin()
        try:
            self._heartbeat()
            self._let_work()
        finally:
            self._awake = False
        self._beating = False
        if self._attached or self.rounds:
            self._start_heartbeat()
        self._keep_time()
        self._go_on()

    def _heartbeat(self) -> None:
        for run in (*self._attached, *self.rounds):
            run.heal()
        # Whoever owed a post may have been interrupted, and whoever has taken the token.
        self._posted = False
        self._make_calls()
        if self.rounds.are_stuck():
            self.rounds.look()

    def await_turn(self, worker: Worker) -> None:
        """Let ``worker`` have a turn when those before it have had theirs; for a hub that may block its loop."""
        self._turns.append(worker)
        if not self._awake:
            self._go_on()

    def _let_work(self) -> None:
        """Let those who have something to do work in turn, until nobody has or the loop is tired."""
        while self._turns:
            worker = self._turns.popleft()
            if worker.turn():
                self._turns.append(worker)
            if self.is_tired():
                time.sleep(REST)
                self._rested_at = time.monotonic()
                return

    def wind_up(self) -> None:
        """The loop is about to end: let those who work in turns come to their end; blocks the loop meanwhile."""
        self._awake = True
        self._make_calls()
        for worker in self.rounds:
            worker.loop_ends()
        while self._turns:
            self._let_work()
        self.rounds.end()

    def is_tired(self) -> bool:
        """Whether the loop has been busy for so long that other threads need a rest of it."""
        return time.monotonic() - self._rested_at >= SLICE

    async def rest(self) -> None:
        """Let other threads have the interpreter and other tasks the loop; a checkpoint."""
        if self.may_block:
            time.sleep(REST)  # noqa: ASYNC251 — the loop is ours; the event loop's own sleep is 20 times as long
            await anyio.lowlevel.checkpoint()
        else:
            await anyio.sleep(REST)
        self._rested_at = time.monotonic()


# By id(): a hub keeps its loop alive, so the id is not used again meanwhile; the loop itself as the key
# would keep its hub alive in turn, and both for ever.
_hubs: WeakValueDictionary[int, LoopHub] = WeakValueDictionary()


def hub_of(loop: EventLoop, *, may_block: bool = False) -> LoopHub:
    """Return the hub of ``loop``, always the same one as long as somebody uses it.

    :param may_block: for the first call: whether the loop is ours alone, so that a rest may block it
    """
    hub = _hubs.get(id(loop))
    if hub is None:
        hub = _hubs[id(loop)] = LoopHub(loop, may_block=may_block)
    return hub
