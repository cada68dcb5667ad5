"""How long does the import take?  A fresh interpreter each time, the time of an empty one taken off."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.workload import Figures, Settings, answer

MODULES = {
    "mvx-metrics": "mvx.common.metrics",
    "mvx-common": "mvx.common.metrics",
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry.sdk.metrics",
}
CONTENDERS = tuple(MODULES)


def measure(told: Settings) -> Figures:
    """In turn with an empty interpreter, so that a busy moment hits both."""
    times = told.times(30, 5)
    _start(MODULES[told.contender])  # compiles, and reads the files into the cache
    taken, empty = [], []
    for _ in range(times):
        empty.append(_start(None))
        taken.append(_start(MODULES[told.contender]))
    return {"import_ms": statistics.median(taken) - statistics.median(empty)}


def _start(module: str | None) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass" if module is None else f"import {module}"], check=True)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    answer(measure)
