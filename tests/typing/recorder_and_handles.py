"""What a type checker infers of a recorder, its wait handles, snapshots and statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_type

from mvx.common.metrics import (
    AsyncioMetricsRecorder,
    AsyncioMetricsRecorderOpResult,
    AsyncioMetricsRecorderQueueOverflowPolicy,
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    OverflowPolicy,
    RecorderError,
    RecorderOp,
    RecorderOpResult,
    RecorderState,
    RecorderStatistics,
    RecorderWaitHandle,
)

Snapshots = Mapping[str, Mapping[str, Any]]


class Custom(MetricsRecorder):
    """A custom recorder overrides hooks with these signatures."""

    async def _on_starting(self) -> None:
        assert_type(self.entity_id, str)

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        assert_type(metric.snapshot(), Mapping[str, Any])
        assert_type(event.event_type, str)

    async def _on_stopped(self) -> None:
        assert_type(self.namespace, str | None)


class Documented(AsyncioMetricsRecorder):
    """The documented base class is a base class to a type checker, too."""


def make() -> None:
    """The constructor's keywords."""
    recorder = MetricsRecorder(
        "orders",
        namespace="shop",
        queue_max_size=7,
        queue_overflow_policy=OverflowPolicy.BLOCK,
        failure_policy=FailurePolicy.QUARANTINE,
        drain_timeout=None,
        block_timeout=1,
        linger=0.0,
        quarantine_after=3,
    )
    assert_type(recorder, MetricsRecorder)
    assert_type(Documented("x").get_status(), RecorderState)
    MetricsRecorder("x", queue_overflow_policy=AsyncioMetricsRecorderQueueOverflowPolicy.DROP)
    MetricsRecorder()  # type: ignore[call-arg] # because a recorder needs an id
    MetricsRecorder("x", drain_timeout="30")  # type: ignore[arg-type] # because seconds are numbers


async def operate(recorder: MetricsRecorder) -> None:
    """Handles are awaited or waited for, and give a result either way."""
    assert_type(recorder.start(), RecorderWaitHandle)
    assert_type(recorder.stop(), RecorderWaitHandle)
    handle = recorder.flush()
    assert_type(handle, RecorderWaitHandle)
    assert_type(handle.done(), bool)
    assert_type(handle.wait(), RecorderOpResult)
    assert_type(handle.wait(timeout=1.5), RecorderOpResult)
    result = await handle
    assert_type(result, RecorderOpResult)
    assert_type(result, AsyncioMetricsRecorderOpResult)
    assert_type(result.op_name, RecorderOp)
    assert_type(result.success, bool)
    assert_type(result.error, RecorderError | None)
    result.success = True  # type: ignore[misc] # because a result is frozen
    if result.error is not None:
        raise result.error


async def read(recorder: MetricsRecorder) -> None:
    """Snapshots, metrics and statistics."""
    assert_type(recorder.get_metric_snapshots(), Snapshots)
    assert_type(await recorder.aget_metric_snapshots(), Snapshots)
    assert_type(recorder.iter_metrics(), Iterator[Metric])
    statistics = recorder.statistics()
    assert_type(statistics, RecorderStatistics)
    assert_type(statistics.offered, int)
    assert_type(statistics.high_water, int)
    statistics.offered = 1  # type: ignore[misc] # because statistics are frozen


async def emit(recorder: MetricsRecorder, event: MetricEvent, metric: Metric) -> None:
    """Only events are emitted and only metrics are registered."""
    recorder.register_event(event)
    recorder.register_event(event=event)
    recorder.register_metric(metric)
    recorder.register_metric(metric=metric)
    await recorder.aregister_event(event)
    recorder.register_event(metric)  # type: ignore[arg-type] # because a metric is no event
    recorder.register_metric(event)  # type: ignore[arg-type] # because an event is no metric
    recorder.register_event("event")  # type: ignore[arg-type] # because a str is no event


async def block(recorder: Custom) -> None:
    """A block gives the recorder itself, of its own class."""
    async with recorder as entered:
        assert_type(entered, Custom)


def errors(error: RecorderError) -> None:
    """What every error carries."""
    assert_type(error.message, str)
    assert_type(error.details, Mapping[str, Any])
    assert_type(error.cause, BaseException | None)
    assert_type(error.reason_code, str)
    assert_type(error.to_log_payload(), dict[str, Any])
