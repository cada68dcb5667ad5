"""The task of an ``async with recorder`` block is cancelled at each of its suspensions, entry and exit included."""

from __future__ import annotations

import pytest

from mvx.common.metrics import RecorderError, RecorderState
from mvx.common.metrics._recorder import core_of
from tests.conftest import Tally
from tests.faults.arena import Arena
from tests.faults.checkpoints import ACTOR, Strike, driving, in_time
from tests.faults.trial import Trial

pytestmark = pytest.mark.anyio

START_FAILS = ("raises in starting", "resents")
"""Hooks that may make a start fail, before the cancellation can."""


class Block:
    """One block, and how far it got."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.home_before = core_of(trial).home
        self.entered = False
        self.error: RecorderError | None = None

    async def body(self) -> None:
        """Enter, emit, wait for something, emit what is still pending at the end, and leave."""
        trial = self.trial
        try:
            async with trial:
                self.entered = True
                trial.emit()
                trial.emit()
                await trial.emit_when_room()
                trial.emit()
        except RecorderError as exc:
            self.error = exc

    def check(self) -> None:
        """The recorder has ended with the block, whatever ended that, and a new block could begin."""
        trial = self.trial
        assert core_of(trial).home is self.home_before
        # Whoever was let in has had a recorder that only stop() ends.
        trial.check(complete=self.entered)
        state = trial.get_status()
        if self.entered:
            fails = trial.temper == "raises in stopped"
            assert state is (RecorderState.FAILURE if fails else RecorderState.STOPPED)
            assert fails or self.error is None
        elif self.error is not None or (trial.temper in START_FAILS and state is RecorderState.FAILURE):
            assert state is RecorderState.FAILURE
        else:
            assert state in (RecorderState.VIRGIN, RecorderState.CANCELLED)


@pytest.mark.parametrize("capacity", [2, 10], ids=["full", "with-room"])
async def test_a_block_is_cancelled(capacity: int, arena: Arena, tally: Tally) -> None:
    """Left by a cancellation at any point, it leaves a recorder that has ended, and neither a task nor an event behind."""
    sweep = arena.sweep()
    async with arena.place("loop") as spot:
        for temper in arena.tempers(
            "suspends", "tidies up", "swallows", "raises in starting", "raises in changed", "raises in stopped"
        ):
            for strike in sweep:
                with in_time(strike, temper):
                    block = Block(spot.make(temper=temper, queue_max_size=capacity))
                    await strike.in_task(block.body())
                    block.check()
                    await spot.at_rest()
    sweep.record(tally, "blocks cancelled", at_least=10)


async def test_a_block_is_entered_again_after_one_that_was_cancelled(arena: Arena, tally: Tally) -> None:
    """A recorder that was stopped by the cancelled block begins anew in the next, and goes on counting."""
    sweep = arena.sweep()
    async with arena.place("loop") as spot:
        for strike in sweep:
            with in_time(strike):
                trial = spot.make()
                first = Block(trial)
                await strike.in_task(first.body())
                first.check()
                starts_before = trial.begun["starting"]
                second = Block(trial)
                await second.body()
                if first.entered:
                    second.check()
                    assert second.entered
                    assert trial.begun["stopped"] == 2
                    assert len(trial.accepted) >= 4
                else:
                    assert second.entered is (starts_before == 0)
                await spot.at_rest()
    sweep.record(tally, "blocks cancelled", at_least=4)


async def test_a_block_and_its_actor_are_cancelled_together(
    arena: Arena, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A native cancellation of every task, as the end of asyncio.run deals it, at any moment of both."""
    use = driving(monkeypatch, *ACTOR)
    tried = 0
    async with arena.place("loop") as spot:
        for outer in arena.sweep():
            inner = Strike(outer.means, 0)
            for inner_at in range(1, 40 if arena.long else 8, 1 if arena.long else 3):
                inner = Strike(outer.means, inner_at)
                again = Strike(outer.means, outer.at)
                use(inner)
                with in_time(outer, inner):
                    block = Block(spot.make(queue_max_size=2))
                    await again.in_task(block.body())
                    # The actor may have been cancelled before it was asked to stop.
                    block.trial.check(complete=bool(block.entered))
                    assert core_of(block.trial).home is block.home_before
                    await spot.at_rest()
                outer.struck = max(outer.struck, again.struck)
                tried += 1
    tally("blocks and their actors cancelled at two moments", tried)
