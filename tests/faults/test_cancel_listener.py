"""Under trio the library has one task of its own in each loop, which waits for calls and sounds the alarms.

It is cancelled at each of its suspensions, and so is the loop that it is in, while recorders linger over events.
asyncio does either without a task.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderState,
)
from mvx.common.metrics import _hub as hub_module
from mvx.common.metrics import _rounds as rounds_module
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._hub import LoopHub, hub_of
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._waiting import current_loop
from tests.conftest import Tally
from tests.faults.arena import Arena
from tests.faults.checkpoints import BY_SCOPE, Means, Strike, Sweep, Victim, driving, soon, telling
from tests.faults.hostile import in_thread
from tests.faults.test_cancel_runtime import ENDED
from tests.faults.trial import PlainTrial, Trial, library_threads, place
from tests.support import DEADLINE, auntil, until

_backend = pytest.importorskip("mvx.common.metrics._backends._trio")

pytestmark = pytest.mark.parametrize("anyio_backend", [pytest.param(("trio", {}), id="trio")])

LISTENER = _backend.TrioLoop, "_listen"
NEVER = Strike(BY_SCOPE, 0)
LONG = 3600.0
"""Seconds that no test lasts: what lingers for so long is there until somebody looks at it."""


class HooklessTrial(Trial):
    """Has no hooks: in a runtime it has no task, but turns."""

    _on_starting = MetricsRecorder._on_starting
    _on_metric_changed = MetricsRecorder._on_metric_changed
    _on_stopped = MetricsRecorder._on_stopped


KINDS: tuple[tuple[type[Trial], float | None], ...] = (
    (Trial, LONG),
    (PlainTrial, LONG),
    (HooklessTrial, LONG),
    # In a runtime it is looked at by rounds.
    (HooklessTrial, None),
)
"""One of each kind, and its linger."""


@pytest.fixture(autouse=True)
def one_round_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its first event a recorder on the roster lingers as long as the others."""
    for pause in ("ROUND", "MAX_PAUSE"):
        monkeypatch.setattr(rounds_module, pause, LONG)
    monkeypatch.setattr(hub_module, "HEARTBEAT", LONG)


def at_rest(trial: Trial) -> bool:
    """Whether it has processed everything, and sleeps or lingers."""
    return is_through(trial) and not core_of(trial).inbox.awake


def is_through(trial: Trial) -> bool:
    return trial.statistics().processed == len(trial.accepted)


async def come_round(hub: LoopHub) -> None:
    """Have the task that listens hear of something, and suspend itself again."""
    said = anyio.Event()
    here = current_loop()
    hub.call_soon(lambda: here.post(said.set))
    await said.wait()


async def lead(trials: Sequence[Trial], hub: LoopHub, strike: Strike) -> None:
    """Have all of them linger over events, again and again."""
    for trial in trials:
        if trial.get_status() is RecorderState.VIRGIN:
            assert await trial.begin(trial.start)
    for _ in range(3):
        for trial in trials:
            trial.emit()
        await come_round(hub)
        if not strike.struck:
            for trial in trials:
                assert await trial.begin(trial.flush)
        # If there is nobody left who ends a linger, then nobody lingers.
        await auntil(lambda: all(map(at_rest, trials)))
        for trial in trials:
            trial.emit()
            trial.emit()
        await come_round(hub)
        await come_round(hub)
        if strike.struck:
            await auntil(lambda: all(map(is_through, trials)))


@asynccontextmanager
async def trials_in(home: str, arena: Arena) -> AsyncIterator[tuple[list[Trial], LoopHub]]:
    """Open a home, and in it one trial of each kind."""
    if home == "block":
        trials = [kind(linger=linger) for kind, linger in KINDS]
        async with AsyncExitStack() as stack:
            for trial in trials:
                await stack.enter_async_context(trial)
            yield trials, hub_of(current_loop())
    else:
        async with place(home, arena.keywords) as spot:
            trials = [spot.make(kind, linger=linger) for kind, linger in KINDS]
            yield trials, core_of(trials[0]).home.hub()


