"""How long does a neighbour's event wait, from the emit until it is handled, while another recorder saturates the loop?

Idle, beside one whose every event takes 5 ms, and beside one that feeds itself without end.  The limit is a thread
of its own for each of the two.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.workload import Figures, Settings, answer, percentile

CONTENDERS = ("limit", *OURS)
PROBES = 150
PAUSE = 0.03
"""Seconds between two probes: longer than a linger, so that each finds the neighbour asleep."""
SLOW = 0.005
"""Seconds that an event of the slow hog takes."""


def delays(subject: Any, probes: int) -> list[int]:
    """Return how many nanoseconds each probe took, in ascending order."""
    clock = time.perf_counter_ns
    found = []
    for _ in range(probes):
        time.sleep(PAUSE)
        began = clock()
        subject.probe()
        found.append(subject.arrival.wait() - began)
    return sorted(found)


def measure(told: Settings) -> Figures:
    """The three states of the hog, one after the other."""
    going_on = True

    def slow() -> bool:
        until = time.perf_counter() + SLOW
        while time.perf_counter() < until:
            pass
        return going_on

    def endless() -> bool:
        return going_on

    figures = {}
    from benchmarks.contenders.neighbours import pair  # noqa: PLC0415 — in the contender's environment

    with pair(told.contender) as subject:
        for name, work in (("idle", None), ("slow", slow), ("endless", endless)):
            going_on = True
            if work is not None:
                subject.saturate(work)
            found = delays(subject, told.times(PROBES, 5))
            for share in (0.5, 0.99):
                figures[f"{name}_p{share * 100:g}_us"] = percentile(found, share) / 1e3
            going_on = False
            time.sleep(10 * SLOW)
    return figures


if __name__ == "__main__":
    answer(measure)
