"""A recorder that is kept busy, and its neighbour, in one runtime; or two threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders.recorders import Saved, runtime_of
from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder

DEADLINE = 60.0


class Arrival:
    """When the neighbour handled its last event; the prober, which needs the interpreter for that, learns it later."""

    def __init__(self) -> None:
        self.at = 0
        self._told = threading.Event()

    def now(self) -> None:
        """Note the time; in the neighbour's thread."""
        self.at = time.perf_counter_ns()
        self._told.set()

    def wait(self) -> int:
        """Return the time in nanoseconds, once there is one."""
        if not self._told.wait(DEADLINE):
            raise TimeoutError("the neighbour's event was not handled")
        self._told.clear()
        return self.at


@dataclass(frozen=True, slots=True)
class Pair:
    """A hog and its neighbour."""

    saturate: Callable[[Callable[[], bool]], object]
    """Keep the hog busy: call the function for each of its events, and emit another if it says so."""
    probe: Callable[[], object]
    """Emit an event to the neighbour."""
    arrival: Arrival
    """When the neighbour handled it."""


class Hog(Metric):
    """Does what it is told on every event."""

    metric_name = "benchmark.hog"

    def __init__(self, recorder: MetricsRecorder) -> None:
        self.recorder = recorder
        self.work: Callable[[], bool] = lambda: False

    def handle_event(self, event: MetricEvent) -> bool:
        if self.work():
            self.recorder.register_event(event)
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {}


class Neighbour(Metric):
    """Says when it has handled an event."""

    metric_name = "benchmark.neighbour"

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival

    def handle_event(self, event: MetricEvent) -> bool:
        self.arrival.now()
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {}


@contextmanager
def pair(name: str) -> Iterator[Pair]:
    """Yield the two in a runtime, or in two threads."""
    arrival = Arrival()
    event = Saved(ok=True)
    if name == "limit":
        jobs: tuple[queue.SimpleQueue[Any], queue.SimpleQueue[Any]] = (queue.SimpleQueue(), queue.SimpleQueue())

        def serve(own: queue.SimpleQueue[Any]) -> None:
            while (job := own.get()) is not None:
                if job():
                    own.put(job)

        threads = [threading.Thread(target=serve, args=(own,), daemon=True) for own in jobs]
        for thread in threads:
            thread.start()
        yield Pair(jobs[0].put, lambda: jobs[1].put(arrival.now), arrival)
        return
    with runtime_of(name) as runtime:
        recorder = runtime.create_recorder("hog", drain_timeout=0.1)
        hog = Hog(recorder)
        recorder.register_metric(hog)
        # Without a linger: else it would be looked at together with the hog, at set times.
        neighbour = runtime.create_recorder("neighbour", linger=0.0)
        neighbour.register_metric(Neighbour(arrival))

        def saturate(work: Callable[[], bool]) -> None:
            hog.work = work
            recorder.register_event(event)

        yield Pair(saturate, lambda: neighbour.register_event(event), arrival)
        hog.work = lambda: False
