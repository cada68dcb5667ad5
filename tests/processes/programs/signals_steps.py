"""A signal handler that waits for the runtime's thread, once at each step of a call that it interrupts."""

import sys
import time
from collections.abc import Callable
from itertools import count

from mvx.common.metrics import MetricsError, MetricsRecorder, MetricsRuntime
from mvx.common.metrics._recorder import core_of
from tests.processes.programs.common import BACKENDS, DEADLINE, NAME, VARIANT, AtStep, report, shorten_bounds
from tests.support import Tick, until

ACTION = sys.argv[3]
EVENTS = 3
LIMIT = 4.0
"""Seconds after which the handler gives up, which is to be taken for a deadlock."""


def act() -> None:
    """What the handler waits for."""
    if ACTION == "shutdown":
        runtime.shutdown()
    elif ACTION == "stop":
        recorder.stop().wait(LIMIT)
    elif ACTION == "flush":
        recorder.flush().wait(LIMIT)
    else:
        recorder.get_metric_snapshots()


def handle() -> None:
    """What the handler does."""
    global seconds  # noqa: PLW0603 — because a handler has no other way to tell
    began = time.monotonic()
    try:
        act()
    except (MetricsError, TimeoutError) as exc:
        failures.append(repr(exc))
    seconds = time.monotonic() - began


# As short as a busy machine allows: what is stuck is reported soon.
shorten_bounds(2)
failures: list[str] = []
runtime: MetricsRuntime
recorder: MetricsRecorder
slowest = 0.0
for step in count(1):
    seconds = 0.0
    failures.clear()
    runtime = MetricsRuntime(namespace="t", **BACKENDS[NAME])
    calls: dict[str, Callable[[], object]] = {"start": runtime.start, "create": lambda: runtime.create_recorder("r")}
    if VARIANT != "start":
        runtime.start()
    accepted = 0
    if VARIANT not in ("start", "create"):
        recorder = runtime.create_recorder("r", linger=0, drain_timeout=LIMIT)
        for n in range(EVENTS):
            recorder.register_event(Tick(n))
        recorder.flush().wait(DEADLINE)
        inbox = core_of(recorder).inbox
        until(lambda: inbox.idle)
        calls |= {
            "emit": lambda: recorder.register_event(Tick()),
            "flush": lambda: recorder.flush().wait(DEADLINE),
            "snapshots": recorder.get_metric_snapshots,
            "statistics": recorder.statistics,
            "stop": lambda: runtime.stop_recorder("r"),
            "remove": lambda: runtime.stop_and_remove_recorder("r"),
            "shutdown": runtime.shutdown,
        }
    error = None
    with (at := AtStep(step, handle)):
        try:
            calls[VARIANT]()
        except MetricsError as exc:
            error = type(exc).__name__
    if at.where is None:
        break
    slowest = max(slowest, seconds)
    # In the midst of a start there is nothing to be shut down yet.
    wrong = [failure for failure in failures if not (VARIANT == "start" and "STARTING" in failure)]
    runtime.shutdown()
    if runtime.get_status() != "CLOSED":
        wrong.append(runtime.get_status())
    if seconds >= LIMIT:
        wrong.append("late")
    if VARIANT not in ("start", "create"):
        end = recorder.statistics()
        emitted = VARIANT == "emit" and error is None
        if end.processed != EVENTS + emitted or end.pending or end.abandoned:
            wrong.append(repr(end))
    if wrong:
        report("wrong", where=at.where, wrong=wrong, error=error, seconds=seconds)
        sys.exit(1)
report("steps", steps=step - 1, slowest=slowest)
