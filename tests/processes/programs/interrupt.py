"""Ctrl-C while the main thread emits into a runtime or waits for it, once, or a second time while the runtime drains."""

import threading
from collections.abc import Callable

import anyio

from mvx.common.metrics import Metric, MetricEvent, RecorderState
from tests.processes.programs.common import VARIANT, Witness, interrupt_main_thread, new_runtime, report
from tests.support import Tick, auntil


class NeverDone(Witness):
    """As soon as it is being stopped, presses Ctrl-C again and makes the drain last."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await auntil(lambda: self.get_status() is not RecorderState.RUNNING)
        report("draining")
        interrupt_main_thread()
        await anyio.sleep_forever()


class NeverUp(Witness):
    """As soon as it is being created, presses Ctrl-C, and its start lasts."""

    async def _on_starting(self) -> None:
        report("creating")
        interrupt_main_thread()
        await anyio.sleep_forever()


def interrupt_when_busy() -> None:
    busy.wait()
    interrupt_main_thread()


def wait_in_vain(call: Callable[[], object]) -> None:
    try:
        call()
    except KeyboardInterrupt:
        report("interrupted", state=runtime.get_status())
        raise


def emit_for_ever() -> None:
    emitted = 0
    try:
        while True:
            recorder.register_event(tick)
            emitted += 1
            if emitted == 10_000:
                busy.set()
    except KeyboardInterrupt:
        report("interrupted", emitted=emitted)
        raise


busy = threading.Event()
tick = Tick()
threading.Thread(target=interrupt_when_busy, daemon=True).start()
if VARIANT == "block":
    with new_runtime() as runtime:
        recorder = runtime.create_recorder("r", factory=Witness)
        emit_for_ever()
elif VARIANT == "shutdown":
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=NeverDone)
    recorder.register_event(tick)
    wait_in_vain(runtime.shutdown)
elif VARIANT == "creation":
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=Witness)
    recorder.register_event(tick)
    wait_in_vain(lambda: runtime.create_recorder("never", factory=NeverUp))
else:
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=NeverDone if VARIANT == "twice" else Witness)
    emit_for_ever()
