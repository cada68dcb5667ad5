"""A recorder made by hand whose event loop goes away under it, or just stands still."""

import sys
import threading

import anyio

from mvx.common.metrics import RecorderError
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    new_event_loop,
    report,
    report_statistics,
    run_in_loop,
)
from tests.support import Tick

N = 10
LINGER = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0

recorder: Witness
begun = threading.Event()


async def begin() -> None:
    global recorder  # noqa: PLW0603 — because it can only be made where its loop runs
    recorder = Witness("r", linger=LINGER)
    await recorder.start()
    emit()
    await recorder.flush()
    # Having answered, the actor goes to sleep.
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def begin_and_stay() -> None:
    await begin()
    begun.set()
    await anyio.sleep_forever()


async def end() -> None:
    report("stop", success=(await recorder.stop()).success)


def emit() -> None:
    for n in range(N):
        recorder.register_event(Tick(n))


def emit_once(what: str) -> None:
    try:
        recorder.register_event(Tick())
    except RecorderError as exc:
        report(what, error=type(exc).__name__, cause=type(exc.cause).__name__)
    else:
        report(what, error=None)


def report_snapshot(what: str) -> None:
    report(what, total=recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"])


def use_in_vain() -> None:
    """From the main thread, where no loop runs any more."""
    report("status", status=recorder.get_status())
    emit_once("first")
    report_snapshot("snapshot")
    error = recorder.flush().wait(DEADLINE).error
    report("flush", error=error and type(error).__name__)
    emit_once("second")
    for handle in (recorder.stop(), recorder.start()):
        error = handle.wait(DEADLINE).error
        report("operation", error=type(error).__name__, cause=type(error.cause).__name__ if error else None)
    report_snapshot("last snapshot")
    report_statistics("end", recorder, status=recorder.get_status())


if VARIANT == "ended":
    run_in_loop(begin)
    use_in_vain()
elif VARIANT == "in-a-thread":
    threading.Thread(target=run_in_loop, args=(begin_and_stay,), daemon=True).start()
    begun.wait(DEADLINE)
    emit()
    report_snapshot("snapshot")
else:
    loop = new_event_loop()
    loop.run_until_complete(begin())
    if VARIANT == "closed":
        # Its tasks are left as they are, against all advice.
        loop.close()
        use_in_vain()
    elif VARIANT == "closed-unused":
        loop.close()
    elif VARIANT == "paused":
        emit()
        report_snapshot("snapshot")
        loop.run_until_complete(end())
        report_snapshot("last snapshot")
        loop.close()
    elif VARIANT == "left":
        emit()
