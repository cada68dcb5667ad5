"""The interpreter exits while other threads are in the midst of using a runtime that nobody shuts down."""

import threading
import time
from collections.abc import Callable

import anyio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsError,
    MetricsRuntime,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderState,
)
from mvx.common.metrics._engine import Engine
from tests.processes.programs.common import (
    BACKENDS,
    DEADLINE,
    NAME,
    VARIANT,
    Witness,
    after_the_drain,
    new_runtime,
    report,
    report_statistics,
    total_of,
    use_engine,
)
from tests.support import Count, Tick, auntil, until

CAPACITY = 4
THREADS = 3


class Caller:
    """Calls something again and again in a daemon thread, even when it is refused, until the interpreter stops it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.returned = 0
        self.refused = 0
        self.error: str | None = None
        self.told = threading.Event()
        """Set by the first refusal; there is no call that succeeds after it."""
        self._call = call
        self._begun = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()
        self._begun.wait(DEADLINE)

    def _work(self) -> None:
        while True:
            try:
                self._call()
            except (MetricsError, TimeoutError) as exc:
                self.refused += 1
                self.error = type(exc).__name__
                self.told.set()
            else:
                self.returned += 1
                self._begun.set()


def emit() -> None:
    recorder.register_event(Tick())


def use_in_every_way() -> None:
    """Whatever a thread may wait for."""
    passing = runtime.create_recorder(f"passing {threading.get_ident()}")
    passing.register_metric(Count())
    passing.register_event(Tick())
    passing.flush().wait(DEADLINE)
    passing.get_metric_snapshots()
    passing.statistics()
    emit()
    runtime.stop_and_remove_recorder(f"passing {threading.get_ident()}")


def report_callers() -> None:
    for caller in callers:
        told = caller.told.wait(DEADLINE)
        report("caller", told=told, returned=caller.returned, error=caller.error)
    report_statistics("end", recorder, total=total_of(recorder))


class HeldUp(Witness):
    """Its first hook waits until the recorder is being stopped."""

    reached = threading.Event()

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self.reached.set()
        await auntil(lambda: self.get_status() is not RecorderState.RUNNING)


class HeldUpByMain(Witness):
    """Its first hook waits until the main thread has ended."""

    reached = threading.Event()

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self.reached.set()
        await auntil(lambda: not threading.main_thread().is_alive())


def fill(reached: threading.Event) -> None:
    """Leave no room in the recorder's inbox."""
    emit()
    reached.wait(DEADLINE)
    for _ in range(CAPACITY - 1):
        emit()


def emit_one_too_many() -> None:
    blocked.set()
    try:
        emit()
    except MetricsError as exc:
        report("refused", error=type(exc).__name__, state=recorder.get_status())
    else:
        report("accepted", state=recorder.get_status())
    answered.set()


class SlowToStart(Witness):
    """Its start takes until the runtime is being shut down, and some more."""

    begun = threading.Event()

    async def _on_starting(self) -> None:
        report("starting")
        self.begun.set()
        await auntil(lambda: runtime.get_status() is not MetricsRuntimeState.RUNNING)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        report("started")


class StartsAtOnceTheFirstTime(SlowToStart):
    first = True

    async def _on_starting(self) -> None:
        if not self.first:
            await super()._on_starting()
        self.first = False


def create() -> None:
    try:
        runtime.create_recorder("slow", factory=SlowToStart)
    except MetricsError as exc:
        report("refused", error=type(exc).__name__)
    answered.set()


def create_when_main_has_ended() -> None:
    threading.main_thread().join()
    late = runtime.create_recorder("late", factory=Witness)
    for n in range(10):
        late.register_event(Tick(n))


def shut_down() -> None:
    runtime.shutdown()
    report("shut down", status=runtime.get_status())
    answered.set()


def wait_for_the_answer() -> None:
    """Daemon threads are stopped in their tracks after the last callback; let this one have its say."""
    report("answered", answered=answered.wait(DEADLINE))


def account_for_the_answer() -> None:
    """Behind the answer: a thread that is told counts its event as rejected, maybe after the recorder has stopped."""
    wait_for_the_answer()
    report_statistics("end", recorder, total=recorder.count.total)


class NeverUp(Engine):
    """Its thread does not get anywhere: that it sleeps is the fault shown here."""

    def _run(self) -> None:
        begun.set()
        time.sleep(DEADLINE)


answered, begun, blocked = threading.Event(), threading.Event(), threading.Event()
callers: list[Caller] = []
runtime: MetricsRuntime
recorder: Witness
if VARIANT == "starting":
    use_engine(NeverUp)
    starting = MetricsRuntime(namespace="t", **BACKENDS[NAME])
    threading.Thread(target=starting.start, daemon=True).start()
    begun.wait(DEADLINE)
else:
    runtime = new_runtime()
    if VARIANT in ("emitting", "in-use"):
        recorder = runtime.create_recorder("r", factory=Witness)
        callers = [Caller(emit if VARIANT == "emitting" else use_in_every_way) for _ in range(THREADS)]
        after_the_drain(report_callers)
    elif VARIANT in ("blocked-daemon", "blocked-thread"):
        daemon = VARIANT == "blocked-daemon"
        kind: type[HeldUp | HeldUpByMain] = HeldUp if daemon else HeldUpByMain
        recorder = runtime.create_recorder(
            "r",
            factory=kind,
            queue_max_size=CAPACITY,
            queue_overflow_policy=OverflowPolicy.BLOCK,
            block_timeout=DEADLINE,
        )
        fill(kind.reached)
        after_the_drain(account_for_the_answer)
        threading.Thread(target=emit_one_too_many, daemon=daemon).start()
        blocked.wait(DEADLINE)
    elif VARIANT == "creating":
        after_the_drain(wait_for_the_answer)
        threading.Thread(target=create, daemon=True).start()
        SlowToStart.begun.wait(DEADLINE)
    elif VARIANT == "creating-late":
        threading.Thread(target=create_when_main_has_ended).start()
    elif VARIANT == "restarting":
        recorder = runtime.create_recorder("r", factory=StartsAtOnceTheFirstTime)
        runtime.stop_recorder("r")
        recorder.start()
        SlowToStart.begun.wait(DEADLINE)
        for _ in range(10):
            emit()
    elif VARIANT == "shutting-down":
        recorder = runtime.create_recorder("r", factory=HeldUpByMain)
        for _ in range(10):
            emit()
        after_the_drain(wait_for_the_answer)
        threading.Thread(target=shut_down, daemon=True).start()
        until(lambda: runtime.get_status() is not MetricsRuntimeState.RUNNING)
