"""What does a request handler feel?  One emit every 100 µs, each timed alone, the clock's own cost taken off."""

from __future__ import annotations

import time

from benchmarks.workload import Contender, Saved, answer, percentile, timer_cost

EMITS = 20_000
PACE_NS = 100_000


def measure(subject: Contender) -> dict[str, float]:
    clock, emit, event = time.perf_counter_ns, subject.emit, Saved(ok=True)
    overhead = timer_cost()
    costs = []
    due = clock()
    for _ in range(EMITS):
        due += PACE_NS
        while clock() < due:
            pass
        began = clock()
        emit(event)
        costs.append(clock() - began)
    costs.sort()
    return {f"p{share * 100:g}_ns": percentile(costs, share) - overhead for share in (0.5, 0.99, 0.999)}


if __name__ == "__main__":
    answer(measure)
