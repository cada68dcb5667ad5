"""Whoever awaits an operation is cancelled at each of its suspensions: the recorder must not feel it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from mvx.common.metrics import RecorderState
from mvx.common.metrics._recorder import core_of
from tests.conftest import Tally
from tests.faults.arena import Arena
from tests.faults.checkpoints import BY_CLOSING, Strike, in_time
from tests.faults.trial import Place, Trial
from tests.support import Gate, auntil

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens before, and what is cancelled."""

    body: Callable[[Trial], Coroutine[Any, Any, None]]
    running: bool = False
    """Whether the recorder is running when the body begins."""
    pending: int = 0
    """How many events it has not processed by then."""
    raising: tuple[str, ...] = ()
    """Which of the hooks that raise have a part in it."""


async def start(trial: Trial) -> None:
    await trial.begin(trial.start)


async def emit(trial: Trial) -> None:
    trial.emit()
    await anyio.lowlevel.checkpoint()
    trial.emit()
    await trial.begin(trial.flush)


async def flush(trial: Trial) -> None:
    await trial.begin(trial.flush)


async def snapshot(trial: Trial) -> None:
    before = len(trial.accepted)
    snapshots = await trial.aget_metric_snapshots()
    assert snapshots["first"]["dimensions"]["total"] >= before - trial.statistics().abandoned


async def stop(trial: Trial) -> None:
    await trial.begin(trial.stop)


async def restart(trial: Trial) -> None:
    await trial.begin(trial.stop)
    await trial.begin(trial.start)
    trial.emit()
    await trial.begin(trial.stop)


SCENARIOS = {
    "start": Scenario(start, raising=("raises in starting",)),
    "emit": Scenario(emit, raising=("raises in starting", "raises in changed")),
    "flush": Scenario(flush, running=True, pending=2, raising=("raises in changed",)),
    "flush of nothing": Scenario(flush, running=True),
    "snapshot": Scenario(snapshot, running=True, pending=2, raising=("raises in changed",)),
    "drain": Scenario(stop, running=True, pending=2, raising=("raises in changed", "raises in stopped")),
    "stop": Scenario(stop, running=True, raising=("raises in stopped",)),
    "restart": Scenario(restart, running=True, pending=1),
}


async def go_on(trial: Trial) -> None:
    """Use the recorder on, end it, and check that it has lost nothing and done everything once."""
    fails_to_start = trial.temper == "raises in starting"
    await trial.begin(trial.flush)
    if trial.get_status() in (RecorderState.STARTING, RecorderState.RUNNING):
        trial.emit()
        assert await trial.begin(trial.flush) or fails_to_start
    await trial.end()
    trial.check(complete=not fails_to_start)
    if trial.temper in ("raises in starting", "raises in stopped") and trial.begun["starting"]:
        assert trial.get_status() is RecorderState.FAILURE
    else:
        assert trial.get_status() in (RecorderState.STOPPED, RecorderState.VIRGIN)


async def run(scenario: Scenario, spot: Place, temper: str, strike: Strike) -> None:
    trial = spot.make(temper=temper)
    if scenario.running:
        await trial.begin(trial.start)
    for _ in range(scenario.pending):
        trial.emit()
    await strike.in_task(scenario.body(trial))
    await go_on(trial)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_wait_is_cancelled_and_the_operation_goes_on(name: str, home: str, arena: Arena, tally: Tally) -> None:
    """Wherever the waiting task is cancelled, the recorder starts, processes, and stops as if it had not been."""
    scenario = SCENARIOS[name]
    sweep = arena.sweep(BY_CLOSING)
    async with arena.place(home) as spot:
        for temper in arena.tempers("suspends", *scenario.raising):
            for strike in sweep:
                with in_time(strike, temper):
                    await run(scenario, spot, temper, strike)
                    await spot.at_rest()
    sweep.record(tally, "waits for an operation cancelled")


async def test_a_wait_for_room_is_cancelled_and_the_event_was_not_accepted(
    home: str, arena: Arena, tally: Tally
) -> None:
    """Whoever waits for room behind the cancelled task gets what that one has left."""
    sweep = arena.sweep(BY_CLOSING)
    async with arena.place(home) as spot:
        for temper in arena.tempers("suspends", "raises in changed"):
            if temper == "raises in starting":
                continue  # then nobody waits for room
            for strike in sweep:
                with in_time(strike, temper):
                    await wait_for_room(spot, temper, strike)
                    await spot.at_rest()
    sweep.record(tally, "waits for room cancelled")


async def wait_for_room(spot: Place, temper: str, strike: Strike) -> None:
    trial = spot.make(temper=temper, queue_max_size=2)
    trial.held = Gate()
    await trial.begin(trial.start)
    trial.emit()
    await auntil(trial.held.reached.is_set)
    trial.emit()
    assert trial.statistics().pending == 2

    gate, line = trial.held, core_of(trial).inbox.line
    ended = False

    async def victim() -> None:
        for _ in range(3):
            await trial.emit_when_room()

    async def let_in() -> None:
        while len(line) < 2 and not ended:
            await anyio.lowlevel.checkpoint()
        gate.open()

    async with anyio.create_task_group() as group:
        group.start_soon(let_in)
        group.start_soon(trial.emit_when_room)
        await strike.in_task(victim())
        ended = True
    await go_on(trial)
    assert trial.refused == 0
    assert trial.begun["changed"] == 2 * len(trial.accepted)
