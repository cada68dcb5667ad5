"""The hook _on_metric_changed of a recorder made by hand never returns; then the recorder is stopped."""

import time

from mvx.common.metrics import AsyncioMetricsRecorder, Metric, MetricEvent
from reliability.common import Emitter, Seen, figure, hand_made, look, perform, run_in_loop, short, sleep, tell
from reliability.situation import METRICS, Situation

SITUATION = Situation(
    "`_on_metric_changed` never returns; then `stop()` is awaited", METRICS, long=2, quick=0, deadline=60.0
)


class Hanging(AsyncioMetricsRecorder):
    """Waits for something that never comes."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await sleep(1_000_000)


def once() -> None:
    async def main() -> None:
        recorder = hand_made(Hanging)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        Emitter(recorder).emit_all(100)
        await sleep(0.05)
        began = time.monotonic()
        result = await recorder.stop()
        tell(f"the result of stop() has {short(result.error)}, the recorder is {recorder.get_status().value}")
        figure("seconds in stop()", time.monotonic() - began)
        look()

    run_in_loop(main)


if __name__ == "__main__":
    perform(once)
