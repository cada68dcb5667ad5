"""Waiting by itself: waiters of both kinds, and the value that is set once."""

from __future__ import annotations

import asyncio
import threading
import time
import types
from collections.abc import Callable, Coroutine, Generator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from mvx.common.metrics import RecorderLoopUnavailableError
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._room import WaitingLine
from mvx.common.metrics._waiting import OneShot, TaskWaiter, ThreadWaiter, current_loop
from tests.support import DEADLINE, until


def nothing() -> None:
    """A heartbeat that finds nothing."""


# --- waiters ---------------------------------------------------------------------------------------


def test_a_thread_is_told_once_for_all() -> None:
    """Told before it waits, and told twice, it goes on at once, and the next wait is one of its own."""
    waiter = ThreadWaiter()
    assert waiter.wait(0.0) is False
    waiter.notify()
    waiter.notify()
    assert waiter.wait(DEADLINE) is True
    assert waiter.wait(0.001) is False


def test_a_thread_can_wait_for_ever() -> None:
    """Longer than the platform's longest wait is as long as the platform can."""
    waiter = ThreadWaiter()
    waiter.notify()
    assert waiter.wait(float("inf")) is True


def test_a_task_waiter_needs_a_loop() -> None:
    """Where none runs, the error says so."""
    for make in (TaskWaiter, current_loop):
        with pytest.raises(RecorderLoopUnavailableError, match="calling thread"):
            make()


@pytest.mark.anyio
async def test_a_task_is_told_once_for_all() -> None:
    """By a task of its loop it is told at once; it tells whether it was."""
    waiter = TaskWaiter()
    assert await waiter.wait(0.0) is False
    waiter.notify()
    assert waiter._event.is_set()
    waiter.notify()
    assert await waiter.wait(DEADLINE) is True


@pytest.mark.anyio
async def test_a_task_is_told_from_a_thread() -> None:
    """Not in that thread: the loop does it."""
    waiter = TaskWaiter()
    setters: list[int] = []
    event = waiter._event

    class Noted:
        """The event, and who sets it."""

        wait, is_set = event.wait, event.is_set

        def set(self) -> None:
            setters.append(threading.get_ident())
            event.set()

    waiter._event = Noted()  # type: ignore[assignment] # has all of the event that is used
    threading.Thread(target=waiter.notify).start()
    with anyio.fail_after(DEADLINE):
        assert await waiter.wait(DEADLINE) is True
    assert setters == [threading.get_ident()]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_a_task_is_told_from_a_callback_of_its_loop(anyio_backend: object) -> None:
    """A signal handler looks just like one, so the event is not touched there."""
    waiter = TaskWaiter()
    set_at_once: list[bool] = []

    def callback() -> None:
        waiter.notify()
        set_at_once.append(waiter._event.is_set())

    asyncio.get_running_loop().call_soon(callback)
    assert await waiter.wait(DEADLINE) is True
    assert set_at_once == [False]


