"""Ctrl-C while the main thread emits into a runtime, once, or a second time while the runtime drains."""

import threading

import anyio

from mvx.common.metrics import Metric, MetricEvent, RecorderState
from tests.processes.programs.common import VARIANT, Witness, interrupt_main_thread, new_runtime, report
from tests.support import Tick


class NeverDone(Witness):
    """As soon as it is being stopped, presses Ctrl-C again and makes the drain last."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        while self.get_status() is RecorderState.RUNNING:
            await anyio.sleep(0.001)
        report("draining")
        interrupt_main_thread()
        await anyio.sleep_forever()


def interrupt_when_busy() -> None:
    busy.wait()
    interrupt_main_thread()


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
else:
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=NeverDone if VARIANT == "twice" else Witness)
    emit_for_ever()
