"""The event loop ends, or is abandoned, at each suspension of a recorder and of its user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from mvx.common.metrics import RecorderInvalidStateError, RecorderState
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._waiting import current_loop
from tests.conftest import Tally
from tests.faults.arena import Arena
from tests.faults.checkpoints import ACTOR, BY_CLOSING, Means, Strike, Sweep, Victim, driving, soon, telling
from tests.faults.trial import CONTRARY, LASTING, Trial
from tests.support import DEADLINE


async def live(trial: Trial) -> None:
    """A life that nobody ends; the last event is emitted when everything else is done."""
    await trial.begin(trial.start)
    trial.emit()
    trial.emit()
    await trial.emit_when_room()
    await trial.begin(trial.flush)
    trial.emit()
    await trial.aget_metric_snapshots()
    trial.emit()


async def live_and_stop(trial: Trial) -> None:
    await live(trial)
    await trial.begin(trial.stop)


LIVES = pytest.mark.parametrize("life", [live, live_and_stop])
Life = Callable[[Trial], Coroutine[Any, Any, None]]


def cut_off(trial: Trial) -> None:
    """Cancel everything once more where the end of the loop would hang, which asyncio does if its one cancellation is lost."""
    if current_loop().backend == "trio":
        return

    def cancel_again() -> None:
        trial.hung = True
        for task in asyncio.all_tasks():
            task.cancel()

    asyncio.get_running_loop().call_later(DEADLINE, cancel_again)


def check_end(trial: Trial) -> None:
    """The loop has ended orderly: nothing is pending, and what was accepted is processed if the recorder had started."""
    assert not trial.hung, "the end of the loop waited for a recorder that nobody would have cancelled again"
    trial.check(complete=bool(trial.completed["starting"]))
    state = trial.get_status()
    assert state in (RecorderState.CANCELLED, RecorderState.STOPPED, RecorderState.FAILURE)
    # The loop is gone, and the recorder answers all the same.
    with pytest.raises(RecorderInvalidStateError):
        trial.register_event(trial.accepted[0])
    assert trial.flush().done()
    assert trial.stop().wait(0).error is not None
    assert len(trial.get_metric_snapshots()) == 2


@LIVES
def test_the_loop_ends_while_its_user_waits(life: Life, arena: Arena, tally: Tally) -> None:
    """asyncio.run and trio.run return when the main task does, wherever the recorder stands at that moment."""
    sweep = Sweep(BY_CLOSING)
    for temper in arena.tempers("suspends", *CONTRARY):
        for strike in sweep:
            made: list[Trial] = []

            async def main(strike: Strike = strike, temper: str = temper, made: list[Trial] = made) -> None:
                trial = Trial(temper=temper, queue_max_size=2)
                made.append(trial)
                cut_off(trial)
                trial.emit()
                await strike.drive(life(trial))

            with telling(strike, temper):
                anyio.run(main, **arena.keywords)
                check_end(made[0])
    sweep.record(tally, "ends of a loop, a waiting user gone", at_least=4)


@LIVES
def test_the_loop_ends_while_a_task_of_the_library_waits(
    life: Life, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise, at each suspension of the actor, whose clean-up is let run to its end."""
    use = driving(monkeypatch, *ACTOR)
    scope = anyio.CancelScope

    def leave(_: Victim) -> None:
        soon(current[-1].cancel)

    current: list[anyio.CancelScope] = []
    sweep = Sweep(Means("at a suspension of the recorder's tasks", leave))
    for temper in arena.tempers("suspends", *CONTRARY):
        for strike in sweep:
            use(strike)
            made: list[Trial] = []

            async def main(temper: str = temper, made: list[Trial] = made) -> None:
                with scope() as own:
                    current.append(own)
                    trial = Trial(temper=temper, queue_max_size=2)
                    made.append(trial)
                    cut_off(trial)
                    trial.emit()
                    await life(trial)

            with telling(strike, temper):
                anyio.run(main, **arena.keywords)
                check_end(made[0])
    sweep.record(tally, "ends of a loop", at_least=10)


@pytest.mark.parametrize("found_by", ["a waiter", "the interpreter"])
@pytest.mark.parametrize("who", ["user", "recorder"])
@pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")],
)
def test_a_loop_is_closed_without_its_tasks_being_cancelled(
    who: str, found_by: str, arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can run _on_stopped() any more, but everything is accounted for and answered as soon as anybody looks."""
    use = driving(monkeypatch, *ACTOR)
    sweep = Sweep(Means("at any suspension", lambda _: asyncio.get_running_loop().stop()))
    for strike in sweep:
        loop = arena.new_loop()
        made: list[Trial] = []

        async def main(strike: Strike = strike, made: list[Trial] = made) -> None:
            trial = Trial(queue_max_size=2)
            made.append(trial)
            trial.emit()
            await (strike.drive(live_and_stop(trial)) if who == "user" else live_and_stop(trial))

        if who == "recorder":
            use(strike)
        with telling(strike):
            task = loop.create_task(main())
            try:
                loop.run_until_complete(task)
            except RuntimeError:  # the loop was stopped before
                assert strike.struck
            left = asyncio.all_tasks(loop)
            loop.close()
            abandon(made[0], left, found_by)
    sweep.record(tally, "loops closed over running tasks", at_least=4)


def close(left: set[asyncio.Task[Any]]) -> None:
    """Do as the interpreter does at its end with what nobody will ever resume."""
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # asyncio would complain of what is meant here
        coroutine = task.get_coro()
        assert coroutine is not None
        try:
            coroutine.close()
        except RuntimeError:
            pass  # anyio does not like its scopes to be left outside of their task


def abandon(trial: Trial, left: set[asyncio.Task[Any]], found_by: str) -> None:
    """Find out that the loop is gone, the one way or the other, and check that everything has an end."""
    if found_by == "a waiter":
        trial.handles.append(trial.flush())
        core_of(trial).check_loop()  # what everybody who waits calls once in a second
    close(left)
    if trial.get_status() not in LASTING:
        assert not trial.begun["starting"]  # a task without a first step has nothing to close: left to whoever looks
        core_of(trial).check_loop()
    statistics = trial.statistics()
    assert trial.get_status() in LASTING
    assert statistics.pending == 0
    assert statistics.accepted == len(trial.accepted)
    assert statistics.rejected == trial.refused
    assert [handle for handle in trial.handles if not handle.done()] == []
    assert trial.begun["stopped"] <= trial.completed["starting"]
    run = core_of(trial)._run
    assert run is None or (run.starting.done() and run.stopping.done())
