"""What does the emit call cost?  Bursts of 1 000 far below the bound, each drained before the next."""

from __future__ import annotations

import statistics
import time

from benchmarks.contenders import CONTENDERS as ALL
from benchmarks.contenders import open_contender
from benchmarks.workload import Figures, Settings, answer

CONTENDERS = tuple(ALL)


def measure(told: Settings) -> Figures:
    """Time whole bursts: a clock around each call would cost more than the call."""
    clock = time.perf_counter_ns
    costs = []
    with open_contender(told.contender) as subject:
        emit, items = subject.emit, subject.items
        for _ in range(told.times(300, 30)):
            began = clock()
            for item in items:
                emit(item)
            costs.append((clock() - began) / len(items))
            subject.drain()
    return {"emit_ns": statistics.median(costs)}


if __name__ == "__main__":
    answer(measure)
