"""What the tests of emitting share: an event that carries its outcome, a recorder that remembers, and a clock."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from mvx.common.metrics import Metric, MetricEvent, MetricsEmitter, Outcome

LOGGER = "mvx.common.metrics"


@dataclass(frozen=True, slots=True)
class Ended(MetricEvent):
    """A block has ended."""

    outcome: Outcome

    @property
    def event_type(self) -> str:
        return "test.ended"


class Listener:
    """Fulfils MetricsRecorderProto and nothing more; raises what it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.metrics: list[Metric] = []
        self.events: list[MetricEvent] = []
        self.error = error

    def register_metric(self, metric: Metric) -> None:
        if self.error is not None:
            raise self.error
        self.metrics.append(metric)

    def register_event(self, event: MetricEvent) -> None:
        if self.error is not None:
            raise self.error
        self.events.append(event)

    def get_metric_snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def iter_metrics(self) -> Iterator[Metric]:
        return iter(self.metrics)

    @property
    def outcomes(self) -> list[Outcome]:
        return [event.outcome for event in self.events if isinstance(event, Ended)]

    @property
    def told(self) -> list[tuple[str, type[BaseException] | None]]:
        """Status and error of each outcome."""
        return [(outcome.status, outcome.error) for outcome in self.outcomes]

    def only(self) -> Outcome:
        (outcome,) = self.outcomes
        return outcome


class Clock:
    """Seconds that pass when the test says so; binary fractions, so that sums are exact."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


class Component:
    """Has its emitter where methods look for it."""

    def __init__(self, recorder: Any = None) -> None:
        self._metrics = MetricsEmitter(recorder)


def stacks(count: int) -> range:
    """So many limits of recursion, one frame apart, with little room above the frames that there are."""
    depth = len(list(traceback.walk_stack(None)))
    return range(depth + 100, depth + 100 + count)


def logged(caplog: pytest.LogCaptureFixture, part: str = "") -> list[logging.LogRecord]:
    """The library's records whose message contains ``part``."""
    return [record for record in caplog.records if record.name == LOGGER and part in record.getMessage()]
