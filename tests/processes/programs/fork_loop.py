"""A recorder made by hand lives on a loop that stays in the parent at a fork: in the child it says so."""

import os
import sys
import threading
import traceback

import anyio

from mvx.common.metrics import RecorderError
from tests.processes.programs.common import (
    DEADLINE,
    VARIANT,
    Witness,
    become,
    exit_code_of,
    report,
    report_statistics,
    run_in_loop,
)
from tests.support import Tick


def emit() -> None:
    for n in range(10):
        recorder.register_event(Tick(n))


async def live_anew() -> None:
    """On a loop of the child's own."""
    async with Witness("own") as own:
        for n in range(30):
            own.register_event(Tick(n))


def use_in_the_child() -> None:
    become("child")
    try:
        recorder.register_event(Tick())
    except RecorderError as exc:
        report("refused", error=type(exc).__name__, cause=type(exc.cause).__name__, message=str(exc.cause))
    for handle in (recorder.start(), recorder.stop()):
        error = handle.wait(DEADLINE).error
        report("operation", error=type(error).__name__, cause=type(error.cause).__name__ if error else None)
    report("flush", success=recorder.flush().wait(DEADLINE).success)
    report("snapshot", total=recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"])
    report_statistics("statistics", recorder, status=recorder.get_status())


async def fork_inside() -> None:
    await begin()
    child = os.fork()
    if child == 0:
        try:
            use_in_the_child()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)  # the loop under this frame is the parent's
    report("child ended", code=exit_code_of(child))
    await end()


async def fork_in_a_block() -> None:
    global recorder
    async with Witness("r") as recorder:
        emit()
        await recorder.flush()
        child = os.fork()
        if child == 0:
            try:
                use_in_the_child()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        report("child ended", code=exit_code_of(child))
        emit()
    report("end", success=recorder.get_status() == "STOPPED")


async def live_in_a_thread() -> None:
    await begin()
    begun.set()
    await anyio.to_thread.run_sync(forked.wait)
    await end()


async def begin() -> None:
    global recorder  # noqa: PLW0603 — because it can only be made where its loop runs
    recorder = Witness("r")
    await recorder.start()
    emit()
    await recorder.flush()


async def end() -> None:
    emit()
    result = await recorder.stop()
    report("end", success=result.success)


recorder: Witness
if VARIANT == "inside":
    run_in_loop(fork_inside)
elif VARIANT == "block":
    run_in_loop(fork_in_a_block)
else:
    begun, forked = threading.Event(), threading.Event()
    thread = threading.Thread(target=run_in_loop, args=(live_in_a_thread,))
    thread.start()
    begun.wait()
    forked_child = os.fork()
    if forked_child == 0:
        use_in_the_child()
        run_in_loop(live_anew)
        sys.exit(0)
    report("child ended", code=exit_code_of(forked_child))
    forked.set()
    thread.join()
