"""Cancelled from outside, by whatever means: what was accepted is processed, hooks run once, all waits end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    RecorderDispatcherCancelledError,
    RecorderDrainTimeoutError,
    RecorderOnStoppedHookFailedError,
    RecorderState,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._recorder import core_of
from tests.support import DEADLINE, Count, Failing, Gate, Journal, Seen, Tick, balanced, virgin


def own_tasks() -> list[str]:
    """Names of the library's tasks that still run on the current asyncio loop."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("mvx")]


def test_the_end_of_a_loop_drains_its_recorders(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """A recorder that nobody stopped processes what it accepted when its loop ends, and says CANCELLED."""
    made: list[Journal] = []

    async def main() -> None:
        recorder = Journal()
        made.append(recorder)
        recorder.register_metric(Count())
        assert (await recorder.start()).success
        for n in range(10):
            recorder.register_event(Tick(n))

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)
    recorder = made[0]
    assert recorder.get_status() is RecorderState.CANCELLED
    assert recorder.log == ["starting", "started", *["changed"] * 10, "stopping", "stopped"]
    assert balanced(recorder.statistics())
    assert recorder.statistics().processed == 10
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 10}


def test_a_loop_that_ends_at_once_accounts_for_its_events(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """An event emitted in the last moment of a loop is processed or counted as abandoned."""
    made: list[Journal] = []

    async def main() -> None:
        recorder = Journal()
        made.append(recorder)
        recorder.register_metric(Count())
        recorder.register_event(Tick())

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)
    statistics = made[0].statistics()
    assert balanced(statistics)
    assert statistics.accepted == 1
    assert made[0].get_status() is RecorderState.CANCELLED
    assert made[0].log.count("stopped") == made[0].log.count("started")


