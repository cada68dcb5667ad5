"""What does the emit call cost?  Bursts of 1 000 far below the bound, each drained before the next."""

from __future__ import annotations

import statistics
import time

from benchmarks.workload import Contender, Saved, answer

BURST = 1000
BURSTS = 300


def measure(subject: Contender) -> dict[str, float]:
    clock, emit, event = time.perf_counter_ns, subject.emit, Saved(ok=True)
    costs = []
    for _ in range(BURSTS):
        began = clock()
        for _ in range(BURST):
            emit(event)
        costs.append((clock() - began) / BURST)
        subject.drain()
    return {"emit_ns": statistics.median(costs)}


if __name__ == "__main__":
    answer(measure)
