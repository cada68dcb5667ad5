"""Whoever uses a runtime is cancelled at each suspension, and so is whatever runs in the runtime's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    MetricsRuntime,
    MetricsRuntimeError,
    MetricsRuntimeShutdownError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderState,
)
from mvx.common.metrics import _exit as last_drain
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
from tests.conftest import Tally
from tests.faults.arena import Arena
from tests.faults.checkpoints import (
    ACTOR,
    BY_CLOSING,
    BY_TASK_CANCEL,
    Means,
    Strike,
    Sweep,
    Victim,
    drive_tasks,
    driving,
    in_time,
    no_task_left,
    soon,
)
from tests.faults.trial import RAISING, Trial, library_threads
from tests.support import auntil

pytestmark = pytest.mark.anyio

ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")],
)

ENDED = (MetricsRuntimeState.CLOSED, MetricsRuntimeState.FAILURE)


class Life:
    """A runtime with one recorder, and how far its user got."""

    def __init__(self, arena: Arena, temper: str) -> None:
        self.runtime = MetricsRuntime(namespace="test", **arena.keywords)
        self.temper = temper
        self.made: list[Trial] = []
        self.created = False
        self.entered = False

    def make(self, *args: Any, **options: Any) -> Trial:
        # Not the runtime's own policy, which does not tell the emitter.
        options["queue_overflow_policy"] = OverflowPolicy.RAISE_ERROR
        trial = Trial(*args, temper=self.temper, **options)
        self.made.append(trial)
        return trial

    async def block(self) -> None:
        """Lead it as a block."""
        with suppress(MetricsRuntimeError):
            async with self.runtime:
                self.entered = True
                await self._work()

    async def by_hand(self) -> None:
        """Likewise, spelt out."""
        await self.runtime.astart()
        with suppress(MetricsRuntimeError):
            await self._work()
        await self._shut_down()

    async def _work(self) -> None:
        trial = await self.runtime.acreate_recorder("trial", factory=self.make, queue_max_size=2)
        self.created = True
        assert trial is self.made[0]
        for _ in range(4):
            trial.emit()
        await trial.emit_when_room()
        await trial.begin(trial.flush)
        trial.emit()

    async def _shut_down(self) -> None:
        with suppress(MetricsRuntimeShutdownError):
            await self.runtime.ashutdown()

    async def end(self) -> None:
        """Shut down in the orderly way whatever the cancellation has left of it."""
        await auntil(lambda: self.runtime.get_status() is not MetricsRuntimeState.STARTING)
        await self._shut_down()
        await self.ended()

    async def ended(self) -> None:
        """Wait until it has ended, of itself."""
        await auntil(lambda: self.runtime.get_status() in ENDED)
        await auntil(lambda: not library_threads())

    def check(self) -> None:
        """No thread, no task and no event is left, and nothing is kept for the process's exit."""
        supervisor = supervisor_of(self.runtime)
        assert supervisor not in last_drain._running
        assert not supervisor._creations
        fails = self.temper in ("raises in starting", "raises in stopped") and bool(self.made)
        assert fails or self.runtime.get_status() is MetricsRuntimeState.CLOSED
        for trial in self.made:
            trial.check(complete=self.created and self.temper != "raises in starting")
            if self.created and self.temper in ("suspends", "raises in changed"):
                assert trial.get_status() is RecorderState.STOPPED
        engine = supervisor._engine
        if engine is not None:
            assert not engine.ready._waiters
            assert not engine.ended._waiters


async def test_a_runtime_as_a_block_is_cancelled(arena: Arena, tally: Tally) -> None:
    """However it is left, its recorders have been drained and its thread ends, with nobody to ask for it."""
    sweep = arena.sweep()
    async with arena.quick(), no_task_left():
        for temper in arena.tempers("suspends", "raises in stopped"):
            for strike in sweep:
                with in_time(strike, temper):
                    life = Life(arena, temper)
                    await strike.in_task(life.block())
                    await life.ended()
                    life.check()
    sweep.record(tally, "runtimes' blocks cancelled", at_least=5)


async def test_the_user_of_a_runtime_is_cancelled(arena: Arena, tally: Tally) -> None:
    """A start and a shutdown go on when nobody waits for them any more, and the runtime can be used and ended as ever."""
    sweep = arena.sweep(BY_CLOSING)
    async with arena.quick(), no_task_left():
        for temper in arena.tempers("suspends", "raises in starting"):
            for strike in sweep:
                with in_time(strike, temper):
                    life = Life(arena, temper)
                    await strike.in_task(life.by_hand())
                    await life.end()
                    life.check()
    sweep.record(tally, "users of a runtime cancelled", at_least=4)


@pytest.mark.parametrize("where", ["on another loop", "on the runtime's loop"])
async def test_a_creation_is_cancelled(where: str, arena: Arena, tally: Tally) -> None:
    """Its recorder ends, the id is free again, and the runtime has forgotten it; or it was created."""
    sweep = arena.sweep(BY_CLOSING)
    async with arena.quick(), no_task_left():
        life = Life(arena, "suspends")
        async with life.runtime:
            run = over_there(life.runtime) if where == "on the runtime's loop" else strike_here
            for temper in arena.tempers("suspends", "tidies up", "swallows", "raises in starting"):
                life.temper = temper
                for strike in sweep:
                    with in_time(strike, temper):
                        await create(life, strike, run)
    sweep.record(tally, "creations of a recorder cancelled")


