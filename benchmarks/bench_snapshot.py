"""How long does a snapshot take from another thread, of an idle recorder?"""

from __future__ import annotations

import time

from benchmarks.contenders import OURS, open_contender
from benchmarks.workload import Figures, Settings, answer, percentile

CONTENDERS = (*OURS, "mvx-common")
PAUSE = 0.001
"""Seconds between two readings, in which the recorder's loop goes to sleep."""


def measure(told: Settings) -> Figures:
    """Each reading alone."""
    clock = time.perf_counter_ns
    costs = []
    with open_contender(told.contender) as subject:
        for _ in range(told.times(2_000, 200)):
            time.sleep(PAUSE)
            began = clock()
            subject.total()
            costs.append(clock() - began)
    costs.sort()
    return {"p50_ns": percentile(costs, 0.5), "p99_ns": percentile(costs, 0.99)}


if __name__ == "__main__":
    answer(measure)
