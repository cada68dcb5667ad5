"""What has ended before a fork: a stopped recorder, a failed one, a runtime that was shut down."""

import os
import sys

from mvx.common.metrics import Metric, MetricEvent, MetricsError
from tests.processes.programs.common import (
    DEADLINE,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
    total_of,
)
from tests.support import Tick


class FailsToStop(Witness):
    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        pass

    async def _on_stopped(self) -> None:
        raise RuntimeError("on purpose")


def emit_to(recorder: Witness, what: str) -> None:
    try:
        recorder.register_event(Tick())
    except MetricsError as exc:
        report(what, error=type(exc).__name__, state=recorder.get_status())
    else:
        report(what, error=None, state=recorder.get_status())


runtime, closed = new_runtime(), new_runtime()
stopped = runtime.create_recorder("stopped", factory=Witness)
failed = runtime.create_recorder("failed", factory=FailsToStop)
left = closed.create_recorder("left", factory=Witness)
for recorder in (stopped, failed, left):
    for number in range(10):
        recorder.register_event(Tick(number))
runtime.stop_recorder("stopped")
try:
    runtime.stop_recorder("failed")
except MetricsError:
    pass
closed.shutdown()

child = os.fork()
if child == 0:
    become("child")
    for name, recorder in (("stopped", stopped), ("failed", failed), ("left", left)):
        report_statistics(f"{name} at fork", recorder, state=recorder.get_status(), total=recorder.count.total)
        emit_to(recorder, f"{name} refuses")
    report("restart", success=stopped.start().wait(DEADLINE).success)
    for number in range(5):
        stopped.register_event(Tick(number))
    report("total", total=total_of(stopped))
    report("failed restart", success=failed.start().wait(DEADLINE).success)
    report("left restart", success=left.start().wait(DEADLINE).success)
    try:
        closed.start()
    except MetricsError as exc:
        report("closed", error=type(exc).__name__, state=closed.get_status())
    sys.exit(0)
report("child ended", code=exit_code_of(child))
report("restart", success=stopped.start().wait(DEADLINE).success)
stopped.register_event(Tick())
