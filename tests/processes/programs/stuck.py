"""Hooks and metrics that never return: stop, shutdown and exit take bounded time, and say what was lost."""

import sys
import threading
import time

import anyio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsError,
    MetricsRecorder,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeShutdownError,
)
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    new_runtime,
    report,
    report_statistics,
    run_in_loop,
    shorten_bounds,
)
from tests.support import Count, Tick

CULPRIT = sys.argv[3]
DRAIN_TIMEOUT = 0.3
BEHIND = 9
"""Events that wait behind the one under way."""

stuck = threading.Event()


class HeldUp(Witness):
    """Its hook waits for something that never comes."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        stuck.set()
        await anyio.sleep_forever()


class Deaf(Witness):
    """Its hook waits likewise, and swallows its own cancellation."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        stuck.set()
        while True:
            try:
                await anyio.sleep_forever()
            except BaseException:
                time.sleep(0.001)  # noqa: ASYNC251 — because it would leave the interpreter to nobody else otherwise


class Blocking(Count):
    """Does not even give the thread back: that it sleeps for ever is the fault shown here."""

    def handle_event(self, event: MetricEvent) -> bool:
        stuck.set()
        while True:
            time.sleep(0.01)


def get_stuck(recorder: MetricsRecorder) -> None:
    if CULPRIT == "metric":
        recorder.register_metric(Blocking("blocking"))
    recorder.register_event(Tick())
    stuck.wait(DEADLINE)
    for n in range(BEHIND):
        recorder.register_event(Tick(n))


def stop() -> None:
    """Stop this recorder alone; the other goes on."""
    began = time.monotonic()
    try:
        runtime.stop_recorder("stuck")
    except MetricsRuntimeRecorderStopError as exc:
        report("failed", error=describe(exc), cause=describe(exc.cause), seconds=time.monotonic() - began)
    report("other", total=other.get_metric_snapshots()["witnessed"]["dimensions"]["total"])
    runtime.stop_recorder("other")


def shut_down() -> None:
    began = time.monotonic()
    try:
        runtime.shutdown()
    except MetricsRuntimeShutdownError as exc:
        report("failed", error=describe(exc), cause=describe(exc.cause), seconds=time.monotonic() - began)


def describe(error: BaseException | None) -> object:
    """What a log would hold."""
    return error.to_log_payload() if isinstance(error, MetricsError) else repr(error)


async def live_by_hand() -> None:
    recorder = FACTORY("stuck", drain_timeout=DRAIN_TIMEOUT)
    await recorder.start()
    recorder.register_event(Tick())
    while not stuck.is_set():
        await anyio.lowlevel.checkpoint()
    for n in range(BEHIND):
        recorder.register_event(Tick(n))
    result = await recorder.stop()
    report("failed", error=describe(result.error))
    report_statistics("end", recorder, status=recorder.get_status())


FACTORY = {"hook": HeldUp, "deaf-hook": Deaf, "metric": Witness}[CULPRIT]
if CULPRIT != "hook":
    # Only what cannot be cancelled runs into them.
    shorten_bounds(0.1)

if VARIANT == "by-hand":
    run_in_loop(live_by_hand)
else:
    runtime = new_runtime()
    other = runtime.create_recorder("other", factory=Witness, drain_timeout=DRAIN_TIMEOUT)
    stuck_recorder = runtime.create_recorder("stuck", factory=FACTORY, drain_timeout=DRAIN_TIMEOUT)
    get_stuck(stuck_recorder)
    other.register_event(Tick())
    if VARIANT == "stop":
        stop()
    elif VARIANT == "shutdown":
        shut_down()
    if VARIANT != "exit":
        report_statistics("end", stuck_recorder, status=stuck_recorder.get_status())
        report("runtime", status=runtime.get_status())
