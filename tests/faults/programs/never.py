"""User code that never returns, each kind in a runtime of its own beside a neighbour: shutdown or exit all the same."""

import logging
import sys
import threading
import time
from typing import Any, NoReturn

import anyio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsError,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeShutdownError,
    RecorderTimeoutError,
    _supervisor,
)
from mvx.common.metrics._log import logger
from mvx.common.metrics._runtime import supervisor_of
from tests.processes.programs.common import DEADLINE, VARIANT, new_runtime, report, shorten_bounds
from tests.support import Count, Failing, Tick

CULPRITS = sys.argv[3].split(",")
DRAIN_TIMEOUT = 0.5
BOUND = 0.5
"""Seconds that replace the library's own limits, which spare a loaded machine."""
GRACE = 4.0
"""The same for what can be ended and has been: the threads of all that, and this process, may be held up."""
EVENTS = 1000

entered = threading.Event()


def loop() -> NoReturn:
    entered.set()
    while True:
        pass


def sleep() -> NoReturn:
    """Never come back; that it sleeps is the fault shown here."""
    entered.set()
    while True:
        time.sleep(3600)


async def wait() -> None:
    entered.set()
    await anyio.sleep_forever()


async def wait_shielded() -> None:
    with anyio.CancelScope(shield=True):
        await wait()


async def wait_deaf() -> None:
    while True:
        try:
            await wait()
        except BaseException:
            time.sleep(0.001)  # noqa: ASYNC251 — because it would leave the interpreter to nobody else otherwise


async def block() -> None:
    sleep()


class Stuck(Count):
    """Never comes back from one of its methods."""

    def __init__(self, how: str) -> None:
        super().__init__("stuck")
        self.how = how

    def handle_event(self, event: MetricEvent) -> bool:
        if self.how == "metric loops":
            loop()
        if self.how == "metric sleeps":
            sleep()
        return super().handle_event(event)

    def snapshot(self) -> Any:
        if self.how == "snapshot sleeps":
            sleep()
        return super().snapshot()


class Feeding(Count):
    """Emits two events for each that it is shown."""

    def __init__(self, recorder: MetricsRecorder) -> None:
        super().__init__("feeding")
        self.recorder = recorder

    def handle_event(self, event: MetricEvent) -> bool:
        entered.set()
        for n in range(2):
            self.recorder.register_event(Tick(n))
        return super().handle_event(event)


class Unforgettable(MetricEvent):
    """Never dies."""

    event_type = "test.unforgettable"

    def __del__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            sleep()


class Hooked(MetricsRecorder):
    """Never comes back from one of its hooks."""

    def __init__(self, entity_id: str, *, how: str, **options: Any) -> None:
        if how == "factory sleeps":
            sleep()
        super().__init__(entity_id, **options)
        self.how = how

    async def _on_starting(self) -> None:
        await self._hook("starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await self._hook("change")

    async def _on_stopped(self) -> None:
        await self._hook("stop")

    async def _hook(self, name: str) -> None:
        kinds = {"waits": wait, "waits shielded": wait_shielded, "is deaf": wait_deaf, "sleeps": block}
        for kind, act in kinds.items():
            if self.how == f"{name} hook {kind}":
                await act()


class Blocking(logging.Filter):
    """Never returns from looking at a record of one runtime's thread.

    A handler would do so with its lock held, for which the interpreter itself waits at its exit.
    """

    def __init__(self, runtime: MetricsRuntime) -> None:
        super().__init__()
        self.supervisor = supervisor_of(runtime)

    def filter(self, record: logging.LogRecord) -> bool:
        if self.supervisor.in_own_thread():
            sleep()
        return True


class Scene:
    """A runtime with a culprit, and a neighbour."""

    def __init__(self, how: str) -> None:
        self.how = how
        entered.clear()
        self.runtime: MetricsRuntime = new_runtime()
        self.neighbour = self.runtime.create_recorder("neighbour", drain_timeout=DRAIN_TIMEOUT)
        self.neighbour.register_metric(Count())
        self.recorder: MetricsRecorder | None = None
        if how in ("factory sleeps", *(f"starting hook {kind}" for kind in ("waits", "is deaf", "sleeps"))):
            threading.Thread(target=self._create, daemon=True).start()
        else:
            self._create()
            self._provoke()
        if not how.startswith("stop hook"):
            assert entered.wait(DEADLINE), how

    def _create(self) -> None:
        try:
            self.recorder = self.runtime.create_recorder(
                "culprit", factory=Hooked, how=self.how, drain_timeout=DRAIN_TIMEOUT, queue_max_size=10
            )
        except MetricsError:
            pass  # it was not created before the end

    def _provoke(self) -> None:
        assert self.recorder is not None
        if self.how == "feedback":
            self.recorder.register_metric(Feeding(self.recorder))
        elif self.how == "log filter sleeps":
            logger.addFilter(Blocking(self.runtime))
            self.recorder.register_metric(Failing(ValueError("logged")))
        else:
            self.recorder.register_metric(Stuck(self.how))
        if self.how == "finalizer sleeps":
            self.recorder.register_event(Unforgettable())
        self.recorder.register_event(Tick())
        if self.how == "snapshot sleeps":
            try:
                self.recorder.get_metric_snapshots()
            except RecorderTimeoutError:
                pass

    def emit(self) -> None:
        """Emit as production does, which must never notice."""
        began = time.monotonic()
        for n in range(EVENTS):
            self.neighbour.register_event(Tick(n))
            if self.recorder is not None and not self.how.startswith("stop hook"):
                self.recorder.register_event(Tick(n))
        self.seconds_of_emitting = time.monotonic() - began

    def shut_down(self) -> None:
        began = time.monotonic()
        error: Any = None
        try:
            self.runtime.shutdown()
        except MetricsRuntimeShutdownError as exc:
            error = exc.to_log_payload()
        report(
            "shut down",
            how=self.how,
            error=error,
            seconds=time.monotonic() - began,
            status=self.runtime.get_status(),
        )


shorten_bounds(BOUND)
if VARIANT == "shutdown":  # all at once, and the exit one after the other
    _supervisor.GRACE = GRACE
scenes = [Scene(how) for how in CULPRITS]
for scene in scenes:
    scene.emit()
if VARIANT == "shutdown":
    closers = [threading.Thread(target=scene.shut_down) for scene in scenes]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
for scene in scenes:
    statistics = scene.neighbour.statistics()
    report(
        "neighbour",
        how=scene.how,
        accounted=statistics.offered == statistics.accepted + statistics.dropped + statistics.rejected == EVENTS,
        seconds_of_emitting=scene.seconds_of_emitting,
    )
