"""What does the emit call cost when one thread emits as fast as it can, and the drain shares the interpreter?"""

from __future__ import annotations

import time

from benchmarks.contenders import CONTENDERS as ALL
from benchmarks.contenders import open_contender
from benchmarks.workload import Figures, Settings, answer

CONTENDERS = tuple(ALL)
SECONDS = 2.0


def measure(told: Settings) -> Figures:
    """Emit for a set time, not for a set number: the slow shall not be measured longer than the fast."""
    clock = time.perf_counter
    seconds = SECONDS / told.times(1, 10)
    emitted = 0
    with open_contender(told.contender) as subject:
        emit, items = subject.emit, subject.items
        began = clock()
        while (took := clock() - began) < seconds:
            for item in items:
                emit(item)
            emitted += len(items)
        subject.drain()
    return {"emit_ns": took * 1e9 / emitted}


if __name__ == "__main__":
    answer(measure)
