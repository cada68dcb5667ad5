"""Forks by a signal handler at moments that nobody has chosen, in the midst of emits, to which the child returns."""

import os
import random
import signal
import sys
from types import FrameType

from mvx.common.metrics import MetricsError
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
)
from tests.support import Tick

FORKS = int(VARIANT)
COUNT = 50


class Quiet(Witness):
    """Says nothing, because all the children would say the same."""

    async def _on_starting(self) -> None:
        pass

    async def _on_stopped(self) -> None:
        pass


def fork(_number: int, _frame: FrameType | None) -> None:
    global child  # noqa: PLW0603 — because a handler has no other way to tell
    child = os.fork()


def check_the_child(interrupted: str | None) -> None:
    """In the child, after the emit that was interrupted: that event is the parent's or the child's."""
    for n in range(COUNT):
        recorder.register_event(Tick(n))
    flushed = recorder.flush().wait(DEADLINE).success
    end = recorder.statistics()
    fine = end.offered in (COUNT, COUNT + 1) and end.offered == end.accepted == end.processed and end.pending == 0
    if not (fine and flushed) or interrupted is not None:
        report("wrong", interrupted=interrupted, flushed=flushed, statistics=repr(end))
    runtime.shutdown()
    os._exit(0)


chance = random.Random(0)
calls = forks = 0
tick = Tick()
runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Quiet, linger=0)
signal.signal(signal.SIGALRM, fork)
for _ in range(FORKS):
    child = -1
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.000_1, 0.003))
    while child < 0:
        error = None
        try:
            recorder.register_event(tick)
        except MetricsError as exc:
            error = repr(exc)
        calls += 1
        if calls % 3 == 0:
            # Asleep every now and then, so that the next emit has to wake it.
            recorder.flush().wait(DEADLINE)
        if child == 0:
            check_the_child(error)
        if error is not None:
            report("wrong", interrupted=error)
    if child == 0:
        check_the_child(None)  # forked behind the look in the loop
    code = exit_code_of(child)
    if code:
        report("wrong", code=code)
    forks += 1
runtime.shutdown()
report_statistics("end", recorder, calls=calls, forks=forks)
sys.exit(0)
