"""asyncio, with any event loop implementation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any
from weakref import WeakValueDictionary

from ._contract import EventLoop, LoopGoneError, Main

# Public, and meant for event loop implementations; get_running_loop() costs an exception where none runs.
_native_loop = asyncio._get_running_loop  # noqa: SLF001 — see above

# By id(): an AsyncioLoop keeps its native loop alive, so the id is not used again meanwhile.
_known: WeakValueDictionary[int, AsyncioLoop] = WeakValueDictionary()


class AsyncioLoop:
    """The contract of :class:`EventLoop` on asyncio."""

    __slots__ = ("__weakref__", "_alarms", "_context", "_loop", "_tasks")

    backend = "asyncio"
    spawns_apart = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._alarms: dict[Callable[[], object], asyncio.TimerHandle] = {}
        # Callbacks run in a context of this loop's own: the emitter's would be kept alive until then.
        self._context = Context()
        # In a callback no task runs, and anyio cannot tell the backend unless sniffio's variable does.
        sniffio = sys.modules.get("sniffio")
        if sniffio is not None:
            self._context.run(sniffio.current_async_library_cvar.set, "asyncio")
        # asyncio itself refers to a task only weakly.
        self._tasks: set[asyncio.Task[object]] = set()

    def listen(self, *, alone: bool) -> None:
        pass  # asyncio's own way takes no lock

    def post(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, context=self._context)
        except RecursionError:  # a RuntimeError, too, but about the caller
            raise
        except RuntimeError as exc:
            raise LoopGoneError from exc

    def go_on(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon(callback, context=self._context)
        except RecursionError:
            raise
        except RuntimeError as exc:
            raise LoopGoneError from exc

    def is_current(self) -> bool:
        return _native_loop() is self._loop

    def in_task(self) -> bool:
        return self.task_identity() is not None

    def is_running(self) -> bool:
        return self._loop.is_running()

    def task_identity(self) -> object | None:
        if not self.is_current():
            return None
        return asyncio.current_task(self._loop)

    def now(self) -> float:
        return self._loop.time()

    def alarm(self, when: float, callback: Callable[[], object]) -> bool:
        self.no_alarm(callback)
        try:
            self._alarms[callback] = self._loop.call_at(when, self._sound, callback, context=self._context)
        except RecursionError:
            raise
        except RuntimeError:
            return False
        return True

    def _sound(self, callback: Callable[[], object]) -> None:
        del self._alarms[callback]
        callback()

    def no_alarm(self, callback: Callable[[], object]) -> None:
        handle = self._alarms.pop(callback, None)
        if handle is not None:
            handle.cancel()

    def spawn(self, main: Callable[[], Awaitable[object]], *, name: str, ended: Callable[[], object]) -> None:
        async def body() -> object:
            return await main()

        def finished(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                task.exception()  # Ctrl-C has gone its way; asyncio shall not complain that nobody took it
            ended()

        coroutine = body()
        try:
            # Not by create_task(context=…), which a task factory of the old form, (loop, coro), does not take.
            task = Context().run(self._loop.create_task, coroutine, name=name)
        except RecursionError:
            coroutine.close()
            raise
        except RuntimeError as exc:
            coroutine.close()
            raise LoopGoneError from exc
        self._tasks.add(task)
        task.add_done_callback(finished, context=self._context)  # else asyncio keeps a copy of the caller's

    def protected(self, main: Main) -> Main:
        return main  # Ctrl-C is the runner's business, which cancels the main task

    def cancellations(self) -> int:
        task = asyncio.current_task()
        return 0 if task is None else task.cancelling()

    def is_cancelled_since(self, before: int) -> bool:
        return self.cancellations() > before


def running_loop() -> EventLoop | None:
    """Return the asyncio event loop that runs in this thread, or None."""
    native = _native_loop()
    if native is None:
        return None
    loop = _known.get(id(native))
    if loop is None:
        loop = _known[id(native)] = AsyncioLoop(native)
    return loop
