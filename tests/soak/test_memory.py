"""Soaks: whatever is done again and again leaves nothing behind, be it done well or gone wrong.

Each load is put on in equal parts, and after each part everything is counted: objects, blocks of
memory, threads, open files, tasks, and the entries of the tables that outlive a recorder.
"""

from __future__ import annotations

import contextvars
import gc
import sys
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeStartupError,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderTimeoutError,
)
from mvx.common.metrics._hub import LoopHub, hub_of
from mvx.common.metrics._log import LimitedLog
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._run import Run
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._timetable import LEFT_OVER
from mvx.common.metrics._waiting import current_loop
from tests.conftest import Effort, Tally
from tests.soak.census import halves, take_census, tasks
from tests.support import (
    DEADLINE,
    Count,
    Failing,
    Gate,
    Journal,
    Plain,
    Seen,
    Tick,
    auntil,
    balanced,
    run_threads,
    until,
    virgin,
)

pytestmark = pytest.mark.usefixtures("unheard", "tidy_trio")

untraced = pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer keeps something of every thread")


@asynccontextmanager
async def hosted(home: str, kind: type[Journal], **options: Any) -> AsyncIterator[Journal]:
    """A recorder in the given home, which is let go and stopped even if the test fails while it holds it up."""
    async with virgin(home, kind, **options) as recorder:
        try:
            yield recorder
        finally:
            for gate in (recorder.starting, recorder.changed, recorder.stopped):
                gate.open()
            with anyio.CancelScope(shield=True):
                await recorder.stop()


def tidy(hub: LoopHub, *, attached: int) -> bool:
    """Whether a hub remembers no more than it has to while ``attached`` idle recorders run on its loop."""
    runs = [run for run in (*hub._attached, *hub.rounds) if isinstance(run, Run)]
    alive = {run.inbox for run in runs}
    return (
        len(runs) == attached
        and not hub._calls
        and set(hub._timetable._wanted) <= alive
        and len(hub._timetable._due) <= 2 * len(hub._timetable._wanted) + LEFT_OVER
    )


# --- recorders come and go -----------------------------------------------------------------------


def test_recorders_created_and_removed(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """A recorder that was removed has never been there."""
    done = 0
    with MetricsRuntime(namespace="t", **backend) as runtime:
        for rounds in halves(effort(60, 16_000)):
            for n in range(rounds):
                recorder = runtime.create_recorder(f"r{n % 7}", factory=(MetricsRecorder, Journal, Plain)[n % 3])
                recorder.register_metric(Count())
                recorder.register_metric(Count("another"))
                recorder.register_event(Tick(n))
                assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}
                assert runtime.stop_and_remove_recorder(f"r{n % 7}") is recorder
                done += 1
        supervisor = supervisor_of(runtime)
        assert (supervisor._recorders, supervisor._creations, supervisor._removing) == ({}, {}, {})
        until(lambda: tidy(supervisor.engine_at_work().hub, attached=0))
    tally("recorders created and removed", done)


@pytest.mark.anyio
async def test_recorders_started_and_stopped_by_hand(effort: Effort, tally: Tally) -> None:
    """Nor has one that was made by hand, in a block or without, or dropped before it was started."""
    done = 0
    for rounds in halves(effort(40, 4000)):
        for n in range(rounds):
            MetricsRecorder("never started").register_metric(Count())
            async with MetricsRecorder("in a block") as recorder:
                recorder.register_metric(Count())
                recorder.register_event(Tick(n))
            by_event = Journal("started by an event")
            by_event.register_metric(Count())
            by_event.register_event(Tick(n))
            assert (await by_event.aget_metric_snapshots())["count"]["dimensions"] == {"total": 1}
            assert (await by_event.stop()).success
            done += 3
        await auntil(lambda: tidy(hub_of(current_loop()), attached=0))
    tally("recorders created and removed", done)


@pytest.mark.anyio
async def test_creations_that_come_to_nothing(effort: Effort, tally: Tally) -> None:
    """A factory or hook that raises, a creation given up: nothing is left of the recorder, and the id is free."""
    done = 0

    class Reluctant(Journal):
        async def _on_starting(self) -> None:
            raise ArithmeticError(self.entity_id)

    def broken(entity_id: str) -> MetricsRecorder:
        raise ArithmeticError(entity_id)

    async with MetricsRuntime(namespace="t", backend=current_loop().backend) as runtime:
        supervisor = supervisor_of(runtime)
        hub = supervisor.home.hub()
        for rounds in halves(effort(40, 2000)):
            for _ in range(rounds):
                for factory in (Reluctant, broken):
                    with pytest.raises(MetricsRuntimeRecorderStartupError):
                        await runtime.acreate_recorder("x", factory=factory)
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await runtime.acreate_recorder("x")
                await auntil(lambda: not (supervisor._creations or supervisor._recorders or hub.rounds))
                done += 3
    tally("creations that came to nothing", done)


