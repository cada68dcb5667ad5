"""A recorder of a runtime: this library on each backend, and mvx-common 0.3.0, by the very same code.

Only what both document is used, but for the backend.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES
from mvx.common.metrics import Metric, MetricEvent, MetricsRuntime

CAPACITY = 10_000_000
"""So many events may wait that none is ever lost: losing them is not what is compared."""

OPTIONS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
    "mvx-common": {},
}


@dataclass(frozen=True, slots=True)
class Saved(MetricEvent):
    """An event with one field, as in the documentation."""

    ok: bool

    @property
    def event_type(self) -> str:
        return "benchmark.saved"


@dataclass(frozen=True, slots=True)
class Deleted(MetricEvent):
    """An event that nobody emits."""

    @property
    def event_type(self) -> str:
        return "benchmark.deleted"


class Saves(Metric):
    """A metric written by hand, as in the documentation."""

    event_types = (Saved,)

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


class Deletions(Metric):
    """A metric of another event, of which there may be many."""

    event_types = (Deleted,)

    def __init__(self, name: str) -> None:
        self._name = name
        self.total = 0

    @property
    def metric_name(self) -> str:
        return self._name

    def handle_event(self, event: MetricEvent) -> bool:
        if not isinstance(event, Deleted):
            return False
        self.total += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self.metric_name, "dimensions": {"total": self.total}}


def runtime_of(name: str, **options: Any) -> MetricsRuntime:
    """Make the runtime of a contender."""
    return MetricsRuntime(namespace="benchmark", default_recorder_queue_max_size=CAPACITY, **OPTIONS[name], **options)


def shown(recorder: Any) -> int:
    """Return how many events a snapshot of one recorder shows."""
    total: int = recorder.get_metric_snapshots()["benchmark.saves"]["dimensions"]["total"]
    return total


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a runtime with its recorders."""
    items = [Saved(ok) for ok in OUTCOMES]
    runtime = runtime_of(name)
    runtime.start()
    try:
        made = [runtime.create_recorder(f"benchmark-{n}") for n in range(recorders)]
        for recorder in made:
            recorder.register_metric(Saves())
            for n in range(metrics - 1):
                recorder.register_metric(Deletions(f"benchmark.deletions-{n}"))
            recorder.register_event(items[0])
            while shown(recorder) < 1:
                time.sleep(0.001)
        emitters = [recorder.register_event for recorder in made]

        # The one wait that both have: a snapshot from another thread shows what was emitted before.
        def drain() -> None:
            for recorder in made:
                recorder.get_metric_snapshots()

        yield Contender(emitters[0], items, drain, lambda: sum(map(shown, made)), emitters)
    finally:
        runtime.shutdown()
