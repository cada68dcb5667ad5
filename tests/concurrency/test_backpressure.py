"""A full inbox: who waits, who is told, and who goes on when there is room."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRuntime,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
)
from mvx.common.metrics._recorder import core_of
from tests.support import DEADLINE, Count, Gate, Journal, Seen, Tick, auntil, balanced, until, virgin


async def hold_up(recorder: Journal) -> None:
    """Fill the recorder to the brim: one event in its hook, the rest waiting."""
    recorder.changed = Gate()
    recorder.register_metric(Count())
    recorder.register_event(Tick(0))
    with anyio.fail_after(DEADLINE):
        while not recorder.changed.reached.is_set():
            await anyio.sleep(0)
    for n in range(1, core_of(recorder).options.inbox.capacity):
        recorder.register_event(Tick(n))


async def blocked(recorder: Journal) -> None:
    """Wait until somebody waits for room."""
    with anyio.fail_after(DEADLINE):
        while not core_of(recorder).inbox.line:
            await anyio.sleep(0)


@pytest.mark.anyio
@pytest.mark.parametrize("capacity", [1, 3])
async def test_the_bound_counts_the_event_under_way(home: str, capacity: int) -> None:
    """Accepted and not yet processed, the event in the hook included, never exceeds the bound."""
    async with virgin(home, Journal, queue_max_size=capacity) as recorder:
        await hold_up(recorder)
        with pytest.raises(RecorderQueueOverflowError, match=f"{capacity} events"):
            recorder.register_event(Tick())
        statistics = recorder.statistics()
        assert (statistics.pending, statistics.rejected, statistics.capacity) == (capacity, 1, capacity)
        recorder.changed.open()
        await recorder.flush()
        assert balanced(recorder.statistics())
        recorder.register_event(Tick())


@pytest.mark.anyio
async def test_drop_oldest_keeps_the_newest(home: str) -> None:
    """DROP_OLDEST evicts what waits longest; the event under way cannot be evicted."""
    async with virgin(home, Journal, queue_max_size=3, queue_overflow_policy=OverflowPolicy.DROP_OLDEST) as recorder:
        seen = Seen()
        recorder.register_metric(seen)
        await hold_up(recorder)
        for n in range(10, 15):
            recorder.register_event(Tick(n))
        recorder.changed.open()
        await recorder.flush()
        assert [event.n for event in seen.events if isinstance(event, Tick)] == [0, 13, 14]
        assert recorder.statistics().evicted == 5
        assert balanced(recorder.statistics())


@pytest.mark.anyio
async def test_aregister_event_waits_for_room(home: str) -> None:
    """A task waits under whatever policy, and goes on when an event has been processed."""
    async with virgin(home, Journal, queue_max_size=2) as recorder, anyio.create_task_group() as group:
        await hold_up(recorder)
        group.start_soon(recorder.aregister_event, Tick(7))
        await blocked(recorder)
        assert recorder.statistics().accepted == 2
        recorder.changed.open()
        with anyio.fail_after(DEADLINE):
            while recorder.statistics().processed < 3:
                await anyio.sleep(0)


@pytest.mark.anyio
async def test_a_cancelled_aregister_event_was_not_accepted(home: str) -> None:
    """Cancelled means not accepted, and no place in the line is kept."""
    async with virgin(home, Journal, queue_max_size=2) as recorder:
        await hold_up(recorder)
        async with anyio.create_task_group() as group:
            group.start_soon(recorder.aregister_event, Tick(7))
            await blocked(recorder)
            group.cancel_scope.cancel()
        assert not core_of(recorder).inbox.line
        recorder.changed.open()
        await recorder.flush()
        assert recorder.statistics().accepted == 2


@pytest.mark.anyio
async def test_many_tasks_share_the_room_that_comes(home: str) -> None:
    """Every one of many waiting tasks gets in, one place at a time."""
    async with virgin(home, Journal, queue_max_size=2) as recorder:
        await hold_up(recorder)
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                for n in range(50):
                    group.start_soon(recorder.aregister_event, Tick(n))
                await blocked(recorder)
                recorder.changed.open()
        await recorder.flush()
        assert recorder.statistics().processed == 52


@pytest.mark.anyio
async def test_a_stop_sends_waiting_emitters_away(home: str) -> None:
    """Whoever waits for room when the recorder stops is told so."""
    async with virgin(
        home, Journal, queue_max_size=1, queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=DEADLINE
    ) as recorder:
        await hold_up(recorder)
        told: list[BaseException] = []

        async def emit() -> None:
            try:
                await recorder.aregister_event(Tick())
            except RecorderInvalidStateError as exc:
                told.append(exc)

        def emit_blocking() -> None:
            try:
                recorder.register_event(Tick())
            except RecorderInvalidStateError as exc:
                told.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(emit)
            group.start_soon(anyio.to_thread.run_sync, emit_blocking)
            await auntil(lambda: len(core_of(recorder).inbox.line) == 2)
            stop = recorder.stop()
            recorder.changed.open()
            assert (await stop).success
        assert len(told) == 2
        assert recorder.statistics().rejected == 2


@pytest.mark.anyio
async def test_block_on_the_own_loop_raises_at_once() -> None:
    """The recorder's own loop cannot wait for itself."""
    async with virgin(
        "loop", Journal, queue_max_size=1, queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=3600
    ) as recorder:
        await hold_up(recorder)
        with pytest.raises(RecorderQueueOverflowError, match="aregister_event"):
            recorder.register_event(Tick())
        recorder.changed.open()


