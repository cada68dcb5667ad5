"""Waiting for another thread or another event loop: one answer, any number of waiters.

Neither ``threading.Event`` nor ``concurrent.futures.Future`` fits.  An event of the standard
library takes a plain lock, which deadlocks when a signal handler sets what it interrupted;
a shared future wrapped for asyncio can be cancelled for all by one waiter's time-out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import anyio

from ._backends import EventLoop, LoopGoneError, running_loop
from .errors import RecorderLoopUnavailableError

T = TypeVar("T")

HEARTBEAT = 1.0
"""Seconds after which a wait looks whether the loop that it depends on is still there.

A loop may accept a wake-up near its end and never run it; whoever waits would wait for ever.
"""


class Waiter(Protocol):
    """Somebody who waits to be told to look again."""

    def notify(self) -> None:
        """Wake the waiter; from any thread; more than once is once."""
        ...


class ThreadWaiter:
    """Blocks the calling thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def notify(self) -> None:
        try:
            self._lock.release()
        except RecursionError:
            raise
        except RuntimeError:
            pass  # notified before and not yet awake

    def wait(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds; return whether notified."""
        return self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))


class TaskWaiter:
    """Suspends the calling task, on whatever loop runs it."""

    __slots__ = ("_event", "_is_gone", "_loop", "_process")

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop: EventLoop = current_loop()
        self._event = anyio.Event()
        self._is_gone = False

    def notify(self) -> None:
        if self._process != os.getpid():
            return  # a wake-up would reach the loop of the parent process
        if self._loop.in_task():
            self._wake()
            return
        # Not even from a callback of the same loop: a signal handler looks just like one.
        try:
            self._loop.post(self._wake)
        except LoopGoneError:
            pass  # the waiter went with its loop

    def _wake(self) -> None:
        if not self._is_gone:
            self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Suspend up to ``timeout`` seconds; return whether notified."""
        with anyio.move_on_after(timeout):
            try:
                await self._event.wait()
            except GeneratorExit:
                # Trio's event does not forget the task of a coroutine that was closed, which need not have ended: to
                # be woken by it, in the midst of something else, would end the whole run.
                self._is_gone = True
                raise
        return self._event.is_set()


def current_loop() -> EventLoop:
    """Return the event loop that runs in the calling thread.

    :raises RecorderLoopUnavailableError: if there is none
    """
    loop = running_loop()
    if loop is None:
        raise RecorderLoopUnavailableError
    return loop


class OneShot(Generic[T]):
    """A value that is set once, by anyone, and awaited by any number of threads and tasks.

    Cancelling one wait affects neither the value nor the other waiters.
    """

    __slots__ = ("_value", "_waiters", "is_set")

    _value: T

    def __init__(self) -> None:
        self.is_set = False
        self._waiters: list[ThreadWaiter | TaskWaiter] = []

    def set(self, value: T) -> None:
        """Set the value and wake every waiter; only the first call counts.

        Calls must not race with each other; with waiters they may.
        """
        if self.is_set:
            return
        self._value = value
        self.is_set = True
        while self._waiters:
            try:
                waiter = self._waiters.pop(0)
            except IndexError:
                break
            waiter.notify()

    def peek(self) -> T:
        """Return the value, which must have been set."""
        return self._value

    def wait(self, timeout: float | None, heartbeat: Callable[[], object]) -> bool:
        """Block the thread up to ``timeout`` seconds (None: no limit); return whether the value is set.

        Calls ``heartbeat`` about once a second meanwhile.
        """
        if self.is_set:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = ThreadWaiter()
        self._waiters.append(waiter)
        # Looked at after the waiter is in place: set() either sees the waiter or is seen here.
        try:
            while not self.is_set:
                left = HEARTBEAT if deadline is None else min(HEARTBEAT, deadline - time.monotonic())
                if left <= 0:
                    break
                if not waiter.wait(left):
                    heartbeat()
        finally:
            self._forget(waiter)
        return self.is_set

    async def wait_async(self, timeout: float | None, heartbeat: Callable[[], object]) -> bool:
        """Suspend the task likewise; on any loop."""
        if self.is_set:
            await anyio.lowlevel.checkpoint()
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = TaskWaiter()
        self._waiters.append(waiter)
        try:
            while not self.is_set:
                left = HEARTBEAT if deadline is None else min(HEARTBEAT, deadline - time.monotonic())
                if left <= 0:
                    break
                if not await waiter.wait(left):
                    heartbeat()
        finally:
            self._forget(waiter)
        return self.is_set

    def _forget(self, waiter: ThreadWaiter | TaskWaiter) -> None:
        if self._waiters:  # nearly always set() has taken it, and an exception costs as much as all the rest here
            with suppress(ValueError):
                self._waiters.remove(waiter)
