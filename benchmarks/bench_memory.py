"""What does an idle recorder cost?  Ten thousand in one runtime, with one metric each, after their first event."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workload import Saved, Saves
from mvx.common.metrics import MetricsRuntime

TRACED = 1000
COUNT = 10_000
WARM_UP = 100

Make = Callable[[int], object]
"""Makes one more of what is measured, under a number of its own, and returns it at rest."""


Count = Callable[[], int]
"""Returns how many tasks the event loop has."""


@contextmanager
def subjects(name: str) -> Iterator[tuple[Make, Count]]:
    """Yield what makes the subjects of one contender."""
    if name == "limit":

        def make_deque(_number: int) -> Callable[[Saved], None]:
            events: deque[Saved] = deque()

            def append(event: Saved) -> None:
                events.append(event)

            return append

        yield make_deque, lambda: 0
        return
    options = {"use_uvloop": True} if name == "uvloop" else {}
    backend = "asyncio" if name == "uvloop" else name
    with MetricsRuntime(namespace="benchmark", backend=backend, backend_options=options) as runtime:

        def make_recorder(number: int) -> object:
            recorder = runtime.create_recorder(str(number))
            recorder.register_metric(Saves())
            recorder.register_event(Saved(ok=True))
            recorder.get_metric_snapshots()
            return recorder

        count: Count = count_trio_tasks if name == "trio" else count_asyncio_tasks
        yield make_recorder, lambda: runtime.portal.call(count)


def count_asyncio_tasks() -> int:
    return len(asyncio.all_tasks())


def count_trio_tasks() -> int:
    import trio  # noqa: PLC0415 — only where it is measured

    return trio.lowlevel.current_statistics().tasks_living


def resident() -> int:
    """Return how many bytes of memory the process has really been given, or 0 where the system does not tell."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


def open_files() -> int:
    path = Path("/proc/self/fd")
    return len(list(path.iterdir())) if path.exists() else 0


def measure(make: Make, tasks: Count) -> dict[str, float]:
    """Trace the first thousand for the bytes that they ask for, and see what the rest does to the process."""
    kept = [make(number) for number in range(WARM_UP)]
    gc.collect()
    tracemalloc.start()
    objects = len(gc.get_objects())
    kept.extend([make(WARM_UP + number) for number in range(TRACED)])
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0] / TRACED
    objects = len(gc.get_objects()) - objects
    tracemalloc.stop()
    given, files, threads, busy = resident(), open_files(), threading.active_count(), tasks()
    kept.extend([make(WARM_UP + TRACED + number) for number in range(COUNT)])
    gc.collect()
    return {
        "bytes": traced,
        "resident_bytes": (resident() - given) / COUNT,
        "objects": objects / TRACED,
        "tasks": (tasks() - busy) / COUNT,
        "open_files": open_files() - files,
        "threads": threading.active_count() - threads,
    }


if __name__ == "__main__":
    with subjects(sys.argv[1]) as subject:
        print(json.dumps(measure(*subject)))