@pytest.mark.anyio
async def test_restarts(home: str, effort: Effort, tally: Tally) -> None:
    """A recorder that has been restarted is as large as one that has not."""
    done = 0
    async with hosted(home, Journal, queue_max_size=4) as recorder:
        recorder.register_metric(Count())
        assert (await recorder.start()).success
        for rounds in halves(effort(60, 10_000)):
            for n in range(rounds):
                recorder.register_event(Tick(n))
                if n % 2:
                    assert (await recorder.flush()).success
                assert (await recorder.stop()).success
                with pytest.raises(RecorderInvalidStateError):
                    recorder.register_event(Tick(n))
                assert (await recorder.start()).success
                done += 1
            recorder.log.clear()
            await auntil(lambda: tidy(core_of(recorder).home.hub(), attached=1))
    assert recorder.statistics().processed == done
    tally("restarts", done)


def raise_arithmetic_error() -> None:
    raise ArithmeticError


@untraced
def test_runtimes_come_and_go(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """Thread, loop, pipes and portal go with their runtime, however it ends."""
    done = 0
    broken = {"loop_factory": None if backend["backend"] == "trio" else raise_arithmetic_error}
    for rounds in halves(effort(10, 500)):
        for n in range(rounds):
            with MetricsRuntime(namespace="t", **backend) as runtime:
                runtime.create_recorder("x").register_event(Tick(n))
            MetricsRuntime(namespace="t", **backend).shutdown()
            wrong = MetricsRuntime(namespace="t", backend=backend["backend"], backend_options=broken)
            with pytest.raises(MetricsRuntimeStartupError):
                wrong.start()
            done += 1
    tally("runtimes started and shut down", done)


def test_loops_come_and_go(anyio_backend: tuple[str, dict[str, Any]], effort: Effort, tally: Tally) -> None:
    """So does whatever a recorder made by hand has on a loop, if it was stopped or not, and even after the loop's end."""
    done = 0

    async def well_kept() -> None:
        async with MetricsRecorder("x") as recorder:
            recorder.register_event(Tick())

    async def forgotten() -> MetricsRecorder:
        recorder = Journal("x")
        recorder.register_metric(Count())
        assert (await recorder.start()).success
        recorder.register_event(Tick())
        return recorder

    async def never_started() -> MetricsRecorder:
        return MetricsRecorder("x")

    name, options = anyio_backend
    for rounds in halves(effort(10, 1000)):
        for _ in range(rounds):
            anyio.run(well_kept, backend=name, backend_options=options)
            for main in (forgotten, never_started):
                recorder = anyio.run(main, backend=name, backend_options=options)
                with pytest.raises(RecorderInvalidStateError):
                    recorder.register_event(Tick())
                assert balanced(recorder.statistics())
            done += 3
    tally("event loops begun and ended", done)


# --- things go wrong -----------------------------------------------------------------------------


class Spoilt(Count):
    """Raises an exception of a new class, with a new message, on every event."""

    def __init__(self, name: str = "spoilt") -> None:
        super().__init__(name)
        self._serial = 0

    def handle_event(self, event: MetricEvent) -> bool:
        self._serial += 1
        raise type(f"Spoilt{self._serial}", (Exception,), {})(self._serial)

    def snapshot(self) -> Mapping[str, Any]:
        raise type(f"Unshown{self._serial}", (Exception,), {})(self._serial)


@pytest.mark.parametrize("policy", [FailurePolicy.ISOLATE, FailurePolicy.QUARANTINE])
@pytest.mark.parametrize("kind", [Plain, Journal])
def test_metrics_that_fail(
    backend: dict[str, Any],
    policy: FailurePolicy,
    kind: type[Journal],
    monkeypatch: pytest.MonkeyPatch,
    effort: Effort,
    tally: Tally,
) -> None:
    """Failures never seen before are counted and logged, and then forgotten; so is a metric that was replaced."""
    monkeypatch.setattr(LimitedLog, "MAX_KINDS", 32)
    failures = 0
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", factory=kind, failure_policy=policy, quarantine_after=3)
        recorder.errors["changed"] = ArithmeticError()
        for rounds in halves(effort(40, 4000)):
            for n in range(rounds):
                recorder.errors["changed"] = ArithmeticError(n)
                recorder.register_metric(Spoilt())
                recorder.register_metric(Count())
                for _ in range(4):
                    recorder.register_event(Tick(n))
                assert "error" in recorder.get_metric_snapshots()["spoilt"]
            recorder.log.clear()
            assert len(core_of(recorder)._log._seen) <= 32
            core_of(recorder)._log._seen.clear()
        failures = recorder.statistics().metric_errors
    tally(f"failures of a metric under {policy.value}", failures)


def test_recorders_that_fail(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """A recorder under FAIL goes, and takes the exception with it, and whatever was pending."""
    done = 0
    with MetricsRuntime(namespace="t", **backend) as runtime:
        for rounds in halves(effort(40, 4000)):
            for n in range(rounds):
                recorder = runtime.create_recorder("x", failure_policy=FailurePolicy.FAIL)
                recorder.register_metric(Failing(ArithmeticError(n)))
                for _ in range(5):
                    try:
                        recorder.register_event(Tick(n))
                    except RecorderInvalidStateError:
                        break
                recorder.flush().wait(DEADLINE)
                with pytest.raises(MetricsRuntimeRecorderStopError):
                    runtime.stop_and_remove_recorder("x")
                assert balanced(recorder.statistics())
                done += 1
    tally(f"failures of a metric under {FailurePolicy.FAIL.value}", done)


FEW = 64
"""Event classes that are there at the same time."""


def test_event_classes_without_end(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch, effort: Effort, tally: Tally
) -> None:
    """A program that makes event classes as it goes does not leak them: a bounded number is remembered."""
    for module in ("_inbox", "_dispatch"):
        monkeypatch.setattr(f"mvx.common.metrics.{module}.MAX_KNOWN_CLASSES", 32)
    done = 0
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", failure_policy=FailurePolicy.QUARANTINE)
        recorder.register_metric(Count())
        core = core_of(recorder)
        # Multiples of what is remembered, so that each half ends with equally many.
        for rounds in halves(effort(128, 2560)):
            for n in range(rounds):
                base = MetricEvent if n % 2 else Tick
                kind = type(f"Event{n}", (base,), {"__slots__": (), "event_type": "made as we go"})
                recorder.register_event(kind())
                done += 1
                if n % FEW == FEW - 1:
                    # isinstance() asks every subclass of an abstract class that is still there.
                    del kind
                    assert recorder.flush().wait(DEADLINE).success
                    gc.collect(1)
            assert len(core.home.known) <= 32
            assert len(core.dispatcher._table.routes) <= 32
    tally("event classes made at run time", done)


@pytest.mark.anyio
@pytest.mark.parametrize("policy", list(OverflowPolicy))
async def test_overflow(policy: OverflowPolicy, effort: Effort, tally: Tally) -> None:
    """What found no room is let go of, and so is the error that said so."""
    done = 0
    async with hosted(
        "loop", Journal, queue_max_size=3, queue_overflow_policy=policy, block_timeout=0, linger=0
    ) as recorder:
        recorder.register_metric(Count())
        for rounds in halves(effort(30, 3000)):
            for n in range(rounds):
                recorder.changed = Gate()
                for _ in range(20):
                    try:
                        recorder.register_event(Tick(n))
                    except RecorderQueueOverflowError:
                        pass
                    done += 1
                recorder.changed.open()
                assert (await recorder.flush()).success
            recorder.log.clear()
    assert balanced(recorder.statistics())
    tally("events offered to a full inbox", done)


@untraced
def test_blocked_threads_that_give_up(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """A thread that finds no room in time leaves no place in the line behind, nor do the threads themselves."""
    done = 0
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=Journal, queue_max_size=1, queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=0.0001
        )
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        assert recorder.changed.reached.wait(DEADLINE)

        def give_up() -> None:
            with pytest.raises(RecorderQueueOverflowError):
                recorder.register_event(Tick())

        for rounds in halves(effort(20, 1000)):
            for _ in range(rounds):
                run_threads(give_up, give_up)
                done += 2
            assert not core_of(recorder).inbox.line
        recorder.changed.open()
    tally("waits for room given up", done)


# --- waits are given up --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_waits_for_room_that_are_cancelled(home: str, effort: Effort, tally: Tally) -> None:
    """A cancelled ``aregister_event`` leaves nothing behind in a recorder that stands still."""
    done = 0
    async with hosted(home, Journal, queue_max_size=1) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        await auntil(recorder.changed.reached.is_set)
        line = core_of(recorder).inbox.line
        for rounds in halves(effort(20, 2000)):
            for n in range(rounds):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(recorder.aregister_event, Tick(n))
                    await auntil(lambda: len(line) == 5)
                    group.cancel_scope.cancel()
                with anyio.move_on_after(0):
                    await recorder.aregister_event(Tick(n))
                done += 6
            assert not line
        assert recorder.statistics().accepted == 1
        recorder.changed.open()
    tally("waits for room given up", done)


@pytest.mark.anyio
async def test_waits_for_an_operation_that_are_given_up(home: str, effort: Effort, tally: Tally) -> None:
    """Time-outs and cancellations leave no waiter behind in a handle, whose operation goes on."""
    done = 0
    async with hosted(home, Journal) as recorder:
        recorder.starting = Gate()
        start = recorder.start()
        await auntil(recorder.starting.reached.is_set)

        def give_up_waiting() -> None:
            with pytest.raises(TimeoutError):
                start.wait(0)
            with pytest.raises(TimeoutError):
                start.wait(0.0001)

        async def wait() -> None:
            await start

        for rounds in halves(effort(20, 2000)):
            for _ in range(rounds):
                await anyio.to_thread.run_sync(give_up_waiting)
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(wait)
                    await auntil(lambda: len(start._outcome._waiters) == 5)
                    group.cancel_scope.cancel()
                done += 7
            assert not start._outcome._waiters
        recorder.starting.open()
        assert (await start).success
    tally("waits for an operation given up", done)


@pytest.mark.anyio
async def test_snapshots_that_are_not_answered(home: str, effort: Effort, tally: Tally) -> None:
    """Scraping a recorder whose hook hangs for a day leaves nothing behind: nobody waits for those answers any more."""
    done = 0
    async with hosted(home, Journal, drain_timeout=0.0001) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        await auntil(recorder.changed.reached.is_set)

        def scrape() -> None:
            with pytest.raises(RecorderTimeoutError):
                recorder.get_metric_snapshots()

        for rounds in halves(effort(30, 3000)):
            for _ in range(rounds):
                await anyio.to_thread.run_sync(scrape)
                with pytest.raises(RecorderTimeoutError):
                    await recorder.aget_metric_snapshots()
                try:
                    with anyio.move_on_after(0):
                        await recorder.aget_metric_snapshots()
                except RecorderTimeoutError:
                    pass  # which of the two is first is a matter of microseconds
                done += 3
        recorder.changed.open()
        await recorder.flush()
    tally("snapshots given up", done)


# --- busy recorders ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_many_recorders_doze_and_wake(effort: Effort, tally: Tally) -> None:
    """Lingers of all lengths, begun, cut short and run out, on recorders that stay and on ones that go."""
    done = 0
    stay = [MetricsRecorder(f"x{n}", linger=(0.0, 0.0001, 0.0005, 3600.0)[n % 4]) for n in range(20)]
    for recorder in stay:
        recorder.register_metric(Count())
        assert (await recorder.start()).success
    for rounds in halves(effort(30, 3000)):
        for n in range(rounds):
            for recorder in stay[n % 3 :: 3]:
                recorder.register_event(Tick(n))
                done += 1
            async with MetricsRecorder("goes", linger=3600.0) as recorder:
                recorder.register_event(Tick(n))
                await anyio.sleep(0)
            if n % 5 == 0:
                await stay[3].flush()
        for recorder in stay:
            assert (await recorder.flush()).success
        await auntil(lambda: tidy(hub_of(current_loop()), attached=len(stay)))
    for recorder in stay:
        assert (await recorder.stop()).success
    tally("lingers", done)


@untraced
def test_threads_come_and_go(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """Emitting and reading leaves nothing behind in a thread, nor anything of the thread."""
    done = 0
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        recorder.register_metric(Count())

        def use() -> None:
            recorder.register_event(Tick())
            recorder.get_metric_snapshots()
            recorder.statistics()
            assert recorder.flush().wait(DEADLINE).success

        for rounds in halves(effort(20, 2000)):
            for _ in range(rounds):
                run_threads(use, use)
                done += 2
    tally("threads that emitted and ended", done)


# --- what is let go of ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Traced(MetricEvent):
    """An event that can be watched."""

    n: int = 0

    @property
    def event_type(self) -> str:
        return "test.traced"


def gone(*references: weakref.ref[Any]) -> bool:
    """Whether none of the objects is there any more."""
    gc.collect()
    return all(reference() is None for reference in references)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Plain, Journal])
@pytest.mark.parametrize("end", ["flushed", "stopped", "failed", "abandoned"])
async def test_an_event_is_let_go_of(home: str, kind: type[Journal], end: str) -> None:
    """No event is kept alive once it has been processed or abandoned, as long as the recorder may live on."""
    references: list[weakref.ref[Traced]] = []

    def emit(recorder: MetricsRecorder, n: int) -> None:
        event = Traced(n)
        references.append(weakref.ref(event))
        recorder.register_event(event)

    class Breaks(Seen):
        """Fails on the first event, and remembers none."""

        def handle_event(self, event: MetricEvent) -> bool:
            if end == "failed":
                raise SystemExit
            return True

    async with hosted(home, kind, failure_policy=FailurePolicy.FAIL, drain_timeout=0.0001, linger=0) as recorder:
        recorder.register_metric(Breaks())
        recorder.starting = Gate()
        recorder.changed = Gate(is_open=end != "abandoned")
        recorder.start()
        for n in range(10):
            emit(recorder, n)
        recorder.starting.open()
        match end:
            case "flushed":
                assert (await recorder.flush()).success
            case "failed":
                await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)
            case _:
                await auntil(lambda: recorder.get_status() is RecorderState.RUNNING)
                await recorder.stop()
        assert balanced(recorder.statistics())
        # The first one may be held by the traceback of the exception that it caused.
        kept = references[1:] if end == "failed" else references
        await auntil(lambda: gone(*kept))


