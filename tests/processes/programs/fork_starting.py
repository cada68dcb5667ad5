"""A child that emits and ends before its recorder, which starts anew with the first event, has started."""

import os
import sys

import anyio

from tests.processes.programs.common import DEADLINE, VARIANT, Witness, become, exit_code_of, new_runtime, report
from tests.support import Tick, auntil


class SlowToStart(Witness):
    """In the child, its start takes until the shutdown is at work in the loop."""

    waits = False

    async def _on_starting(self) -> None:
        report("starting")
        if not self.waits:
            return
        await auntil(lambda: any("shutdown" in str(task.name) for task in anyio.get_running_tasks()))
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        report("started")


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=SlowToStart)
for number in range(10):
    recorder.register_event(Tick(number))
recorder.flush().wait(DEADLINE)

child = os.fork()
if child == 0:
    become("child")
    recorder.waits = True
    for number in range(40):
        recorder.register_event(Tick(number))
    if VARIANT == "shutdown":
        runtime.shutdown()
        report("shut down", status=runtime.get_status())
    sys.exit(0)
report("child ended", code=exit_code_of(child))
