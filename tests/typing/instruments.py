"""What a type checker says of instruments: each is typed by its event class, and so are its functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorderProto
from mvx.common.metrics.instruments import (
    Counter,
    Gauge,
    Histogram,
    Label,
    Rate,
    Ratio,
    Sum,
    Summary,
    UpDownCounter,
    label_of,
    snapshot_delta,
)


class Named(MetricEvent):
    """A common base."""

    backend: str

    @property
    def event_type(self) -> str:
        return "named"


@dataclass(frozen=True, slots=True)
class Saved(Named):
    """Something was saved."""

    backend: str
    ok: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Loaded(Named):
    """Something was loaded."""

    backend: str
    size: int


def seconds_of(event: Saved) -> float:
    """Return what a Saved has and a Loaded has not."""
    return event.seconds


def counters() -> None:
    """A counter is one of its events; functions get such an event."""
    assert_type(Counter("saves", on=Saved), Counter[Saved])
    assert_type(Counter("saves", on=(Saved,)), Counter[Saved])
    assert_type(Counter("failures", on=Saved, when=lambda event: not event.ok, tags=("backend",)), Counter[Saved])
    assert_type(Counter("by", on=Saved, tags={"b": "backend", "slow": lambda event: event.seconds > 1}), Counter[Saved])
    assert_type(Counter[Saved | Loaded]("all", on=(Saved, Loaded)), Counter[Saved | Loaded])
    assert_type(Counter[Named]("all", on=(Saved, Loaded), tags={"b": lambda event: event.backend}), Counter[Named])
    Counter("saves", on=int)  # type: ignore[type-var] # because an int is no event class
    Counter("saves", on=Saved, when=lambda event: event.okay)  # type: ignore[attr-defined] # because of the spelling
    Counter("saves", on=Loaded, when=seconds_of)  # type: ignore[arg-type] # because a Loaded is no Saved
    Counter("saves", on=Saved, tag=("backend",))  # type: ignore[call-arg] # because of the spelling
    Counter("saves", Saved)  # type: ignore[call-arg] # because all but the name are keywords
    Counter[Loaded]("saves", on=Saved)  # type: ignore[arg-type] # because it is to be of Loaded


def sums() -> None:
    """A value is an attribute's name or a function to a number."""
    assert_type(Sum("bytes", on=Loaded, value="size"), Sum[Loaded])
    assert_type(Sum("bytes", on=Loaded, value=lambda event: event.size / 2), Sum[Loaded])
    Sum("bytes", on=Loaded)  # type: ignore[call-arg] # because it does not say what to add
    Sum("bytes", on=Loaded, value=seconds_of)  # type: ignore[arg-type] # because a Loaded is no Saved
    Sum("bytes", on=Loaded, value=lambda event: event.backend)  # type: ignore[arg-type, return-value] # because that is a str


def gauges() -> None:
    """Likewise."""
    assert_type(Gauge("last", on=Saved, value=seconds_of), Gauge[Saved])
    Gauge("last", on=Loaded, value=seconds_of)  # type: ignore[arg-type] # because a Loaded is no Saved


def up_and_down() -> None:
    """Either two events or a signed value."""
    assert_type(UpDownCounter("open", up=Named, down=Saved), UpDownCounter[Named])
    assert_type(UpDownCounter[Saved | Loaded]("open", up=Loaded, down=Saved), UpDownCounter[Saved | Loaded])
    assert_type(UpDownCounter("level", on=Loaded, value="size"), UpDownCounter[Loaded])
    UpDownCounter("open", up=Saved)  # type: ignore[call-overload] # because nothing goes down
    UpDownCounter("open", on=Saved)  # type: ignore[call-overload] # because it does not say how much
    UpDownCounter("open", on=Saved, up=Saved, down=Saved)  # type: ignore[call-overload] # because it is both


def distributions() -> None:
    """Summaries and histograms can be merged with their like."""
    summary = Summary("seconds", on=Saved, value="seconds", quantiles=(0.5, 0.999))
    assert_type(summary, Summary[Saved])
    histogram = Histogram("seconds", on=Saved, value=seconds_of, bounds=(0.1, 1, 10))
    assert_type(histogram, Histogram[Saved])
    assert_type(Histogram("seconds", on=Saved, value="seconds"), Histogram[Saved])
    summary.merge(Summary("sizes", on=Loaded, value="size"))
    summary.merge(histogram)  # type: ignore[arg-type] # because it is of another kind


def times() -> None:
    """What looks at a clock."""
    assert_type(Rate("rate", on=Saved, windows=(1, 60), clock=lambda: 3.0), Rate[Saved])
    assert_type(Ratio("ok", on=Saved, hit="ok"), Ratio[Saved])
    assert_type(Ratio("fast", on=Saved, hit=lambda event: event.seconds < 1, window=10), Ratio[Saved])
    Ratio("ok", on=Saved)  # type: ignore[call-arg] # because it does not say what a hit is
    Rate("rate", on=Saved, clock="now")  # type: ignore[arg-type] # because that is no clock


def use(recorder: MetricsRecorderProto) -> None:
    """An instrument is a metric."""
    metric = Counter("saves", on=Saved)
    recorder.register_metric(metric)
    as_metric: Metric = metric
    assert_type(metric.metric_name, str)
    assert_type(metric.kind, str)
    assert_type(metric.snapshot(), dict[str, Any])
    assert_type(as_metric.event_types, tuple[type[MetricEvent], ...] | None)
    assert_type(snapshot_delta(None, metric.snapshot()), dict[str, Any])
    assert_type(label_of(3), Label)
