"""SIGTERM, with no handler or with one of several kinds, at various moments of a runtime's life."""

import os
import signal
import sys
import threading
import time

from mvx.common.metrics import Metric, MetricEvent, MetricsError, MetricsRuntime, RecorderState
from mvx.common.metrics._engine import Engine
from tests.processes.programs.common import (
    BACKENDS,
    DEADLINE,
    NAME,
    VARIANT,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    run_in_loop,
    use_engine,
)
from tests.support import Tick, auntil

ENOUGH = 5_000
"""Events emitted before the signal comes."""


def terminate() -> None:
    """Send SIGTERM to the main thread; the interpreter may take note a moment later."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def terminate_when_busy() -> None:
    busy.wait(DEADLINE)
    terminate()


def emit_for_ever() -> None:
    """Until an exception comes out of the handler, or the recorder takes no more."""
    global emitted  # noqa: PLW0603 — one thread counts
    while True:
        recorder.register_event(TICK)
        emitted += 1
        if emitted == ENOUGH:
            busy.set()


def emit_under_fire() -> None:
    threading.Thread(target=terminate_when_busy, daemon=True).start()
    try:
        emit_for_ever()
    except MetricsError as exc:
        report("refused", error=type(exc).__name__, state=recorder.get_status())
    finally:
        report("emitted", emitted=emitted)


def leave(*_: object) -> None:
    sys.exit(4)


def shut_down(*_: object) -> None:
    began = time.monotonic()
    try:
        runtime.shutdown()
    except MetricsError as exc:
        report("not shut down", error=type(exc).__name__, state=runtime.get_status())
    else:
        report("shut down", state=runtime.get_status(), seconds=time.monotonic() - began)


def shut_down_in_vain(*_: object) -> None:
    shut_down()
    handled.set()


def emit_a_hundred(*_: object) -> None:
    global emitted  # noqa: PLW0603 — the handler runs in the thread that counts
    for _n in range(100):
        recorder.register_event(TICK)
        emitted += 1
    handled.set()


class SlowToComeUp(Engine):
    """While its thread is on its way, SIGTERM comes."""

    def _run(self) -> None:
        terminate()
        handled.wait(DEADLINE)
        super()._run()


class DoneWhenTold(Witness):
    """As soon as it is being stopped, sends SIGTERM, and drains when that has been handled."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await auntil(lambda: self.get_status() is not RecorderState.RUNNING)
        if not handled.is_set():
            terminate()
        await auntil(handled.is_set)


def tell_and_leave(*_: object) -> None:
    state = recorder.get_status()
    report("leaving", state=state)
    if state is not RecorderState.RUNNING:
        handled.set()
    sys.exit(4)


async def serve() -> None:
    """An application's own event loop, which is told of the signal in its own way."""
    if NAME == "trio":
        import trio  # noqa: PLC0415 — only where it is asked for

        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            emit_some()
            terminate()
            async for _ in signals:
                break
    else:
        import asyncio  # noqa: PLC0415 — only where it is asked for

        told = asyncio.Event()

        def on_signal() -> None:
            emit_some()
            told.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_signal)
        terminate()
        await told.wait()
    await runtime.ashutdown()
    report("shut down", state=runtime.get_status())


def emit_some() -> None:
    global emitted  # noqa: PLW0603 — one thread counts
    for _ in range(100):
        recorder.register_event(TICK)
        emitted += 1


def live_as_a_child() -> None:
    """The handler is inherited."""
    global busy  # noqa: PLW0603 — the parent's may have been in use
    busy = threading.Event()
    become("child")
    emit_under_fire()


TICK = Tick()
busy, handled = threading.Event(), threading.Event()
emitted = 0
runtime: MetricsRuntime
if VARIANT in ("start", "start-shutdown"):
    use_engine(SlowToComeUp)
    runtime = MetricsRuntime(namespace="t", **BACKENDS[NAME])
    if VARIANT == "start":
        signal.signal(signal.SIGTERM, leave)
        runtime.start()
    else:
        signal.signal(signal.SIGTERM, shut_down_in_vain)
        runtime.start()
        recorder = runtime.create_recorder("r", factory=Witness)
        emit_some()
        runtime.shutdown()
        report("end", state=runtime.get_status())
else:
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=DoneWhenTold if VARIANT in ("drain", "twice") else Witness)
    if VARIANT == "default":
        emit_under_fire()
    elif VARIANT == "exit":
        signal.signal(signal.SIGTERM, leave)
        emit_under_fire()
    elif VARIANT == "shutdown":
        signal.signal(signal.SIGTERM, shut_down)
        emit_under_fire()
    elif VARIANT == "emit":
        signal.signal(signal.SIGTERM, emit_a_hundred)
        threading.Thread(target=terminate_when_busy, daemon=True).start()
        while not handled.is_set():
            emit_some()
            if emitted >= ENOUGH:
                busy.set()
        runtime.shutdown()
        report("emitted", emitted=emitted)
    elif VARIANT == "drain":
        signal.signal(signal.SIGTERM, tell_and_leave)
        emit_some()
        runtime.shutdown()
    elif VARIANT == "twice":
        signal.signal(signal.SIGTERM, tell_and_leave)
        emit_under_fire()
    elif VARIANT == "loop":
        run_in_loop(serve)
        report("emitted", emitted=emitted)
    elif VARIANT == "child":
        signal.signal(signal.SIGTERM, leave)
        child = os.fork()
        if child == 0:
            live_as_a_child()
        report("child ended", code=exit_code_of(child))
        emit_some()
        report("emitted", emitted=emitted)
