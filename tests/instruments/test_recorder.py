"""Instruments in a real recorder, on every backend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRuntime
from mvx.common.metrics.instruments import Counter, Gauge, Sum, UpDownCounter, snapshot_delta
from tests.instruments.events import KINDS, MANY, Attempt, Begun, Ended

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_a_recorder_feeds_an_instrument(kind: str, backend: dict[str, Any]) -> None:
    """It hands it the events of its classes and no others, and shows its snapshot."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("r")
        recorder.register_metric(KINDS[kind]("saves", tags=("backend",)))
        for _ in range(3):
            recorder.register_event(Attempt())
            recorder.register_event(Ended())
        shown = recorder.get_metric_snapshots()["saves"]
        assert shown["dimensions"][MANY[kind]] == 3
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown
        recorder.register_event(Attempt())
        delta = snapshot_delta(shown, recorder.get_metric_snapshots()["saves"])
        assert delta["dimensions"][MANY[kind]] == 1
        assert recorder.statistics().unmatched == 3
        assert recorder.statistics().metric_errors == 0


def test_what_a_function_raises_is_a_metric_error(backend: dict[str, Any]) -> None:
    """It is counted there, the other metrics see the event, and the instrument sees the next."""

    def fragile(event: Attempt) -> float:
        return 1 / float(event.seconds)

    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("r")
        recorder.register_metric(Sum("inverse", on=Attempt, value=fragile))
        recorder.register_metric(Counter("all", on=Attempt))
        for seconds in (2, 0, 4):
            recorder.register_event(Attempt(seconds=seconds))
        shown = recorder.get_metric_snapshots()
        assert shown["inverse"]["dimensions"] == {"total": 0.75, "count": 2}
        assert shown["inverse"]["invalid"] == 0
        assert shown["all"]["dimensions"] == {"total": 3}
        assert recorder.statistics().metric_errors == 1


def test_several_instruments_are_told_apart(backend: dict[str, Any]) -> None:
    """Each gets what it asks for, also where they share a class."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("r")
        recorder.register_metric(Counter("begun", on=Begun))
        recorder.register_metric(Counter[Any]("both", on=(Begun, Ended)))
        recorder.register_metric(UpDownCounter[Any]("open", up=Begun, down=Ended))
        recorder.register_metric(Gauge("size", on=Begun, value="size"))
        for event in (Begun(size=3), Begun(size=5), Ended()):
            recorder.register_event(event)
        shown = recorder.get_metric_snapshots()
    assert shown["begun"]["dimensions"] == {"total": 2}
    assert shown["both"]["dimensions"] == {"total": 3}
    assert shown["open"]["dimensions"]["value"] == 1
    assert shown["size"]["dimensions"]["last"] == 5


def test_the_hook_sees_each_change(backend: dict[str, Any]) -> None:
    """``_on_metric_changed`` runs for what was meant, and not for what ``when`` left out."""
    seen: list[tuple[int, object]] = []

    class Watching(MetricsRecorder):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            seen.append((metric.snapshot()["dimensions"]["total"], event))

    good, bad = Attempt(), Attempt(ok=False)
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("r", factory=Watching)
        recorder.register_metric(Counter("good", on=Attempt, when=lambda event: event.ok))
        for event in (good, bad, good):
            recorder.register_event(event)
    assert seen == [(1, good), (2, good)]
