"""How many events a second, one emitting thread, one metric, until a snapshot shows them all?"""

from __future__ import annotations

from benchmarks.throughput import SEEN_IN_A_SNAPSHOT, throughput
from benchmarks.workload import Figures, Settings, answer

CONTENDERS = SEEN_IN_A_SNAPSHOT


def measure(told: Settings) -> Figures:
    """One metric, one thread."""
    return throughput(told)


if __name__ == "__main__":
    answer(measure)
