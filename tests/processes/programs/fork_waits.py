"""Whoever waits, in a child, for something that was begun before the fork is told instead of waiting for ever."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from mvx.common.metrics import MetricsError, RecorderWaitHandle
from mvx.common.metrics._waiting import ThreadWaiter
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
)
from tests.support import Gate, Tick, until

LIMIT = 5.0
"""Seconds that the child waits for an inherited handle, which is not to be taken up by far."""


class Gated(Witness):
    """Held up in its hooks."""

    starting = Gate(is_open=True)
    stopped = Gate(is_open=True)

    async def _on_starting(self) -> None:
        await self.starting.passage()
        await super()._on_starting()

    async def _on_stopped(self) -> None:
        await self.stopped.passage()
        await super()._on_stopped()


def open_the_gates() -> None:
    Gated.starting.open()
    Gated.stopped.open()


def begin() -> RecorderWaitHandle:
    """Begin the operation, which cannot end while the gates are closed."""
    if VARIANT == "start":
        runtime.stop_recorder("r")
        Gated.starting = Gate()
        return recorder.start()
    if VARIANT == "flush":
        Gated.starting = Gate()
        runtime.stop_recorder("r")
        recorder.start()
        recorder.register_event(Tick())
        return recorder.flush()
    Gated.stopped = Gate()
    return recorder.stop()


def wait_in_the_child(wait: Callable[[], object]) -> None:
    began = time.monotonic()
    try:
        result = wait()
    except (MetricsError, TimeoutError) as exc:
        report("waited", error=type(exc).__name__, seconds=time.monotonic() - began)
    else:
        error = getattr(result, "error", None)
        report("waited", error=error and type(error).__name__, seconds=time.monotonic() - began)


def fork_on_signal(*_: object) -> None:
    global child  # noqa: PLW0603 — because a handler has no other way to tell
    child = os.fork()
    if child == 0:
        become("child")


def interrupt_when_waiting() -> None:
    """Wait until the main thread waits for its answer, and interrupt it."""
    until(lambda: sys._current_frames()[main_thread].f_code is ThreadWaiter.wait.__code__)
    signal.pthread_kill(main_thread, signal.SIGUSR1)
    until(lambda: child > 0)
    codes.append(exit_code_of(child))
    open_the_gates()


child = -1
codes: list[int] = []
main_thread = threading.get_ident()
runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Gated)
if VARIANT in ("start", "stop", "flush"):
    handle = begin()
    child = os.fork()
    if child == 0:
        become("child")
        wait_in_the_child(lambda: handle.wait(LIMIT))
        os._exit(0)
    codes.append(exit_code_of(child))
    open_the_gates()
    report("parent", success=handle.wait(DEADLINE).success)
else:
    # The fork comes from a signal handler, which interrupts the wait itself; the child returns into it.
    signal.signal(signal.SIGUSR1, fork_on_signal)
    calls: dict[str, Callable[[], object]] = {
        "snapshots": recorder.get_metric_snapshots,
        "creation": lambda: runtime.create_recorder("second", factory=Gated),
        "shutdown": runtime.shutdown,
    }
    if VARIANT == "snapshots":
        Gated.starting = Gate()
        runtime.stop_recorder("r")
        recorder.start()
        recorder.register_event(Tick())
    elif VARIANT == "creation":
        Gated.starting = Gate()
    else:
        Gated.stopped = Gate()
    helper = threading.Thread(target=interrupt_when_waiting)
    helper.start()
    wait_in_the_child(calls[VARIANT])
    if child == 0:
        os._exit(0)
    helper.join()
report("child ended", code=codes[0])
runtime.shutdown()
report_statistics("end", recorder, runtime=runtime.get_status())
