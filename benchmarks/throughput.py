"""Events a second until a snapshot shows them all; what three questions have in common."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS, OURS, open_contender
from benchmarks.workload import Figures, Settings

RECORDERS = (*OURS, "mvx-common")
SEEN_IN_A_SNAPSHOT = tuple(name for name in CONTENDERS if name not in ("datadog", "statsd"))
"""Those that can show in this process what they have counted."""

EVENTS = {"mvx-common": 50_000, "opentelemetry": 50_000}
"""The slow ones get fewer, so that a round ends; a rate does not depend on it."""
DEFAULT_EVENTS = 400_000


def throughput(told: Settings, *, metrics: int = 1, threads: int = 1) -> Figures:
    """Measure a contender."""
    wanted = EVENTS.get(told.contender, DEFAULT_EVENTS) // told.times(1, 10)
    rates = []
    with open_contender(told.contender, metrics=metrics) as subject:
        bursts = max(1, wanted // (len(subject.items) * threads))
        count = bursts * len(subject.items) * threads
        for _ in range(told.times(5, 2)):
            before = subject.total()
            began = time.perf_counter()
            if threads == 1:
                _emit(subject.emit, subject.items, bursts)
            else:
                _emit_from_threads(subject.emit, subject.items, bursts, threads)
            while (seen := subject.total() - before) < count:
                time.sleep(0.000_1)  # a snapshot that does not wait for what was emitted before
            rates.append(count / (time.perf_counter() - began))
            if seen != count:
                raise RuntimeError(f"{told.contender}: {seen} events seen of {count}")
    return {"events_per_s": statistics.median(rates)}


def _emit(emit: Callable[[Any], object], items: Sequence[Any], bursts: int) -> None:
    for _ in range(bursts):
        for item in items:
            emit(item)


def _emit_from_threads(emit: Callable[[Any], object], items: Sequence[Any], bursts: int, threads: int) -> None:
    workers = [threading.Thread(target=_emit, args=(emit, items, bursts)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
