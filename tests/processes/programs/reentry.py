"""Emitting in the midst of emitting: from a signal handler, or from finalizers of objects in cycles."""

import gc
import signal
import sys
from itertools import count
from types import FrameType

import anyio

from mvx.common.metrics import MetricEvent, MetricsRecorder, OverflowPolicy, RecorderError
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    new_runtime,
    report_statistics,
    run_in_loop,
)
from tests.support import Count, Tick

CAPACITY = 256
EVENTS = {"signal": 100_000, "signal-idle": 500, "signal-on-loop": 50_000, "finalizer": 20_000}[VARIANT]
EVENTS *= int(sys.argv[3])
INTERVAL = 0.000_05
"""Seconds until the next signal."""
MAX_DEPTH = 3
"""Signal handlers within signal handlers; without a limit a slow machine would do nothing else."""

TICK = Tick()
FROM_INSIDE = Tick(-1)


class Emitter:
    """Emits, and counts the calls without a lock."""

    def __init__(self, recorder: MetricsRecorder) -> None:
        self.recorder = recorder
        self.calls = count()
        self.nested = count()
        self.paused = False
        self._depth = 0
        self._armed = False

    def emit(self, event: MetricEvent = TICK) -> None:
        next(self.calls)
        try:
            self.recorder.register_event(event)
        except RecorderError:
            pass  # counted by the recorder

    def emit_from_inside(self) -> None:
        next(self.nested)
        self.emit(FROM_INSIDE)

    def rearm(self) -> None:
        """See that the next signal comes, from outside of signal handlers."""
        if not self._armed:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, INTERVAL)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.paused:
            self._armed = False
            return
        self._depth += 1
        self._armed = self._depth < MAX_DEPTH
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, INTERVAL)
        self.emit_from_inside()
        self._depth -= 1

    def report(self, policy: OverflowPolicy) -> None:
        report_statistics("emitted", self.recorder, policy=policy, calls=next(self.calls), nested=next(self.nested))


class Signals:
    """A block in which signals make an emitter emit."""

    def __init__(self, emitter: Emitter) -> None:
        signal.signal(signal.SIGALRM, emitter.on_signal)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # One may have come already, and is handled before this returns.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


class Garbage:
    """Emits when it is collected, which takes the garbage collector because it refers to itself."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.itself = self

    def __del__(self) -> None:
        self.emitter.emit_from_inside()


class Littering(Count):
    """Leaves garbage in the recorder's thread, so that finalizers run in the midst of the actor's own work."""

    emitter: Emitter

    def handle_event(self, event: MetricEvent) -> bool:
        if event is TICK:
            Garbage(self.emitter)
        return super().handle_event(event)


class Curious(Emitter):
    """Looks at the ledger as well, like a handler that prints it."""

    looks = 0
    wrong = 0

    def emit_from_inside(self) -> None:
        super().emit_from_inside()
        self.recorder.statistics()

    def audit(self) -> None:
        """With everything at rest and no signal in between, the ledger must know every call."""
        # Blocking the signal in this thread would not do: another thread may take it, for this one to handle.
        self.paused = True
        self.recorder.flush().wait(DEADLINE)
        statistics = self.recorder.statistics()
        calls = next(self.calls) - self.looks
        self.looks += 1
        self.wrong += statistics.pending != 0 or statistics.offered != calls
        self.paused = False

    def report(self, policy: OverflowPolicy) -> None:
        report_statistics(
            "emitted",
            self.recorder,
            policy=policy,
            calls=next(self.calls) - self.looks,
            nested=next(self.nested),
            wrong=self.wrong,
        )


def emit_amid_signals() -> None:
    """In a hurry: the inbox is full most of the time."""
    runtime = new_runtime()
    for policy in OverflowPolicy:
        recorder = runtime.create_recorder(
            policy,
            factory=Witness,
            queue_max_size=CAPACITY,
            queue_overflow_policy=policy,
            block_timeout=DEADLINE,
        )
        emitter = Emitter(recorder)
        with Signals(emitter):
            for _ in range(EVENTS):
                emitter.rearm()
                emitter.emit()
            # Signals go on: they hit the end of the recorder, too.
            runtime.stop_recorder(policy)
        emitter.report(policy)
    runtime.shutdown()


def emit_one_by_one_amid_signals() -> None:
    """With leisure: every event finds the actor asleep and has to wake it; and somebody keeps an eye on the ledger."""
    runtime = new_runtime()
    for policy in OverflowPolicy:
        recorder = runtime.create_recorder(policy, factory=Witness, queue_overflow_policy=policy, linger=0)
        emitter = Curious(recorder)
        with Signals(emitter):
            for _ in range(EVENTS):
                emitter.rearm()
                emitter.emit()
                for _ in range(10):
                    recorder.statistics()
                emitter.audit()
        runtime.stop_recorder(policy)
        emitter.report(policy)
    runtime.shutdown()


async def emit_amid_signals_on_the_loop() -> None:
    """The handler runs in the thread of the loop, and hits the actor itself."""
    for policy in OverflowPolicy:
        recorder = Witness(policy, queue_max_size=CAPACITY, queue_overflow_policy=policy, linger=0)
        await recorder.start()
        emitter = Emitter(recorder)
        with Signals(emitter):
            for n in range(EVENTS):
                emitter.rearm()
                emitter.emit()
                if n % 400 == 0:  # more than there is room for
                    await anyio.lowlevel.checkpoint()
            await recorder.stop()
        emitter.report(policy)


def emit_amid_finalizers() -> None:
    runtime = new_runtime()
    for policy in OverflowPolicy:
        recorder = runtime.create_recorder(
            policy,
            factory=Witness,
            queue_max_size=CAPACITY,
            queue_overflow_policy=policy,
            block_timeout=DEADLINE,
        )
        emitter = Emitter(recorder)
        littering = Littering("littering")
        littering.emitter = emitter
        recorder.register_metric(littering)
        gc.set_threshold(20)
        for _ in range(EVENTS):
            Garbage(emitter)
            emitter.emit()
        runtime.stop_recorder(policy)
        gc.set_threshold(700, 10, 10)
        gc.collect()
        emitter.report(policy)
    runtime.shutdown()


if VARIANT == "signal":
    emit_amid_signals()
elif VARIANT == "signal-idle":
    emit_one_by_one_amid_signals()
elif VARIANT == "signal-on-loop":
    run_in_loop(emit_amid_signals_on_the_loop)
else:
    emit_amid_finalizers()
