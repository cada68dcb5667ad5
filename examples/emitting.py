"""The documented storage of documents, without the helper that such a component used to write by hand.

Shows ``MetricsEmitter``, which registers the component's metrics, does nothing without a recorder and never raises into
the component, and ``observe``, which makes one event of each call, however it ends.  The numbers are the same.

    python examples/emitting.py --backend trio
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsEmitter,
    MetricsRecorderProto,
    MetricsRuntime,
    Outcome,
    observe,
)


class SaveOutcome(StrEnum):
    """How an attempt to save ended."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True)
class SaveAttempt(MetricEvent):
    """Somebody tried to save a document."""

    outcome: SaveOutcome

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "document_storage.save.attempt"

    @classmethod
    def of(cls, outcome: Outcome) -> SaveAttempt | None:
        """Make the event of an attempt that was not given up."""
        if outcome.status == "cancelled":
            return None
        return cls(SaveOutcome.SUCCESS if outcome.status == "ok" else SaveOutcome.FAILURE)


class SaveAttempts(Metric):
    """How many attempts there were, and how they ended."""

    event_types = (SaveAttempt,)

    def __init__(self) -> None:
        self._counts = dict.fromkeys(SaveOutcome, 0)

    @property
    def metric_name(self) -> str:
        """The key of the snapshot."""
        return "document_storage.save.attempts"

    def handle_event(self, event: MetricEvent) -> bool:
        """Count the attempt."""
        if not isinstance(event, SaveAttempt):
            return False
        self._counts[event.outcome] += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """Return the three numbers."""
        dimensions = {
            "total": sum(self._counts.values()),
            "success_total": self._counts[SaveOutcome.SUCCESS],
            "failure_total": self._counts[SaveOutcome.FAILURE],
        }
        return {"name": self.metric_name, "dimensions": dimensions}


class DocumentStorage:
    """The component: two lines of it are about metrics."""

    def __init__(self, *, metrics_recorder: MetricsRecorderProto | None = None) -> None:
        self._metrics = MetricsEmitter(metrics_recorder, (SaveAttempts(),))
        self._documents: dict[str, str] = {}

    @observe("_metrics", SaveAttempt.of)
    def save_document(self, document_id: str, content: str) -> None:
        """Save a document under an id.

        :raises ValueError: if the id is empty
        """
        if not document_id:
            raise ValueError("document_id must not be empty")
        self._documents[document_id] = content


def work_with(storage: DocumentStorage) -> None:
    """Save two documents, and try to save a third."""
    for document_id, content in [("doc-001", "First document"), ("doc-002", "Second"), ("", "Broken document")]:
        try:
            storage.save_document(document_id, content)
        except ValueError as error:
            print(f"not saved: {error}")


def main(backend: str = "asyncio") -> Mapping[str, Mapping[str, Any]]:
    """Use a storage with a recorder and one without; print what the metric saw, and return it."""
    work_with(DocumentStorage())
    with MetricsRuntime(namespace="example.metrics", backend=backend) as runtime:
        recorder = runtime.create_recorder("document_storage")
        storage = DocumentStorage(metrics_recorder=recorder)
        work_with(storage)
        snapshots = recorder.get_metric_snapshots()
    # The runtime is gone.  The storage is not troubled; its emitter counts what it could not emit, and logs it.
    storage.save_document("doc-003", "Third document")
    for name, snapshot in snapshots.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in snapshot["dimensions"].items()))
    return snapshots


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure a component that writes no helper.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
