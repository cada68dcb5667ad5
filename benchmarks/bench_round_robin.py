"""What does the emit call cost round-robin over 1 000 idle recorders of one runtime?"""

from __future__ import annotations

import statistics
import time

from benchmarks.contenders import OURS, open_contender
from benchmarks.workload import Figures, Settings, answer

CONTENDERS = ("limit", *OURS, "mvx-common")
RECORDERS = 1000
PAUSE_NS = 50_000_000
"""Between two rounds, in which every recorder goes idle again; the program goes on working, else what is measured is
how a processor wakes up."""


def measure(told: Settings) -> Figures:
    """Each recorder gets one event a round."""
    clock = time.perf_counter_ns
    costs = []
    with open_contender(told.contender, recorders=told.times(RECORDERS, RECORDERS // 10)) as subject:
        item = subject.items[0]
        for _ in range(told.times(40, 5)):
            subject.drain()
            due = clock() + PAUSE_NS
            while clock() < due:
                pass
            began = clock()
            for emit in subject.emitters:
                emit(item)
            costs.append((clock() - began) / len(subject.emitters))
    return {"emit_ns": statistics.median(costs)}


if __name__ == "__main__":
    answer(measure)
