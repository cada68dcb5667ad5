"""What a recorder does, in every home and on every backend."""

from __future__ import annotations

import anyio
import pytest

from mvx.common.metrics import (
    MetricsRecorder,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderState,
)
from tests.support import Count, Gate, Journal, Tick, balanced, virgin

pytestmark = pytest.mark.anyio


async def test_events_reach_a_metric_and_its_snapshot(home: str) -> None:
    """What was emitted before is in an awaited snapshot."""
    async with virgin(home, MetricsRecorder, "x") as recorder:
        recorder.register_metric(Count())
        for n in range(100):
            recorder.register_event(Tick(n))
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots == {"count": {"name": "count", "dimensions": {"total": 100}}}


async def test_hooks_run_in_order_and_once(home: str) -> None:
    """Starting, each change, stopped."""
    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Count())
        assert (await recorder.start()).success
        recorder.register_event(Tick())
        recorder.register_event(Tick())
        assert (await recorder.stop()).success
        assert recorder.log == ["starting", "started", "changed", "changed", "stopping", "stopped"]
        assert recorder.get_status() is RecorderState.STOPPED
        assert balanced(recorder.statistics())


async def test_a_block_stops_its_recorder_when_cancelled() -> None:
    """Leaving ``async with`` drains, also when the block is cancelled."""
    with anyio.CancelScope() as scope:
        async with Journal() as recorder:
            recorder.register_metric(Count())
            recorder.register_event(Tick())
            scope.cancel()
            await anyio.sleep_forever()
    assert recorder.log == ["starting", "started", "changed", "stopping", "stopped"]
    assert recorder.get_status() is RecorderState.STOPPED
    assert balanced(recorder.statistics())


async def test_a_block_refuses_a_recorder_that_is_under_way() -> None:
    """A recorder lives in one home at a time."""
    recorder = Journal()
    recorder.starting = Gate()
    handle = recorder.start()
    for state in (RecorderState.STARTING, RecorderState.RUNNING):
        assert recorder.get_status() is state
        with pytest.raises(RecorderInvalidStateError, match=r"__aenter__.*VIRGIN.*STOPPED"):
            await recorder.__aenter__()
        recorder.starting.open()
        await handle
    assert (await recorder.stop()).success


async def test_a_block_can_be_entered_again() -> None:
    """A stopped recorder starts again in a new block, or by hand, with its metrics and counts."""
    recorder = Journal()
    recorder.register_metric(Count())
    for n in range(1, 3):
        async with recorder:
            recorder.register_event(Tick())
            assert (await recorder.stop()).success
            assert (await recorder.start()).success
            recorder.register_event(Tick())
        assert recorder.statistics().processed == 2 * n
    assert (await recorder.start()).success
    recorder.register_event(Tick())
    assert (await recorder.stop()).success
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 5}
    assert recorder.log.count("started") == recorder.log.count("stopped") == 5


async def test_a_stop_of_ones_own_is_not_reported_again() -> None:
    """Leaving the block raises what the block's own stop came to."""
    async with Journal(drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        assert not (await recorder.stop()).success


async def test_a_recorder_belongs_to_its_loop(anyio_backend: tuple[str, object]) -> None:
    """A block on another loop is refused."""
    recorder = MetricsRecorder("x")

    async def enter() -> None:
        with pytest.raises(RecorderLoopUnavailableError, match="loop that the recorder was made on"):
            await recorder.__aenter__()

    await anyio.to_thread.run_sync(lambda: anyio.run(enter))


def test_a_recorder_needs_a_loop() -> None:
    """Made by hand where no loop runs, it says what to use instead."""
    with pytest.raises(RecorderLoopUnavailableError, match=r"MetricsRuntime\.create_recorder"):
        MetricsRecorder("x")
