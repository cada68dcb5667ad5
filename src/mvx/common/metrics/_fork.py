"""What a forked child must make anew.

Of the parent's threads only the forking one lives on in the child, while every lock, event loop and
wake-up pipe is there as it was: a lock may be held for ever, and writing to the pipe wakes the
*parent's* loop.  So in the child everything begins anew, and what was the parent's is neither used
nor closed: an epoll instance is shared by both processes, and closing the loop here would make the
parent deaf.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Resettable(Protocol):
    """Something that holds locks, threads or loops."""

    def after_fork_in_child(self) -> None:
        """Begin anew; no thread may be started and nothing may block here."""
        ...


_resettable: WeakSet[Resettable] = WeakSet()
_left_behind: list[object] = []


def reset_in_child(thing: Resettable) -> None:
    """Call ``thing.after_fork_in_child()`` in every child forked while it lives."""
    _resettable.add(thing)


def never_finalise(thing: object) -> None:
    """Keep ``thing`` until the process ends."""
    _left_behind.append(thing)


def _after_fork_in_child() -> None:
    for thing in list(_resettable):
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
