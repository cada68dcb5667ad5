"""The task that awaits stop() is cancelled while the recorder drains; the loop runs on for a while."""

import asyncio

from reliability.common import Emitter, Pausing, Seen, hand_made, perform, run_in_loop, sleep, state_in_the_end, tell
from reliability.situation import ASYNCIO, ENDS, Situation

SITUATION = Situation(
    "the task that awaits `stop()` is cancelled while 200 events are drained; the loop goes on",
    ENDS,
    long=50,
    quick=2,
    batch=5,
    backends=ASYNCIO,
)


def once() -> None:
    async def main() -> None:
        recorder = hand_made(Pausing)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        Emitter(recorder).emit_all(200)

        async def stop() -> None:
            await recorder.stop()

        task = asyncio.ensure_future(stop())
        await sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        tell(f"the recorder ends in {await state_in_the_end(recorder)}")

    run_in_loop(main)


if __name__ == "__main__":
    perform(once)
