"""Which metric sees which event, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
from abc import ABC
from collections.abc import Mapping
from typing import Any

import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    RecorderState,
    RecorderUnexpectedError,
)
from tests.support import Count, Failing, Gate, Journal, LoudTick, Plain, Seen, Tick, Tock, balanced, virgin

pytestmark = pytest.mark.anyio

KINDS = pytest.mark.parametrize("kind", [MetricsRecorder, Journal])
"""Without and with ``_on_metric_changed``: two paths through the dispatcher."""

RAISED = [
    ValueError("no"),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    MemoryError(),
    RecursionError(),
    asyncio.CancelledError(),
    StopIteration(),
    IndexError(),
    BaseExceptionGroup("several", [SystemExit(3)]),
]


class Wants(Seen):
    """Wants what it is told to want."""

    def __init__(self, name: str, *wanted: type[MetricEvent]) -> None:
        super().__init__(name)
        self.event_types = wanted  # type: ignore[misc] # an instance may narrow its class's answer


async def flushed(recorder: MetricsRecorder, *events: MetricEvent) -> None:
    for event in events:
        recorder.register_event(event)
    assert (await recorder.flush()).success


@KINDS
async def test_a_metric_sees_the_classes_it_wants(home: str, kind: type[MetricsRecorder]) -> None:
    """Subclasses included; no event_types means every event; what nobody wants is unmatched."""
    async with virgin(home, kind, "x") as recorder:
        ticks, loud = Wants("ticks", Tick), Wants("loud", LoudTick)
        recorder.register_metric(ticks)
        recorder.register_metric(loud)
        await flushed(recorder, Tick(1), LoudTick(2), Tock())
        assert ticks.events == [Tick(1), LoudTick(2)]
        assert loud.events == [LoudTick(2)]
        assert recorder.statistics().unmatched == 1
        everything = Seen("everything")
        recorder.register_metric(everything)
        await flushed(recorder, Tock())
        assert everything.events == [Tock()]
        assert recorder.statistics().unmatched == 1


async def test_an_abstract_base_registered_later_counts(home: str) -> None:
    """event_types takes abstract base classes: subclass checks are Python's own."""

    class Marked(MetricEvent, ABC):
        pass

    Marked.register(Tock)
    async with virgin(home, MetricsRecorder, "x") as recorder:
        marked = Wants("marked", Marked)  # type: ignore[type-abstract] # an abstract class may be wanted
        recorder.register_metric(marked)
        await flushed(recorder, Tock(), Tick())
        assert marked.events == [Tock()]


@KINDS
async def test_a_metric_of_the_same_name_replaces(home: str, kind: type[MetricsRecorder]) -> None:
    """The new one sees every later event, the old one none; the order of names is kept."""
    async with virgin(home, kind, "x") as recorder:
        old, new = Count("same"), Count("same")
        recorder.register_metric(old)
        recorder.register_metric(Count("other"))
        await flushed(recorder, Tick())
        recorder.register_metric(new)
        await flushed(recorder, Tick(), Tick())
        assert (old.total, new.total) == (1, 2)
        assert next(recorder.iter_metrics()) is new
        assert list(await recorder.aget_metric_snapshots()) == ["same", "other"]


@KINDS
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_isolate(kind: type[MetricsRecorder], error: BaseException) -> None:
    """Whatever a metric raises, the others see the event, it sees the next, and the recorder goes on."""
    # In a runtime: KeyboardInterrupt in the main thread is Ctrl-C, and belongs to the program.
    async with virgin("runtime", kind, "x") as recorder:
        before, failing, after = Count("before"), Failing(error), Count("after")
        for metric in (before, failing, after):
            recorder.register_metric(metric)
        await flushed(recorder, Tick(), Tick())
        assert (before.total, failing.total, after.total) == (2, 2, 2)
        statistics = recorder.statistics()
        assert (statistics.metric_errors, statistics.processed) == (2, 2)
        assert recorder.get_status() is RecorderState.RUNNING


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_isolate_hooks(error: BaseException) -> None:
    """Whatever _on_metric_changed raises is counted, and the recorder goes on."""
    async with virgin("runtime", Journal) as recorder:
        recorder.errors["changed"] = error
        recorder.register_metric(Count())
        await flushed(recorder, Tick(), Tick())
        statistics = recorder.statistics()
        assert (statistics.hook_errors, statistics.processed) == (2, 2)
        assert recorder.get_status() is RecorderState.RUNNING
        assert (await recorder.stop()).success


