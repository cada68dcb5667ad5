"""How many events a second, four emitting threads, until a snapshot shows them all?"""

from __future__ import annotations

from benchmarks.throughput import SEEN_IN_A_SNAPSHOT, throughput
from benchmarks.workload import Figures, Settings, answer

CONTENDERS = SEEN_IN_A_SNAPSHOT


def measure(told: Settings) -> Figures:
    """Four threads share the interpreter with the drain."""
    return throughput(told, threads=4)


if __name__ == "__main__":
    answer(measure)
