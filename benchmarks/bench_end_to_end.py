"""How many events a second, one emitting thread, until a snapshot shows them all?"""

from __future__ import annotations

import statistics
import time

from benchmarks.workload import Contender, Saved, answer

EVENTS = 500_000
RUNS = 5


def measure(subject: Contender) -> dict[str, float]:
    clock, emit, event = time.perf_counter, subject.emit, Saved(ok=True)
    rates = []
    for _ in range(RUNS):
        before = subject.total()
        began = clock()
        for _ in range(EVENTS):
            emit(event)
        if subject.total() != before + EVENTS:
            raise RuntimeError("events were lost")
        rates.append(EVENTS / (clock() - began))
    return {"events_per_s": statistics.median(rates)}


if __name__ == "__main__":
    answer(measure)