@KINDS
async def test_quarantine_sets_a_failing_metric_aside(home: str, kind: type[MetricsRecorder]) -> None:
    """After n failures running it sees no more events, and its snapshot says so until it is replaced."""
    async with virgin(home, kind, "x", failure_policy=FailurePolicy.QUARANTINE, quarantine_after=3) as recorder:
        failing, other = Failing(ValueError("no")), Count("other")
        recorder.register_metric(failing)
        recorder.register_metric(other)
        await flushed(recorder, *[Tick()] * 10)
        assert (failing.total, other.total) == (3, 10)
        assert recorder.statistics().metric_errors == 3
        assert recorder.statistics().unmatched == 0
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots["failing"]["quarantined"] == {
            "failures": 3,
            "error": {"type": "ValueError", "message": "no"},
        }
        assert "quarantined" not in snapshots["other"]
        recorder.register_metric(Count("failing"))
        await flushed(recorder, Tick())
        assert (await recorder.aget_metric_snapshots())["failing"] == {"name": "failing", "dimensions": {"total": 1}}


@KINDS
async def test_quarantine_forgives_after_a_success(home: str, kind: type[MetricsRecorder]) -> None:
    """Only failures running count."""

    class Moody(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            super().handle_event(event)
            if self.total % 3:
                raise ValueError(self.total)
            return True

    async with virgin(home, kind, "x", failure_policy=FailurePolicy.QUARANTINE, quarantine_after=3) as recorder:
        moody = Moody()
        recorder.register_metric(moody)
        await flushed(recorder, *[Tick()] * 30)
        assert moody.total == 30


@pytest.mark.parametrize("kind", [Plain, Journal])
async def test_fail_ends_the_recorder(home: str, kind: type[Journal]) -> None:
    """FAILURE with the metric's exception as the cause; what was pending is counted as abandoned."""
    async with virgin(home, kind, "x", failure_policy=FailurePolicy.FAIL) as recorder:
        error = ValueError("no")
        recorder.register_metric(Failing(error))
        recorder.starting = Gate()
        for _ in range(5):
            recorder.register_event(Tick())
        flush = recorder.flush()
        recorder.starting.open()
        result = await flush
        assert isinstance(result.error, RecorderUnexpectedError)
        assert result.error.cause is error
        assert recorder.get_status() is RecorderState.FAILURE
        statistics = recorder.statistics()
        assert (statistics.processed, statistics.abandoned, statistics.metric_errors) == (1, 4, 1)
        assert balanced(statistics)
        assert recorder.log[-1] == "stopped"
        stop = await recorder.stop()
        assert stop.error is not None
        assert isinstance(stop.error.cause, RecorderUnexpectedError)


async def test_fail_counts_hooks_too(home: str) -> None:
    """A hook that raises ends the recorder under FAIL, and _on_stopped() still runs."""
    async with virgin(home, Journal, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.errors["changed"] = ValueError("no")
        recorder.register_metric(Count())
        recorder.starting = Gate()
        recorder.register_event(Tick())
        recorder.register_event(Tick())
        flush = recorder.flush()
        recorder.starting.open()
        assert not (await flush).success
        assert not (await recorder.flush()).success
        assert recorder.get_status() is RecorderState.FAILURE
        assert recorder.log[-1] == "stopped"
        statistics = recorder.statistics()
        assert (statistics.hook_errors, statistics.processed, statistics.abandoned) == (1, 1, 1)


async def test_an_event_emitted_by_a_metric_is_handled(home: str) -> None:
    """A metric may emit into the recorder that feeds it."""
    async with virgin(home, MetricsRecorder, "x") as recorder:

        class Echo(Count):
            def handle_event(self, event: MetricEvent) -> bool:
                recorder.register_event(Tock())
                return super().handle_event(event)

        tocks = Wants("tocks", Tock)
        recorder.register_metric(Echo())
        recorder.register_metric(tocks)
        await flushed(recorder, Tick())
        await flushed(recorder)
        assert tocks.events == [Tock()]


async def test_a_metric_that_registers_another_in_the_midst_of_an_event(home: str) -> None:
    """The event under way goes by the old table, the next one by the new."""
    async with virgin(home, MetricsRecorder, "x") as recorder:
        late = Count("late")

        class Registrar(Count):
            def handle_event(self, event: MetricEvent) -> bool:
                if not self.total:
                    recorder.register_metric(late)
                return super().handle_event(event)

        recorder.register_metric(Registrar())
        await flushed(recorder, Tick(), Tick())
        assert late.total == 1


async def test_a_hook_sees_the_snapshot_of_exactly_its_event(home: str) -> None:
    """_on_metric_changed runs before the next event is handled."""
    totals: list[int] = []

    class Watching(MetricsRecorder):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            snapshot: Mapping[str, Any] = metric.snapshot()
            assert isinstance(event, Tick)
            totals.append(snapshot["dimensions"]["total"] - event.n)

    async with virgin(home, Watching, "x") as recorder:
        recorder.register_metric(Count())
        await flushed(recorder, *[Tick(n) for n in range(50)])
        assert totals == [1] * 50


async def test_a_metric_that_did_not_change_calls_no_hook(home: str) -> None:
    """handle_event() returning False means that there is nothing to react to."""

    class Indifferent(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            super().handle_event(event)
            return False

    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Indifferent())
        await flushed(recorder, Tick())
        assert "changed" not in recorder.log
