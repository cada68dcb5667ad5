"""The hook _on_starting of a recorder made by hand raises; events were emitted before, and are afterwards."""

from mvx.common.metrics import AsyncioMetricsRecorder
from reliability.common import Emitter, Seen, hand_made, perform, run_in_loop, short, sleep, tell
from reliability.situation import METRICS, Situation

SITUATION = Situation(
    "`_on_starting` raises; 10 events were emitted before, 10 are afterwards", METRICS, long=50, quick=2, batch=10
)


class Failing(AsyncioMetricsRecorder):
    """Cannot start."""

    async def _on_starting(self) -> None:
        await sleep(0.01)
        raise ValueError("a fault in a hook")


def once() -> None:
    async def main() -> None:
        recorder = hand_made(Failing)
        recorder.register_metric(metric=Seen())
        emitter = Emitter(recorder)
        emitter.emit_all(10)
        result = await recorder.start()
        tell(f"the result of start() has {short(result.error)}, the recorder is {recorder.get_status().value}")
        emitter.emit_all(10)
        tell(f"later emitters get {short(emitter.error)}")

    run_in_loop(main)


if __name__ == "__main__":
    perform(once)
