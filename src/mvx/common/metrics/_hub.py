"""What the recorders of one event loop share: one pending wake-up, one clock, one heartbeat.

With a wake-up and a timer of its own for each of thousands of mostly idle recorders, every event
would pay for waking a loop that is awake already, and the loop would do little but run timers.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

import anyio

from ._backends import EventLoop, LoopGoneError
from ._fork import never_finalise, reset_in_child
from ._log import emit
from ._waiting import HEARTBEAT

SLICE = 0.001
"""Seconds of work after which a busy loop lets others have the interpreter."""
REST = 0.000_05
"""Seconds that it then really sleeps.

A thread that merely yields wins the interpreter lock back before the waiting ones notice; they
were measured to wait for seconds.  A real sleep of this length brings that down to milliseconds.
"""


class Sleeper(Protocol):
    """Something that wants to be looked at later: an inbox in its linger."""

    def look(self) -> None:
        """The set time has come; must not raise."""
        ...


class Attached(Protocol):
    """Something that the hub looks after all the time: the run of an actor."""

    def heal(self) -> None:
        """See whether a call from another thread was lost; must not raise."""
        ...


class LoopHub:
    """Belongs to one event loop; any thread may call :meth:`call_soon`, the rest is the loop's own."""

    def __init__(self, loop: EventLoop, *, may_block: bool) -> None:
        """Make a hub that does nothing until something is attached or called."""
        self.loop = loop
        loop.listen()
        self.active = 0
        """How many actors are at work; for telling a busy loop from an idle one."""
        self._may_block = may_block
        self._rested_at = 0.0
        self._calls: deque[Callable[[], object]] = deque()
        self._posted = False
        self._poster: int | None = None
        self._gone = False
        self._attached: dict[Attached, None] = {}
        # A heap of times and numbers; not of sleepers, as an entry may stay for hours when nobody wants it any more.
        self._due: list[tuple[float, int]] = []
        self._sleepers: dict[int, Sleeper] = {}
        # When each sleeper is to be looked at, and its number: one that dozes again only changes its time here.
        self._wanted: dict[Sleeper, tuple[float, int]] = {}
        self._order = itertools.count()
        self._ticker: anyio.CancelScope | None = None
        self._ticking = False
        self._ticker_may_return = False
        self._earlier = anyio.Event()
        self._sleeps_until = 0.0
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

    def after_fork_in_child(self) -> None:
        """The loop is the parent's; a wake-up would reach the parent."""
        self._gone = True
        never_finalise(self)

    # --- in the loop -----------------------------------------------------------------------------

    def _deliver(self) -> None:
        # Cleared first: whoever appends from now on posts again.
        self._posted = False
        if not self.active:
            self._rested_at = time.monotonic()
        for _ in range(len(self._calls)):
            try:
                callback = self._calls.popleft()
            except IndexError:
                return
            try:
                callback()
            except Exception as exc:
                emit(logging.ERROR, "a call into the event loop failed", error=exc, fields={})
        if self._calls and not self._posted:
            self._posted = True
            try:
                self.loop.post(self._deliver)
            except LoopGoneError:
                self._gone = True

    def attach(self, run: Attached) -> None:
        """Look after ``run`` from now on."""
        self._attached[run] = None
        if not self._ticking:
            self._ticking = True
            try:
                self.loop.spawn(self._tick, name="mvx.common.metrics hub", ended=self._ticker_ended)
            except LoopGoneError:
                self._ticking = False

    def detach(self, run: Attached) -> None:
        """Forget ``run``; with the last one the hub's task ends."""
        self._attached.pop(run, None)
        # A coroutine of a loop that is gone may be finalised anywhere.
        if not self._attached and self._ticker is not None and self.loop.is_current():
            self._ticker_may_return = True
            self._ticker.cancel()

    def look_later(self, sleeper: Sleeper, delay: float) -> bool:
        """Call ``sleeper.look()`` in ``delay`` seconds; return False if the hub cannot."""
        if self._ticker is None:
            return False
        due = self.loop.now() + delay
        if sleeper in self._wanted:
            number = self._wanted[sleeper][1]
        else:
            number = next(self._order)
            self._sleepers[number] = sleeper
            heapq.heappush(self._due, (due, number))
            if due < self._sleeps_until:
                self._earlier.set()
        self._wanted[sleeper] = due, number
        return True

    def look_no_more(self, sleeper: Sleeper) -> None:
        """Forget that ``sleeper`` wanted to be looked at."""
        if sleeper in self._wanted:
            del self._sleepers[self._wanted.pop(sleeper)[1]]
        if len(self._due) > 2 * len(self._wanted) + 64:
            self._due = [entry for entry in self._due if entry[1] in self._sleepers]
            heapq.heapify(self._due)

    def _look_at_the_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            sleeper = self._sleepers.get(number)
            if sleeper is None:
                continue
            wanted = self._wanted[sleeper][0]
            if wanted > now:
                heapq.heappush(self._due, (wanted, number))
            else:
                del self._wanted[sleeper], self._sleepers[number]
                sleeper.look()

    async def _tick(self) -> None:
        with anyio.CancelScope() as self._ticker:
            if not self._attached:
                self._ticker_may_return = True
                return
            next_heartbeat = self.loop.now() + HEARTBEAT
            while True:
                now = self.loop.now()
                if not self.active:
                    self._rested_at = time.monotonic()
                self._look_at_the_due(now)
                if now >= next_heartbeat:
                    next_heartbeat = now + HEARTBEAT
                    self._heartbeat()
                self._earlier = anyio.Event()
                self._sleeps_until = min(next_heartbeat, self._due[0][0]) if self._due else next_heartbeat
                with anyio.move_on_after(self._sleeps_until - now):
                    await self._earlier.wait()

    def _heartbeat(self) -> None:
        for run in tuple(self._attached):
            run.heal()
        self._deliver()

    def _ticker_ended(self) -> None:
        # Unless it was ended by detach(), the loop is about to end: no new task then.
        again = self._ticker_may_return
        self._ticker = None
        self._ticking = self._ticker_may_return = False
        overdue, self._wanted, self._sleepers, self._due = self._wanted, {}, {}, []
        for sleeper in overdue:
            sleeper.look()
        if self._attached and again:
            # Attached to between the last detach and the end of the task.
            self.attach(next(iter(self._attached)))

    def is_tired(self) -> bool:
        """Whether the loop has been busy for so long that other threads need a rest of it."""
        return time.monotonic() - self._rested_at >= SLICE

    async def rest(self) -> None:
        """Let other threads have the interpreter and other tasks the loop; a checkpoint."""
        if self._may_block:
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
