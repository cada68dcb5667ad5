"""Signals at moments that nobody has chosen, one child process after another, each with a runtime of its own."""

import os
import random
import signal
import sys
import threading
from types import FrameType

import anyio

from mvx.common.metrics import Metric, MetricEvent, MetricsError, RecorderState
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    exit_code_of,
    interrupt_main_thread,
    new_runtime,
    report,
)
from tests.support import Tick, auntil

ROUNDS = int(sys.argv[3])
SPREAD = 3_000
"""Up to how many events are emitted before the signal."""


class Checked(Witness):
    """Checks the account at its end instead of reporting it."""

    async def _on_starting(self) -> None:
        pass

    async def _on_stopped(self) -> None:
        end = self.statistics()
        fine = (
            # One event may have been accepted by a call that the handler's exception cut short.
            end.offered - end.rejected - emitted in (0, 1)
            and end.offered == end.accepted + end.dropped + end.rejected
            and end.accepted == end.processed == self.count.total
            and end.pending == end.evicted == end.abandoned == 0
        )
        if not fine:
            report("wrong", emitted=emitted, total=self.count.total, statistics=repr(end))


class Slow(Checked):
    """Ctrl-C is pressed again at some moment of its drain, which is not to last after that."""

    presses = 0

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await auntil(lambda: self.get_status() is not RecorderState.RUNNING)
        self.presses += 1
        if self.presses == 2 + limit % 5:
            interrupt_main_thread()
            await anyio.sleep_forever()


def leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def shut_down(_number: int, _frame: FrameType | None) -> None:
    try:
        runtime.shutdown()
    except MetricsError as exc:
        report("wrong", error=repr(exc))


def fire(number: signal.Signals) -> None:
    go.wait(DEADLINE)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def emit_until_told() -> None:
    global emitted  # noqa: PLW0603 — one thread counts
    tick = Tick()
    while True:
        if emitted == limit:
            go.set()
        recorder.register_event(tick)
        emitted += 1


KINDS = {
    "ctrl-c": signal.SIGINT,
    "ctrl-c twice": signal.SIGINT,
    "exit": signal.SIGTERM,
    "shutdown": signal.SIGTERM,
}
chance = random.Random(VARIANT)
ended = 0
for _ in range(ROUNDS):
    limit, emitted = chance.randrange(SPREAD), 0
    child = os.fork()
    if child == 0:
        go = threading.Event()
        runtime = new_runtime()
        recorder = runtime.create_recorder(
            "r", factory=Slow if VARIANT == "ctrl-c twice" else Checked, linger=chance.choice((0, 0.02))
        )
        number = KINDS[VARIANT]
        if number is signal.SIGTERM:
            signal.signal(number, leave if VARIANT == "exit" else shut_down)
        threading.Thread(target=fire, args=(number,), daemon=True).start()
        try:
            emit_until_told()
        except (KeyboardInterrupt, MetricsError):
            sys.exit(0)
    code = exit_code_of(child)
    if code:
        report("wrong", code=code, limit=limit)
    ended += 1
report("rounds", ended=ended)
