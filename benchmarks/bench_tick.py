"""How late is a tick every millisecond in another thread, while the drain has more than it can do?"""

from __future__ import annotations

import threading
import time

from benchmarks.contenders import OURS, open_contender
from benchmarks.workload import Figures, Settings, answer, percentile

CONTENDERS = (*OURS, "mvx-common")
PERIOD = 0.001
BACKLOG = {"mvx-common": 20_000}
"""Events that wait when the ticking begins; the drain of the slow one takes as long with fewer."""
DEFAULT_BACKLOG = 400_000


def measure(told: Settings) -> Figures:
    """Tick while a backlog is being drained."""
    lateness: list[float] = []
    draining = threading.Event()

    def tick() -> None:
        while draining.is_set():
            due = time.perf_counter() + PERIOD
            time.sleep(PERIOD)
            lateness.append((time.perf_counter() - due) * 1e3)

    with open_contender(told.contender) as subject:
        bursts = BACKLOG.get(told.contender, DEFAULT_BACKLOG) // len(subject.items)
        for _ in range(told.times(20, 2)):
            for _ in range(bursts):
                for item in subject.items:
                    subject.emit(item)
            draining.set()
            ticker = threading.Thread(target=tick)
            ticker.start()
            subject.drain()
            draining.clear()
            ticker.join()
    lateness.sort()
    return {
        "p50_ms": percentile(lateness, 0.5),
        "p99_ms": percentile(lateness, 0.99),
        "p99.9_ms": percentile(lateness, 0.999),
    }


if __name__ == "__main__":
    answer(measure)
