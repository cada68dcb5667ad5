"""What a recorder does, in every home and on every backend."""

from __future__ import annotations

import anyio
import pytest

from mvx.common.metrics import MetricsRecorder, RecorderState
from tests.support import Count, Journal, Tick, balanced, virgin

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