def run(arena: Arena, main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main`` in a loop of its own, which must come to its end."""
    in_thread(lambda: anyio.run(main, **arena.keywords))


@pytest.mark.parametrize("home", ["loop", "group", "runtime"])
def test_the_listener_is_cancelled(home: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lingers is looked at there and then; from then on there is no linger and no heartbeat, and nothing is missed."""
    use = driving(monkeypatch, *LISTENER)
    sweep = Sweep(BY_SCOPE)
    for strike in sweep:

        async def main(strike: Strike = strike) -> None:
            use(NEVER if home == "runtime" else strike)
            here = hub_of(current_loop())
            use(strike)  # of a runtime, only that of its own loop
            with anyio.fail_after(DEADLINE):
                async with trials_in(home, arena) as (trials, hub):
                    await lead(trials, hub, strike)
                    for trial in trials:
                        assert await trial.begin(trial.stop)
                        trial.check(complete=True)
                        assert trial.get_status() is RecorderState.STOPPED
                        assert len(trial.accepted) == 9
                    assert (hub is here) is (home != "runtime")
                    assert (hub.active, hub._attached, len(hub.rounds), hub._timetable._wanted) == (0, {}, 0, {})

        with telling(strike):
            run(arena, main)
            assert library_threads() == []
    sweep.record(tally, "tasks that listen cancelled", at_least=10)


def test_a_call_that_comes_as_the_listener_ends(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has seen it listen, and queues a call when it has looked for the last time, has the call made all the same."""
    listen = _backend.TrioLoop._listen
    scopes: list[anyio.CancelScope] = []
    made: list[str] = []

    async def listen_in_scope(loop: Any) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await listen(loop)

    async def main() -> None:
        hub = hub_of(current_loop())
        await come_round(hub)
        loop: Any = hub.loop
        at_the_gate, ended = threading.Event(), threading.Event()

        class HeldUp(deque[list[Callable[[], object]]]):
            def append(self, call: list[Callable[[], object]]) -> None:
                at_the_gate.set()
                assert ended.wait(DEADLINE)
                super().append(call)

        loop._calls = HeldUp()
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, loop.post, lambda: made.append("call"))
                await auntil(at_the_gate.is_set)
                scopes[0].cancel()
                await auntil(lambda: not loop._listening)
                ended.set()
            await auntil(lambda: made)

    monkeypatch.setattr(_backend.TrioLoop, "_listen", listen_in_scope)
    run(arena, main)
    assert made == ["call"]


@pytest.mark.parametrize("home", ["loop", "block"])
def test_the_loop_ends_while_the_listener_waits(
    home: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its suspensions: all that was accepted is processed, nobody waits for the end of a linger."""
    use = driving(monkeypatch, *LISTENER)
    scopes: list[anyio.CancelScope] = []

    def leave(_: Victim) -> None:
        soon(scopes[-1].cancel)

    sweep = Sweep(Means("at a suspension of the task that listens", leave))
    for strike in sweep:
        use(strike)
        made: list[Trial] = []

        async def main(strike: Strike = strike, made: list[Trial] = made) -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                async with trials_in(home, arena) as (trials, hub):
                    made.extend(trials)
                    await lead(trials, hub, strike)

        with telling(strike):
            run(arena, main)
            for trial in made:
                trial.check(complete=True)
    sweep.record(tally, "ends of a loop", at_least=10)


def test_a_runtimes_loop_ends_while_its_listener_waits(
    arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its suspensions: all that was accepted is processed, the runtime says that it failed, its thread ends."""
    use = driving(monkeypatch, *LISTENER)
    life: Life | None = None

    def end(_: Victim) -> None:
        assert life is not None
        life.ends_early = not life.over.is_set()
        engine = supervisor_of(life.runtime)._engine
        assert engine is not None
        if hasattr(engine, "home"):
            soon(engine.home._task_group.cancel_scope.cancel)
        else:  # it is coming up
            engine.give_up()

    sweep = Sweep(Means("at a suspension of the task that listens in a runtime", end))
    for strike in sweep:
        use(strike)
        life = Life(MetricsRuntime(namespace="test", **arena.keywords))
        with telling(strike):
            life.live(strike)
            for trial in life.made:
                trial.check(complete=True)
                if life.ends_early and trial.accepted:
                    assert trial.get_status() is RecorderState.CANCELLED
            if life.ends_early or not strike.struck:
                end_state = MetricsRuntimeState.FAILURE if life.ends_early else MetricsRuntimeState.CLOSED
                assert life.runtime.get_status() is end_state
            if not strike.struck:
                assert [trial.get_status() for trial in life.made] == [RecorderState.STOPPED] * len(KINDS)
                assert [len(trial.accepted) for trial in life.made] == [9] * len(KINDS)
    sweep.record(tally, "ends of a loop", at_least=10)


class Life:
    """A runtime whose recorders linger over events until it is shut down, unless it ends before."""

    def __init__(self, runtime: MetricsRuntime) -> None:
        self.runtime = runtime
        self.made: list[Trial] = []
        self.over = threading.Event()
        """Set in the runtime's loop before the shutdown."""
        self.ends_early = False

    def live(self, strike: Strike) -> None:
        """Lead it to its end."""
        with suppress(MetricsRuntimeError, LoopGoneError):
            self.runtime.start()
            hub = supervisor_of(self.runtime).engine_at_work().hub
            for kind, linger in KINDS:
                self.runtime.create_recorder(
                    f"{kind.__name__} {linger}", factory=partial(self.make, kind), linger=linger
                )
            for _ in range(3):
                self.linger(hub)
            self.come_round(hub, self.over)
            if not strike.struck:
                self.runtime.shutdown()
        until(self.ended)
        until(lambda: not library_threads())

    def make(self, kind: type[Trial], *args: Any, **options: Any) -> Trial:
        # Not the runtime's own policy, which does not tell the emitter.
        options["queue_overflow_policy"] = OverflowPolicy.RAISE_ERROR
        trial = kind(*args, **options)
        self.made.append(trial)
        return trial

    def linger(self, hub: LoopHub) -> None:
        for trial in self.made:
            trial.emit()
            trial.handles.append(trial.flush())
        for trial in self.made:
            trial.handles[-1].wait(DEADLINE)
        until(lambda: self.ended() or all(map(at_rest, self.made)))
        for trial in self.made:
            trial.emit()
            trial.emit()
        for _ in range(2):
            self.come_round(hub, threading.Event())

    def come_round(self, hub: LoopHub, said: threading.Event) -> None:
        hub.call_soon(said.set)
        until(lambda: self.ended() or said.is_set())

    def ended(self) -> bool:
        return self.runtime.get_status() in ENDED