class StuckOnce(Journal):
    """Its first change hook never returns."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self.log.append("changed")
        self.changed.reached.set()
        if self.log.count("changed") == 1:
            await anyio.sleep_forever()


def test_a_hook_cut_by_the_end_of_its_loop(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """The metrics behind the one whose hook was cut see the event, and later events are processed."""
    made: list[StuckOnce] = []
    first, second = Seen("first"), Seen("second")

    async def main() -> None:
        recorder = StuckOnce()
        made.append(recorder)
        recorder.register_metric(first)
        recorder.register_metric(second)
        for n in range(3):
            recorder.register_event(Tick(n))
        with anyio.fail_after(DEADLINE):
            while not recorder.changed.reached.is_set():
                await anyio.sleep(0)

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)
    recorder = made[0]
    assert recorder.get_status() is RecorderState.CANCELLED
    assert [len(first.events), len(second.events)] == [3, 3]
    assert recorder.log == ["starting", "started", *["changed"] * 6, "stopping", "stopped"]
    assert recorder.statistics().hook_errors == 1
    assert balanced(recorder.statistics())
    assert recorder.statistics().abandoned == 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_native_cancel_again_and_again(anyio_backend: object) -> None:
    """Task.cancel() pierces every shield: each cuts one hook, and the drain goes on."""
    recorder = Journal()
    seen = Seen()
    recorder.register_metric(seen)
    recorder.changed = Gate()
    for n in range(5):
        recorder.register_event(Tick(n))
    while not recorder.changed.reached.is_set():
        await asyncio.sleep(0)
    run = core_of(recorder)._run
    assert run is not None
    assert isinstance(run.task, asyncio.Task)
    for cuts in range(1, 4):
        run.task.cancel()
        while recorder.statistics().hook_errors < cuts:
            await asyncio.sleep(0)
    recorder.changed.open()
    while recorder.get_status() is not RecorderState.CANCELLED:
        await asyncio.sleep(0)
    assert len(seen.events) == 5
    assert recorder.statistics().processed == 5
    assert recorder.log.count("stopped") == 1
    await anyio.wait_all_tasks_blocked()
    assert own_tasks() == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_native_cancel_during_the_stopped_hook(anyio_backend: object) -> None:
    """_on_stopped() can be cut, is reported, and is not run again."""
    recorder = Journal()
    assert (await recorder.start()).success
    recorder.stopped = Gate()
    stop = recorder.stop()
    while not recorder.stopped.reached.is_set():
        await asyncio.sleep(0)
    run = core_of(recorder)._run
    assert run is not None
    assert isinstance(run.task, asyncio.Task)
    run.task.cancel()
    result = await stop
    assert isinstance(result.error, RecorderOnStoppedHookFailedError)
    assert recorder.log == ["starting", "started", "stopping"]
    assert recorder.get_status() is RecorderState.FAILURE


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_a_task_cancelled_before_its_first_step(anyio_backend: object) -> None:
    """Then not even the body runs; the account is settled all the same."""
    recorder = Journal()
    recorder.register_event(Tick())
    handle = recorder.start()
    for task in asyncio.all_tasks():
        if task.get_name().startswith("mvx.common.metrics recorder"):
            task.cancel()
    result = await handle
    assert isinstance(result.error, RecorderDispatcherCancelledError)
    assert recorder.get_status() is RecorderState.CANCELLED
    assert balanced(recorder.statistics())
    assert recorder.statistics().abandoned == 1
    assert recorder.log == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # asyncio says so of every such task
async def test_a_block_whose_task_is_cancelled_before_its_first_step(anyio_backend: object) -> None:
    """Then the end of the block settles the account."""
    recorder = Journal()

    async def block() -> None:
        async with recorder:
            pytest.fail("entered")

    task = asyncio.create_task(block())
    recorder.register_metric(Count())
    while recorder.get_status() is RecorderState.VIRGIN:
        await asyncio.sleep(0)
        for other in asyncio.all_tasks():
            if other is task or other.get_name().startswith("mvx"):
                other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.get_status() in (RecorderState.CANCELLED, RecorderState.VIRGIN)
    assert recorder.start().done()
    assert recorder.log == []
    del task
    gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_a_hook_that_passes_a_cancellation_on(anyio_backend: object) -> None:
    """A CancelledError from something that a hook awaited is the hook's failure and not the recorder's end."""

    class Careless(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            task = asyncio.ensure_future(asyncio.sleep(3600))
            task.cancel()
            await task

    async with Careless() as recorder:
        recorder.register_metric(Count())
        for n in range(3):
            recorder.register_event(Tick(n))
        assert (await recorder.flush()).success
        assert recorder.get_status() is RecorderState.RUNNING
        assert recorder.statistics().hook_errors == 3


@pytest.mark.anyio
async def test_a_hook_that_never_returns_ends_with_the_drain(home: str) -> None:
    """stop() ends at its deadline, says what was abandoned, and runs _on_stopped()."""
    async with virgin(home, Journal, drain_timeout=0.05) as recorder:
        first, second = Seen("first"), Seen("second")
        recorder.register_metric(first)
        recorder.register_metric(second)
        recorder.changed = Gate()
        for n in range(5):
            recorder.register_event(Tick(n))
        assert (await recorder.start()).op_name == "START"
        flush = recorder.flush()
        result = await recorder.stop()
        assert isinstance(result.error, RecorderDrainTimeoutError)
        assert result.error.details == {"abandoned": 4, "drain_timeout_seconds": 0.05}
        assert [len(first.events), len(second.events)] == [1, 1]
        assert not (await flush).success
        assert recorder.log[-2:] == ["stopping", "stopped"]
        assert recorder.get_status() is RecorderState.STOPPED
        statistics = recorder.statistics()
        assert (statistics.processed, statistics.abandoned, statistics.hook_errors) == (1, 4, 1)
        assert balanced(statistics)


@pytest.mark.anyio
async def test_cancelling_a_wait_does_not_cancel_the_operation(home: str) -> None:
    """One waiter gives up; the stop goes on and the other waiter sees its end."""
    async with virgin(home, Journal) as recorder:
        assert (await recorder.start()).success
        recorder.stopped = Gate()
        handle = recorder.stop()
        with anyio.move_on_after(0.01) as scope:
            await handle
        assert scope.cancelled_caught
        assert not handle.done()
        recorder.stopped.open()
        assert (await handle).success


@pytest.mark.anyio
async def test_each_waiter_gets_an_error_of_its_own(home: str) -> None:
    """One instance raised in several tasks would mix their tracebacks."""
    async with virgin(home, Journal) as recorder:
        recorder.errors["starting"] = ValueError("no")
        handle = recorder.start()
        one, two = await handle, await handle
        assert one.error is not None
        assert one.error is not two.error
        assert one.error.cause is two.error.cause  # type: ignore[union-attr] # told by the line before
        assert handle.wait().error is not one.error


@pytest.mark.anyio
@pytest.mark.parametrize("operation", ["start", "stop", "flush"])
async def test_a_hook_cannot_await_its_own_recorder(home: str, operation: str) -> None:
    """The hook is told at once instead of waiting for itself for ever."""
    raised: list[BaseException] = []

    class Selfish(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            calls: dict[str, Callable[[], Any]] = {"start": self.start, "stop": self.stop, "flush": self.flush}
            try:
                await calls[operation]()
            except RecorderWouldDeadlockError as exc:
                raised.append(exc)
            try:
                await self.aget_metric_snapshots()
            except RecorderWouldDeadlockError as exc:
                raised.append(exc)

    async with virgin(home, Selfish) as recorder:
        recorder.register_metric(Count())
        recorder.register_event(Tick())
        with anyio.fail_after(DEADLINE):
            while recorder.statistics().processed < 1:
                await anyio.sleep(0)
        # start() of a running recorder has its answer at once: there is nothing to wait for.
        assert len(raised) == (1 if operation == "start" else 2)


@pytest.mark.anyio
async def test_leaving_a_block_reports_a_failure() -> None:
    """A stop that fails is raised at the end of the block, unless the block fails already."""
    with pytest.raises(RecorderOnStoppedHookFailedError):
        async with Journal() as recorder:
            recorder.errors["stopped"] = ValueError("no")
    with pytest.raises(KeyError):
        async with Journal() as recorder:
            recorder.errors["stopped"] = ValueError("no")
            raise KeyError


@pytest.mark.anyio
async def test_a_block_cancelled_on_entry_leaves_nothing(anyio_backend: tuple[str, object]) -> None:
    """Entering is cancelled while _on_starting() runs: the recorder ends, the block is not entered."""
    recorder = Journal()
    recorder.starting = Gate()
    with anyio.move_on_after(0.02) as scope:
        async with recorder:
            pytest.fail("entered")
    assert scope.cancelled_caught
    assert recorder.get_status() is RecorderState.CANCELLED
    assert recorder.log == ["starting"]
    if anyio_backend[0] == "asyncio":
        assert own_tasks() == []


@pytest.mark.anyio
async def test_no_task_is_left_after_a_stop(home: str, anyio_backend: tuple[str, object]) -> None:
    """Neither the actor's nor the hub's."""
    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Failing(ValueError("no")))
        recorder.register_event(Tick())
        assert (await recorder.flush()).success
        assert (await recorder.stop()).success
        if anyio_backend[0] == "asyncio":
            assert own_tasks() == []
