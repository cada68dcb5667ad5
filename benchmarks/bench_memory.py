"""What does an idle recorder cost?  Ten thousand in one runtime, with one metric each, after their first event."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contenders import OURS
from benchmarks.workload import Figures, Settings, answer, rss_mib

CONTENDERS = ("limit", *OURS, "mvx-common")
TRACED = 1000
COUNT = 10_000
WARM_UP = 100

Make = Callable[[int], object]
"""Makes one more of what is measured, under a number of its own, and returns it at rest."""


@contextmanager
def subjects(name: str) -> Iterator[Make]:
    """Yield what makes the subjects of one contender."""
    if name == "limit":

        def make_deque(_number: int) -> Callable[[object], None]:
            events: deque[object] = deque()

            def append(event: object) -> None:
                events.append(event)

            return append

        yield make_deque
        return
    from benchmarks.contenders.recorders import Saved, Saves, runtime_of  # noqa: PLC0415 — in its environment

    runtime = runtime_of(name)
    runtime.start()

    def make_recorder(number: int) -> object:
        recorder = runtime.create_recorder(str(number))
        recorder.register_metric(Saves())
        recorder.register_event(Saved(ok=True))
        recorder.get_metric_snapshots()
        return recorder

    yield make_recorder
    runtime.shutdown()


def open_files() -> int:
    path = Path("/proc/self/fd")
    return len(list(path.iterdir())) if path.exists() else 0


def measure(told: Settings) -> Figures:
    """Trace the first thousand for the bytes that they ask for, and see what the rest does to the process."""
    traced_count, count = told.times(TRACED, TRACED // 20), told.times(COUNT, COUNT // 20)
    with subjects(told.contender) as make:
        kept = [make(number) for number in range(WARM_UP)]
        gc.collect()
        tracemalloc.start()
        objects = len(gc.get_objects())
        kept.extend([make(WARM_UP + number) for number in range(traced_count)])
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0]
        objects = len(gc.get_objects()) - objects
        tracemalloc.stop()
        resident, files, threads = rss_mib(), open_files(), threading.active_count()
        kept.extend([make(WARM_UP + traced_count + number) for number in range(count)])
        gc.collect()
        return {
            "traced_kib": traced / traced_count / 1024,
            "resident_kib": (rss_mib() - resident) * 1024 / count,
            "objects": objects / traced_count,
            "more_open_files": open_files() - files,
            "more_threads": threading.active_count() - threads,
        }


if __name__ == "__main__":
    answer(measure)
