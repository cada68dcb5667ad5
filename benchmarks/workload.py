"""One seeded workload for every question, and how a measuring process speaks to the one that reads it.

This module is imported in the environments of all contenders, so it needs the standard library only.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEED = 20_240_229
OUTCOMES = tuple(random.Random(SEED).random() < 0.9 for _ in range(1000))
"""Whether each of a thousand attempts to save went well; every contender counts all and those."""

Figures = dict[str, float]


class Settings(argparse.Namespace):
    """What a measuring process is told on its command line."""

    contender: str
    quick: bool

    def times(self, full: int, quick: int) -> int:
        """Return how often to do something."""
        return quick if self.quick else full


def settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line of a measuring process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(arguments, namespace=Settings())


def answer(measure: Callable[[Settings], Mapping[str, Any]]) -> None:
    """Measure the contender named on the command line and print the figures as JSON."""
    told = settings()
    gc.collect()
    figures = dict(measure(told))
    figures["max_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(figures))
    sys.stdout.flush()


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie."""
    return float(sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))])


def timer_cost() -> float:
    """Return the median nanoseconds of reading the clock twice, to be taken off single timings."""
    clock = time.perf_counter_ns
    costs = []
    for _ in range(10_001):
        began = clock()
        costs.append(clock() - began)
    return float(sorted(costs)[5000])


def rss_mib() -> float:
    """Return the resident memory of this process in MiB."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 — one number of the kernel's
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20
