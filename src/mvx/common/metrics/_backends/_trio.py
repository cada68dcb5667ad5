"""trio."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import trio

from ._contract import EventLoop, LoopGoneError, Main

# By id(): a TrioLoop keeps its token alive, so the id is not used again meanwhile.
_known: WeakValueDictionary[int, TrioLoop] = WeakValueDictionary()


class TrioLoop:
    """The contract of :class:`EventLoop` on trio, where a loop is one call of ``trio.run``."""

    __slots__ = ("__weakref__", "_readings", "_token")

    backend = "trio"

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._readings = itertools.count()

    def post(self, callback: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except RuntimeError as exc:  # RunFinishedError is one
            raise LoopGoneError from exc

    def is_current(self) -> bool:
        return _current_token() is self._token

    def in_task(self) -> bool:
        return trio.lowlevel.in_trio_task() and self.is_current()

    def is_running(self) -> bool:
        return True

    def task_identity(self) -> object | None:
        return trio.lowlevel.current_task() if self.in_task() else None

    def now(self) -> float:
        return trio.current_time()

    def spawn(self, main: Callable[[], Awaitable[object]], *, name: str, ended: Callable[[], object]) -> None:
        async def body() -> None:
            try:
                await main()
            except BaseException:  # noqa: S110 — trio turns it into TrioInternalError for everybody
                pass
            finally:
                ended()

        try:
            trio.lowlevel.spawn_system_task(body, name=name)
        except RuntimeError as exc:
            raise LoopGoneError from exc

    def protected(self, main: Main) -> Main:
        return trio.lowlevel.enable_ki_protection(main)

    def cancellations(self) -> int:
        return next(self._readings)


def _current_token() -> trio.lowlevel.TrioToken | None:
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


def in_task() -> bool:
    """Return whether the calling thread is inside a trio task."""
    return trio.lowlevel.in_trio_task()


def running_loop() -> EventLoop | None:
    """Return the trio run of this thread, or None."""
    token = _current_token()
    if token is None:
        return None
    loop = _known.get(id(token))
    if loop is None:
        loop = _known[id(token)] = TrioLoop(token)
    return loop
