"""The documented storage of documents, in a fifth of its lines.

The storage of the documentation brings an event, a metric and a helper of its own.  Here an ``OutcomeEvent`` is the
event, a ``Counter`` the metric, a ``MetricsEmitter`` the helper, and ``observe`` emits one event for each call, however
it ends.  The numbers are the same.

    python examples/emitting.py --backend trio
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mvx.common.metrics import MetricsEmitter, MetricsRecorderProto, MetricsRuntime, OutcomeEvent, observe
from mvx.common.metrics.instruments import Counter


class SaveAttempt(OutcomeEvent):
    """Somebody tried to save a document."""

    event_type = "document_storage.save.attempt"


class DocumentStorage:
    """The component."""

    def __init__(self, *, metrics_recorder: MetricsRecorderProto | None = None) -> None:
        attempts = Counter("document_storage.save.attempts", on=SaveAttempt, tags=("status",))
        self._metrics = MetricsEmitter(metrics_recorder, (attempts,))

    @observe("_metrics", SaveAttempt)
    def save_document(self, document_id: str, content: str) -> None:
        """Save a document under an id.

        :raises ValueError: if the id is empty
        """
        if not document_id:
            raise ValueError("document_id must not be empty")


def numbers_of(snapshot: Mapping[str, Any]) -> dict[str, int]:
    """Return what the documented metric shows as its dimensions."""
    by_status = {series["tags"]["status"]: series["total"] for series in snapshot["series"]}
    return {
        "total": snapshot["dimensions"]["total"],
        "success_total": by_status.get("ok", 0),
        "failure_total": by_status.get("error", 0),
    }


def work_with(storage: DocumentStorage) -> None:
    """Save two documents, and try to save a third."""
    for document_id, content in [("doc-001", "First document"), ("doc-002", "Second"), ("", "Broken document")]:
        try:
            storage.save_document(document_id, content)
        except ValueError as error:
            print(f"not saved: {error}")


def main(backend: str = "asyncio") -> dict[str, dict[str, int]]:
    """Use a storage with a recorder and one without; print what the metric saw, and return it."""
    work_with(DocumentStorage())
    with MetricsRuntime(namespace="example.metrics", backend=backend) as runtime:
        recorder = runtime.create_recorder("document_storage")
        storage = DocumentStorage(metrics_recorder=recorder)
        work_with(storage)
        snapshots = recorder.get_metric_snapshots()
    # The runtime is gone.  The storage is not troubled; its emitter counts what it could not emit, and logs it.
    storage.save_document("doc-003", "Third document")
    found = {name: numbers_of(snapshot) for name, snapshot in snapshots.items()}
    for name, numbers in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in numbers.items()))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure a component that writes no event, no metric and no helper.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
