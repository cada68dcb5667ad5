"""Events, a clock, and every kind of instrument over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mvx.common.metrics import Metric, MetricEvent
from mvx.common.metrics.instruments import Counter, Gauge, Histogram, Rate, Ratio, Sum, Summary, UpDownCounter


@dataclass(frozen=True, slots=True)
class Attempt(MetricEvent):
    """An attempt to save something."""

    seconds: Any = 1.0
    backend: Any = "disk"
    ok: bool = True
    region: Any = "eu"

    @property
    def event_type(self) -> str:
        return "test.attempt"

    def describe(self) -> str:
        return "an attempt"


@dataclass(frozen=True, slots=True)
class Begun(MetricEvent):
    """Something began."""

    backend: Any = "disk"
    size: Any = 1

    @property
    def event_type(self) -> str:
        return "test.begun"


@dataclass(frozen=True, slots=True)
class Ended(MetricEvent):
    """It ended."""

    backend: Any = "disk"
    size: Any = 1

    @property
    def event_type(self) -> str:
        return "test.ended"


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


Maker = Callable[..., Any]

KINDS: dict[str, Maker] = {
    "counter": lambda name="x", **options: Counter(name, **{"on": Attempt, **options}),
    "sum": lambda name="x", **options: Sum(name, **{"on": Attempt, "value": "seconds", **options}),
    "updown": lambda name="x", **options: UpDownCounter(name, **{"on": Attempt, "value": "seconds", **options}),
    "gauge": lambda name="x", **options: Gauge(name, **{"on": Attempt, "value": "seconds", **options}),
    "histogram": lambda name="x", **options: Histogram(
        name, **{"on": Attempt, "value": "seconds", "bounds": (0.5, 2), **options}
    ),
    "exponential": lambda name="x", **options: Histogram(name, **{"on": Attempt, "value": "seconds", **options}),
    "summary": lambda name="x", **options: Summary(name, **{"on": Attempt, "value": "seconds", **options}),
    "rate": lambda name="x", **options: Rate(name, **{"on": Attempt, **options}),
    "ratio": lambda name="x", **options: Ratio(name, **{"on": Attempt, "hit": "ok", **options}),
}
"""Every kind, over attempts: a function that takes the options to change."""

MEASURING = ("sum", "updown", "gauge", "histogram", "exponential", "summary")
"""The kinds that measure a value."""

MANY = {
    "counter": "total",
    "sum": "count",
    "updown": "up",
    "gauge": "count",
    "histogram": "count",
    "exponential": "count",
    "summary": "count",
    "rate": "total",
    "ratio": "events",
}
"""Of each kind, the dimension that grows by one with an attempt of one second."""


def feed(metric: Metric, *events: MetricEvent) -> None:
    """Hand events to a metric as a recorder does."""
    for event in events:
        metric.handle_event(event)


def dimensions(metric: Metric) -> dict[str, Any]:
    """The dimensions of its snapshot."""
    found: dict[str, Any] = metric.snapshot()["dimensions"]
    return found


def series(metric: Metric, key: str) -> dict[tuple[Any, ...], Any]:
    """One value of each series, by the tags' values."""
    return {tuple(entry["tags"].values()): entry[key] for entry in metric.snapshot()["series"]}
