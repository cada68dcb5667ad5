"""A recorder made by hand whose event loop goes away under it, or just stands still."""

import sys
import threading
import time
from collections.abc import Callable

import anyio

from mvx.common.metrics import OverflowPolicy, RecorderError
from tests.processes.programs.common import (
    DEADLINE,
    NAME,
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
LOOPS = 20
CAPACITY = 4
BLOCK_TIMEOUT = 0.2
"""Seconds."""

recorder: Witness
begun = threading.Event()


async def begin() -> None:
    global recorder  # noqa: PLW0603 — because it can only be made where its loop runs
    recorder = Witness("r", linger=LINGER)
    await begin_with(recorder)


async def begin_with(recorder: Witness) -> None:
    await recorder.start()
    emit_to(recorder)
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
    emit_to(recorder)


def emit_to(recorder: Witness) -> None:
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


def in_a_thread(call: Callable[[], object]) -> None:
    """As from any other part of the application."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    report("thread", ended=not thread.is_alive())


def fail_the_loop() -> None:
    """Raise in a callback what no event loop survives."""
    sys.exit("the loop's own")


async def die() -> None:
    global recorder  # noqa: PLW0603 — because it can only be made where its loop runs
    recorder = Witness(
        "r",
        linger=LINGER,
        queue_max_size=CAPACITY,
        queue_overflow_policy=OverflowPolicy.BLOCK,
        block_timeout=BLOCK_TIMEOUT,
    )
    await recorder.start()
    for n in range(N):
        await recorder.aregister_event(Tick(n))
    await recorder.flush()
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    if NAME == "trio":
        import trio  # noqa: PLC0415 — only where it is asked for

        trio.lowlevel.current_trio_token().run_sync_soon(fail_the_loop)
    else:
        import asyncio  # noqa: PLC0415 — only where it is asked for

        asyncio.get_running_loop().call_soon(fail_the_loop)
    await anyio.sleep_forever()


def use_while_it_stands_still() -> None:
    """Nobody runs the loop; it might be run again."""
    for n in range(CAPACITY):
        recorder.register_event(Tick(n))
    began = time.monotonic()
    emit_once("too many")
    report_snapshot("snapshot")
    try:
        recorder.flush().wait(BLOCK_TIMEOUT)
    except TimeoutError:
        report("flush", seconds=time.monotonic() - began)
    report_statistics("still", recorder, status=recorder.get_status())


async def replace(before: list[Witness]) -> None:
    """On a new loop, in whose place in memory another one may have been."""
    for old in before[-1:]:
        try:
            old.register_event(Tick())
        except RecorderError as exc:
            report("old", error=type(exc).__name__, cause=type(exc.cause).__name__)
    new = Witness(f"{len(before)}", linger=LINGER)
    before.append(new)
    await begin_with(new)
    emit_to(new)
    report("new", total=(await new.aget_metric_snapshots())["witnessed"]["dimensions"]["total"])


if VARIANT == "ended":
    run_in_loop(begin)
    use_in_vain()
elif VARIANT == "in-a-thread":
    threading.Thread(target=run_in_loop, args=(begin_and_stay,), daemon=True).start()
    begun.wait(DEADLINE)
    emit()
    report_snapshot("snapshot")
elif VARIANT == "replaced":
    recorders: list[Witness] = []
    for _ in range(LOOPS):
        if NAME == "trio":
            run_in_loop(lambda: replace(recorders))
        else:
            # Closed under its recorder, so that nothing but the recorder keeps it.
            passing = new_event_loop()
            passing.run_until_complete(replace(recorders))
            passing.close()
elif VARIANT == "died" and NAME == "trio":
    try:
        run_in_loop(die)
    except BaseException as exc:  # because the name of trio's own is not imported elsewhere
        report("died", error=type(exc).__name__)
    in_a_thread(use_in_vain)
elif VARIANT == "died":
    loop = new_event_loop()
    try:
        loop.run_until_complete(die())
    except SystemExit as exc:
        report("died", error=type(exc).__name__)
    in_a_thread(use_while_it_stands_still)
    loop.close()
    in_a_thread(use_in_vain)
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
