"""A fork from another thread than the main one, be it the runtime's own."""

import os
import threading
import traceback

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
from tests.support import Count, Tick


def fork() -> None:
    child = os.fork()
    if child:
        report("child ended", code=exit_code_of(child))
        return
    become("child")
    try:
        report_statistics("at fork", recorder)
        for n in range(40):
            recorder.register_event(Tick(n))
        report("snapshot", total=recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"])
        runtime.shutdown()
    except BaseException:
        traceback.print_exc()
    finally:
        # The interpreter's exit belongs to the thread that began with it, which stayed in the parent.
        os._exit(0)


class ForkingMetric(Count):
    """Forks where the runtime's thread is in the midst of a batch."""

    def handle_event(self, event: MetricEvent) -> bool:
        if event is SIGNAL:
            fork()
        return super().handle_event(event)


class Forking(Witness):
    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if event is SIGNAL:
            fork()


SIGNAL = Tick(-1)
runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Forking if VARIANT == "hook" else Witness)
if VARIANT == "metric":
    recorder.register_metric(ForkingMetric("forking"))
for number in range(10):
    recorder.register_event(Tick(number))
recorder.flush().wait(DEADLINE)
if VARIANT in ("hook", "metric"):
    recorder.register_event(SIGNAL)
    recorder.flush().wait(DEADLINE)
else:
    forker = threading.Thread(target=fork)
    forker.start()
    forker.join()
for number in range(10):
    recorder.register_event(Tick(number))