Run = Callable[[Strike, Callable[[], Any]], Awaitable[object]]


async def strike_here(strike: Strike, body: Callable[[], Any]) -> object:
    return await strike.in_task(body())


def over_there(runtime: MetricsRuntime) -> Run:
    async def run(strike: Strike, body: Callable[[], Any]) -> object:
        async def there() -> object:
            return await strike.in_task(body())

        future = await anyio.to_thread.run_sync(runtime.portal.start_task_soon, there)
        await auntil(future.done)
        return future.result()

    return run


async def create(life: Life, strike: Strike, run: Run) -> None:
    runtime = life.runtime
    life.made.clear()
    created: list[Trial] = []

    async def body() -> None:
        with suppress(MetricsRuntimeError):
            created.append(await runtime.acreate_recorder("one", factory=life.make))

    await run(strike, body)
    if not created:
        await auntil(lambda: not supervisor_of(runtime)._creations and not runtime.list_recorder_ids())
        for trial in life.made:
            run_made = core_of(trial)._run
            if run_made is not None:
                await run_made.stopping
            trial.check(complete=False)
        life.made.clear()
        life.temper = "suspends"
        created.append(await runtime.acreate_recorder("one", factory=life.make))
    trial = created[0]
    assert runtime.list_recorder_ids() == ("one",)
    trial.emit()
    assert await trial.begin(trial.flush)
    await trial.end()
    assert await anyio.to_thread.run_sync(runtime.stop_and_remove_recorder, "one") is trial
    trial.check(complete=True)
    hub = supervisor_of(runtime).home.hub()
    await auntil(lambda: not hub._beating)
    assert hub.active == 0
    assert not hub._attached
    assert not hub.rounds


async def test_the_runtimes_surroundings_are_cancelled(
    arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its task group is cancelled at any suspension of an actor, the recorders drain, and the runtime says that it failed."""
    use = driving(monkeypatch, *ACTOR)
    life: Life | None = None

    def cancel_everything(_: Victim) -> None:
        assert life is not None
        soon(supervisor_of(life.runtime).engine_at_work().home._task_group.cancel_scope.cancel)

    sweep = Sweep(Means("by the runtime's task group", cancel_everything))
    async with arena.quick(), no_task_left():
        for temper in arena.tempers("suspends", "tidies up"):
            for strike in sweep:
                use(strike)
                with in_time(strike, temper):
                    life = Life(arena, temper)
                    await life.block()
                    await life.ended()
                    (trial,) = life.made
                    trial.check(complete=bool(trial.completed["starting"]))
                    assert not supervisor_of(life.runtime)._creations
                    if not strike.struck and temper not in RAISING:
                        assert life.runtime.get_status() is MetricsRuntimeState.CLOSED
    sweep.record(tally, "actors in a runtime cancelled", at_least=10)


@ASYNCIO
async def test_any_task_of_a_runtime_is_cancelled(arena: Arena, tally: Tally) -> None:
    """Be it a creation, an actor or the shutdown: everything is accounted for, and the thread ends."""
    strike: Strike | None = None

    def loop_factory() -> asyncio.AbstractEventLoop:
        loop = arena.new_loop()
        drive_tasks(loop, lambda: strike)
        return loop

    sweep = Sweep(*(means for means in arena.sweep().means if means.native))
    assert BY_TASK_CANCEL in sweep.means
    async with arena.quick(), no_task_left():
        for strike in sweep:
            with in_time(strike):
                life = Life(arena, "suspends")
                life.runtime = MetricsRuntime(namespace="test", backend_options={"loop_factory": loop_factory})
                await life.block()
                await life.ended()
                for trial in life.made:
                    trial.check(complete=bool(trial.completed["starting"]) and life.created)
                assert not supervisor_of(life.runtime)._creations
    sweep.record(tally, "tasks in a runtime cancelled", at_least=15)


@ASYNCIO
async def test_one_recorder_of_a_runtime_is_cancelled_and_its_neighbours_go_on(arena: Arena, tally: Tally) -> None:
    """Whichever of a recorder's tasks it hits, the runtime and its other recorders do not feel it."""
    strike: Strike | None = None

    def loop_factory() -> asyncio.AbstractEventLoop:
        loop = arena.new_loop()
        drive_tasks(loop, lambda: strike, names=("mvx.common.metrics recorder victim",))
        return loop

    sweep = Sweep(*(means for means in arena.sweep().means if means.native))
    async with arena.quick(), no_task_left():
        life = Life(arena, "suspends")
        life.runtime = MetricsRuntime(namespace="test", backend_options={"loop_factory": loop_factory})
        async with life.runtime as runtime:
            neighbour = await runtime.acreate_recorder("neighbour", factory=life.make)
            for strike in sweep:
                with in_time(strike):
                    with suppress(MetricsRuntimeError):
                        victim = await runtime.acreate_recorder("victim", factory=life.make)
                        victim.emit()
                        victim.emit()
                        await victim.end()
                        await anyio.to_thread.run_sync(runtime.stop_and_remove_recorder, "victim")
                    trial = life.made.pop()
                    await trial.end()
                    trial.check(complete=False)
                    neighbour.emit()
                    assert await neighbour.begin(neighbour.flush)
                    assert runtime.get_status() is MetricsRuntimeState.RUNNING
        assert neighbour.get_status() is RecorderState.STOPPED
        neighbour.check(complete=True)
    sweep.record(tally, "tasks of one recorder in a runtime cancelled", at_least=10)
