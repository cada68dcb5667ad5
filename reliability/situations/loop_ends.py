"""A recorder made by hand lives on the loop of `asyncio.run`, whose main coroutine returns without stopping it."""

from mvx.common.metrics import AsyncioMetricsRecorder
from reliability.common import Emitter, Seen, hand_made, perform, run_in_loop, tell
from reliability.situation import ENDS, Situation

SITUATION = Situation(
    "`asyncio.run()` (`trio.run()`) returns with 1 000 events pending and without `stop()`",
    ENDS,
    long=100,
    quick=2,
    batch=10,
)


def once() -> None:
    recorders: list[AsyncioMetricsRecorder] = []

    async def main() -> None:
        recorder = hand_made(AsyncioMetricsRecorder)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        emitter = Emitter(recorder)
        emitter.emit_all(1_000)
        recorders.append(recorder)

    run_in_loop(main)
    tell(f"the recorder ends in {recorders[0].get_status().value}")


if __name__ == "__main__":
    perform(once)
