"""Metrics and hooks that emit without end: everybody else gets a turn, every wait ends, and so does the recorder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
)
from tests.conftest import Effort, Tally
from tests.faults.hostile import Stage, Theatre, every_home, theatre_for, told
from tests.support import DEADLINE, Count, Tick, auntil, balanced, until

TRIED = "hostile metrics, hooks and events"
CAPACITY = 8


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture
def backend(theatre: Theatre) -> dict[str, Any]:
    return theatre.keywords


class Feeding(Count):
    """Emits ``times`` more events for each that it is shown."""

    def __init__(self, recorder: MetricsRecorder, times: int, name: str = "feeding") -> None:
        super().__init__(name)
        self.recorder, self.times = recorder, times

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        for n in range(self.times):
            self.recorder.register_event(Tick(n))
        return True


class FeedingHook(MetricsRecorder):
    """Does so in its hook, in either way of emitting."""

    def __init__(self, entity_id: str, *, times: int, waits: bool = False, **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.times, self.waits = times, waits

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        for n in range(self.times):
            if self.waits:
                await self.aregister_event(Tick(n))
            else:
                self.register_event(Tick(n))


async def endure(stage: Stage, recorder: MetricsRecorder, metric: Count, policy: OverflowPolicy) -> None:
    """Let it feed itself, and use it, and the neighbour, meanwhile."""
    recorder.register_metric(metric)
    recorder.register_event(Tick())
    for _ in range(2):
        before = metric.total
        assert (await recorder.flush()).success
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots[metric.metric_name]["dimensions"]["total"] > 0
        told(lambda: recorder.register_event(Tick()), RecorderQueueOverflowError)
        await stage.neighbour_is_well()
        # It goes on all the time, and is never done.
        await auntil(lambda: metric.total > before + 10)
        statistics = recorder.statistics()
        assert statistics.pending <= CAPACITY + 1
        assert recorder.get_status() is RecorderState.RUNNING
    assert recorder.statistics().high_water <= CAPACITY + 1
    if policy is not OverflowPolicy.DROP:
        assert recorder.statistics().dropped == 0


def check_end(recorder: MetricsRecorder, metric: Count) -> None:
    """Check that it has come to rest."""
    assert recorder.get_status() is RecorderState.STOPPED
    statistics = recorder.statistics()
    assert balanced(statistics)
    assert statistics.abandoned == 0
    assert statistics.processed == metric.total


@pytest.mark.parametrize("policy", OverflowPolicy)
def test_a_metric_that_emits_without_end(theatre: Theatre, home: str, policy: OverflowPolicy, tally: Tally) -> None:
    """Under every overflow policy flush, snapshots and stop come to their end, and the bound holds."""

    async def scene(stage: Stage) -> None:
        kinds: tuple[type[MetricsRecorder], ...] = (MetricsRecorder, FeedingHook)
        for kind, times in itertools.product(kinds, (1, 2)) if theatre.long else zip(kinds, (2, 1), strict=True):
            metrics: list[Feeding] = []

            async def act(recorder: MetricsRecorder) -> None:
                metrics.append(Feeding(recorder, times))
                await endure(stage, recorder, metrics[0], policy)

            options: dict[str, Any] = {"queue_max_size": CAPACITY, "queue_overflow_policy": policy}
            if kind is FeedingHook:
                options["times"] = 0
            with stage.trial(kind.__name__, times):
                part = await stage.play(kind, act, block_timeout=0.001, linger=0.001, **options)
                assert part.spoilt is None
                check_end(part.recorder, metrics[0])
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@pytest.mark.parametrize("policy", OverflowPolicy)
@pytest.mark.parametrize("waits", [False, True])
def test_a_hook_that_emits_without_end(
    theatre: Theatre, home: str, policy: OverflowPolicy, waits: bool, tally: Tally
) -> None:
    """Likewise; where it would have to wait for room that only it can make, it is told."""

    async def scene(stage: Stage) -> None:
        for times in (1, 2) if theatre.long else (2 - waits,):
            count = Count()

            async def act(recorder: MetricsRecorder) -> None:
                await endure(stage, recorder, count, policy)

            with stage.trial(times):
                part = await stage.play(
                    FeedingHook,
                    act,
                    times=times,
                    waits=waits,
                    queue_max_size=CAPACITY,
                    queue_overflow_policy=policy,
                    block_timeout=0.001,
                )
                assert part.spoilt is None
                check_end(part.recorder, count)
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


def test_a_snapshot_that_emits(theatre: Theatre, home: str) -> None:
    """A snapshot shows what was accepted before the call, and not what it emits itself."""

    class Talkative(Count):
        recorder: MetricsRecorder

        def snapshot(self) -> Any:
            self.recorder.register_event(Tick())
            return super().snapshot()

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            talkative = Talkative()
            talkative.recorder = recorder
            recorder.register_metric(talkative)
            for expected in range(5):
                snapshots = await recorder.aget_metric_snapshots()
                assert snapshots["count"]["dimensions"] == {"total": expected}

        part = await stage.play(MetricsRecorder, act)
        assert part.spoilt is None
        assert part.recorder.statistics().processed == 5
        await stage.neighbour_is_well()

    theatre.show(home, scene)


@pytest.mark.parametrize("policy", OverflowPolicy)
def test_recorders_that_emit_to_each_other_without_end(backend: dict[str, Any], policy: OverflowPolicy) -> None:
    """The runtime's shutdown ends them all, though each keeps the next one busy."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        ring = [
            runtime.create_recorder(
                f"{n}", queue_max_size=CAPACITY, queue_overflow_policy=policy, block_timeout=0.001, linger=0
            )
            for n in range(3)
        ]
        metrics = [Feeding(following, 2) for following in (*ring[1:], ring[0])]
        neighbour = runtime.create_recorder("neighbour")
        count = Count()
        neighbour.register_metric(count)
        for recorder, metric in zip(ring, metrics, strict=True):
            recorder.register_metric(metric)
        ring[0].register_event(Tick())
        for recorder, metric in zip(ring, metrics, strict=True):
            until(lambda: metric.total > 50)
            assert recorder.flush().wait(DEADLINE).success
        neighbour.register_event(Tick())
        assert neighbour.flush().wait(DEADLINE).success
        runtime.stop_recorder("1")
        assert ring[1].get_status() is RecorderState.STOPPED
    for recorder, metric in zip(ring, metrics, strict=True):
        check_end(recorder, metric)
    assert count.total == 1


