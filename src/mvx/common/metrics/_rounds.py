"""The rounds of an event loop: looking into many inboxes by turns, so that no event needs to ring.

While any of those on the roster gets events, all of them are looked at ten times a second, and an emit to any of them
is an append and nothing else.  When nothing has come for a while, the rounds end, and the first event rings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sized
from typing import Protocol

from ._backends import EventLoop
from ._copying import copied
from ._waiting import HEARTBEAT

ROUND = 0.1
"""Seconds between two looks at those on the roster, while any of them gets events; the default of ``linger``."""
QUIET_ROUNDS = 10
"""How many rounds may find nothing before they end and the next event has to ring."""
MAX_SHARE = 0.01
"""How much of the time may be spent looking; with thousands on the roster, a look comes the later."""
MAX_PAUSE = HEARTBEAT
"""Seconds between two looks at the most."""


class Attached(Protocol):
    """Something that a hub looks after all the time: a run."""

    def heal(self) -> None:
        """See whether a call from another thread was lost; must not raise."""
        ...

    def loop_ends(self) -> None:
        """Come to an end, soon, if nobody else sees to that; must not raise."""
        ...


class Worker(Attached, Protocol):
    """Something that works in turns: a run without a task."""

    def wake_up(self) -> None:
        """There are events for it; must not raise."""
        ...

    def turn(self) -> bool:
        """Work until there is nothing left to do, or the hub is tired; return whether there is more; must not raise."""
        ...


class Rounds:
    """Belongs to the hub of one loop, which makes the looks when they are due; in the loop, but for :meth:`enlist`."""

    def __init__(self, loop: EventLoop) -> None:
        """Begin with nobody on the roster, asleep."""
        self._loop = loop
        self._roster: dict[Worker, Sized] = {}
        """Those without a task, and where their events come in."""
        self.nap: list[None] = [None]
        """Holds a token while nobody looks: whoever finds it takes it and rings.  It stays the same list."""
        self.due = math.inf
        """When the next look is to be made, by the loop's clock."""
        self.events_came = False
        """Whether a worker has had events since the last look; for the workers to set."""
        self._quiet = 0

    def __len__(self) -> int:
        """Return how many are on the roster."""
        return len(self._roster)

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over those who are on the roster at this moment."""
        return iter(copied(self._roster))

    def enlist(self, worker: Worker, events: Sized) -> None:
        """Put ``worker`` on the roster: wake it when there are ``events``; from any thread."""
        self._roster[worker] = events

    def strike(self, worker: object) -> None:
        """Take ``worker`` off the roster, if it is there."""
        self._roster.pop(worker, None)  # type: ignore[call-overload] # it may be anything

    def are_stuck(self) -> bool:
        """Whether whoever took the token has not rung: nobody looks, and nobody else will ring."""
        return not self.nap and self.due == math.inf

    def look(self) -> None:
        """Wake those who have got events; if nobody has for a while, sleep until rung for."""
        # Its own work alone: for how long it was kept from that says nothing about what the next look will take.
        began = time.thread_time()
        if self._wake_who_has_events() or self.events_came:
            self.events_came = False
            self._quiet = 0
        elif self._quiet < QUIET_ROUNDS:
            self._quiet += 1
        else:
            self.nap[:] = [None]
            # Behind the write: whoever has found no token had put the event there before.
            if not self._wake_who_has_events():
                self.due = math.inf
                return
            self._quiet = 0
        self.nap.clear()
        pause = (time.thread_time() - began) / MAX_SHARE
        self.due = self._loop.now() + min(max(ROUND, pause), MAX_PAUSE)

    def end(self) -> None:
        """Look for the last time, and let nobody count on another look."""
        self.due = math.inf
        self.nap[:] = [None]
        self._wake_who_has_events()

    def _wake_who_has_events(self) -> bool:
        while True:
            try:
                found = [worker for worker, events in self._roster.items() if events]
                break
            except RecursionError:
                raise
            except RuntimeError:  # another thread has enlisted somebody meanwhile
                continue
        for worker in found:
            worker.wake_up()
        return bool(found)