@pytest.mark.anyio
async def test_a_hook_cannot_wait_for_room_that_it_holds_up(home: str) -> None:
    """aregister_event() in a hook of a full recorder raises instead of waiting for ever."""

    class Echo(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            await super()._on_metric_changed(metric=metric, event=event)
            try:
                await self.aregister_event(Tick())
            except RecorderQueueOverflowError as exc:
                self.log.append(str(exc))

    async with virgin(home, Echo, queue_max_size=1) as recorder:
        await hold_up(recorder)
        recorder.changed.open()
        assert (await recorder.flush()).success
        assert any("holds up" in line for line in recorder.log)


def test_block_waits_its_time_and_gives_up(backend: dict[str, Any]) -> None:
    """After block_timeout without room the emitter is told, and told how long it waited."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=Journal, queue_max_size=1, queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=0.05
        )
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        assert recorder.changed.reached.wait(DEADLINE)
        began = time.monotonic()
        with pytest.raises(RecorderQueueOverflowError, match=r"no room came within 0\.05 s"):
            recorder.register_event(Tick())
        assert time.monotonic() - began >= 0.05
        assert not core_of(recorder).inbox.line
        recorder.changed.open()


def test_block_goes_on_when_there_is_room(backend: dict[str, Any]) -> None:
    """A blocked thread is woken by the first processed event."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=Journal, queue_max_size=1, queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=DEADLINE
        )
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        assert recorder.changed.reached.wait(DEADLINE)
        emitter = threading.Thread(target=recorder.register_event, args=(Tick(),))
        emitter.start()
        until(lambda: core_of(recorder).inbox.line)
        recorder.changed.open()
        emitter.join(DEADLINE)
        assert not emitter.is_alive()
        recorder.flush().wait(DEADLINE)
        assert recorder.statistics().processed == 2


def test_any_loop_can_wait_for_a_runtime(backend: dict[str, Any]) -> None:
    """aregister_event() and handles work from a loop of another backend than the recorder's."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=1)
        recorder.register_metric(Count())

        async def use() -> None:
            recorder.changed = Gate()
            recorder.register_event(Tick())
            async with anyio.create_task_group() as group:
                group.start_soon(recorder.aregister_event, Tick())
                await blocked(recorder)
                recorder.changed.open()
            assert (await recorder.flush()).success
            total = (await recorder.aget_metric_snapshots())["count"]["dimensions"]["total"]
            assert total % 2 == 0

        for other in ("asyncio", "trio"):
            anyio.run(use, backend=other)
