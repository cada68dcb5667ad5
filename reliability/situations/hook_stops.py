"""The hook _on_metric_changed of a recorder made by hand stops this very recorder."""

from mvx.common.metrics import AsyncioMetricsRecorder, Metric, MetricEvent
from reliability.common import (
    Emitter,
    Seen,
    current_case,
    hand_made,
    perform,
    run_in_loop,
    short,
    state_in_the_end,
    tell,
)
from reliability.situation import METRICS, Situation

SITUATION = Situation(
    "`_on_metric_changed` {case} of its own recorder at the first of 100 events",
    METRICS,
    long=10,
    quick=1,
    cases=("calls `stop()`", "awaits `stop()`"),
)


class Stopping(AsyncioMetricsRecorder):
    """Stops itself."""

    has_stopped = False

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if self.has_stopped:
            return
        self.has_stopped = True
        handle = self.stop()
        if current_case().startswith("awaits"):
            try:
                await handle
            except Exception as error:
                tell(f"the await raises {short(error)}")
                raise


def once() -> None:
    async def main() -> None:
        recorder = hand_made(Stopping)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        Emitter(recorder).emit_all(100)
        tell(f"the recorder ends in {await state_in_the_end(recorder)}")

    run_in_loop(main)


if __name__ == "__main__":
    perform(once)