@pytest.mark.anyio
async def test_the_context_of_the_first_emitter_is_let_go_of(home: str) -> None:
    """A recorder that an event has started lives on in a context of its own, and keeps no variable of the emitter's."""

    class Request:
        pass

    variable: contextvars.ContextVar[Request] = contextvars.ContextVar("variable")
    references: list[weakref.ref[Request]] = []

    async def handle_request(recorder: MetricsRecorder) -> None:
        request = Request()
        variable.set(request)
        references.append(weakref.ref(request))
        recorder.register_event(Tick())
        assert (await recorder.flush()).success

    async with hosted(home, Journal) as recorder:
        recorder.register_metric(Count())
        async with anyio.create_task_group() as group:
            group.start_soon(handle_request, recorder)
        assert recorder.get_status() is RecorderState.RUNNING
        await auntil(lambda: gone(*references))


def test_a_recorder_is_let_go_of(backend: dict[str, Any]) -> None:
    """A removed recorder, and the recorders of a runtime that was shut down, end with the last reference to them."""
    references: list[weakref.ref[Any]] = []

    def use(runtime: MetricsRuntime, recorder_id: str) -> None:
        recorder = runtime.create_recorder(recorder_id, factory=Journal)
        metric = Count()
        recorder.register_metric(metric)
        recorder.register_event(Tick())
        references.extend((weakref.ref(recorder), weakref.ref(core_of(recorder)), weakref.ref(metric)))

    def use_runtime() -> None:
        with MetricsRuntime(namespace="t", **backend) as runtime:
            use(runtime, "removed")
            runtime.stop_and_remove_recorder("removed")
            until(lambda: gone(*references))  # the loop in the other thread lets go a little later
            use(runtime, "kept to the end")
            references.append(weakref.ref(runtime))

    use_runtime()
    until(lambda: gone(*references))


