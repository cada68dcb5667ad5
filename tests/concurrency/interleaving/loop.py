"""An event loop for the explorer: one thread, callbacks in order, tasks, time-outs; and nothing that blocks.

It stands in for asyncio and trio below the package's own contract, :class:`EventLoop`, and below the few
things that the package takes from anyio.  It is equivalent, as far as other threads can tell:

* ``post()`` may be called from any thread and is one step, as ``call_soon_threadsafe`` is as far as the
  loop's own thread is concerned: that runs the callback after the append, or does not know of it yet.
* Everything else belongs to the loop's thread alone, both ends of the wake-up stream included, so other
  threads see of it only which of the package's own steps comes after which.  Those are the real ones.
"""

from __future__ import annotations

import math
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Self

import anyio

from mvx.common.metrics import _actor, _hub, _inbox, _waiting
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._backends._contract import Main
from tests.concurrency.interleaving.points import interleaved
from tests.concurrency.interleaving.stage import Stage

Callback = Callable[[], object]


class Cancelled(BaseException):
    """What a cancelled task gets."""


_stages: list[Stage] = []
"""The stage that is being used."""


def _loop_here_if_any() -> ScriptedLoop | None:
    (stage,) = _stages
    return stage.loops.get(stage.running)


def _loop_here() -> ScriptedLoop:
    loop = _loop_here_if_any()
    assert loop is not None, "no event loop runs in this thread"
    return loop


class _Parking:
    """Where a task waits."""

    def __init__(self) -> None:
        self.task: Task | None = None

    def wake(self, exc: BaseException | None = None) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.parking = None
            task.loop.ready.append(lambda: task.step(exc))


@types.coroutine
def _park(parking: _Parking) -> Generator[_Parking, None, None]:
    yield parking


async def checkpoint() -> None:
    """Let the loop's other callbacks run."""
    parking = _Parking()
    task = _loop_here().task
    assert task is not None
    task.loop.ready.append(parking.wake)
    await _park(parking)


class Task:
    """A coroutine that the loop runs."""

    def __init__(self, loop: ScriptedLoop, coroutine: Coroutine[Any, Any, object], ended: Callback) -> None:
        self.loop = loop
        self.parking: _Parking | None = None
        self.scopes: list[CancelScope] = []
        self.error: BaseException | None = None
        self.done = False
        self._coroutine = coroutine
        self._ended = ended

    def step(self, exc: BaseException | None = None) -> None:
        self.loop.task = self
        try:
            parking = self._coroutine.send(None) if exc is None else self._coroutine.throw(exc)
        except StopIteration:
            self.done = True
        except Exception as error:
            self.done, self.error = True, error
        else:
            self.parking, parking.task = parking, self
        finally:
            self.loop.task = None
        if self.done:
            self._ended()
            if self.error is not None:
                raise self.error

    def close(self) -> None:
        self._coroutine.close()


class CancelScope:
    """``anyio.CancelScope``: a deadline, and a cancellation at the next suspension."""

    def __init__(self, *, deadline: float = math.inf, shield: bool = False) -> None:
        self.shield = shield
        self.deadline = deadline
        self.cancel_called = False
        self._task: Task | None = None

    def __enter__(self) -> Self:
        self._task = _loop_here().task
        assert self._task is not None
        self._task.scopes.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        assert self._task is not None
        self._task.scopes.remove(self)
        self._task = None
        return self.cancel_called and isinstance(exc, Cancelled)

    def cancel(self) -> None:
        self.cancel_called = True
        if self._task is not None and self._task.parking is not None:
            self._task.parking.wake(Cancelled())


class Event:
    """``anyio.Event``."""

    def __init__(self) -> None:
        self._is_set = False
        self._parked: list[_Parking] = []

    def set(self) -> None:
        self._is_set = True
        for parking in self._parked:
            parking.wake()

    def is_set(self) -> bool:
        return self._is_set

    async def wait(self) -> None:
        while not self._is_set:
            parking = _Parking()
            self._parked.append(parking)
            try:
                await _park(parking)
            finally:
                self._parked.remove(parking)


class Stream:
    """Both ends of a memory object stream with room for one wake-up."""

    def __init__(self) -> None:
        self._full = False
        self._closed = False
        self._receiver = _Parking()

    def __class_getitem__(cls, kind: object) -> Callable[[int], tuple[Stream, Stream]]:
        def create(size: int) -> tuple[Stream, Stream]:
            assert size == 1
            stream = cls()
            return stream, stream

        return create

    def send_nowait(self, item: None) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._full:
            raise anyio.WouldBlock
        self._full = True
        self._receiver.wake()

    async def receive(self) -> None:
        await checkpoint()
        while not self._full:
            if self._closed:
                raise anyio.ClosedResourceError
            await _park(self._receiver)
        self._full = False

    def close(self) -> None:
        self._closed = True


