"""What does a request handler feel?  One emit every 100 µs, each timed alone, the clock's own cost taken off."""

from __future__ import annotations

import itertools
import time

from benchmarks.contenders import CONTENDERS as ALL
from benchmarks.contenders import open_contender
from benchmarks.workload import Figures, Settings, answer, percentile, timer_cost

CONTENDERS = tuple(ALL)
PACE_NS = 100_000


def measure(told: Settings) -> Figures:
    """Spin to the next due time, as a handler that has work to do, rather than sleep to it."""
    clock, overhead = time.perf_counter_ns, timer_cost()
    costs = []
    with open_contender(told.contender) as subject:
        emit = subject.emit
        due = clock()
        for item in itertools.islice(itertools.cycle(subject.items), told.times(20_000, 2_000)):
            due += PACE_NS
            while clock() < due:
                pass
            began = clock()
            emit(item)
            costs.append(clock() - began)
    costs.sort()
    return {f"p{share * 100:g}_ns": percentile(costs, share) - overhead for share in (0.5, 0.99, 0.999)}


if __name__ == "__main__":
    answer(measure)
