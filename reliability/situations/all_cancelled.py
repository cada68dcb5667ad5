"""Every task of the loop is cancelled while the recorder drains, as frameworks do at their end."""

import asyncio

from reliability.common import Emitter, Pausing, Seen, hand_made, perform, run_in_loop, sleep, state_in_the_end, tell
from reliability.situation import ASYNCIO, ENDS, Situation

SITUATION = Situation(
    "every task of the loop is cancelled, once, while 200 events are drained; the loop goes on",
    ENDS,
    long=10,
    quick=2,
    backends=ASYNCIO,
)


def once() -> None:
    async def main() -> None:
        recorder = hand_made(Pausing)
        recorder.register_metric(metric=Seen())
        await recorder.start()
        Emitter(recorder).emit_all(200)
        recorder.stop()
        await sleep(0.02)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        tell(f"the recorder ends in {await state_in_the_end(recorder)}")

    run_in_loop(main)


if __name__ == "__main__":
    perform(once)
