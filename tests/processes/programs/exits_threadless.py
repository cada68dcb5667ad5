"""Hooks that want a thread while the runtime drains at the exit, when Python starts none, or takes no work for one."""

import asyncio
import time

import anyio

from mvx.common.metrics import Metric, MetricEvent
from tests.processes.programs.common import NAME, VARIANT, Witness, new_runtime, report
from tests.support import Tick


class Delegating(Witness):
    """Has something done in a thread, in every hook."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await self.delegate()

    async def _on_stopped(self) -> None:
        try:
            await self.delegate()
        except RuntimeError:
            report("no thread")
        await super()._on_stopped()

    async def delegate(self) -> None:
        if NAME == "trio":
            await anyio.to_thread.run_sync(time.sleep, 0)
        else:
            await asyncio.to_thread(time.sleep, 0)


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Delegating)
for number in range(10):
    recorder.register_event(Tick(number))
if VARIANT == "before":
    # A thread is there when the exit begins.
    recorder.flush().wait()