@pytest.mark.parametrize("policy", [FailurePolicy.QUARANTINE, FailurePolicy.FAIL])
def test_a_feeding_metric_that_fails_in_the_end(theatre: Theatre, home: str, policy: FailurePolicy) -> None:
    """Set aside, or with its recorder ended, it feeds no more: the inbox empties, or is accounted for."""

    class Choking(Feeding):
        def handle_event(self, event: MetricEvent) -> bool:
            super().handle_event(event)
            if self.total >= 100:
                raise ValueError("choked")
            return True

    async def scene(stage: Stage) -> None:
        metrics: list[Choking] = []

        async def act(recorder: MetricsRecorder) -> None:
            metrics.append(Choking(recorder, 1))
            recorder.register_metric(metrics[0])
            recorder.register_event(Tick())
            await auntil(lambda: recorder.statistics().metric_errors == 1)
            await recorder.flush()
            assert recorder.statistics().pending == 0

        part = await stage.play(MetricsRecorder, act, failure_policy=policy, quarantine_after=1)
        assert metrics[0].total == 100
        statistics = part.recorder.statistics()
        assert balanced(statistics)
        assert statistics.abandoned == (1 if policy is FailurePolicy.FAIL else 0)
        await stage.neighbour_is_well()

    theatre.show(home, scene)


def test_a_stopping_recorder_refuses_its_own_metrics(theatre: Theatre, home: str) -> None:
    """What a metric emits during the drain is refused to it: that is how a drain ends."""

    async def scene(stage: Stage) -> None:
        metrics: list[Feeding] = []

        async def act(recorder: MetricsRecorder) -> None:
            metrics.append(Feeding(recorder, 1))
            recorder.register_metric(metrics[0])
            for n in range(10):
                recorder.register_event(Tick(n))
            with anyio.CancelScope(shield=True):
                await recorder.stop()

        part = await stage.play(MetricsRecorder, act)
        statistics = part.recorder.statistics()
        assert balanced(statistics)
        assert statistics.rejected == statistics.metric_errors >= 10
        assert statistics.processed == metrics[0].total
        assert told(lambda: part.recorder.register_event(Tick()), RecorderInvalidStateError)
        await stage.neighbour_is_well()

    theatre.show(home, scene)
