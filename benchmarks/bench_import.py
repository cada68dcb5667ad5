"""How long does the import take?  A fresh interpreter each time, the time of an empty one taken off.

Compiled once and read from the cache from then on, as where a library is installed; this checkout's files are
compiled to a cache of the measurement's own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

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
    module = MODULES[told.contender]
    taken, empty = [], []
    with tempfile.TemporaryDirectory() as cache:
        # Some environments forbid the cache, to keep a checkout clean; then an import would be a compilation.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        _start(module, environment)
        for _ in range(told.times(30, 5)):
            empty.append(_start(None, environment))
            taken.append(_start(module, environment))
    return {"import_ms": statistics.median(taken) - statistics.median(empty)}


def _start(module: str | None, environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    code = "pass" if module is None else f"import {module}"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    answer(measure)
