"""A fork while the inbox is full: what waits belongs to the parent, the child has all the room."""

import os
import sys
import threading

from mvx.common.metrics import Metric, MetricEvent, OverflowPolicy, RecorderQueueOverflowError
from mvx.common.metrics._recorder import core_of
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
from tests.support import Gate, Tick, until

CAPACITY = 8


class Gated(Witness):
    gate = Gate()

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await self.gate.passage()


def emit_one_too_many() -> None:
    try:
        recorder.register_event(Tick())
    except RecorderQueueOverflowError:
        report("overflow")


runtime = new_runtime()
recorder = runtime.create_recorder(
    "r",
    factory=Gated,
    queue_max_size=CAPACITY,
    queue_overflow_policy=OverflowPolicy(VARIANT),
    block_timeout=DEADLINE,
)
recorder.register_event(Tick())
recorder.gate.reached.wait(DEADLINE)
for _ in range(CAPACITY - 1):
    recorder.register_event(Tick())
# Under BLOCK it is a thread that waits for room at the moment of the fork.
emitter = threading.Thread(target=emit_one_too_many)
emitter.start()
if VARIANT == "BLOCK":
    until(lambda: core_of(recorder).inbox.line)
else:
    emitter.join()

child = os.fork()
if child == 0:
    become("child")
    # The parent's gate may have been in use in the moment of the fork.
    Gated.gate = Gate(is_open=True)
    report_statistics("at fork", recorder)
    for _ in range(CAPACITY):
        recorder.register_event(Tick())
    sys.exit(0)

report_statistics("at fork", recorder)
report("child ended", code=exit_code_of(child))
recorder.gate.open()
emitter.join()
recorder.flush().wait(DEADLINE)
for _ in range(3):
    recorder.register_event(Tick())
