"""How many events a second with 100 metrics registered, of which one is interested?"""

from __future__ import annotations

from benchmarks.throughput import RECORDERS, throughput
from benchmarks.workload import Figures, Settings, answer

CONTENDERS = RECORDERS


def measure(told: Settings) -> Figures:
    """The same in one process with one metric and with 100, so that the two can be compared."""
    one = throughput(told)
    hundred = throughput(told, metrics=100)
    return {**hundred, "slowdown_by_99_more": one["events_per_s"] / hundred["events_per_s"]}


if __name__ == "__main__":
    answer(measure)
