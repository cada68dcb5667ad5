"""The recorder's own tasks are cancelled at each of their suspensions: the account must balance all the same."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from mvx.common.metrics import FailurePolicy, RecorderDrainTimeoutError, RecorderError, RecorderState
from mvx.common.metrics._hub import LoopHub
from mvx.common.metrics._recorder import core_of
from tests.conftest import Tally
from tests.faults.arena import Arena
from tests.faults.checkpoints import ACTOR, BY_SCOPE, Means, Strike, Sweep, Victim, drive_tasks, driving, in_time, soon
from tests.faults.trial import RAISING, PlainTrial, Trial, pause

pytestmark = pytest.mark.anyio

EVERYWHERE = pytest.mark.parametrize("home", ["loop", "group", "runtime", "block"])
ON_THIS_LOOP = pytest.mark.parametrize("home", ["loop", "group", "block"])
ASYNCIO = pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")],
)


async def live(trial: Trial) -> None:
    """Do everything that a user can do with a recorder, and take no for an answer."""
    await trial.begin(trial.start)
    trial.emit()
    trial.emit()
    await trial.emit_when_room()
    await trial.begin(trial.flush)
    trial.emit()
    await trial.aget_metric_snapshots()
    trial.emit()
    await trial.begin(trial.stop)


async def live_in_block(trial: Trial) -> None:
    """Likewise in the form of a block."""
    try:
        async with trial:
            await live(trial)
            await pause()  # a block goes on when its recorder has ended
    except RecorderError:
        assert trial.get_status() in (RecorderState.FAILURE, RecorderState.CANCELLED)


async def lead(home: str, trial: Trial) -> None:
    """Lead a whole life."""
    await (live_in_block(trial) if home == "block" else live(trial))
    await trial.end()


def spot_of(home: str) -> str:
    """A block makes a home of its own on the loop."""
    return "loop" if home == "block" else home


def never_fails(temper: str) -> bool:
    return temper not in ("raises in starting", "raises in stopped")


@EVERYWHERE
async def test_the_actor_is_cancelled_from_outside(
    home: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has started it processes what was accepted, runs _on_stopped() once, and answers everybody."""
    use = driving(monkeypatch, *ACTOR)
    sweep = arena.sweep()
    async with arena.place(spot_of(home)) as spot:
        for temper in arena.tempers("suspends", "resents"):
            for strike in sweep:
                use(strike)
                with in_time(strike, temper):
                    trial = spot.make(temper=temper, queue_max_size=2)
                    await lead(home, trial)
                    trial.check(complete=bool(trial.completed["starting"]))
                    await spot.at_rest()
                    if home in ("group", "block") and strike.means is BY_SCOPE and never_fails(temper):
                        assert trial.get_status() is RecorderState.STOPPED, "only a stop ends the recorder of a block"
    sweep.record(tally, "actors cancelled", at_least=15)


@EVERYWHERE
@pytest.mark.parametrize("kind", [Trial, PlainTrial])
async def test_a_busy_actor_is_cancelled_while_it_rests(
    home: str, kind: type[Trial], arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rest after every event is one more place to be cut, and no event is lost there."""
    monkeypatch.setattr(LoopHub, "is_tired", lambda _: True)
    use = driving(monkeypatch, *ACTOR)
    sweep = arena.sweep(thorough=False)
    async with arena.place(spot_of(home)) as spot:
        for strike in sweep:
            use(strike)
            with in_time(strike):
                trial = spot.make(kind, queue_max_size=2)
                await lead(home, trial)
                trial.check(complete=bool(trial.completed["starting"]))
                await spot.at_rest()
    sweep.record(tally, "busy actors cancelled", at_least=8)


@EVERYWHERE
async def test_the_time_of_an_actor_is_up(
    home: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own scope is cancelled, as at the end of a drain's time or of a creation: what is left is abandoned, and counted."""
    use = driving(monkeypatch, *ACTOR)
    trial: Trial | None = None

    def interrupt(_: Victim) -> None:
        assert trial is not None
        soon(core_of(trial).interrupt)

    sweep = Sweep(Means("by their own scope", interrupt))
    async with arena.place(spot_of(home)) as spot:
        for temper in arena.tempers("suspends", "swallows", *RAISING):
            for strike in sweep:
                use(strike)
                with in_time(strike, temper):
                    trial = spot.make(temper=temper, queue_max_size=2)
                    await lead(home, trial)
                    trial.check(complete=False)
                    await spot.at_rest()
                    error = core_of(trial).error
                    if trial.get_status() is RecorderState.STOPPED:
                        assert error is None or isinstance(error, RecorderDrainTimeoutError)
                    else:
                        assert error is not None
    sweep.record(tally, "actors cancelled", at_least=15)


@EVERYWHERE
async def test_an_actor_that_fails_is_cancelled(
    home: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure under FailurePolicy.FAIL and a cancellation, whichever comes first, give one end and one account."""
    use = driving(monkeypatch, *ACTOR)
    sweep = arena.sweep(thorough=False)
    async with arena.place(spot_of(home)) as spot:
        for strike in sweep:
            use(strike)
            with in_time(strike):
                trial = spot.make(temper="raises in changed", queue_max_size=2, failure_policy=FailurePolicy.FAIL)
                await lead(home, trial)
                trial.check(complete=False, every_metric=False)
                await spot.at_rest()
                assert trial.get_status() in (RecorderState.FAILURE, RecorderState.CANCELLED)
    sweep.record(tally, "failing actors cancelled", at_least=5)


@ASYNCIO
@ON_THIS_LOOP
async def test_any_task_of_the_library_is_cancelled(home: str, arena: Arena, tally: Tally) -> None:
    """Whichever of its tasks it hits, found by a task factory and not by name."""
    sweep = arena.sweep(thorough=False)
    loop = asyncio.get_running_loop()
    current: list[Strike] = []
    async with arena.place(spot_of(home)) as spot:
        drive_tasks(loop, lambda: current[-1] if current else None)
        for strike in sweep:
            current.append(strike)
            with in_time(strike):
                trial = spot.make(queue_max_size=2)
                await lead(home, trial)
                trial.check(complete=bool(trial.completed["starting"]))
                await spot.at_rest()
        loop.set_task_factory(None)
    sweep.record(tally, "tasks of the library cancelled", at_least=15)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio makes no eager tasks before Python 3.12")
@pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {}), id="asyncio")])  # uvloop's own affair
@ON_THIS_LOOP
@pytest.mark.parametrize("who", ["actor", "user"])
async def test_eager_tasks_are_cancelled(
    home: str, who: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor that takes its first steps inside start() can be cancelled like any other, and so can its user."""
    use = driving(monkeypatch, *ACTOR)
    sweep = arena.sweep(thorough=False)
    loop = asyncio.get_running_loop()
    # Not there before 3.12, which the type checker is told to expect.  No other factory: anyio knows this one.
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    async with arena.place(spot_of(home)) as spot:
        loop.set_task_factory(factory)
        for temper in arena.tempers("suspends", "raises in starting"):
            for strike in sweep:
                with in_time(strike, temper):
                    trial = spot.make(temper=temper, queue_max_size=2)
                    if who == "actor":
                        use(strike)
                        await lead(home, trial)
                    else:
                        await strike.in_task(lead(home, trial))
                        await trial.end()
                    trial.check(complete=bool(trial.completed["starting"]) and (who == "actor" or home != "block"))
                    await spot.at_rest()
        loop.set_task_factory(None)
    sweep.record(tally, f"eager {who}s cancelled")
