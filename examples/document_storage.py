"""A component that reports what it does, and works just as well when nobody listens.

Shows the usual division of labour: the component depends on ``MetricsRecorderProto`` alone and emits
events; two metrics turn them into numbers; the application owns the runtime and passes a recorder in.

    python examples/document_storage.py --backend trio
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorderProto, MetricsRuntime


class Refusal(StrEnum):
    """Why an archive does not take a revision."""

    UNTITLED = "untitled"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class RevisionFiled(MetricEvent):
    """A revision was taken in."""

    words: int

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "archive.revision_filed"


@dataclass(frozen=True, slots=True)
class RevisionRefused(MetricEvent):
    """A revision was sent back."""

    refusal: Refusal

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "archive.revision_refused"


class Filings(Metric):
    """How many revisions were filed, and how long they were."""

    event_types = (RevisionFiled,)  # the recorder asks this metric about nothing else

    def __init__(self) -> None:
        self._revisions = self._words = self._longest = 0

    @property
    def metric_name(self) -> str:
        """The key of the snapshot."""
        return "archive.filings"

    def handle_event(self, event: MetricEvent) -> bool:
        """Add the revision up."""
        if not isinstance(event, RevisionFiled):
            return False
        self._revisions += 1
        self._words += event.words
        self._longest = max(self._longest, event.words)
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """Return the three numbers."""
        return {"revisions": self._revisions, "words": self._words, "longest": self._longest}


class Refusals(Metric):
    """How many revisions were refused, by reason."""

    event_types = (RevisionRefused,)

    def __init__(self) -> None:
        self._by_reason: Counter[str] = Counter()

    @property
    def metric_name(self) -> str:
        """The key of the snapshot."""
        return "archive.refusals"

    def handle_event(self, event: MetricEvent) -> bool:
        """Count the reason."""
        if not isinstance(event, RevisionRefused):
            return False
        self._by_reason[event.refusal.value] += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """Return the counts."""
        return dict(self._by_reason)  # a copy: the metric goes on counting


class ContractArchive:
    """Keeps every revision of every contract."""

    def __init__(self, recorder: MetricsRecorderProto | None = None) -> None:
        self._revisions: dict[str, list[str]] = {}
        self._recorder = recorder
        if recorder is not None:
            recorder.register_metric(Filings())
            recorder.register_metric(Refusals())

    def file(self, title: str, text: str) -> int:
        """Add a revision and return its number, counted from one."""
        if not title.strip():
            self._report(RevisionRefused(Refusal.UNTITLED))
            raise ValueError("a contract needs a title")
        revisions = self._revisions.setdefault(title, [])
        if revisions and revisions[-1] == text:
            self._report(RevisionRefused(Refusal.UNCHANGED))
            raise ValueError(f"{title!r} reads like its last revision")
        revisions.append(text)
        self._report(RevisionFiled(words=len(text.split())))
        return len(revisions)

    def _report(self, event: MetricEvent) -> None:
        if self._recorder is not None:
            self._recorder.register_event(event)


def work_with(archive: ContractArchive) -> None:
    """Do what a day in the office brings."""
    for title, text in [
        ("lease", "The house is let for one year."),
        ("lease", "The house is let for two years and a garden goes with it."),
        ("lease", "The house is let for two years and a garden goes with it."),
        ("", "To whom it may concern"),
        ("loan", "To be paid back in spring."),
    ]:
        try:
            archive.file(title, text)
        except ValueError as error:
            print(f"refused: {error}")


def main(backend: str = "asyncio") -> Mapping[str, Mapping[str, Any]]:
    """Use an archive, print what its metrics saw, and return it."""
    with MetricsRuntime(namespace="office", backend=backend) as runtime:
        recorder = runtime.create_recorder("archive")
        work_with(ContractArchive(recorder))
        # In another thread than the runtime's, snapshots contain whatever was emitted before.
        snapshots = recorder.get_metric_snapshots()
    for name, snapshot in snapshots.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in snapshot.items()))
    return snapshots


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure a component through a runtime.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
