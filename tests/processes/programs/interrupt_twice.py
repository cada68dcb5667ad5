"""Ctrl-C in a program that is one event loop, and again while a recorder made by hand drains."""

import signal
import sys
import threading
import time

import anyio

from mvx.common.metrics import Metric, MetricEvent, RecorderState
from tests.processes.programs.common import (
    NAME,
    VARIANT,
    Witness,
    interrupt_main_thread,
    report,
    report_statistics,
    run_in_loop,
)
from tests.support import Tick, auntil

PLACE = sys.argv[3]
"""Where the second Ctrl-C strikes: in the "hook" that holds up the drain, or in the "loop" around it."""
EVENTS = 10
DRAIN_TIMEOUT = 1.0 if NAME == "trio" else 60.0
"""Seconds; trio holds a second Ctrl-C back until the drain has ended."""


class NeverDone(Witness):
    """In its drain, Ctrl-C is pressed again."""

    pressed = False

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await auntil(lambda: self.get_status() is not RecorderState.RUNNING)
        if not self.pressed:
            self.pressed = True
            report("draining")
            if PLACE == "hook":
                signal.raise_signal(signal.SIGINT)
            else:
                threading.Thread(target=interrupt_main_thread).start()
        await anyio.sleep_forever()


def emit() -> None:
    for n in range(EVENTS):
        recorder.register_event(Tick(n))


async def main() -> None:
    global recorder  # noqa: PLW0603 — because it can only be made where its loop runs
    recorder = NeverDone("r", drain_timeout=DRAIN_TIMEOUT)
    if VARIANT == "block":
        async with recorder:
            emit()
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep_forever()
    await recorder.start()
    emit()
    signal.raise_signal(signal.SIGINT)
    if VARIANT == "stop":
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await recorder.stop()
    await anyio.sleep_forever()


recorder: NeverDone
began = time.monotonic()
try:
    run_in_loop(main)
except BaseException as exc:  # because a group of them may come out of the block
    report("interrupted", error=type(exc).__name__, seconds=time.monotonic() - began)
report_statistics("end", recorder, total=recorder.count.total, state=recorder.get_status())
