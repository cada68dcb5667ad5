"""One of the threads of a schedule."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum, auto
from types import CodeType
from typing import Any

Body = Callable[[], object]
Baton = Any
"""A plain lock, acquired by whoever waits and released by whoever lets it go on."""


def baton() -> Baton:
    """Make a baton for which one has to wait."""
    made = threading.Lock()
    made.acquire()
    return made


class State(Enum):
    """What a thread is doing while it is not its turn."""

    READY = auto()
    WAITING = auto()
    """Until something holds."""
    SPINNING = auto()
    """Until another thread has done something."""
    DONE = auto()


class Thread:
    """What is known of it in one schedule; the operating system's thread serves all schedules in turn."""

    def __init__(self, number: int, name: str, body: Body, turn: Baton, *, service: bool, interruptible: bool) -> None:
        self.name = name
        self.body = body
        self.turn = turn
        self.service = service
        """Whether it may be left waiting when all others have ended."""
        self.interruptible = interruptible
        """Whether Ctrl-C may hit it."""
        self.state = State.READY
        self.ready: Callable[[], object] = bool
        """What it waits for."""
        self.deadline: float | None = None
        self.timed_out = False
        self.seen = -1
        """When it spins: how many turns had been passed on when it looked last."""
        # Written by the trace function.
        self.bit = 1 << number
        """Stands for it among the users of an attribute."""
        self.dirty = True
        """Whether it has touched something shared since it could have been preempted last."""
        self.pending = False
        """Whether it has passed a point since, at which it could be preempted."""
        self.at_point = True
        """Whether it is at such a point right now."""
        self.call: tuple[CodeType, int, int, bool] | None = None
        """Its last call: in which code, from where to where, and ``dirty`` before it."""

    def can_run(self, turns: int) -> bool:
        """Whether it has something to do, after so many turns."""
        if self.state is State.READY:
            return True
        if self.state is State.WAITING:
            return bool(self.ready())
        return self.state is State.SPINNING and turns > self.seen

    def may_time_out(self) -> bool:
        """Whether it waits with a time-out, and in vain so far."""
        return self.deadline is not None and not self.ready()