class ScriptedLoop:
    """The contract of :class:`EventLoop` in a thread of a stage; any of its threads may run one."""

    backend = "scripted"
    spawns_apart = True

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ready: deque[Callback] = deque()
        self.timers: list[tuple[float, Callback]] = []
        self.task: Task | None = None
        self.tasks: list[Task] = []
        self.gone = False

    # --- the contract ----------------------------------------------------------------------------

    def listen(self, *, alone: bool) -> None:
        pass

    @interleaved  # so that Ctrl-C may come before the append and behind it
    def post(self, callback: Callback) -> None:
        if self.gone:
            raise LoopGoneError
        self.ready.append(callback)

    def go_on(self, callback: Callback) -> None:
        self.post(callback)

    def is_current(self) -> bool:
        return self.stage.loops.get(self.stage.running) is self

    def in_task(self) -> bool:
        return self.is_current() and self.task is not None

    def is_running(self) -> bool:
        return not self.gone

    def task_identity(self) -> object | None:
        return self.task if self.is_current() else None

    def now(self) -> float:
        return self.stage.clock

    def alarm(self, when: float, callback: Callback) -> bool:
        self.no_alarm(callback)
        self.timers.append((when, callback))
        return not self.gone

    def no_alarm(self, callback: Callback) -> None:
        self.timers = [timer for timer in self.timers if timer[1] != callback]

    def spawn(self, main: Callable[[], Awaitable[object]], *, name: str, ended: Callback) -> None:
        async def body() -> object:
            return await main()

        task = Task(self, body(), ended)
        self.tasks.append(task)
        self.ready.append(task.step)

    def protected(self, main: Main) -> Main:
        return main

    def cancellations(self) -> int:
        return 0

    def is_cancelled_since(self, before: int) -> bool:
        return False

    # --- running it ------------------------------------------------------------------------------

    def run(self, until: Callable[[], object] = bool) -> None:
        """Run callbacks and tasks in the calling thread, for ever or until something holds."""
        self.stage.loops[self.stage.running] = self
        while not until():
            if self.ready:
                self.ready.popleft()()
                continue
            scopes = [scope for task in self.tasks for scope in task.scopes if not scope.cancel_called]
            due = min([math.inf, *(when for when, _ in self.timers), *(scope.deadline for scope in scopes)])
            timeout = None if due == math.inf else due - self.stage.clock
            if not self.stage.wait(lambda: self.ready or until(), timeout):
                self.ready.extend(callback for when, callback in self.timers if when <= self.stage.clock)
                self.timers = [timer for timer in self.timers if timer[0] > self.stage.clock]
                for scope in scopes:
                    if scope.deadline <= self.stage.clock:
                        scope.cancel()

    def run_task(self, main: Callable[[], Awaitable[object]]) -> None:
        """Run one task to its end, in a thread that has nothing else to do."""
        self.spawn(main, name="main", ended=lambda: None)
        self.run(lambda: self.tasks[0].done)

    def run_what_is_ready(self) -> None:
        """Run on while there is something to do, after the schedule, from where it is looked at."""
        self.stage.loops[self.stage.running] = self
        while self.ready:
            self.ready.popleft()()

    def close(self) -> None:
        """Give up the tasks."""
        for task in self.tasks:
            task.close()


def on_scripted_loops(stage: Stage) -> dict[ModuleType, dict[str, object]]:
    """What to replace so that the package's coroutines run on scripted loops."""
    _stages[:] = [stage]

    def move_on_after(seconds: float | None, *, shield: bool = False) -> CancelScope:
        return CancelScope(deadline=math.inf if seconds is None else stage.clock + seconds, shield=shield)

    stand_in = SimpleNamespace(
        CancelScope=CancelScope,
        Event=Event,
        create_memory_object_stream=Stream,
        get_cancelled_exc_class=lambda: Cancelled,
        move_on_after=move_on_after,
        lowlevel=SimpleNamespace(checkpoint=checkpoint),
        sleep=lambda _: checkpoint(),
        WouldBlock=anyio.WouldBlock,
        BrokenResourceError=anyio.BrokenResourceError,
        ClosedResourceError=anyio.ClosedResourceError,
    )
    replaced: dict[ModuleType, dict[str, object]] = {
        module: {"anyio": stand_in} for module in (_actor, _hub, _inbox, _waiting)
    }
    replaced[_waiting]["running_loop"] = _loop_here_if_any
    return replaced
