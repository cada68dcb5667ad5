"""A recorder of one's own that keeps a resource open for as long as it runs.

Shows the three hooks: open a file, append a line for every change of a metric, close the file.  They
run in the recorder's own task, so the file belongs to it alone and needs no lock.  The same class is
used twice: made by a runtime, which passes ``path=`` on to it, and by hand on a running event loop.

    python examples/custom_recorder.py --backend trio
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRuntime


@dataclass(frozen=True, slots=True)
class LiftTravelled(MetricEvent):
    """A lift has carried somebody."""

    floors: int

    @property
    def event_type(self) -> str:
        """What the logbook calls it."""
        return "lift.travelled"


class Wear(Metric):
    """What the cable has been through."""

    event_types = (LiftTravelled,)

    def __init__(self) -> None:
        self._trips = self._floors = 0

    @property
    def metric_name(self) -> str:
        """The key of the snapshot."""
        return "lift.wear"

    def handle_event(self, event: MetricEvent) -> bool:
        """Add the trip up, unless the lift stayed where it was."""
        if not isinstance(event, LiftTravelled) or event.floors == 0:
            return False  # nothing changed, so no hook is called
        self._trips += 1
        self._floors += abs(event.floors)
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """Return the two numbers."""
        return {"trips": self._trips, "floors": self._floors}


class LogbookRecorder(MetricsRecorder):
    """Writes every change of its metrics to a file, one JSON object a line."""

    def __init__(self, entity_id: str, *, path: Path, **options: Any) -> None:
        super().__init__(entity_id, **options)  # the options of every recorder stay available
        self._path = path
        self._file: anyio.AsyncFile[str] | None = None

    async def _on_starting(self) -> None:
        self._file = await anyio.open_file(self._path, "w", encoding="utf-8")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if self._file is not None:
            # The snapshot shows exactly this event: the next one waits until this hook is done.
            entry = {"lift": self.entity_id, "after": event.event_type, **metric.snapshot()}
            await self._file.write(json.dumps(entry) + "\n")

    async def _on_stopped(self) -> None:
        if self._file is not None:
            await self._file.aclose()


TRIPS = (3, -3, 0, 7)


def through_a_runtime(backend: str, path: Path) -> None:
    """Let a runtime make, start and stop the recorder."""
    with MetricsRuntime(namespace="building", backend=backend) as runtime:
        recorder = runtime.create_recorder("north", factory=LogbookRecorder, path=path)
        recorder.register_metric(Wear())
        for floors in TRIPS:
            recorder.register_event(LiftTravelled(floors))


async def by_hand(path: Path) -> None:
    """Make, start and stop the recorder on the loop that runs here; its hooks run on it too."""
    recorder = LogbookRecorder("south", path=path)
    started = await recorder.start()
    if started.error is not None:
        raise started.error
    try:
        recorder.register_metric(Wear())
        for floors in TRIPS:
            recorder.register_event(LiftTravelled(floors))
    finally:
        stopped = await recorder.stop()  # drains, then closes the file
    if stopped.error is not None:
        raise stopped.error


def main(backend: str = "asyncio") -> dict[str, list[dict[str, Any]]]:
    """Run both, print the two logbooks, and return them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {"through a runtime": Path(folder, "north.jsonl"), "by hand": Path(folder, "south.jsonl")}
        through_a_runtime(backend, paths["through a runtime"])
        anyio.run(by_hand, paths["by hand"], backend=backend)
        logbooks = {way: [json.loads(line) for line in path.read_text().splitlines()] for way, path in paths.items()}
    for way, entries in logbooks.items():
        print(f"{way}:")
        for entry in entries:
            print(f"  {entry}")
    return logbooks


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a metric's changes to a file, by a recorder's hooks.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
