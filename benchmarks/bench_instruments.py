"""What does an instrument's measurement cost?  Without emitting: the recorder's part is in the other questions.

Beside prometheus_client's metrics, called as its users call them; it has no quantiles, so its Histogram stands
beside our Summary as well.  ``counter_times_by_hand`` is beside the shortest counter that can be written as a metric.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.workload import SEED, Figures, Settings, answer

CONTENDERS = ("mvx-metrics", "prometheus")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The bounds that prometheus_client's Histogram has."""

Measurement = Callable[[Sequence[Any]], None]
"""Measures a list of events."""


class ByHand:
    """The shortest counter."""

    def __init__(self) -> None:
        self.total = 0

    def handle_event(self, event: Any) -> bool:
        self.total += 1
        return True


def measure(told: Settings) -> Figures:
    """The shortest of several passes over the same thousand events, in turn, so that a busy moment hits all."""
    opened = _prometheus() if told.contender == "prometheus" else _instruments()
    events, measurements = opened
    measurements["by_hand_ns"] = _each(ByHand().handle_event)
    shortest = dict.fromkeys(measurements, float("inf"))
    for _ in range(told.times(500, 5)):
        for name, run in measurements.items():
            began = time.perf_counter_ns()
            run(events)
            shortest[name] = min(shortest[name], (time.perf_counter_ns() - began) / len(events))
    return {**shortest, "counter_times_by_hand": shortest["counter_ns"] / shortest["by_hand_ns"]}


def _each(handle: Callable[[Any], object]) -> Measurement:
    def run(events: Sequence[Any]) -> None:
        for event in events:
            handle(event)

    return run


def _workload() -> list[tuple[float, str]]:
    rng = random.Random(SEED)
    return [(rng.lognormvariate(-3, 1.5), rng.choice(("disk", "s3", "ftp", "tape"))) for _ in range(1000)]


def _instruments() -> tuple[Sequence[Any], dict[str, Measurement]]:
    from mvx.common.metrics import Metric, MetricEvent  # noqa: PLC0415 — not in the other contender's environment
    from mvx.common.metrics.instruments import Counter, Histogram, Summary  # noqa: PLC0415 — likewise

    @dataclass(frozen=True, slots=True)
    class Saved(MetricEvent):
        seconds: float
        backend: str
        event_type = "saved"

    metrics: dict[str, Metric] = {
        "tagged_counter_ns": Counter("tagged", on=Saved, tags=("backend",)),
        "counter_ns": Counter("counter", on=Saved),
        "histogram_ns": Histogram("histogram", on=Saved, value="seconds", bounds=BOUNDS),
        "summary_ns": Summary("summary", on=Saved, value="seconds"),
    }
    events = [Saved(seconds, backend) for seconds, backend in _workload()]
    return events, {name: _each(metric.handle_event) for name, metric in metrics.items()}


def _prometheus() -> tuple[Sequence[Any], dict[str, Measurement]]:
    from prometheus_client import Counter, Histogram  # noqa: PLC0415 — only in this contender's environment

    tagged = Counter("tagged", "A counter", ["backend"])
    counter = Counter("counter", "A counter")
    histogram = Histogram("histogram", "A histogram", buckets=BOUNDS)

    def count_tagged(events: Sequence[Any]) -> None:
        for _, backend in events:
            tagged.labels(backend).inc()

    def count(events: Sequence[Any]) -> None:
        for _ in events:
            counter.inc()

    def observe(events: Sequence[Any]) -> None:
        for seconds, _ in events:
            histogram.observe(seconds)

    return _workload(), {
        "tagged_counter_ns": count_tagged,
        "counter_ns": count,
        "histogram_ns": observe,
        "summary_ns": observe,
    }


if __name__ == "__main__":
    answer(measure)
