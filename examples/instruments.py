"""An evening in a restaurant's kitchen, measured by each kind of instrument without writing a single metric.

Shows which instrument answers which question, tags, a clock of one's own, and ``snapshot_delta``, which tells what
happened between two readings.

    python examples/instruments.py --backend trio
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvx.common.metrics import Metric, MetricEvent, MetricsEmitter, MetricsRecorderProto, MetricsRuntime
from mvx.common.metrics.instruments import (
    Counter,
    Gauge,
    Histogram,
    Rate,
    Ratio,
    Sum,
    Summary,
    UpDownCounter,
    snapshot_delta,
)


@dataclass(frozen=True, slots=True)
class Ordered(MetricEvent):
    """A guest has ordered a dish."""

    event_type = "kitchen.ordered"
    course: str


@dataclass(frozen=True, slots=True)
class Served(MetricEvent):
    """A dish has been brought to a guest."""

    event_type = "kitchen.served"
    course: str
    minutes: int
    cents: int
    sent_back: bool


MENU = {"soup": (4, 900), "fish": (9, 2100), "roast": (13, 2100)}
"""Minutes and cents of each course."""
PATIENCE = 30
"""Minutes after which guests send back what they are brought."""
EARLY = (("soup", "fish"), ("roast",))
LATE = (("soup", "roast", "roast", "fish", "roast"), ("fish", "soup"), ("roast", "fish", "soup", "roast"))


class EveningClock:
    """Seconds that pass as fast as the example likes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the seconds since the kitchen was opened."""
        return self.now


class Kitchen:
    """Cooks what the guests at a table order, one dish after another."""

    def __init__(self, recorder: MetricsRecorderProto | None, clock: EveningClock) -> None:
        self._emitter = MetricsEmitter(recorder, self.metrics(clock))

    @staticmethod
    def metrics(clock: EveningClock) -> tuple[Metric, ...]:
        """Return an instrument for each question."""
        return (
            Counter("dishes", on=Served, tags=("course",), description="How many dishes, by course?"),
            Sum("takings", on=Served, value="cents", when=lambda dish: not dish.sent_back, unit="cents"),
            UpDownCounter[Ordered | Served]("waiting", up=Ordered, down=Served, description="How many at once?"),
            Gauge("wait.last", on=Served, value="minutes", unit="min"),
            Summary("wait", on=Served, value="minutes", unit="min", quantiles=(0.5, 0.9)),
            Histogram("wait.buckets", on=Served, value="minutes", unit="min", bounds=(10, 20, 30)),
            Rate("pace", on=Served, windows=(1800,), clock=clock, description="How often, in the last half hour?"),
            Ratio("complaints", on=Served, hit="sent_back", window=1800, clock=clock),
        )

    def cook(self, orders: Sequence[str]) -> None:
        """Take orders, and serve them in turn."""
        for course in orders:
            self._emitter.emit(Ordered(course))
        wait = 0
        for course in orders:
            minutes, cents = MENU[course]
            wait += minutes
            self._emitter.emit(Served(course, wait, cents, sent_back=wait > PATIENCE))


def show(title: str, snapshots: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the dimensions of each instrument, and the series where there are tags."""
    print(title)
    for name, snapshot in snapshots.items():
        print(f"  {name:<13}" + ", ".join(f"{key} {told(value)}" for key, value in snapshot["dimensions"].items()))
        for series in snapshot["series"]:
            if series["tags"]:
                print(f"  {'':<13}  {', '.join(map(str, series['tags'].values()))}: {series['total']}")


def told(value: float | None) -> str:
    """Return a number for people to read; an instrument has None where there is nothing to say."""
    return "none" if value is None else f"{value:.5g}"


def main(backend: str = "asyncio") -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Cook for early and for late guests; print and return what was measured, and what of it is about the late ones."""
    clock = EveningClock()
    with MetricsRuntime(namespace="restaurant", backend=backend) as runtime:
        recorder = runtime.create_recorder("kitchen")
        kitchen = Kitchen(recorder, clock)

        def serve(tables: Sequence[Sequence[str]]) -> Mapping[str, Mapping[str, Any]]:
            for orders in tables:
                kitchen.cook(orders)
                # An instrument looks at its clock when it handles an event.  This clock would have gone on by then.
                recorder.flush().wait()
                clock.now += 900
            return recorder.get_metric_snapshots()

        earlier = serve(EARLY)
        evening = serve(LATE)
    late = {name: snapshot_delta(earlier[name], snapshot) for name, snapshot in evening.items()}
    show("the evening", evening)
    show("the late guests", late)
    return {"evening": evening, "late": late}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure a kitchen with instruments.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
