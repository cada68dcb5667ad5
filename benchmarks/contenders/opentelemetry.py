"""OpenTelemetry's SDK: a counter with one attribute, read by an in-memory reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a provider with one counter."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    counter = provider.get_meter("benchmark").create_counter("saves")
    items = [{"ok": ok} for ok in OUTCOMES]

    def emit(attributes: dict[str, bool]) -> None:
        counter.add(1, attributes)

    def total() -> int:
        data = reader.get_metrics_data()
        if data is None:
            return 0
        return int(
            sum(
                point.value
                for resource in data.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                for point in metric.data.data_points
            )
        )

    emit(items[0])
    yield Contender(emit, items, _nothing, total, [emit] * recorders)
    provider.shutdown()


def _nothing() -> None:
    pass