# --- what one costs ------------------------------------------------------------------------------


def test_what_an_idle_recorder_costs(backend: dict[str, Any], effort: Effort, tally: Tally) -> None:
    """A few kilobytes; no task, no thread, no open file, and nothing at all when it is gone.

    ``python -m benchmarks.bench_memory asyncio`` measures what it is on your machine: some 5 kB.
    """
    count = effort(100, 10_000)
    with MetricsRuntime(namespace="t", **backend) as runtime:

        def create(prefix: str, number: int) -> None:
            for n in range(number):
                recorder = runtime.create_recorder(f"{prefix}{n}")
                recorder.register_metric(Count())
                recorder.register_event(Tick())
                assert recorder.flush().wait(DEADLINE).success

        create("warm-up", 10)
        gc.collect()
        tracemalloc.start()
        try:
            before, traced = take_census(), tracemalloc.get_traced_memory()[0]
            busy = runtime.portal.call(tasks)
            create("idle", count)
            after = take_census()
            assert (tracemalloc.get_traced_memory()[0] - traced) / count < 16 * 1024
        finally:
            tracemalloc.stop()
        assert (after.objects.total() - before.objects.total()) / count < 150
        assert runtime.portal.call(tasks) == busy
        grown = after.others - before.others
        assert grown == {"what a fork resets": count}
    tally("idle recorders at once", count)
