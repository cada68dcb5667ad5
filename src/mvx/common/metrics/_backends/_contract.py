"""What the kernel asks of an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

Main = Callable[[], Coroutine[Any, Any, None]]


class LoopGoneError(Exception):
    """The event loop has ended: nothing posted to it will run."""


class EventLoop(Protocol):
    """One event loop, seen from any thread.  Instances compare by identity."""

    backend: str
    """``"asyncio"`` or ``"trio"``."""
    spawns_apart: bool
    """Whether nothing that a spawned task raises at its end can hurt the loop."""

    def listen(self, *, alone: bool) -> None:
        """Prepare for calls of :meth:`post` from other threads, as far as the backend needs that; in the loop.

        :param alone: whether nobody else works in this loop
        """
        ...

    def post(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` soon in the loop; never blocks.

        Legal in any thread, in a signal handler and in a finalizer; takes no lock after :meth:`listen`.
        ``callback`` must not raise: trio would bring the whole run down.  Near its end a loop may accept a callback
        and never run it.

        :raises LoopGoneError: if the loop has ended
        """
        ...

    def go_on(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` in the loop's next turn; only in a callback of the loop, and not in a signal handler.

        Without the system calls of :meth:`post`: each gives the interpreter away, and it takes up to 5 ms to get it
        back from a thread that is busy.

        :raises LoopGoneError: if the loop has ended
        """
        ...

    def is_current(self) -> bool:
        """Whether the calling thread is the one that runs this loop now."""
        ...

    def in_task(self) -> bool:
        """Whether a task of this loop runs in the calling thread now (not a mere callback)."""
        ...

    def is_running(self) -> bool:
        """Whether somebody runs this loop now; a loop between two runs can answer nobody."""
        ...

    def task_identity(self) -> object | None:
        """Return the task of this loop that runs in the calling thread, or None."""
        ...

    def now(self) -> float:
        """Return the loop's clock in seconds; only in the loop."""
        ...

    def alarm(self, when: float, callback: Callable[[], object]) -> bool:
        """Call ``callback`` once when the loop's clock shows ``when``, and not when it was told before; in the loop.

        Earlier if the loop comes to its end before, as far as that can be known.  Like that of :meth:`post` it must
        not raise.  Returns False if the loop takes no more alarms.
        """
        ...

    def no_alarm(self, callback: Callable[[], object]) -> None:
        """Do not call ``callback`` after all; only in the loop."""
        ...

    def spawn(self, main: Callable[[], Awaitable[object]], *, name: str, ended: Callable[[], object]) -> None:
        """Start ``main()`` as a task that belongs to the loop; only in the loop.

        It gets a context of its own, so that it keeps nothing alive of whoever started it.
        ``ended`` is called once after the task's end, also when the task was cancelled before
        its first step and ``main`` never ran.

        :raises LoopGoneError: if the loop takes no more tasks
        """
        ...

    def protected(self, main: Main) -> Main:
        """Return ``main`` so that Ctrl-C hits the program's main task and not this one, where that is possible."""
        ...

    def cancellations(self) -> int:
        """Count the cancellations that the current task was asked for; compare two readings.

        Tells a cancellation of the task apart from a ``CancelledError``, or a ``Cancelled``, that a
        hook merely passed on from something it awaited.  Under trio it grows with every reading
        while the task is cancelled.
        """
        ...

    def is_cancelled_since(self, before: int) -> bool:
        """Whether the current task has been cancelled since :meth:`cancellations` was ``before``, once and for all.

        asyncio cancels a task once: if something swallows that, nobody will do it again.  Always
        False under trio, which does so at every checkpoint.
        """
        ...
