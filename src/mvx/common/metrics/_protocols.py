"""The contract that production components depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from ._event import MetricEvent
from ._metric import Metric


@runtime_checkable
class MetricsRecorderProto(Protocol):
    """What a production component may ask of the recorder that was passed into it.

    Depend on this alone: any recorder satisfies it, and so does a stand-in of your tests.
    """

    def register_metric(self, metric: Metric) -> None:
        """Add ``metric``, or replace the one of the same name."""
        ...

    def register_event(self, event: MetricEvent) -> None:
        """Hand over ``event`` and carry on."""
        ...

    def get_metric_snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the state of every metric by its name."""
        ...

    def iter_metrics(self) -> Iterable[Metric]:
        """Return the registered metrics."""
        ...