def test_a_task_that_went_with_its_loop_is_told_in_vain(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Nobody is there any more, and that is no failure of whoever tells."""
    waiters: list[TaskWaiter] = []

    async def main() -> None:
        waiters.append(TaskWaiter())

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)
    with pytest.raises(LoopGoneError):
        waiters[0]._loop.post(nothing)
    waiters[0].notify()


@pytest.mark.anyio
@pytest.mark.parametrize("told", ["before", "behind"])
async def test_a_task_whose_wait_was_closed_is_not_woken_any_more(told: str) -> None:
    """Whatever drives the wait goes on in the same task; under trio a wake-up from the wait would end the whole run."""
    waiter = TaskWaiter()
    teller = threading.Thread(target=waiter.notify)

    @types.coroutine
    def closing(wait: Coroutine[Any, Any, bool]) -> Generator[Any, Any, None]:
        """Suspend the wait as the loop would, and close it without ever having told the loop."""
        wait.send(None)
        if told == "before":
            teller.start()
            teller.join(DEADLINE)
        wait.close()
        if told == "behind":
            teller.start()
            teller.join(DEADLINE)
        yield from anyio.lowlevel.checkpoint().__await__()

    await closing(waiter.wait(DEADLINE))
    called = anyio.Event()
    waiter._loop.post(called.set)
    with anyio.fail_after(DEADLINE):
        await called.wait()
    assert called.is_set()


# --- the value -------------------------------------------------------------------------------------


def test_a_value_is_set_once() -> None:
    """The first one counts."""
    shot: OneShot[str | None] = OneShot()
    states = [shot.is_set]
    shot.set(None)
    shot.set("late")
    states.append(shot.is_set)
    assert states == [False, True]
    assert shot.peek() is None


class Clock:
    """Stands in for the module's time, and for the waiters, whose sleep moves it on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self.told = False
        clock = self

        class Asleep:
            def wait(self, timeout: float) -> bool:
                clock.waits.append(timeout)
                clock.now += timeout
                return clock.told

            def notify(self) -> None:
                """Too late to matter."""

        class AsleepTask(Asleep):
            async def wait(self, timeout: float) -> bool:  # type: ignore[override] # the async form of the same
                return super().wait(timeout)

        module = "mvx.common.metrics._waiting."
        monkeypatch.setattr(module + "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(module + "ThreadWaiter", Asleep)
        monkeypatch.setattr(module + "TaskWaiter", AsleepTask)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=["thread", "task"])
def wait(request: pytest.FixtureRequest) -> Callable[..., bool]:
    """The two forms of a wait; one contract."""

    def wait_as_thread(shot: OneShot[Any], timeout: float | None, heartbeat: Callable[[], object]) -> bool:
        return shot.wait(timeout, heartbeat)

    def wait_as_task(shot: OneShot[Any], timeout: float | None, heartbeat: Callable[[], object]) -> bool:
        return anyio.run(shot.wait_async, timeout, heartbeat)

    return wait_as_thread if request.param == "thread" else wait_as_task


def test_a_wait_ends_at_its_deadline(clock: Clock, wait: Callable[..., bool]) -> None:
    """It sleeps from heartbeat to heartbeat, and the last time for what is left."""
    shot: OneShot[int] = OneShot()
    beats: list[float] = []
    assert wait(shot, 2.5, lambda: beats.append(clock.now)) is False
    assert clock.waits == [1.0, 1.0, 0.5]
    assert beats == [101.0, 102.0, 102.5]
    assert not shot._waiters


def test_a_wait_of_no_time_does_not_sleep(clock: Clock, wait: Callable[..., bool]) -> None:
    """Nor does one of less."""
    shot: OneShot[int] = OneShot()
    for timeout in (0.0, -1.0):
        assert wait(shot, timeout, nothing) is False
    assert clock.waits == []
    assert not shot._waiters


def test_a_wait_without_a_limit_goes_on(clock: Clock, wait: Callable[..., bool]) -> None:
    """Until the value is there; the heartbeat may find the reason why it never would be, and set it."""
    shot: OneShot[int] = OneShot()

    def beat() -> None:
        if len(clock.waits) == 50:
            shot.set(7)

    assert wait(shot, None, beat) is True
    assert clock.waits == [1.0] * 50
    assert shot.peek() == 7


def test_a_wait_that_is_told_for_nothing_goes_on_without_a_heartbeat(clock: Clock, wait: Callable[..., bool]) -> None:
    """The heartbeat is for the waits that brought no word."""
    shot: OneShot[int] = OneShot()
    clock.told = True
    beats: list[None] = []
    assert wait(shot, 3.0, lambda: beats.append(None)) is False
    assert clock.waits == [1.0, 1.0, 1.0]
    assert beats == []


def test_a_wait_for_what_is_there(clock: Clock, wait: Callable[..., bool]) -> None:
    """It does not sleep, whatever its limit."""
    shot: OneShot[int] = OneShot()
    shot.set(1)
    for timeout in (None, 0.0, 5.0):
        assert wait(shot, timeout, nothing) is True
    assert clock.waits == []


def test_a_value_that_comes_as_the_waiter_takes_its_place(clock: Clock, wait: Callable[..., bool]) -> None:
    """It was set without the waiter's being seen: the waiter looks once more before it sleeps."""
    shot: OneShot[int] = OneShot()

    class Late(list[Any]):
        def append(self, waiter: object) -> None:
            shot.set(1)
            super().append(waiter)

    shot._waiters = Late()
    assert wait(shot, None, nothing) is True
    assert clock.waits == []
    assert not shot._waiters


@pytest.mark.anyio
async def test_a_wait_for_what_is_there_is_a_checkpoint() -> None:
    """It can be cancelled like any other."""
    shot: OneShot[int] = OneShot()
    shot.set(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await shot.wait_async(None, nothing)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_everybody_who_waits_is_told() -> None:
    """Tasks and threads alike; one that gave up is told no more."""
    shot: OneShot[int] = OneShot()
    results: list[bool] = []

    async def as_task() -> None:
        results.append(await shot.wait_async(None, nothing))

    def as_thread() -> None:
        results.append(shot.wait(None, nothing))

    with anyio.move_on_after(0.001):
        await shot.wait_async(None, nothing)
    assert not shot._waiters
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(as_task)
                group.start_soon(anyio.to_thread.run_sync, as_thread)
            while len(shot._waiters) < 6:
                await anyio.sleep(0.001)
            shot.set(1)
    assert results == [True] * 6
    assert not shot._waiters


def test_a_waiter_that_leaves_while_the_value_is_set() -> None:
    """The place that was there at the look is empty at the next step: there is nobody to tell."""
    shot: OneShot[int] = OneShot()

    class Leaving(list[Any]):
        def __bool__(self) -> bool:
            return True

        def __len__(self) -> int:
            return 1

    shot._waiters = Leaving()
    shot.set(1)
    assert shot.peek() == 1


def test_a_timed_wait_waits_by_the_real_clock() -> None:
    """About as long as asked."""
    shot: OneShot[int] = OneShot()
    began = time.monotonic()
    assert shot.wait(0.02, nothing) is False
    assert 0.02 <= time.monotonic() - began < DEADLINE


# --- the line --------------------------------------------------------------------------------------


def test_whoever_leaves_the_line_untold_takes_nobody_along() -> None:
    """No room has come, so nobody else is told."""
    line = WaitingLine(lambda: 1)
    first, second = ThreadWaiter(), ThreadWaiter()
    with line.waiting(second):
        with line.waiting(first):
            assert len(line) == 2
        assert len(line) == 1
        assert second.wait(0.0) is False


def test_whoever_leaves_the_line_by_an_exception_passes_the_room_on() -> None:
    """Told, and then cancelled: the next in line is told instead, and no more than there is room for."""
    line = WaitingLine(lambda: 1)
    first, second, third = ThreadWaiter(), ThreadWaiter(), ThreadWaiter()

    def give_up() -> None:
        with line.waiting(first):
            line._waiters.extend((second, third))
            line.grant()
            raise KeyError

    with pytest.raises(KeyError):
        give_up()
    assert first.wait(0.0) is True
    assert second.wait(0.0) is True
    assert third.wait(0.0) is False
    assert len(line) == 1


@pytest.mark.parametrize("room", [0, -1])
def test_no_room_is_nobodys(room: int) -> None:
    """Less than none, while the bound is exceeded, is none."""
    line = WaitingLine(lambda: room)
    waiter = ThreadWaiter()
    with line.waiting(waiter):
        line.grant()
        assert waiter.wait(0.0) is False
        assert len(line) == 1


def test_a_dismissed_thread_wakes() -> None:
    """In its own thread."""
    line = WaitingLine(lambda: 0)
    woken: list[bool] = []

    def body() -> None:
        waiter = ThreadWaiter()
        with line.waiting(waiter):
            woken.append(waiter.wait(DEADLINE))

    thread = threading.Thread(target=body)
    thread.start()
    until(lambda: line)
    line.dismiss()
    thread.join(DEADLINE)
    assert woken == [True]
