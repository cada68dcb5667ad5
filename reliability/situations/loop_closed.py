"""The loop of a recorder made by hand is closed under it; afterwards a thread goes on emitting."""

import asyncio

from mvx.common.metrics import AsyncioMetricsRecorder
from reliability.common import Emitter, Seen, hand_made, look, perform, tell, tell_errors
from reliability.situation import ASYNCIO, ENDS, Situation

SITUATION = Situation(
    "the loop of a recorder is closed by hand, with 10 events pending; then 100 more are emitted",
    ENDS,
    long=10,
    quick=1,
    backends=ASYNCIO,
)


def once() -> None:
    loop = asyncio.new_event_loop()

    async def main() -> AsyncioMetricsRecorder:
        recorder = hand_made(AsyncioMetricsRecorder)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        Emitter(recorder).emit()
        await asyncio.sleep(0.1)
        Emitter(recorder).emit_all(10)
        return recorder

    recorder = loop.run_until_complete(main())
    loop.close()
    emitter = Emitter(recorder)
    emitter.emit_all(100)
    tell_errors([emitter])
    tell(f"the recorder is {recorder.get_status().value}")
    look()


if __name__ == "__main__":
    perform(once)
