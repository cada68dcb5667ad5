"""What does an instrument keep?  After ten thousand events and after ten million, of a hundred thousand values."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.workload import SEED, Figures, Settings, answer

ENVIRONMENT = "mvx-metrics"
CONTENDERS = ("counter", "sum", "updown", "gauge", "histogram", "histogram-exponential", "summary", "rate", "ratio")
VALUES = 100_000
FEW, MANY = 10_000, 10_000_000
PER_SECOND = 1000


def measure(told: Settings) -> Figures:
    """Values over some fifteen powers of ten, by a clock that makes them a thousand a second."""
    from mvx.common.metrics import MetricEvent  # noqa: PLC0415 — in its environment

    @dataclass(frozen=True, slots=True)
    class Saved(MetricEvent):
        seconds: float
        ok: bool
        event_type = "saved"

    rng = random.Random(SEED)
    events = [Saved(rng.lognormvariate(0, 4), rng.random() < 0.9) for _ in range(told.times(VALUES, FEW))]
    now = 0.0
    make = kinds(Saved, lambda: now)[told.contender]
    gc.collect()
    tracemalloc.start()
    metric = make()
    handle = metric.handle_event

    def kept() -> float:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / 1024

    for event in events[:FEW]:
        now += 1 / PER_SECOND
        handle(event)
    figures = {"after_ten_thousand_kib": kept()}
    for _ in range(told.times(MANY // VALUES, 2)):
        for event in events:
            now += 1 / PER_SECOND
            handle(event)
    figures["after_ten_million_kib"] = kept()
    tracemalloc.stop()
    return figures


def kinds(event: type[Any], clock: Callable[[], float]) -> dict[str, Callable[[], Any]]:
    from mvx.common.metrics.instruments import (  # noqa: PLC0415 — in its environment
        Counter,
        Gauge,
        Histogram,
        Rate,
        Ratio,
        Sum,
        Summary,
        UpDownCounter,
    )

    return {
        "counter": lambda: Counter("c", on=event),
        "sum": lambda: Sum("s", on=event, value="seconds"),
        "updown": lambda: UpDownCounter("u", on=event, value="seconds"),
        "gauge": lambda: Gauge("g", on=event, value="seconds"),
        "histogram": lambda: Histogram("h", on=event, value="seconds", bounds=tuple(2.0**n for n in range(-7, 7))),
        "histogram-exponential": lambda: Histogram("h", on=event, value="seconds"),
        "summary": lambda: Summary("s", on=event, value="seconds"),
        "rate": lambda: Rate("r", on=event, clock=clock),
        "ratio": lambda: Ratio("r", on=event, hit="ok", clock=clock),
    }


if __name__ == "__main__":
    answer(measure)
