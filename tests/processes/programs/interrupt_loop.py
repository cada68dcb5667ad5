"""Ctrl-C in a program that is one event loop, with a recorder made by hand at work on it."""

import asyncio
import signal

import anyio

from mvx.common.metrics import Metric, MetricEvent
from tests.processes.programs.common import VARIANT, Witness, new_event_loop, report, report_statistics, run_in_loop
from tests.support import Tick

N = 1000


class Interrupting(Witness):
    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if event is LAST:
            signal.raise_signal(signal.SIGINT)
        await anyio.lowlevel.checkpoint()


async def main() -> None:
    global recorder  # noqa: PLW0603 — because it can only be made where its loop runs
    recorder = (Witness if VARIANT == "task" else Interrupting)("r")
    if VARIANT == "block":
        async with recorder:
            await emit_and_wait()
    else:
        await recorder.start()
        await emit_and_wait()


async def emit_and_wait() -> None:
    for n in range(N):
        recorder.register_event(Tick(n))
    recorder.register_event(LAST)
    for n in range(N):
        recorder.register_event(Tick(n))
    if VARIANT == "task":
        signal.raise_signal(signal.SIGINT)
    await anyio.sleep_forever()


def run_without_a_runner() -> None:
    """As older programs do: the interrupt is raised in whatever the loop is at, here the recorder's hook."""
    loop = new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()


LAST = Tick(-1)
recorder: Witness
try:
    if VARIANT == "bare":
        run_without_a_runner()
    else:
        run_in_loop(main)
except KeyboardInterrupt:
    report_statistics("interrupted", recorder, status=recorder.get_status())
    report("snapshot", total=recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"])
    raise
