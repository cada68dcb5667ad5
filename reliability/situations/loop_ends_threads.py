"""A recorder made by hand lives on the loop of `asyncio.run`, which ends while two threads emit."""

from mvx.common.metrics import AsyncioMetricsRecorder
from reliability.common import Emitter, Seen, hand_made, in_threads, join, perform, run_in_loop, sleep, tell_errors
from reliability.situation import ENDS, Situation

SITUATION = Situation(
    "`asyncio.run()` (`trio.run()`) returns without `stop()` while two threads emit",
    ENDS,
    long=100,
    quick=4,
    deadline=60.0,
    batch=10,
)


def once() -> None:
    emitters: list[Emitter] = []
    threads = []

    async def main() -> None:
        recorder = hand_made(AsyncioMetricsRecorder)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        emitters.extend(Emitter(recorder) for _ in range(2))
        threads.extend(in_threads(*(emitter.emit_until_refused for emitter in emitters)))
        await sleep(0.02)

    run_in_loop(main)
    join(threads)
    tell_errors(emitters)


if __name__ == "__main__":
    perform(once)
