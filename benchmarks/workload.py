"""One workload for every question: an event, a metric, and the contenders that take events."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import attrs

from mvx.common.metrics import Metric, MetricEvent, MetricsRuntime

CONTENDERS = ("limit", "asyncio", "uvloop", "trio")


@dataclass(frozen=True, slots=True)
class Saved(MetricEvent):
    """An event with one field, as in the documentation."""

    ok: bool

    @property
    def event_type(self) -> str:
        return "benchmark.saved"


class Saves(Metric):
    """A metric written by hand, as in the documentation."""

    def __init__(self) -> None:
        self.total = 0
        self.ok = 0

    @property
    def metric_name(self) -> str:
        return "benchmark.saves"

    def handle_event(self, event: MetricEvent) -> bool:
        if not isinstance(event, Saved):
            return False
        self.total += 1
        if event.ok:
            self.ok += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self.metric_name, "dimensions": {"total": self.total, "ok": self.ok}}


@attrs.frozen
class Contender:
    """Something that takes events."""

    emit: Callable[[Saved], object]
    drain: Callable[[], object]
    """Return when every event emitted before has been dealt with."""
    total: Callable[[], int]
    """Return how many events a snapshot shows, with every event emitted before."""


@contextmanager
def contender(name: str) -> Iterator[Contender]:
    """Yield a contender that has seen its first event."""
    if name == "limit":
        events: deque[Saved] = deque()
        seen = 0

        def append(event: Saved) -> None:
            events.append(event)

        def clear() -> None:
            nonlocal seen
            seen += len(events)
            events.clear()

        def total() -> int:
            clear()
            return seen

        yield Contender(append, clear, total)
        return
    options = {"use_uvloop": True} if name == "uvloop" else {}
    backend = "asyncio" if name == "uvloop" else name
    with MetricsRuntime(namespace="benchmark", backend=backend, backend_options=options) as runtime:
        recorder = runtime.create_recorder("benchmark", queue_max_size=10_000_000)
        recorder.register_metric(Saves())
        recorder.register_event(Saved(ok=True))
        recorder.get_metric_snapshots()

        def shown() -> int:
            dimensions = recorder.get_metric_snapshots()["benchmark.saves"]["dimensions"]
            shown_total: int = dimensions["total"]
            return shown_total

        yield Contender(recorder.register_event, lambda: recorder.flush().wait(), shown)


def answer(measure: Callable[[Contender], dict[str, float]]) -> None:
    """Measure the contender named on the command line and print the figures as JSON."""
    gc.collect()
    with contender(sys.argv[1]) as subject:
        figures = measure(subject)
    print(json.dumps(figures))


def percentile(sorted_values: list[int], share: float) -> float:
    """Return the value below which ``share`` of the values lie."""
    return float(sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))])


def timer_cost() -> float:
    """Return the median nanoseconds of reading the clock twice, to be taken off single timings."""
    clock = time.perf_counter_ns
    costs = []
    for _ in range(10_001):
        began = clock()
        costs.append(clock() - began)
    return float(sorted(costs)[5000])
