"""The job that ``python -m mvx.common.metrics`` shows: a component, its event, its metric, and a run of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ._event import MetricEvent
from ._inbox import OverflowPolicy
from ._metric import Metric
from ._protocols import MetricsRecorderProto
from ._runtime import MetricsRuntime
from ._statistics import RecorderStatistics

SLICE = 1_000
"""How many documents are saved between two reports of progress."""
BLOCK_TIMEOUT = 60.0
"""Seconds that saving may wait for room; the default is too short for a machine that was suspended."""
REFUSED_EVERY = 20
"""One in so many documents is too long to be saved."""


@dataclass(frozen=True, slots=True)
class SaveTried(MetricEvent):
    """Somebody tried to save a document."""

    length: int
    """Characters."""
    saved: bool
    """False if it was refused."""

    @property
    def event_type(self) -> str:
        """The same for both outcomes."""
        return "documents.save_tried"


class Saves(Metric):
    """Counts documents saved and refused, and the characters saved."""

    event_types = (SaveTried,)

    def __init__(self) -> None:
        self._saved = self._refused = self._characters = 0

    @property
    def metric_name(self) -> str:
        """The key of its snapshot."""
        return "documents.saves"

    def handle_event(self, event: MetricEvent) -> bool:
        """Count one."""
        if not isinstance(event, SaveTried):
            return False
        if event.saved:
            self._saved += 1
            self._characters += event.length
        else:
            self._refused += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """Return the three counts."""
        return {
            "name": self.metric_name,
            "dimensions": {"saved": self._saved, "refused": self._refused, "characters": self._characters},
        }


class Documents:
    """Keeps documents in memory, and works with a recorder or without one."""

    def __init__(self, *, longest: int, metrics_recorder: MetricsRecorderProto | None = None) -> None:
        self._texts: dict[str, str] = {}
        self._longest = longest
        self._recorder = metrics_recorder
        if metrics_recorder is not None:
            metrics_recorder.register_metric(Saves())

    def save(self, title: str, text: str) -> None:
        """Keep ``text`` under ``title``.

        :raises ValueError: if it is too long
        """
        saved = len(text) <= self._longest
        if saved:
            self._texts[title] = text
        if self._recorder is not None:
            self._recorder.register_event(SaveTried(len(text), saved))
        if not saved:
            msg = f"{title!r} has {len(text)} characters; {self._longest} are allowed"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a run came to."""

    snapshots: Mapping[str, Mapping[str, Any]]
    """Of the metrics, by name."""
    statistics: RecorderStatistics
    """Of the recorder, when everything had been processed."""
    emit_seconds: float
    """From the first save to the return of the last one."""
    total_seconds: float
    """From the first save until every event had been processed."""

    @property
    def lost(self) -> int:
        """Events that no metric has seen."""
        return self.statistics.offered - self.statistics.processed


def run(
    events: int,
    *,
    backend: str = "asyncio",
    backend_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Save ``events`` documents, one event each, and wait until they have been measured.

    :param progress: called now and then with the number of documents done so far
    :raises MetricsRuntimeStartupError: if the backend is not installed
    """
    with MetricsRuntime(namespace="demo", backend=backend, backend_options=backend_options) as runtime:
        recorder = runtime.create_recorder(
            "documents", queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=BLOCK_TIMEOUT
        )
        documents = Documents(longest=100, metrics_recorder=recorder)
        begun = time.perf_counter()
        for first in range(0, events, SLICE):
            last = min(first + SLICE, events)
            for number in range(first, last):
                try:
                    documents.save(f"page {number % 100}", "x" * (200 if number % REFUSED_EVERY == 0 else 50))
                except ValueError:
                    pass  # the metric counts it
            if progress is not None:
                progress(last)
        emitted = time.perf_counter()
        recorder.flush().wait()  # should it fail, the ledger shows what was lost
        processed = time.perf_counter()
        return Report(
            snapshots=recorder.get_metric_snapshots(),
            statistics=recorder.statistics(),
            emit_seconds=emitted - begun,
            total_seconds=processed - begun,
        )
