"""A recorder's life by hand: start, flush, stop and start again, awaited in tasks and in threads.

Shows the wait handles: ``start()``, ``stop()`` and ``flush()`` return at once and never raise; what
came of it is in the handle's result.  A task awaits the handle, a thread calls ``wait()``.

    python examples/manual_lifecycle.py --backend trio
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import anyio
import anyio.to_thread

from mvx.common.metrics import (
    MetricEvent,
    MetricsRecorder,
    RecorderInvalidStateError,
    RecorderOpResult,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics.instruments import Counter


@dataclass(frozen=True, slots=True)
class CarBoarded(MetricEvent):
    """A car drove onto the ferry."""

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "ferry.car_boarded"


class Diary:
    """Prints and keeps what happened to a recorder, step by step."""

    def __init__(self, recorder: MetricsRecorder) -> None:
        self._recorder = recorder
        self.entries: list[tuple[str, str, int]] = []

    def note(self, step: str) -> None:
        """Write down the recorder's state and how many cars it has counted so far."""
        state = self._recorder.get_status().value
        cars: int = self._recorder.get_metric_snapshots()["ferry.cars_carried"]["dimensions"]["total"]
        self.entries.append((step, state, cars))
        print(f"{step:<34} {state:<8} {cars} cars")


def checked(result: RecorderOpResult) -> None:
    """Raise the error of an operation that has failed."""
    if result.error is not None:
        raise result.error


async def sail() -> list[tuple[str, str, int]]:
    """Lead a recorder through its life."""
    recorder = MetricsRecorder("ferry")
    recorder.register_metric(Counter("ferry.cars_carried", on=CarBoarded))
    diary = Diary(recorder)
    diary.note("made")

    checked(await recorder.start())
    diary.note("started")

    for _ in range(3):
        recorder.register_event(CarBoarded())
    checked(await recorder.flush())  # every event emitted so far has been processed
    diary.note("flushed")

    try:
        recorder.stop().wait()
    except RecorderWouldDeadlockError:
        # This loop would have to do the stopping: here a handle is awaited. The stop itself is under way.
        diary.note("waiting in the loop was refused")
    checked(await recorder.stop())  # joins the stop under way
    diary.note("stopped")

    again = await recorder.stop()
    if isinstance(again.error, RecorderInvalidStateError):
        diary.note("stopping twice is an error result")

    checked(await recorder.start())  # the metrics were kept
    recorder.register_event(CarBoarded())  # waits in the inbox until this loop gets to it
    diary.note("started again")

    # A thread blocks for the same handle; five seconds are the limit of its patience, not of the stop.
    checked(await anyio.to_thread.run_sync(lambda: recorder.stop().wait(timeout=5)))
    diary.note("stopped from a thread")
    return diary.entries


def main(backend: str = "asyncio") -> list[tuple[str, str, int]]:
    """Run it, and return the steps: what was done, the state, the cars counted."""
    return anyio.run(sail, backend=backend)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Start, flush, stop and restart a recorder by hand.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
