"""Forks of forks while a thread emits numbered events: which process handles which event."""

import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from mvx.common.metrics import Metric, MetricEvent
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
)
from tests.support import Tick, until

GENERATIONS = int(VARIANT)
EACH = 1000


class Numbers(Metric):
    """Remembers the numbers of the events that this very process has handled."""

    metric_name = "numbers"

    def __init__(self) -> None:
        self._handled: dict[int, list[int]] = {}

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, Tick):
            self.here.append(event.n)
        return True

    @property
    def here(self) -> list[int]:
        return self._handled.setdefault(os.getpid(), [])

    def snapshot(self) -> Mapping[str, Any]:
        return {"dimensions": {"handled": len(self.here)}}


def emit_for(generation: int) -> None:
    """Emit the numbers of this generation, half of them before the fork that makes the next, or at the same time."""
    for n in range(generation * EACH, (generation + 1) * EACH):
        recorder.register_event(Tick(n))
        emitted[generation] += 1


def live(generation: int) -> None:
    emitter = threading.Thread(target=emit_for, args=(generation,))
    emitter.start()
    if generation + 1 < GENERATIONS:
        until(lambda: emitted[generation] >= EACH // 2)
        child = os.fork()
        if child == 0:
            become(f"generation {generation + 1}")
            live(generation + 1)
            return
        report("child ended", code=exit_code_of(child))
    emitter.join()
    recorder.flush().wait(DEADLINE)
    first = generation * EACH
    report("numbers", exact=numbers.here == list(range(first, first + EACH)), handled=len(numbers.here))


emitted = [0] * GENERATIONS
numbers = Numbers()
runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
recorder.register_metric(numbers)
live(0)
runtime.shutdown()
report_statistics("end", recorder)
sys.exit(0)
