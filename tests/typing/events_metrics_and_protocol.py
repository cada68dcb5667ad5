"""What a type checker says of events and metrics of users, and of components that take the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import attrs

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRecorderProto, MetricsRuntime


@dataclass(frozen=True, slots=True)
class OrderPlaced(MetricEvent):
    """An event as a frozen dataclass."""

    amount: int

    @property
    def event_type(self) -> str:
        return "order.placed"


@attrs.frozen
class OrderShipped(MetricEvent):
    """An event of attrs."""

    parcels: int

    @property
    def event_type(self) -> str:
        return "order.shipped"


class OrderLost(MetricEvent):
    """A plain event."""

    @property
    def event_type(self) -> str:
        return "order.lost"


class Nameless(MetricEvent):
    """An event without a type cannot be made."""


class Turnover(Metric):
    """A metric that says what it wants."""

    event_types = (OrderPlaced,)

    def __init__(self) -> None:
        self._total = 0

    @property
    def metric_name(self) -> str:
        return "turnover"

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, OrderPlaced):
            assert_type(event.amount, int)
            self._total += event.amount
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"total": self._total}


class Everything(Turnover):
    """A metric that wants every event."""

    event_types = None  # type: ignore[assignment] # because a subclass narrows in mypy's eyes what its base has inferred


class Two(Metric):
    """A metric that wants two kinds, and is not finished."""

    event_types = (OrderPlaced, OrderShipped)


class Wrong(Turnover):
    """A metric that wants what is no event."""

    event_types = (int,)  # type: ignore[assignment] # because an int is no event class


def make() -> None:
    """Finished classes can be made."""
    assert_type(OrderPlaced(3).event_type, str)
    assert_type(OrderShipped(1).parcels, int)
    OrderLost()
    Turnover()
    Nameless()  # type: ignore[abstract] # because it lacks its event_type
    Two()  # type: ignore[abstract] # because it lacks its methods


class Orders:
    """A production component."""

    def __init__(self, *, metrics_recorder: MetricsRecorderProto) -> None:
        self._metrics = metrics_recorder
        self._metrics.register_metric(metric=Turnover())

    def place(self, amount: int) -> None:
        """Emit an event."""
        self._metrics.register_event(event=OrderPlaced(amount))


class StandIn:
    """A stand-in in a user's test."""

    def __init__(self) -> None:
        self.events: list[MetricEvent] = []

    def register_metric(self, metric: Metric) -> None:
        """Take no notice."""

    def register_event(self, event: MetricEvent) -> None:
        """Keep it."""
        self.events.append(event)

    def get_metric_snapshots(self) -> dict[str, dict[str, Any]]:
        """Return nothing."""
        return {}

    def iter_metrics(self) -> tuple[Metric, ...]:
        """Return nothing."""
        return ()


class Half:
    """Not enough of a stand-in."""

    def register_event(self, event: MetricEvent) -> None:
        """Take no notice."""


def wire(recorder: MetricsRecorder, runtime: MetricsRuntime) -> None:
    """Whatever has the four methods can be passed in."""
    Orders(metrics_recorder=recorder)
    Orders(metrics_recorder=runtime.create_recorder("orders"))
    Orders(metrics_recorder=StandIn())
    Orders(metrics_recorder=Half())  # type: ignore[arg-type] # because it lacks three methods
    Orders(metrics_recorder=runtime)  # type: ignore[arg-type] # because a runtime is no recorder


def read(recorder: MetricsRecorderProto) -> None:
    """What the protocol promises."""
    assert_type(recorder.get_metric_snapshots(), Mapping[str, Mapping[str, Any]])
    assert_type(recorder.iter_metrics(), Iterable[Metric])
    for metric in recorder.iter_metrics():
        assert_type(metric.metric_name, str)
        assert_type(metric.handle_event(OrderLost()), bool)
        assert_type(metric.event_types, tuple[type[MetricEvent], ...] | None)
