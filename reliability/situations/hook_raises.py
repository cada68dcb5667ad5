"""The hook _on_metric_changed of a recorder made by hand raises at its first event."""

from mvx.common.metrics import AsyncioMetricsRecorder, Metric, MetricEvent
from reliability.common import Emitter, Seen, hand_made, perform, run_in_loop, short, sleep, tell
from reliability.situation import METRICS, Situation

SITUATION = Situation("`_on_metric_changed` raises at the first of 100 events", METRICS, long=50, quick=2, batch=10)


class Failing(AsyncioMetricsRecorder):
    """Raises once."""

    has_failed = False

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise ValueError("a fault in a hook")


def once() -> None:
    async def main() -> None:
        recorder = hand_made(Failing)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        emitter = Emitter(recorder)
        emitter.emit_all(99)
        await sleep(0.1)
        tell(f"the recorder is {recorder.get_status().value} then")
        if not emitter.emit():
            tell(f"later emitters get {short(emitter.error)}")
        await recorder.stop()

    run_in_loop(main)


if __name__ == "__main__":
    perform(once)
