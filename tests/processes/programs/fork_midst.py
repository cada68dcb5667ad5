"""A fork while another thread is in the midst of a call that changes a runtime, or holds one of its locks."""

import os
import threading
import time
import traceback
from typing import Any

from mvx.common.metrics import MetricsError, MetricsRuntime
from mvx.common.metrics._engine import Engine
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
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
    report_statistics,
    total_of,
    use_engine,
)
from tests.support import Gate, Tick

reached, proceed = threading.Event(), threading.Event()


def hold() -> None:
    """Hold up the calling thread, in the parent, until the child has ended."""
    if os.getpid() == PARENT:
        reached.set()
        proceed.wait(DEADLINE)


class SlowToMake(Engine):
    """Holds up the thread that starts a runtime before there is anything to be seen of it."""

    def __init__(self, **options: Any) -> None:
        hold()
        super().__init__(**options)


class SlowToComeUp(Engine):
    """Holds up the runtime's own thread."""

    def _run(self) -> None:
        hold()
        super()._run()


class Gated(Witness):
    """Held up in its hooks, in the parent."""

    starting = Gate(is_open=True)
    stopped = Gate(is_open=True)

    async def _on_starting(self) -> None:
        await super()._on_starting()
        if os.getpid() == PARENT:
            await self.starting.passage()

    async def _on_stopped(self) -> None:
        if os.getpid() == PARENT:
            await self.stopped.passage()
        await super()._on_stopped()


def create() -> None:
    global recorder  # noqa: PLW0603 — because it is made in the thread
    recorder = runtime.create_recorder("r", factory=Gated)


def hold_the_locks() -> None:
    with supervisor_of(runtime)._lock, core_of(recorder)._lock:
        hold()


def emit(count: int) -> None:
    for n in range(count):
        recorder.register_event(Tick(n))


def use_as_new() -> None:
    """In the child, of a runtime that nobody has started."""
    report("runtime", status=runtime.get_status())
    runtime.start()
    create()
    emit(40)
    report("snapshot", total=total_of(recorder))
    runtime.shutdown()
    report("shut down", status=runtime.get_status())


def create_and_use() -> None:
    """In the child, where the id is free."""
    report("runtime", status=runtime.get_status(), ids=runtime.list_recorder_ids())
    create()
    emit(40)
    report("snapshot", total=total_of(recorder))
    runtime.shutdown()


def use_in_vain() -> None:
    """In the child of a runtime that is being shut down."""
    report("runtime", status=runtime.get_status())
    began = time.monotonic()
    try:
        emit(1)
    except MetricsError as exc:
        report("refused", error=type(exc).__name__, cause=type(exc.cause).__name__)
    report("total", total=total_of(recorder))
    runtime.shutdown()
    report_statistics("end", recorder, seconds=time.monotonic() - began)


def use_in_every_way() -> None:
    """In the child, with locks that nobody there holds."""
    emit(40)
    report("snapshot", total=total_of(recorder))
    runtime.stop_recorder("r")
    recorder.start().wait(DEADLINE)
    emit(2)
    runtime.create_recorder("second", factory=Gated)
    runtime.stop_and_remove_recorder("second")
    runtime.shutdown()
    report_statistics("end", recorder)


PARENT = os.getpid()
recorder: Gated
if VARIANT in ("making", "coming-up"):
    runtime = MetricsRuntime(namespace="t", **BACKENDS[NAME])
    use_engine(SlowToMake if VARIANT == "making" else SlowToComeUp)
    thread, in_the_child = threading.Thread(target=runtime.start), use_as_new
else:
    runtime = new_runtime()
    if VARIANT == "creating":
        Gated.starting = Gate()
        thread, in_the_child = threading.Thread(target=create), create_and_use
    else:
        create()
        emit(10)
        recorder.flush().wait(DEADLINE)
        if VARIANT == "locked":
            thread, in_the_child = threading.Thread(target=hold_the_locks), use_in_every_way
        else:
            Gated.stopped = Gate()
            if VARIANT == "stopping":
                thread, in_the_child = threading.Thread(target=runtime.shutdown), use_in_vain
            else:
                thread = threading.Thread(target=runtime.stop_and_remove_recorder, args=("r",))
                in_the_child = create_and_use
thread.start()
if VARIANT == "creating":
    Gated.starting.reached.wait(DEADLINE)
elif VARIANT in ("stopping", "removing"):
    Gated.stopped.reached.wait(DEADLINE)
else:
    reached.wait(DEADLINE)

child = os.fork()
if child == 0:
    become("child")
    try:
        in_the_child()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
report("child ended", code=exit_code_of(child))
proceed.set()
Gated.starting.open()
Gated.stopped.open()
thread.join(DEADLINE)
if VARIANT in ("making", "coming-up"):
    create()
if VARIANT not in ("stopping", "removing"):
    emit(10)
runtime.shutdown()
report_statistics("end", recorder, runtime=runtime.get_status())
