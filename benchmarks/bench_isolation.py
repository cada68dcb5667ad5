"""How long does a neighbour's event wait, from the emit until it is handled, while another recorder saturates the loop?

Idle, beside one whose every event takes 5 ms, and beside one that feeds itself without end.  The limit is a thread
of its own for each of the two.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from benchmarks.workload import Saved, percentile
from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRuntime

PROBES = 150
PAUSE = 0.03
"""Seconds between two probes: longer than a linger, so that each finds the neighbour asleep."""
SLOW = 0.005
"""Seconds that an event of the slow hog takes."""
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


@attrs.frozen
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
    options = {"use_uvloop": True} if name == "uvloop" else {}
    backend = "asyncio" if name == "uvloop" else name
    with MetricsRuntime(namespace="benchmark", backend=backend, backend_options=options) as runtime:
        recorder = runtime.create_recorder("hog", drain_timeout=0.1)
        hog = Hog(recorder)
        recorder.register_metric(hog)
        neighbour = runtime.create_recorder("neighbour")
        neighbour.register_metric(Neighbour(arrival))

        def saturate(work: Callable[[], bool]) -> None:
            hog.work = work
            recorder.register_event(event)

        yield Pair(saturate, lambda: neighbour.register_event(event), arrival)
        hog.work = lambda: False


def delays(subject: Pair) -> list[int]:
    """Return how many nanoseconds each probe took, in ascending order."""
    clock = time.perf_counter_ns
    found = []
    for _ in range(PROBES):
        time.sleep(PAUSE)
        began = clock()
        subject.probe()
        found.append(subject.arrival.wait() - began)
    return sorted(found)


def measure(subject: Pair) -> dict[str, float]:
    going_on = True

    def slow() -> bool:
        until = time.perf_counter() + SLOW
        while time.perf_counter() < until:
            pass
        return going_on

    def endless() -> bool:
        return going_on

    figures = {}
    for name, work in (("idle", None), ("slow", slow), ("endless", endless)):
        going_on = True
        if work is not None:
            subject.saturate(work)
        found = delays(subject)
        for share in (0.5, 0.99):
            figures[f"{name}_p{share * 100:g}_ns"] = percentile(found, share)
        going_on = False
        time.sleep(10 * SLOW)
    return figures


if __name__ == "__main__":
    with pair(sys.argv[1]) as measured:
        print(json.dumps(measure(measured)))
