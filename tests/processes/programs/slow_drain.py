"""A shutdown while seconds of work are queued."""

import time

import anyio

from mvx.common.metrics import Metric, MetricEvent
from tests.processes.programs.common import Witness, new_runtime, report, report_statistics
from tests.support import Tick

N = 70
EACH = 0.1
"""Seconds of work for each event."""


class Slow(Witness):
    """What its hook does takes a while, which is what this program shows."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await anyio.sleep(EACH)


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Slow)
for number in range(N):
    recorder.register_event(Tick(number))
began = time.monotonic()
runtime.shutdown()
report_statistics("shut down", recorder, status=runtime.get_status(), seconds=time.monotonic() - began)
report("snapshot", total=recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"])
