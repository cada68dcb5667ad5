"""A signal handler that forks in the midst of an emit, once at each step where CPython looks for signals."""

import os
import sys
from itertools import count

from mvx.common.metrics import MetricsError
from mvx.common.metrics._recorder import core_of
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    AtStep,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
    total_of,
)
from tests.support import Tick, until

EMITTER = sys.argv[3]
"""Whether the recorder is "asleep", so that the emitter has to wake it, or "lingering", so that it need not."""
COUNT = 20


class Fresh(Tick):
    """A class that the recorder has not seen, for a longer way in."""


def fork() -> None:
    """What the handler does."""
    global child, inherited  # noqa: PLW0603 — because a handler has no other way to tell
    child = os.fork()
    if child == 0:
        become("child")
        # Woken already, the parent's recorder may have counted the event before the fork.
        inherited = recorder.count.total
        if VARIANT == "stay":
            use_and_leave()


def use_and_leave(**more: object) -> None:
    """In the child: everything must be in working order, be it inside the handler or after it."""
    try:
        for n in range(COUNT):
            recorder.register_event(Tick(n))
        total = total_of(recorder) - inherited
        flushed = recorder.flush().wait(DEADLINE).success
        runtime.shutdown()
        report_statistics("end", recorder, total=total, flushed=flushed, step=step, where=at.where, **more)
    finally:
        os._exit(0)


def emit(event: Tick) -> str | None:
    try:
        recorder.register_event(event)
    except MetricsError as exc:
        return repr(exc)
    return None


class Quiet(Witness):
    """Says nothing, because all the children would say the same."""

    async def _on_starting(self) -> None:
        pass

    async def _on_stopped(self) -> None:
        pass


child = -1
inherited = 0
steps = count(1)
runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Quiet, linger=0 if EMITTER == "asleep" else DEADLINE)
# Before it has handled an event, it has no reason to linger.
recorder.register_event(Tick())
emitted = 1
for step in steps:
    recorder.flush().wait(DEADLINE)
    inbox = core_of(recorder).inbox
    until(lambda: inbox.idle if EMITTER == "asleep" else inbox.lingering)
    core_of(recorder).home.known.discard(Fresh)
    with (at := AtStep(step, fork)):
        error = emit(Fresh())
    emitted += 1
    if child == 0:
        use_and_leave(error=error)
    if at.where is None:
        break
    if error is not None:
        report("wrong", where=at.where, error=error)
    code = exit_code_of(child)
    if code:
        report("wrong", where=at.where, code=code)
runtime.shutdown()
report_statistics("end", recorder, total=recorder.count.total, emitted=emitted, steps=step - 1)
