"""How a loop of trio's is woken: one of the library's own hears at once, in no task; anybody else's has a task for it."""

from __future__ import annotations

import errno
import os
import select
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

from mvx.common.metrics import MetricEvent, MetricsRuntime, MetricsRuntimeState
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._backends._bell import EventBell, SocketBell, new_bell
from mvx.common.metrics._hub import hub_of
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._waiting import current_loop
from tests.support import DEADLINE, Count, Tick, auntil, until

trio = pytest.importorskip("trio")

SOON = 0.005
"""Seconds until an alarm: the task that listens has gone to sleep by then."""


@pytest.fixture(params=["eventfd", "sockets", "sandbox"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[object]:
    """The kind of bell that a system gives."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EPERM, "not in here")

    if request.param == "sandbox":
        monkeypatch.setattr(os, "eventfd", refuse, raising=False)
    elif request.param == "sockets":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("this system has none")
    return EventBell if request.param == "eventfd" else SocketBell


@pytest.fixture
def runtime(bell: type[object]) -> Iterator[MetricsRuntime]:
    with MetricsRuntime(namespace="t", backend="trio") as runtime:
        yield runtime


def loop_of(runtime: MetricsRuntime) -> Any:
    """The loop of a runtime whose task that listens has begun to."""
    loop: Any = supervisor_of(runtime).engine_at_work().hub.loop
    said = threading.Event()
    loop.post(lambda: loop.go_on(said.set))
    assert said.wait(DEADLINE)
    return loop


def test_the_cheapest_bell_is_taken(runtime: MetricsRuntime, bell: type[object]) -> None:
    """Where the system, or a sandbox, has no eventfd, a pair of sockets does."""
    assert type(loop_of(runtime)._bell) is bell


def test_a_bell_closes_when_nobody_knows_of_it_any_more(bell: type[object]) -> None:
    """Not before, and without a warning; it takes any number of rings."""
    rung = new_bell()
    assert type(rung) is bell
    number = rung.reader if isinstance(rung.reader, int) else rung.reader.fileno()
    for _ in range(100_000):
        rung.ring()
    while select.select([number], [], [], 0)[0]:
        rung.silence()
    rung.silence()
    ring = rung.ring
    del rung
    ring()
    assert select.select([number], [], [], 0)[0]
    with warnings.catch_warnings(action="error"):
        del ring
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


class Probe:
    """Notes, each time that it is called, whether that is in a task."""

    def __init__(self) -> None:
        self.in_task: list[bool] = []

    def __call__(self) -> None:
        self.in_task.append(trio.lowlevel.in_trio_task())


class Probing(Count):
    """Does so with every event."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self._probe = probe

    def handle_event(self, event: MetricEvent) -> bool:
        self._probe()
        return super().handle_event(event)


def ways(loop: Any, probe: Probe) -> list[Callable[[], object]]:
    """All ways to have something called in a loop; each is taken in the loop."""

    def sound(callback: Callable[[], object]) -> None:
        loop.alarm(loop.now() + SOON, callback)

    return [
        partial(loop.post, probe),
        partial(loop.go_on, probe),
        partial(sound, probe),
        lambda: sound(lambda: loop.go_on(probe)),
        lambda: sound(lambda: loop.post(probe)),
        lambda: loop.go_on(lambda: loop.go_on(probe)),
        lambda: loop.go_on(lambda: sound(probe)),
    ]


def test_a_loop_of_the_librarys_own_makes_every_call_in_no_task(runtime: MetricsRuntime) -> None:
    """However it was asked for; so none of its metrics is called in a task before the loop comes to its end."""
    loop, probe = loop_of(runtime), Probe()
    for done, way in enumerate(ways(loop, probe)):
        loop.post(way)
        until(lambda done=done: len(probe.in_task) == done + 1)  # type: ignore[misc] # mypy cannot infer this one
    recorder = runtime.create_recorder("x")
    recorder.register_metric(Probing(probe))
    for n in range(3):
        recorder.register_event(Tick(n))
        assert recorder.flush().wait(DEADLINE).success
    assert not any(probe.in_task)


def test_anybody_elses_loop_pays_nothing_for_its_turns() -> None:
    """There a task makes the calls: an instrument would be called in each turn of that loop."""

    async def main() -> None:
        loop: Any = current_loop()
        hub_of(loop)
        probe = Probe()
        for done, way in enumerate(ways(loop, probe)):
            loop.post(way)
            await auntil(lambda done=done: len(probe.in_task) == done + 1)  # type: ignore[misc] # mypy cannot infer it
        assert all(probe.in_task)
        assert not loop._is_instrument

    anyio.run(main, backend="trio")


def test_an_alarm_ends_nobodys_wait(runtime: MetricsRuntime) -> None:
    """The task that listens sleeps through it: to cancel it would cost more than what the alarm is for."""
    loop = loop_of(runtime)

    def is_slept_through() -> bool:
        scope = loop._scope
        for _ in range(3):
            sounded = threading.Event()
            loop.post(lambda sounded=sounded: loop.alarm(loop.now() + SOON, sounded.set))
            assert sounded.wait(DEADLINE)
        return loop_of(runtime)._scope is scope

    until(is_slept_through)  # again if a time came between the two looks at the clock, the instrument's and trio's


def test_an_alarm_whose_time_comes_behind_the_look_at_the_clock(runtime: MetricsRuntime) -> None:
    """Then trio ends the wait of the task that listens, and the alarm is sounded in the next turn, in no task."""
    loop, probe = loop_of(runtime), Probe()

    async def be_late() -> None:
        loop._alarms[probe] = loop.now()
        loop._scope.cancel()

    loop.post(partial(loop.spawn, be_late, name="late", ended=lambda: None))
    until(lambda: probe.in_task)
    assert probe.in_task == [False]


@pytest.mark.parametrize("listener", ["awake", "asleep"])
def test_a_call_whose_ring_is_taken_away_with_anothers(runtime: MetricsRuntime, listener: str) -> None:
    """It comes behind the look at the calls, and rings before the bell is silenced: it is made all the same."""
    loop = loop_of(runtime)
    taken_away, made = threading.Event(), threading.Event()
    silence = loop._bell.silence

    class Bell:
        reader = loop._bell.reader
        ring = loop._bell.ring

        def silence(self) -> None:
            loop._bell = bell
            loop.post(made.set)
            silence()
            taken_away.set()

    bell, loop._bell = loop._bell, Bell()
    if listener == "awake":
        loop.post(lambda: None)
    else:
        while not taken_away.is_set():  # again if the task that listens had been awake all the same
            queue_and_wake(loop, lambda: None)
    assert made.wait(DEADLINE)


def queue_and_wake(loop: Any, call: Callable[[], object]) -> None:
    """Something else wakes the loop between a call and its ring: the call is made, and the task that listens sleeps on."""
    begun = threading.Event()

    def begin() -> None:
        begun.set()
        call()

    loop._calls.append([begin])
    # Again if the loop was awake, and had looked at the calls before.
    until(lambda: begun.is_set() or loop._token.run_sync_soon(lambda: None))


@pytest.mark.parametrize("way", ["go_on", "post", "alarm"])
def test_a_call_that_asks_for_another_before_its_own_ring(runtime: MetricsRuntime, way: str) -> None:
    """That one does not wait for a ring either."""
    loop = loop_of(runtime)
    made = threading.Event()
    if way == "alarm":
        queue_and_wake(loop, lambda: loop.alarm(loop.now() + SOON, lambda: loop.go_on(made.set)))
    else:
        queue_and_wake(loop, partial(getattr(loop, way), made.set))
    assert made.wait(DEADLINE)


def test_a_ring_for_a_call_that_has_been_made(runtime: MetricsRuntime) -> None:
    """Somebody has queued a call, another has rung, and now the first one rings: the bell does not ring for ever."""
    loop = loop_of(runtime)
    for _ in range(3):
        made = threading.Event()
        loop._calls.append([made.set])
        loop.post(lambda: None)
        assert made.wait(DEADLINE)
        loop._bell.ring()
        until(lambda: not select.select([loop._bell.reader], [], [], 0)[0])


@pytest.mark.parametrize("way", ["call", "alarm"])
def test_what_a_call_raises_ends_the_run(runtime: MetricsRuntime, way: str) -> None:
    """It must not raise, and if it does, the loop is not left behind deaf: the runtime says that it failed."""
    loop = loop_of(runtime)

    def fail() -> None:
        raise ArithmeticError

    with suppress(LoopGoneError):  # already
        loop.post(fail if way == "call" else lambda: loop.alarm(loop.now(), fail))
    until(lambda: runtime.get_status() is MetricsRuntimeState.FAILURE)


def test_an_instrument_that_trio_has_dropped(runtime: MetricsRuntime) -> None:
    """As it does when there is no memory to call it with: the task that listens takes over, and nothing is lost."""
    loop, probe = loop_of(runtime), Probe()

    async def drop() -> None:  # in a task: a call under way would go on behind it, and might sound the alarm itself
        trio.lowlevel.remove_instrument(loop)
        loop.alarm(loop.now() + SOON, probe)

    loop.post(partial(loop.spawn, drop, name="drop", ended=lambda: None))
    until(lambda: probe.in_task)
    for done, way in enumerate(ways(loop, probe), 1):
        loop.post(way)
        until(lambda done=done: len(probe.in_task) == done + 1)  # type: ignore[misc] # mypy cannot infer this one
    assert all(probe.in_task)
    recorder = runtime.create_recorder("x")
    recorder.register_metric(Count())
    recorder.register_event(Tick(0))
    assert recorder.flush().wait(DEADLINE).success


def test_an_instrument_that_trio_has_dropped_before_a_call(runtime: MetricsRuntime) -> None:
    """The call waits for the next alarm: the heartbeat, if there is no other."""
    loop, made = loop_of(runtime), threading.Event()

    async def drop() -> None:
        trio.lowlevel.remove_instrument(loop)
        loop.post(made.set)
        loop.alarm(loop.now() + SOON, lambda: None)

    loop.post(partial(loop.spawn, drop, name="drop", ended=lambda: None))
    assert made.wait(DEADLINE)


@pytest.mark.parametrize("made", [True, False])
def test_a_call_whose_poster_is_held_up_until_the_loop_has_ended(runtime: MetricsRuntime, made: bool) -> None:
    """Whoever posts it is told that the loop is gone only if the call was not made, and never will be."""
    loop = loop_of(runtime)
    held_up, ended = threading.Event(), threading.Event()
    calls: list[str] = []

    class Calls(deque[Any]):
        def append(self, call: Any) -> None:
            if not threading.current_thread().name.startswith("poster"):
                super().append(call)
            elif made:
                super().append(call)
                loop._bell.ring()
                held_up.set()
                assert ended.wait(DEADLINE)
            else:
                held_up.set()
                assert ended.wait(DEADLINE)
                super().append(call)

    loop._calls = Calls()
    with ThreadPoolExecutor(1, thread_name_prefix="poster") as pool:
        post = pool.submit(loop.post, partial(calls.append, "made"))
        assert held_up.wait(DEADLINE)
        if made:
            until(lambda: calls)
        runtime.shutdown()
        ended.set()
        error = post.exception(DEADLINE)
    assert calls == (["made"] if made else [])
    assert error is None if made else isinstance(error, LoopGoneError)
