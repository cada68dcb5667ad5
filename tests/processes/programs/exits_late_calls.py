"""Everything that an exit callback may call when the library has drained: each call answers, and soon."""

import time
from collections.abc import Callable
from functools import partial

from mvx.common.metrics import MetricsError, MetricsRuntime, OverflowPolicy, RecorderWaitHandle
from tests.processes.programs.common import (
    BACKENDS,
    DEADLINE,
    NAME,
    Witness,
    after_the_drain,
    new_runtime,
    report,
    report_statistics,
    run_in_loop,
    total_of,
)
from tests.support import Tick


def call(what: str, function: Callable[[], object]) -> None:
    began = time.monotonic()
    try:
        function()
    except (MetricsError, TimeoutError) as exc:
        error: str | None = type(exc).__name__
    else:
        error = None
    report("call", call=what, error=error, seconds=time.monotonic() - began)


def wait(operation: Callable[[], RecorderWaitHandle]) -> None:
    error = operation().wait(DEADLINE).error
    if error is not None:
        raise error


async def live_by_hand() -> None:
    async with Witness("by hand") as by_hand:
        for n in range(10):
            by_hand.register_event(Tick(n))


async def emit_from_a_loop() -> None:
    for recorder in recorders.values():
        try:
            await recorder.aregister_event(Tick())
        except MetricsError as exc:
            report("call", call="aregister_event", error=type(exc).__name__, seconds=0)


def use_a_new_runtime() -> None:
    """A new thread: some Pythons start none at this point."""
    with MetricsRuntime(namespace="late", **BACKENDS[NAME]) as late:
        recorder = late.create_recorder("late", factory=Witness)
        for n in range(10):
            recorder.register_event(Tick(n))


def leave_a_new_runtime() -> None:
    """Nobody is going to drain this one; the process ends all the same."""
    late = MetricsRuntime(namespace="left", **BACKENDS[NAME])
    late.start()
    late.create_recorder("left")


def use_everything() -> None:
    for policy, recorder in recorders.items():
        call("register_event", partial(recorder.register_event, Tick()))
        call("start", partial(wait, recorder.start))
        call("stop", partial(wait, recorder.stop))
        call("flush", partial(wait, recorder.flush))
        call("get_metric_snapshots", recorder.get_metric_snapshots)
        report_statistics("end", recorder, policy=policy, total=total_of(recorder), state=recorder.get_status())
    call("create_recorder", lambda: runtime.create_recorder("late"))
    call("get_recorder", lambda: runtime.get_recorder("DROP"))
    call("stop_recorder", lambda: runtime.stop_recorder("DROP"))
    call("runtime.start", runtime.start)
    call("shutdown", runtime.shutdown)
    call("new loop", lambda: run_in_loop(live_by_hand))
    call("loop", lambda: run_in_loop(emit_from_a_loop))
    call("new runtime", use_a_new_runtime)
    call("left runtime", leave_a_new_runtime)
    report("runtime", state=runtime.get_status())


after_the_drain(use_everything)
runtime = new_runtime()
recorders = {
    policy: runtime.create_recorder(
        policy, factory=Witness, queue_max_size=4, queue_overflow_policy=policy, block_timeout=DEADLINE
    )
    for policy in OverflowPolicy
}
for every in recorders.values():
    for number in range(3):
        every.register_event(Tick(number))
