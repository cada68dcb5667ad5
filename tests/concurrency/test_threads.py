"""Many threads at once, at a switch interval of a microsecond: what was accepted is processed."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
)
from tests.conftest import Effort, Tally
from tests.support import DEADLINE, Count, Seen, Tick, balanced, run_threads

pytestmark = pytest.mark.usefixtures("fast_switching")


class SlowHook(MetricsRecorder):
    """Really suspends after every event."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await anyio.sleep(0)


@pytest.mark.parametrize("kind", [MetricsRecorder, SlowHook])
def test_snapshots_contain_what_was_emitted_before(
    backend: dict[str, Any], kind: type[MetricsRecorder], effort: Effort, tally: Tally
) -> None:
    """Read-your-writes, thousands of times, never stale."""
    tries = effort(500, 20_000)
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", factory=kind)
        recorder.register_metric(Count())
        for n in range(1, tries + 1):
            recorder.register_event(Tick(n))
            assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": n}
    tally("snapshots that must show the event just emitted", tries)


@pytest.mark.parametrize("kind", [MetricsRecorder, SlowHook])
@pytest.mark.parametrize("linger", [0.0, 0.02])
def test_nothing_is_lost_by_a_stop(
    backend: dict[str, Any], kind: type[MetricsRecorder], linger: float, effort: Effort, tally: Tally
) -> None:
    """Four threads emit while the recorder is stopped: accepted is processed, refused is told, every time."""
    stops = effort(20, 500)
    with MetricsRuntime(namespace="t", **backend) as runtime:
        for run in range(stops):
            recorder = runtime.create_recorder(f"r{run}", factory=kind, linger=linger)
            metric = Count()
            recorder.register_metric(metric)
            told = [0, 0, 0, 0]
            offered = [0, 0, 0, 0]

            def emit(
                who: int, recorder: MetricsRecorder = recorder, told: list[int] = told, offered: list[int] = offered
            ) -> None:
                for n in range(500):
                    offered[who] += 1
                    try:
                        recorder.register_event(Tick(n))
                    except RecorderInvalidStateError:
                        told[who] += 1
                        return

            run_threads(*(lambda who=who: emit(who) for who in range(4)), lambda: recorder.stop().wait(DEADLINE))
            statistics = recorder.statistics()
            assert balanced(statistics)
            assert statistics.offered == sum(offered)
            assert statistics.rejected == sum(told)
            assert statistics.processed == statistics.accepted == metric.total
            runtime.stop_and_remove_recorder(f"r{run}")
    tally("stops under fire", stops)


def test_restarts_lose_nothing(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """Emitters see a recorder stop and start again; the ledger goes on over all runs."""
    rounds, restarts = effort(1, 40), 30
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", linger=0.0)
        metric = Count()
        recorder.register_metric(metric)
        offered = [0, 0, 0]
        told = [0, 0, 0]

        def race() -> None:
            done = threading.Event()

            def emit(who: int) -> None:
                while not done.is_set():
                    offered[who] += 1
                    try:
                        recorder.register_event(Tick())
                    except (RecorderInvalidStateError, RecorderQueueOverflowError):
                        told[who] += 1

            def restart() -> None:
                try:
                    for _ in range(restarts):
                        assert recorder.stop().wait(DEADLINE).success
                        assert recorder.start().wait(DEADLINE).success
                finally:
                    done.set()

            run_threads(*(lambda who=who: emit(who) for who in range(3)), restart)

        for _ in range(rounds):
            race()
        recorder.stop().wait(DEADLINE)
        statistics = recorder.statistics()
        assert balanced(statistics)
        assert statistics.offered == sum(offered)
        assert statistics.rejected + statistics.dropped == statistics.offered - statistics.accepted
        assert statistics.processed == metric.total
    tally("restarts", rounds * restarts)


@pytest.mark.parametrize("policy", list(OverflowPolicy))
def test_each_policy_keeps_its_ledger(
    backend: dict[str, Any], policy: OverflowPolicy, effort: Effort, tally: Tally
) -> None:
    """Four emitters against a small inbox: every call is accounted for, and the bound holds."""
    rounds, events = effort(1, 40), 1000
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", queue_max_size=8, queue_overflow_policy=policy, block_timeout=DEADLINE, linger=0.001
        )
        metric = Count()
        recorder.register_metric(metric)
        raised = [0] * 4

        def emit(who: int) -> None:
            for n in range(events):
                try:
                    recorder.register_event(Tick(n))
                except RecorderQueueOverflowError:
                    raised[who] += 1

        for _ in range(rounds):
            run_threads(*(lambda who=who: emit(who) for who in range(4)))
        recorder.flush().wait(DEADLINE)
        statistics = recorder.statistics()
        assert balanced(statistics)
        assert statistics.offered == 4 * events * rounds
        assert statistics.rejected == sum(raised)
        assert statistics.processed == metric.total
        # One event more for each other thread that emits at the same instant.
        assert statistics.high_water <= 8 + 3
        if policy is OverflowPolicy.BLOCK:
            assert metric.total == 4 * events * rounds
    tally(f"events raced under {policy.value}", 4 * events * rounds)


def test_order_is_kept_for_each_thread(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """First in, first out, for each emitting thread."""
    rounds, events = effort(1, 60), 3000
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", queue_max_size=4 * events)

        def emit(who: int) -> None:
            for n in range(events):
                recorder.register_event(Tick(who * events + n))

        for _ in range(rounds):
            metric = Seen()
            recorder.register_metric(metric)
            run_threads(*(lambda who=who: emit(who) for who in range(4)))
            recorder.flush().wait(DEADLINE)
            numbers = [event.n for event in metric.events if isinstance(event, Tick)]
            for who in range(4):
                assert [n for n in numbers if n // events == who] == list(range(who * events, (who + 1) * events))
    tally("events whose order was checked", 4 * events * rounds)


def test_a_metric_registered_before_an_event_sees_it(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """Also under load: registering and replacing metrics while another thread keeps the actor busy."""
    rounds, registrations = effort(1, 40), 40
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", queue_max_size=1000, queue_overflow_policy=OverflowPolicy.BLOCK)

        def race() -> None:
            done = threading.Event()

            def load() -> None:
                while not done.is_set():
                    recorder.register_event(Tick(-1))

            def register() -> None:
                try:
                    for n in range(registrations):
                        metric = Seen("replaced")
                        recorder.register_metric(metric)
                        mine = Tick(n)
                        recorder.register_event(mine)
                        recorder.flush().wait(DEADLINE)
                        assert any(event is mine for event in metric.events)
                finally:
                    done.set()

            run_threads(load, register)

        for _ in range(rounds):
            race()
    tally("registrations under load", rounds * registrations)
