"""MetricsRuntime: its life, its registry, and what it does to the loops and threads that use it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeError,
    MetricsRuntimeInvalidStateError,
    MetricsRuntimeRecorderAlreadyExistsError,
    MetricsRuntimeRecorderNotFoundError,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeShutdownError,
    MetricsRuntimeStartupError,
    MetricsRuntimeState,
    MetricsRuntimeWouldDeadlockError,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderOnStoppedHookFailedError,
    RecorderState,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._engine import Engine
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
from tests.conftest import BACKENDS
from tests.support import DEADLINE, Count, Gate, Journal, Tick, auntil, balanced, until

S = MetricsRuntimeState


@pytest.fixture
def runtime(backend: dict[str, Any]) -> Iterator[MetricsRuntime]:
    with MetricsRuntime(namespace="t", **backend) as runtime:
        yield runtime


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads to block in."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def engine_of(runtime: MetricsRuntime) -> Engine:
    engine = supervisor_of(runtime)._engine
    assert engine is not None
    return engine


def is_being_created(runtime: MetricsRuntime, recorder_id: str) -> bool:
    return recorder_id in supervisor_of(runtime)._creations


def waiters(runtime: MetricsRuntime) -> int:
    """How many wait for the runtime's end."""
    return len(engine_of(runtime).ended._waiters)


def gated(gate: Gate, hook: str) -> Callable[..., Journal]:
    """A factory of recorders that are held up in ``hook``."""

    def factory(entity_id: str) -> Journal:
        recorder = Journal(entity_id)
        setattr(recorder, hook, gate)
        return recorder

    return factory


def failing(hook: str, error: BaseException) -> Callable[..., Journal]:
    """A factory of recorders whose ``hook`` raises."""

    def factory(entity_id: str) -> Journal:
        recorder = Journal(entity_id)
        recorder.errors[hook] = error
        return recorder

    return factory


async def create(
    runtime: MetricsRuntime, recorder_id: str, factory: Callable[..., MetricsRecorder] = MetricsRecorder
) -> None:
    """Create a recorder in a task of its own."""
    await runtime.acreate_recorder(recorder_id, factory=factory)


class SlowStart:
    """Options for a backend whose loop does not come up before the test says so."""

    def __init__(self, backend: str) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        if backend == "trio":
            self.options: dict[str, Any] = {"backend": "trio", "backend_options": {"instruments": [self]}}
        else:
            self.options = {"backend": "asyncio", "backend_options": {"loop_factory": self._loop}}

    def before_run(self) -> None:
        """As a trio instrument."""
        self.reached.set()
        assert self.go_on.wait(DEADLINE)

    def _loop(self) -> asyncio.AbstractEventLoop:
        self.before_run()
        return asyncio.new_event_loop()


@pytest.fixture(params=["asyncio", "trio"])
def slow(request: pytest.FixtureRequest) -> Iterator[SlowStart]:
    slow = SlowStart(request.param)
    yield slow
    slow.go_on.set()


# --- start ---------------------------------------------------------------------------------------


def test_a_new_runtime_does_nothing(backend: dict[str, Any]) -> None:
    """Neither a thread nor a loop before start()."""
    threads = set(threading.enumerate())
    runtime = MetricsRuntime(namespace="t", **backend)
    assert runtime.get_status() is S.VIRGIN
    assert set(threading.enumerate()) <= threads  # one that trio has kept for later may end meanwhile
    assert (runtime.namespace, runtime.backend) == ("t", backend["backend"])


def test_start_and_shutdown(backend: dict[str, Any]) -> None:
    """VIRGIN, RUNNING, CLOSED; one daemon thread in between and none afterwards."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    assert runtime.get_status() is S.RUNNING
    thread = engine_of(runtime).thread
    assert thread.is_alive()
    assert thread.daemon
    runtime.shutdown()
    assert runtime.get_status() is S.CLOSED
    assert not thread.is_alive()


def test_start_is_a_no_op_when_running(runtime: MetricsRuntime) -> None:
    """The same thread goes on, with its recorders."""
    engine = engine_of(runtime)
    runtime.create_recorder("x")
    runtime.start()
    assert engine_of(runtime) is engine
    assert runtime.list_recorder_ids() == ("x",)


@pytest.mark.anyio
async def test_astart_is_a_no_op_when_running(backend: dict[str, Any]) -> None:
    """The async form alike."""
    async with MetricsRuntime(namespace="t", **backend) as runtime:
        engine = engine_of(runtime)
        await runtime.astart()
        assert engine_of(runtime) is engine


def test_a_closed_runtime_cannot_start_again(backend: dict[str, Any]) -> None:
    """Never restarted: the error names both states."""
    runtime = MetricsRuntime(namespace="t", **backend)
    with runtime:
        pass
    with pytest.raises(MetricsRuntimeInvalidStateError, match=r"start\(\) .* 'CLOSED'") as caught:
        runtime.start()
    assert dict(caught.value.details) == {"runtime_state": "CLOSED", "expected_states": ("VIRGIN", "RUNNING")}
    assert runtime.get_status() is S.CLOSED


def test_a_failed_runtime_cannot_start_again() -> None:
    """A start that failed is final, too."""
    runtime = MetricsRuntime(namespace="t", backend="trio", backend_options={"nonsense": 1})
    with pytest.raises(MetricsRuntimeStartupError):
        runtime.start()
    assert runtime.get_status() is S.FAILURE
    with pytest.raises(MetricsRuntimeInvalidStateError, match="'FAILURE'"):
        runtime.start()
    runtime.shutdown()
    assert runtime.get_status() is S.FAILURE


def test_while_starting_the_others_see_the_state(slow: SlowStart, pool: ThreadPoolExecutor) -> None:
    """Of concurrent starts one starts; until it has, everything else is refused."""
    runtime = MetricsRuntime(namespace="t", **slow.options)
    first = pool.submit(runtime.start)
    assert slow.reached.wait(DEADLINE)
    assert runtime.get_status() is S.STARTING
    for call in (runtime.start, runtime.shutdown, runtime.list_recorder_ids, lambda: runtime.create_recorder("x")):
        with pytest.raises(MetricsRuntimeInvalidStateError, match="'STARTING'"):
            call()
    slow.go_on.set()
    first.result(DEADLINE)
    assert runtime.get_status() is S.RUNNING
    runtime.start()
    runtime.shutdown()


def test_many_starts_at_once(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """One thread comes of it; each start returns, or says that another one is at it."""
    for _ in range(20):
        runtime = MetricsRuntime(namespace="many", **backend)
        barrier = threading.Barrier(4)

        def start(runtime: MetricsRuntime = runtime, barrier: threading.Barrier = barrier) -> MetricsRuntimeState:
            barrier.wait(DEADLINE)
            runtime.start()
            return runtime.get_status()

        futures = [pool.submit(start) for _ in range(4)]
        outcomes: list[Any] = [future.exception(DEADLINE) or future.result() for future in futures]
        assert S.RUNNING in outcomes
        for outcome in outcomes:
            assert outcome is S.RUNNING or isinstance(outcome, MetricsRuntimeInvalidStateError)
        assert sum(thread.name == "mvx.common.metrics many" for thread in threading.enumerate()) == 1
        runtime.shutdown()


def test_a_start_that_takes_too_long_fails(slow: SlowStart) -> None:
    """With a TimeoutError as cause; the late thread does not stay behind."""
    runtime = MetricsRuntime(namespace="t", startup_timeout=0.05, **slow.options)
    with pytest.raises(MetricsRuntimeStartupError, match=r"0\.05 s") as caught:
        runtime.start()
    assert isinstance(caught.value.cause, TimeoutError)
    assert runtime.get_status() is S.FAILURE
    slow.go_on.set()
    thread = engine_of(runtime).thread
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert runtime.get_status() is S.FAILURE


@pytest.mark.anyio
async def test_astart_does_not_block_the_calling_loop(slow: SlowStart) -> None:
    """The loop turns while the thread comes up."""
    runtime = MetricsRuntime(namespace="t", **slow.options)
    async with anyio.create_task_group() as group:
        group.start_soon(runtime.astart)
        await auntil(slow.reached.is_set)
        await turn_around()
        assert runtime.get_status() is S.STARTING
        slow.go_on.set()
    assert runtime.get_status() is S.RUNNING
    await runtime.ashutdown()


async def turn_around() -> None:
    """Go round the calling loop many times."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


def test_a_thread_that_cannot_be_started_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's refusal is the cause, and nothing stays behind."""
    refusal = RuntimeError("can't start new thread")

    def refuse(_thread: threading.Thread) -> None:
        raise refusal

    monkeypatch.setattr(threading.Thread, "start", refuse)
    runtime = MetricsRuntime(namespace="t")
    with pytest.raises(MetricsRuntimeStartupError) as caught:
        runtime.start()
    assert caught.value.cause is refusal
    assert runtime.get_status() is S.FAILURE
    runtime.shutdown()


# --- shutdown ------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["shutdown", "ashutdown"])
async def test_shutdown_from_virgin(form: str, backend: dict[str, Any]) -> None:
    """Straight to CLOSED, without a thread, and no start afterwards."""
    runtime = MetricsRuntime(namespace="t", **backend)
    if form == "shutdown":
        runtime.shutdown()
    else:
        await runtime.ashutdown()
    assert runtime.get_status() is S.CLOSED
    assert supervisor_of(runtime)._engine is None
    with pytest.raises(MetricsRuntimeInvalidStateError):
        runtime.start()


def test_shutdown_is_idempotent(backend: dict[str, Any]) -> None:
    """Again and again, also after ``with``."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        runtime.shutdown()
        runtime.shutdown()
        assert runtime.get_status() is S.CLOSED
    runtime.shutdown()
    assert runtime.get_status() is S.CLOSED


def test_a_second_shutdown_waits_for_the_first(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """Both return once everything has ended, not before."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorder = runtime.create_recorder("x", factory=gated(gate, "stopped"))
    first = pool.submit(runtime.shutdown)
    assert gate.reached.wait(DEADLINE)
    assert runtime.get_status() is S.STOPPING
    second = pool.submit(runtime.shutdown)
    until(lambda: waiters(runtime) == 2)
    assert not first.done()
    assert not second.done()
    gate.open()
    for future in (first, second):
        future.result(DEADLINE)
        assert runtime.get_status() is S.CLOSED
    assert recorder.log[-1] == "stopped"


@pytest.mark.anyio
async def test_a_second_ashutdown_waits_for_the_first(backend: dict[str, Any]) -> None:
    """The async form alike, and the calling loop is not blocked meanwhile."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    await runtime.astart()
    await runtime.acreate_recorder("x", factory=gated(gate, "stopped"))
    ended: list[MetricsRuntimeState] = []

    async def shut_down() -> None:
        await runtime.ashutdown()
        ended.append(runtime.get_status())

    async with anyio.create_task_group() as group:
        group.start_soon(shut_down)
        group.start_soon(shut_down)
        await auntil(gate.reached.is_set)
        await turn_around()
        assert (ended, runtime.get_status()) == ([], S.STOPPING)
        gate.open()
    assert ended == [S.CLOSED, S.CLOSED]


@pytest.mark.anyio
async def test_cancelling_ashutdown_does_not_cancel_the_shutdown(backend: dict[str, Any]) -> None:
    """The await is given up, the shutdown goes on, and another one waits for it."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    await runtime.astart()
    await runtime.acreate_recorder("x", factory=gated(gate, "stopped"))
    async with anyio.create_task_group() as group:
        group.start_soon(runtime.ashutdown)
        await auntil(gate.reached.is_set)
        group.cancel_scope.cancel()
    assert runtime.get_status() is S.STOPPING
    gate.open()
    await runtime.ashutdown()
    assert runtime.get_status() is S.CLOSED


CALLS: list[tuple[str, Callable[[MetricsRuntime], object]]] = [
    ("create_recorder", lambda runtime: runtime.create_recorder("y")),
    ("get_recorder", lambda runtime: runtime.get_recorder("x")),
    ("try_get_recorder", lambda runtime: runtime.try_get_recorder("x")),
    ("list_recorder_ids", lambda runtime: runtime.list_recorder_ids()),
    ("stop_recorder", lambda runtime: runtime.stop_recorder("x")),
    ("stop_and_remove_recorder", lambda runtime: runtime.stop_and_remove_recorder("x")),
    ("portal", lambda runtime: runtime.portal),
]
each_call = pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])


@each_call
def test_a_call_before_the_start_is_refused(backend: dict[str, Any], call: Callable[[MetricsRuntime], object]) -> None:
    """Everything but start and shutdown needs RUNNING, and says so."""
    runtime = MetricsRuntime(namespace="t", **backend)
    with pytest.raises(MetricsRuntimeInvalidStateError, match="'VIRGIN', only in 'RUNNING'"):
        call(runtime)
    assert runtime.get_status() is S.VIRGIN


@each_call
def test_a_call_after_the_end_is_refused(backend: dict[str, Any], call: Callable[[MetricsRuntime], object]) -> None:
    """The registry ends with the runtime."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        runtime.create_recorder("x")
    with pytest.raises(MetricsRuntimeInvalidStateError, match="'CLOSED', only in 'RUNNING'"):
        call(runtime)


def test_calls_during_a_shutdown_are_refused(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """STOPPING takes no more recorders and gives none out."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    runtime.create_recorder("x", factory=gated(gate, "stopped"))
    shutdown = pool.submit(runtime.shutdown)
    assert gate.reached.wait(DEADLINE)
    calls: list[Callable[[], object]] = [runtime.start, *(functools.partial(call, runtime) for _, call in CALLS)]
    for call in calls:
        with pytest.raises(MetricsRuntimeInvalidStateError, match="'STOPPING'"):
            call()
    gate.open()
    shutdown.result(DEADLINE)


def test_a_shutdown_stops_the_recorders_all_at_once(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """Each is in its last hook before any has left it."""
    gates = [Gate() for _ in range(5)]
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorders = [runtime.create_recorder(f"r{n}", factory=gated(gate, "stopped")) for n, gate in enumerate(gates)]
    shutdown = pool.submit(runtime.shutdown)
    for gate in gates:
        assert gate.reached.wait(DEADLINE)
    for gate in gates:
        gate.open()
    shutdown.result(DEADLINE)
    assert {recorder.get_status() for recorder in recorders} == {RecorderState.STOPPED}


def test_a_shutdown_drains(backend: dict[str, Any]) -> None:
    """Every event emitted before is measured, in every recorder."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorders = [runtime.create_recorder(f"r{n}") for n in range(10)]
        counts = [Count() for _ in recorders]
        for recorder, count in zip(recorders, counts, strict=True):
            recorder.register_metric(count)
        for n in range(500):
            for recorder in recorders:
                recorder.register_event(Tick(n))
    assert [count.total for count in counts] == [500] * 10
    assert all(balanced(recorder.statistics()) for recorder in recorders)


def test_a_recorder_can_be_read_after_the_shutdown(backend: dict[str, Any]) -> None:
    """Snapshots, metrics, statistics and state stay; new events and operations are refused."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        recorder.register_metric(count := Count())
        recorder.register_event(Tick())
    assert recorder.get_status() is RecorderState.STOPPED
    assert recorder.get_metric_snapshots() == {"count": {"name": "count", "dimensions": {"total": 1}}}
    assert list(recorder.iter_metrics()) == [count]
    assert recorder.statistics().processed == 1
    with pytest.raises(RecorderInvalidStateError):
        recorder.register_event(Tick())
    result = recorder.start().wait(DEADLINE)
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}


@pytest.mark.anyio
async def test_a_recorder_can_be_read_after_the_shutdown_from_a_loop(backend: dict[str, Any]) -> None:
    """The async form of the snapshots alike."""
    async with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = await runtime.acreate_recorder("x")
        recorder.register_metric(Count())
        recorder.register_event(Tick())
    assert (await recorder.aget_metric_snapshots())["count"]["dimensions"] == {"total": 1}


BOOM = ValueError("boom")


def test_a_recorder_that_fails_to_stop_does_not_stop_the_others(backend: dict[str, Any]) -> None:
    """They are drained and stopped; the error names the failed one and holds its error; the state is FAILURE."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    good = [runtime.create_recorder(name, factory=Journal) for name in ("first", "last")]
    runtime.create_recorder("bad", factory=failing("stopped", BOOM))
    counts = [Count() for _ in good]
    for recorder, count in zip(good, counts, strict=True):
        recorder.register_metric(count)
        recorder.register_event(Tick())
    with pytest.raises(MetricsRuntimeShutdownError, match="'bad'") as caught:
        runtime.shutdown()
    assert caught.value.details["failed_recorder_ids"] == ("bad",)
    error = caught.value.details["recorder_errors"]["bad"]
    assert isinstance(error, RecorderOnStoppedHookFailedError)
    assert error.cause is BOOM
    assert runtime.get_status() is S.FAILURE
    assert [count.total for count in counts] == [1, 1]
    assert [recorder.get_status() for recorder in good] == [RecorderState.STOPPED] * 2
    assert not engine_of(runtime).thread.is_alive()
    # It was said, and is not said again.
    runtime.shutdown()


def test_every_waiting_shutdown_gets_the_error(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """An instance each, because two threads are going to raise it."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorder = runtime.create_recorder("bad", factory=gated(gate, "stopped"))
    recorder.errors["stopped"] = BOOM
    futures = [pool.submit(runtime.shutdown) for _ in range(2)]
    until(lambda: waiters(runtime) == 2)
    gate.open()
    first, second = (future.exception(DEADLINE) for future in futures)
    assert isinstance(first, MetricsRuntimeShutdownError)
    assert isinstance(second, MetricsRuntimeShutdownError)
    assert first is not second
    assert first.details["failed_recorder_ids"] == second.details["failed_recorder_ids"] == ("bad",)


def test_a_recorder_that_was_stopped_before_is_no_failure(backend: dict[str, Any]) -> None:
    """Having nothing to stop is fine."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        runtime.create_recorder("x")
        runtime.stop_recorder("x")
    assert runtime.get_status() is S.CLOSED


def test_a_shutdown_gives_up_creations_under_way(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """Whoever waits for one is told; a hook that hangs does not hold the shutdown up."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    creation: Future[Any] = pool.submit(runtime.create_recorder, "x", factory=gated(gate, "starting"))
    assert gate.reached.wait(DEADLINE)
    runtime.shutdown()
    assert runtime.get_status() is S.CLOSED
    assert isinstance(creation.exception(DEADLINE), MetricsRuntimeRecorderStartupError)


# --- blocks --------------------------------------------------------------------------------------


def test_a_block_starts_and_shuts_down(backend: dict[str, Any]) -> None:
    """And gives the runtime."""
    runtime = MetricsRuntime(namespace="t", **backend)
    with runtime as entered:
        assert entered is runtime
        assert runtime.get_status() is S.RUNNING
    assert runtime.get_status() is S.CLOSED


@pytest.mark.anyio
async def test_an_async_block_starts_and_shuts_down(backend: dict[str, Any]) -> None:
    """The same on a loop, of whatever backend."""
    runtime = MetricsRuntime(namespace="t", **backend)
    async with runtime as entered:
        assert entered is runtime
        assert runtime.get_status() is S.RUNNING
    assert runtime.get_status() is S.CLOSED


@pytest.mark.anyio
async def test_an_async_block_shuts_down_when_cancelled(backend: dict[str, Any]) -> None:
    """What was emitted is measured all the same."""
    runtime = MetricsRuntime(namespace="t", **backend)
    count = Count()
    with anyio.CancelScope() as scope:
        async with runtime:
            recorder = await runtime.acreate_recorder("x")
            recorder.register_metric(count)
            recorder.register_event(Tick())
            scope.cancel()
            await anyio.sleep_forever()
    assert runtime.get_status() is S.CLOSED
    assert count.total == 1


def test_an_error_of_the_block_is_not_hidden(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """It comes out as it is; that the shutdown failed, too, is in the log."""
    with pytest.raises(KeyError, match="mine"), MetricsRuntime(namespace="t", **backend) as runtime:
        runtime.create_recorder("bad", factory=failing("stopped", BOOM))
        raise KeyError("mine")
    assert runtime.get_status() is S.FAILURE
    records = [record for record in caplog.records if "did not shut down cleanly" in record.getMessage()]
    assert len(records) == 1
    assert (vars(records[0])["namespace"], vars(records[0])["backend"]) == ("t", backend["backend"])


@pytest.mark.anyio
async def test_an_error_of_an_async_block_is_not_hidden(backend: dict[str, Any]) -> None:
    """The async form alike."""
    with pytest.raises(KeyError, match="mine"):
        async with MetricsRuntime(namespace="t", **backend) as runtime:
            await runtime.acreate_recorder("bad", factory=failing("stopped", BOOM))
            raise KeyError("mine")
    assert runtime.get_status() is S.FAILURE


@pytest.mark.anyio
async def test_a_failed_shutdown_comes_out_of_the_block(backend: dict[str, Any]) -> None:
    """Where nothing else is on its way, of either kind of block."""
    with pytest.raises(MetricsRuntimeShutdownError, match="'bad'"):
        async with MetricsRuntime(namespace="t", **backend) as runtime:
            await runtime.acreate_recorder("bad", factory=failing("stopped", BOOM))
    with (
        pytest.raises(MetricsRuntimeShutdownError, match="'bad'"),
        MetricsRuntime(namespace="t", **backend) as runtime,
    ):
        runtime.create_recorder("bad", factory=failing("stopped", BOOM))


# --- creating recorders --------------------------------------------------------------------------


def test_a_created_recorder_runs_in_the_runtimes_thread(runtime: MetricsRuntime) -> None:
    """Started before it is given out; hooks and metrics are at work in one place, the runtime's thread."""
    where: list[threading.Thread] = []

    class Where(MetricsRecorder):
        async def _on_starting(self) -> None:
            where.append(threading.current_thread())

        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            where.append(threading.current_thread())

        async def _on_stopped(self) -> None:
            where.append(threading.current_thread())

    recorder = runtime.create_recorder("x", factory=Where)
    assert type(recorder) is Where
    assert recorder.get_status() is RecorderState.RUNNING
    recorder.register_metric(Count())
    recorder.register_event(Tick())
    runtime.stop_recorder("x")
    assert where == [engine_of(runtime).thread] * 3
    assert where[0] is not threading.current_thread()


def test_a_recorder_takes_its_ids_from_the_call(runtime: MetricsRuntime) -> None:
    """``entity_id`` is the id unless given, and the id is stripped."""
    assert runtime.create_recorder("  a ").entity_id == "a"
    assert runtime.create_recorder("b", entity_id=" entity ").entity_id == "entity"
    assert runtime.list_recorder_ids() == ("a", "b")
    assert runtime.get_recorder(" a\n") is runtime.get_recorder("a")


def test_an_id_in_use_is_refused(runtime: MetricsRuntime) -> None:
    """Whatever the blanks around it; the one that is there goes on."""
    recorder = runtime.create_recorder("x")
    with pytest.raises(MetricsRuntimeRecorderAlreadyExistsError) as caught:
        runtime.create_recorder(" x ")
    assert caught.value.recorder_id == "x"
    assert runtime.get_recorder("x") is recorder
    assert recorder.get_status() is RecorderState.RUNNING


def test_an_id_being_created_is_refused(runtime: MetricsRuntime, pool: ThreadPoolExecutor) -> None:
    """At once, without waiting; and until it has started a recorder is not to be found."""
    gate = Gate()
    creation = pool.submit(runtime.create_recorder, "x", factory=gated(gate, "starting"))
    assert gate.reached.wait(DEADLINE)
    with pytest.raises(MetricsRuntimeRecorderAlreadyExistsError):
        runtime.create_recorder("x")
    assert runtime.try_get_recorder("x") is None
    assert runtime.list_recorder_ids() == ()
    for call in (runtime.get_recorder, runtime.stop_recorder, runtime.stop_and_remove_recorder):
        with pytest.raises(MetricsRuntimeRecorderNotFoundError):
            call("x")
    gate.open()
    assert creation.result(DEADLINE) is runtime.get_recorder("x")


def test_creations_do_not_wait_for_each_other(runtime: MetricsRuntime, pool: ThreadPoolExecutor) -> None:
    """A slow ``_on_starting`` holds its own recorder up and no other."""
    gate = Gate()
    slow = pool.submit(runtime.create_recorder, "slow", factory=gated(gate, "starting"))
    assert gate.reached.wait(DEADLINE)
    assert runtime.create_recorder("quick").get_status() is RecorderState.RUNNING
    assert not slow.done()
    gate.open()
    slow.result(DEADLINE)
    assert runtime.list_recorder_ids() == ("quick", "slow")


def test_of_many_creations_of_one_id_one_wins(runtime: MetricsRuntime, pool: ThreadPoolExecutor) -> None:
    """The others are told that it exists; nothing of theirs stays behind."""
    made: list[Journal] = []

    def factory(entity_id: str) -> Journal:
        made.append(Journal(entity_id))
        return made[-1]

    for n in range(10):
        made.clear()
        barrier = threading.Barrier(4)

        def create(recorder_id: str = f"r{n}", barrier: threading.Barrier = barrier) -> MetricsRecorder:
            barrier.wait(DEADLINE)
            return runtime.create_recorder(recorder_id, factory=factory)

        futures = [pool.submit(create) for _ in range(4)]
        outcomes: list[Any] = [future.exception(DEADLINE) or future.result() for future in futures]
        winners = [outcome for outcome in outcomes if isinstance(outcome, MetricsRecorder)]
        assert winners == made == [runtime.get_recorder(f"r{n}")]
        assert sum(isinstance(o, MetricsRuntimeRecorderAlreadyExistsError) for o in outcomes) == 3


@pytest.mark.parametrize("error", [BOOM, SystemExit(3), asyncio.CancelledError("odd"), KeyboardInterrupt()])
def test_a_factory_that_raises_frees_the_id(runtime: MetricsRuntime, error: BaseException) -> None:
    """The exception is the cause; whatever it was, the runtime and its other recorders go on."""
    other = runtime.create_recorder("other")

    def factory(entity_id: str) -> MetricsRecorder:
        raise error

    with pytest.raises(MetricsRuntimeRecorderStartupError, match="'x'") as caught:
        runtime.create_recorder("x", factory=factory)
    assert caught.value.cause is error
    assert caught.value.recorder_id == "x"
    assert runtime.list_recorder_ids() == ("other",)
    assert runtime.create_recorder("x").get_status() is RecorderState.RUNNING
    assert other.get_status() is RecorderState.RUNNING
    assert runtime.get_status() is S.RUNNING


@pytest.mark.parametrize("error", [BOOM, SystemExit(3)])
def test_an_on_starting_that_raises_frees_the_id(runtime: MetricsRuntime, error: BaseException) -> None:
    """The cause is what the hook raised; ``_on_stopped`` does not run for a start that never was."""
    made: list[Journal] = []

    def factory(entity_id: str) -> Journal:
        made.append(failing("starting", error)(entity_id))
        return made[-1]

    with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
        runtime.create_recorder("x", factory=factory)
    assert caught.value.cause is error
    assert made[0].log == ["starting"]
    assert made[0].get_status() is RecorderState.FAILURE
    assert runtime.list_recorder_ids() == ()
    assert runtime.create_recorder("x").get_status() is RecorderState.RUNNING


def test_an_on_starting_that_hangs_is_given_up(runtime: MetricsRuntime) -> None:
    """After ``startup_timeout``, with a TimeoutError as cause; the id is free again as soon as that has ended."""
    supervisor, gate = supervisor_of(runtime), Gate()
    patient = supervisor.options
    # Short for this one creation only: on a busy machine the next may take its time.
    supervisor.options = dataclasses.replace(patient, startup_timeout=0.05)
    with pytest.raises(MetricsRuntimeRecorderStartupError, match=r"startup_timeout of 0\.05 s") as caught:
        runtime.create_recorder("x", factory=gated(gate, "starting"))
    supervisor.options = patient
    assert isinstance(caught.value.cause, TimeoutError)
    until(lambda: not is_being_created(runtime, "x"))
    assert runtime.create_recorder("x").get_status() is RecorderState.RUNNING
    assert runtime.list_recorder_ids() == ("x",)


class WithPublisher(MetricsRecorder):
    """As in the documentation: a keyword of its own, and none of the base class's."""

    def __init__(self, entity_id: str, *, publisher: str) -> None:
        super().__init__(entity_id)
        self.publisher = publisher


class PassingOn(MetricsRecorder):
    """Takes what comes."""

    def __init__(self, entity_id: str, **options: Any) -> None:
        self.given = options
        super().__init__(entity_id, **options)


def with_keywords(entity_id: str, **options: Any) -> PassingOn:
    return PassingOn(entity_id, **options)


def with_one_keyword(entity_id: str, *, namespace: str) -> PassingOn:
    return PassingOn(entity_id, namespace=namespace)


def positional_only(name: str, /) -> MetricsRecorder:
    return MetricsRecorder(name)


class Maker:
    """A factory object, and one with a method."""

    def __call__(self, entity_id: str) -> MetricsRecorder:
        return MetricsRecorder(entity_id)

    def make(self, entity_id: str, queue_max_size: int) -> MetricsRecorder:
        return MetricsRecorder(entity_id, queue_max_size=queue_max_size)


FACTORIES: list[tuple[str, Callable[..., MetricsRecorder], dict[str, Any]]] = [
    ("class", MetricsRecorder, {}),
    ("subclass", Journal, {}),
    ("own keyword", WithPublisher, {"publisher": "p"}),
    ("partial", functools.partial(WithPublisher, publisher="p"), {}),
    ("nested partial", functools.partial(functools.partial(WithPublisher), publisher="p"), {}),
    ("lambda", lambda entity_id: WithPublisher(entity_id, publisher="p"), {}),
    ("lambda by another name", lambda name: MetricsRecorder(name, linger=0.0), {}),
    ("class with keywords", PassingOn, {}),
    ("function with keywords", with_keywords, {}),
    ("function with one keyword", with_one_keyword, {}),
    ("positional only", positional_only, {}),
    ("object", Maker(), {}),
    ("method", Maker().make, {}),
]
each_factory = pytest.mark.parametrize(
    ("factory", "more"), [case[1:] for case in FACTORIES], ids=[case[0] for case in FACTORIES]
)


def settings_of(recorder: MetricsRecorder) -> tuple[str | None, int, OverflowPolicy]:
    inbox = core_of(recorder).options.inbox
    return recorder.namespace, inbox.capacity, inbox.overflow_policy


@each_factory
def test_a_recorder_of_any_factory_inherits_the_runtimes_options(
    backend: dict[str, Any], factory: Callable[..., MetricsRecorder], more: dict[str, Any]
) -> None:
    """Namespace, queue size and policy reach the recorder, whether or not the factory knows them."""
    with MetricsRuntime(
        namespace="shop",
        default_recorder_queue_max_size=7,
        default_recorder_queue_overflow_policy=OverflowPolicy.DROP_OLDEST,
        **backend,
    ) as runtime:
        recorder = runtime.create_recorder("x", factory=factory, **more)
        assert recorder.entity_id == "x"
        assert settings_of(recorder) == ("shop", 7, OverflowPolicy.DROP_OLDEST)
        assert recorder.statistics().capacity == 7
        recorder.register_metric(count := Count())
        recorder.register_event(Tick())
        assert recorder.flush().wait(DEADLINE).success
        assert count.total == 1


@each_factory
def test_options_of_the_call_come_before_the_runtimes(
    runtime: MetricsRuntime, factory: Callable[..., MetricsRecorder], more: dict[str, Any]
) -> None:
    """What create_recorder is given reaches the recorder, whether or not the factory knows it."""
    recorder = runtime.create_recorder(
        "x",
        factory=factory,
        entity_id="entity",
        namespace="mine",
        queue_max_size=3,
        queue_overflow_policy=OverflowPolicy.BLOCK,
        **more,
    )
    assert recorder.entity_id == "entity"
    assert settings_of(recorder) == ("mine", 3, OverflowPolicy.BLOCK)


def test_options_of_the_factory_come_before_all(runtime: MetricsRuntime) -> None:
    """What the factory itself passes to the recorder counts."""

    def factory(entity_id: str) -> MetricsRecorder:
        return MetricsRecorder(
            entity_id, namespace="own", queue_max_size=2, queue_overflow_policy=OverflowPolicy.RAISE_ERROR
        )

    recorder = runtime.create_recorder("x", factory=factory, namespace="mine", queue_max_size=9)
    assert settings_of(recorder) == ("own", 2, OverflowPolicy.RAISE_ERROR)


def test_the_defaults_of_a_runtime(runtime: MetricsRuntime) -> None:
    """Ten thousand events and DROP, under the runtime's namespace."""
    assert settings_of(runtime.create_recorder("x")) == ("t", 10_000, OverflowPolicy.DROP)


@pytest.mark.anyio
async def test_the_defaults_of_a_recorder_made_by_hand() -> None:
    """The same size, RAISE_ERROR, and no namespace."""
    assert settings_of(MetricsRecorder("x")) == (None, 10_000, OverflowPolicy.RAISE_ERROR)


def test_more_options_reach_the_factory(runtime: MetricsRuntime) -> None:
    """Keywords that the runtime does not know are the factory's."""
    recorder = runtime.create_recorder("x", factory=PassingOn, linger=0.0, drain_timeout=None)
    assert recorder.given["linger"] == 0.0
    assert recorder.given["drain_timeout"] is None


# --- finding, stopping, removing -----------------------------------------------------------------


def test_finding_recorders(runtime: MetricsRuntime) -> None:
    """By id, or not at all; the ids in the order of creation."""
    assert runtime.list_recorder_ids() == ()
    recorders = [runtime.create_recorder(name) for name in ("b", "a", "c")]
    assert runtime.list_recorder_ids() == ("b", "a", "c")
    assert [runtime.get_recorder(name) for name in ("b", "a", "c")] == recorders
    assert runtime.try_get_recorder("a") is recorders[1]
    assert runtime.try_get_recorder("d") is None
    with pytest.raises(MetricsRuntimeRecorderNotFoundError) as caught:
        runtime.get_recorder(" d ")
    assert caught.value.recorder_id == "d"


def test_stopping_keeps_a_recorder_registered(runtime: MetricsRuntime) -> None:
    """Drained, stopped, still to be found; stopping it again does nothing, and it can start again."""
    recorder = runtime.create_recorder("x", factory=Journal)
    recorder.register_metric(count := Count())
    recorder.register_event(Tick())
    runtime.stop_recorder(" x ")
    assert count.total == 1
    assert recorder.get_status() is RecorderState.STOPPED
    assert runtime.get_recorder("x") is recorder
    log = list(recorder.log)
    runtime.stop_recorder("x")
    assert recorder.log == log
    assert recorder.start().wait(DEADLINE).success
    recorder.register_event(Tick())
    runtime.stop_recorder("x")
    assert count.total == 2


def test_stopping_what_is_not_there(runtime: MetricsRuntime) -> None:
    """Missing is missing."""
    for call in (runtime.stop_recorder, runtime.stop_and_remove_recorder):
        with pytest.raises(MetricsRuntimeRecorderNotFoundError) as caught:
            call("x")
        assert caught.value.recorder_id == "x"


def test_two_stops_at_once_share_one(runtime: MetricsRuntime, pool: ThreadPoolExecutor) -> None:
    """Both return when the recorder has stopped, and the hook ran once."""
    gate = Gate()
    recorder = runtime.create_recorder("x", factory=gated(gate, "stopped"))
    futures = [pool.submit(runtime.stop_recorder, "x") for _ in range(2)]
    assert gate.reached.wait(DEADLINE)
    handle = recorder.stop()
    until(lambda: len(handle._outcome._waiters) == 2)
    gate.open()
    for future in futures:
        future.result(DEADLINE)
    assert recorder.log.count("stopping") == 1


def test_removing_gives_the_recorder_back(runtime: MetricsRuntime) -> None:
    """Stopped, out of the registry, its id free, its measurements intact."""
    recorder = runtime.create_recorder("x")
    recorder.register_metric(Count())
    recorder.register_event(Tick())
    assert runtime.stop_and_remove_recorder(" x ") is recorder
    assert recorder.get_status() is RecorderState.STOPPED
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}
    assert runtime.list_recorder_ids() == ()
    with pytest.raises(MetricsRuntimeRecorderNotFoundError):
        runtime.get_recorder("x")
    assert runtime.create_recorder("x") is not recorder


def test_removing_a_stopped_recorder(runtime: MetricsRuntime) -> None:
    """There is nothing to stop, only to remove."""
    recorder = runtime.create_recorder("x")
    runtime.stop_recorder("x")
    assert runtime.stop_and_remove_recorder("x") is recorder
    assert runtime.list_recorder_ids() == ()


def test_a_recorder_being_removed_is_gone_already(runtime: MetricsRuntime, pool: ThreadPoolExecutor) -> None:
    """Of two removals at once one gets it and the other NotFound, as does a stop; the id is not free yet."""
    gate = Gate()
    recorder = runtime.create_recorder("x", factory=gated(gate, "stopped"))
    removal: Future[MetricsRecorder] = pool.submit(runtime.stop_and_remove_recorder, "x")
    assert gate.reached.wait(DEADLINE)
    for call in (runtime.stop_and_remove_recorder, runtime.stop_recorder):
        with pytest.raises(MetricsRuntimeRecorderNotFoundError):
            call("x")
    with pytest.raises(MetricsRuntimeRecorderAlreadyExistsError):
        runtime.create_recorder("x")
    gate.open()
    assert removal.result(DEADLINE) is recorder
    runtime.create_recorder("x")


def test_a_shutdown_waits_for_a_removal_under_way(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """A recorder on its way out of the registry gets its drain and its last hook all the same."""
    gate = Gate()
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorder = runtime.create_recorder("x", factory=gated(gate, "changed"))
    recorder.register_metric(count := Count())
    for n in range(3):
        recorder.register_event(Tick(n))
    assert gate.reached.wait(DEADLINE)
    removal: Future[MetricsRecorder] = pool.submit(runtime.stop_and_remove_recorder, "x")
    until(lambda: recorder.get_status() is RecorderState.STOPPING)
    shutdown = pool.submit(runtime.shutdown)
    until(lambda: runtime.get_status() is not S.RUNNING)
    gate.open()
    shutdown.result(DEADLINE)
    assert recorder.get_status() is RecorderState.STOPPED
    assert recorder.log[-1] == "stopped"
    assert removal.result(DEADLINE) is recorder
    assert count.total == 3
    assert runtime.get_status() is S.CLOSED


def test_a_shutdown_gives_a_removal_under_way_its_time(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """The wait for the thread's end is as long as the drain of a recorder that is being removed may be."""
    gate = Gate()

    def factory(entity_id: str) -> Journal:
        recorder = Journal(entity_id, drain_timeout=3600.0)
        recorder.stopped = gate
        return recorder

    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    runtime.create_recorder("x", factory=factory)
    removal: Future[MetricsRecorder] = pool.submit(runtime.stop_and_remove_recorder, "x")
    assert gate.reached.wait(DEADLINE)
    shutdown = pool.submit(runtime.shutdown)
    until(lambda: waiters(runtime) == 1)
    limit = supervisor_of(runtime).shutdown_limit
    gate.open()
    shutdown.result(DEADLINE)
    removal.result(DEADLINE)
    assert limit is not None
    assert limit >= 3600.0


def test_many_removals_at_once(runtime: MetricsRuntime, pool: ThreadPoolExecutor) -> None:
    """Exactly one gets each recorder."""
    for n in range(10):
        recorder = runtime.create_recorder(f"r{n}")
        barrier = threading.Barrier(4)

        def remove(recorder_id: str = f"r{n}", barrier: threading.Barrier = barrier) -> MetricsRecorder:
            barrier.wait(DEADLINE)
            return runtime.stop_and_remove_recorder(recorder_id)

        futures = [pool.submit(remove) for _ in range(4)]
        outcomes: list[Any] = [future.exception(DEADLINE) or future.result() for future in futures]
        assert outcomes.count(recorder) == 1
        assert sum(isinstance(o, MetricsRuntimeRecorderNotFoundError) for o in outcomes) == 3


def test_a_stop_that_fails(runtime: MetricsRuntime) -> None:
    """StopError with the cause; the recorder stays registered until it is removed, which fails and removes it."""
    recorder = runtime.create_recorder("x", factory=failing("stopped", BOOM))
    for _ in range(2):
        with pytest.raises(MetricsRuntimeRecorderStopError, match="'x'") as caught:
            runtime.stop_recorder("x")
        assert isinstance(caught.value.cause, RecorderOnStoppedHookFailedError | RecorderInvalidStateError)
    assert recorder.get_status() is RecorderState.FAILURE
    assert runtime.get_recorder("x") is recorder
    with pytest.raises(MetricsRuntimeRecorderStopError):
        runtime.stop_and_remove_recorder("x")
    assert runtime.list_recorder_ids() == ()
    runtime.create_recorder("x")


def test_a_recorder_is_removed_even_when_its_stop_fails(runtime: MetricsRuntime) -> None:
    """The error says why, and the id is free."""
    runtime.create_recorder("x", factory=failing("stopped", BOOM))
    with pytest.raises(MetricsRuntimeRecorderStopError) as caught:
        runtime.stop_and_remove_recorder("x")
    assert isinstance(caught.value.cause, RecorderOnStoppedHookFailedError)
    assert caught.value.cause.cause is BOOM
    assert runtime.list_recorder_ids() == ()
    runtime.create_recorder("x")


# --- loops that use a runtime --------------------------------------------------------------------


@pytest.mark.anyio
async def test_acreate_recorder_does_not_block_the_calling_loop(backend: dict[str, Any]) -> None:
    """The loop turns while a hook holds the creation up."""
    gate = Gate()
    created: list[MetricsRecorder] = []
    async with MetricsRuntime(namespace="t", **backend) as runtime:

        async def create() -> None:
            created.append(await runtime.acreate_recorder("x", factory=gated(gate, "starting")))

        async with anyio.create_task_group() as group:
            group.start_soon(create)
            await auntil(gate.reached.is_set)
            await turn_around()
            assert created == []
            gate.open()
        assert created == [runtime.get_recorder("x")]


@pytest.mark.anyio
async def test_acreate_recorder_says_what_create_recorder_says(backend: dict[str, Any]) -> None:
    """The same errors: exists, failed, and not in this state."""
    async with MetricsRuntime(namespace="t", **backend) as runtime:
        await runtime.acreate_recorder("x")
        with pytest.raises(MetricsRuntimeRecorderAlreadyExistsError):
            await runtime.acreate_recorder("x")
        with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
            await runtime.acreate_recorder("y", factory=failing("starting", BOOM))
        assert caught.value.cause is BOOM
    with pytest.raises(MetricsRuntimeInvalidStateError):
        await runtime.acreate_recorder("z")


@pytest.mark.anyio
async def test_cancelling_acreate_recorder_frees_the_id(backend: dict[str, Any]) -> None:
    """The recorder's start is cancelled, nothing is registered, and the id can be used again."""
    gate = Gate()
    made: list[Journal] = []

    def factory(entity_id: str) -> Journal:
        made.append(gated(gate, "starting")(entity_id))
        return made[-1]

    async with MetricsRuntime(namespace="t", **backend) as runtime:
        async with anyio.create_task_group() as group:
            group.start_soon(create, runtime, "x", factory)
            await auntil(gate.reached.is_set)
            group.cancel_scope.cancel()
        await auntil(lambda: not is_being_created(runtime, "x"))
        await auntil(lambda: made[0].get_status() is RecorderState.CANCELLED)
        assert made[0].log == ["starting"]
        assert runtime.list_recorder_ids() == ()
        second = await runtime.acreate_recorder("x")
        assert runtime.get_recorder("x") is second


@pytest.mark.anyio
async def test_cancelling_acreate_recorder_too_late_removes_the_recorder(backend: dict[str, Any]) -> None:
    """Created, but nobody was given it: it is stopped and its id freed."""
    gate = Gate()
    made: list[Journal] = []

    def factory(entity_id: str) -> Journal:
        made.append(gated(gate, "starting")(entity_id))
        return made[-1]

    async with MetricsRuntime(namespace="t", **backend) as runtime:
        async with anyio.create_task_group() as group:
            group.start_soon(create, runtime, "x", factory)
            await auntil(gate.reached.is_set)
            gate.open()
            # This loop is held up, so that the creator cannot hear of its success before it is cancelled.
            until(lambda: runtime.list_recorder_ids() == ("x",))
            group.cancel_scope.cancel()
        await auntil(lambda: runtime.list_recorder_ids() == ())
        await auntil(lambda: made[0].get_status() is RecorderState.STOPPED)
        await runtime.acreate_recorder("x")


@pytest.mark.anyio
async def test_giving_up_a_failed_creation_does_not_touch_the_next_of_that_id(backend: dict[str, Any]) -> None:
    """The first has failed, the second is there: cancelling whoever waited for the first is not about the second."""
    gate = Gate()

    def factory(entity_id: str) -> Journal:
        recorder = gated(gate, "starting")(entity_id)
        recorder.errors["starting"] = BOOM
        return recorder

    async with MetricsRuntime(namespace="t", **backend) as runtime:
        async with anyio.create_task_group() as group:
            group.start_soon(create, runtime, "x", factory)
            await auntil(gate.reached.is_set)
            gate.open()
            # This loop is held up, so that the creator cannot hear of its failure before it is cancelled.
            until(lambda: not is_being_created(runtime, "x"))
            second = runtime.create_recorder("x", factory=Journal)
            group.cancel_scope.cancel()
        # Queued behind whatever the cancellation has set going.
        await runtime.acreate_recorder("y")
        assert runtime.list_recorder_ids() == ("x", "y")
        assert runtime.get_recorder("x") is second
        assert second.get_status() is RecorderState.RUNNING


# --- the runtime's own thread --------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda runtime: runtime.create_recorder("y"),
        lambda runtime: runtime.stop_recorder("x"),
        lambda runtime: runtime.stop_and_remove_recorder("x"),
        lambda runtime: runtime.shutdown(),
    ],
    ids=["create_recorder", "stop_recorder", "stop_and_remove_recorder", "shutdown"],
)
def test_a_blocking_call_in_the_own_thread_is_refused(
    runtime: MetricsRuntime, call: Callable[[MetricsRuntime], object]
) -> None:
    """It would wait for itself: it says so instead, and nothing has happened."""
    recorder = runtime.create_recorder("x")
    with pytest.raises(MetricsRuntimeWouldDeadlockError, match="in the runtime's own thread"):
        runtime.portal.call(call, runtime)
    assert runtime.list_recorder_ids() == ("x",)
    assert runtime.get_status() is S.RUNNING
    assert recorder.get_status() is RecorderState.RUNNING


def test_an_ashutdown_in_the_own_thread_is_refused(runtime: MetricsRuntime) -> None:
    """The loop cannot wait for its own end, not even in the async form."""
    with pytest.raises(MetricsRuntimeWouldDeadlockError):
        runtime.portal.call(runtime.ashutdown)
    assert runtime.get_status() is S.RUNNING


def test_a_wait_in_the_own_thread_is_refused(runtime: MetricsRuntime) -> None:
    """The handle of a recorder's operation likewise."""
    recorder = runtime.create_recorder("x")
    with pytest.raises(RecorderWouldDeadlockError):
        runtime.portal.call(lambda: recorder.flush().wait())


def test_a_hook_that_shuts_its_runtime_down_is_refused(runtime: MetricsRuntime) -> None:
    """The commonest way into the own thread; the recorder goes on."""

    class Closing(Journal):
        caught: BaseException | None = None

        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            try:
                runtime.shutdown()
            except MetricsRuntimeError as exc:
                self.caught = exc

    recorder = runtime.create_recorder("x", factory=Closing)
    recorder.register_metric(Count())
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success
    assert isinstance(recorder.caught, MetricsRuntimeWouldDeadlockError)
    assert runtime.get_status() is S.RUNNING


def test_looking_things_up_in_the_own_thread_is_allowed(runtime: MetricsRuntime) -> None:
    """What does not wait may be called anywhere."""
    recorder = runtime.create_recorder("x")
    assert runtime.portal.call(runtime.get_recorder, "x") is recorder
    assert runtime.portal.call(runtime.list_recorder_ids) == ("x",)
    runtime.portal.call(runtime.start)


def test_acreate_recorder_in_the_own_thread_is_allowed(runtime: MetricsRuntime) -> None:
    """It does not block the loop that does the work."""
    recorder = runtime.portal.call(runtime.acreate_recorder, "x")
    assert runtime.get_recorder("x") is recorder


def test_the_portal_leads_into_the_runtimes_loop(runtime: MetricsRuntime) -> None:
    """In its thread, on its backend, where its recorders' hooks run."""
    assert runtime.portal.call(threading.current_thread) is engine_of(runtime).thread
    assert runtime.portal.call(sniffio.current_async_library) == runtime.backend


def test_uvloop_is_really_used(backend: dict[str, Any]) -> None:
    """With ``use_uvloop`` the loop is uvloop's, and without it is not."""
    if backend["backend"] != "asyncio":
        pytest.skip("an asyncio loop")

    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    with MetricsRuntime(namespace="t", **backend) as runtime:
        module = runtime.portal.call(loop_module)
    assert module.startswith("uvloop") is ("use_uvloop" in backend["backend_options"])


def test_runtimes_are_independent(backend: dict[str, Any]) -> None:
    """Two with the same namespace and ids, beside one on the other backend."""
    other: dict[str, Any] = {"backend": "asyncio" if backend["backend"] == "trio" else "trio"}
    with (
        MetricsRuntime(namespace="t", **backend) as first,
        MetricsRuntime(namespace="t", **backend) as second,
        MetricsRuntime(namespace="t", **other) as third,
    ):
        runtimes = [first, second, third]
        recorders = [runtime.create_recorder("x") for runtime in runtimes]
        for n, recorder in enumerate(recorders):
            recorder.register_metric(Count())
            for _ in range(n):
                recorder.register_event(Tick())
        second.shutdown()
        totals = [recorder.get_metric_snapshots()["count"]["dimensions"]["total"] for recorder in recorders]
        assert totals == [0, 1, 2]
        assert [runtime.get_status() for runtime in runtimes] == [S.RUNNING, S.CLOSED, S.RUNNING]


# --- a thread that dies --------------------------------------------------------------------------


def kill(runtime: MetricsRuntime) -> None:
    """End the runtime's thread as a stray SystemExit in the portal would."""
    thread = engine_of(runtime).thread
    runtime.portal.start_task_soon(sys.exit, 3)
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_thread_that_dies_is_a_failure(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, loudly; the recorders are over, measured what they had accepted, and say why."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorder = runtime.create_recorder("x", factory=Journal)
    recorder.register_metric(count := Count())
    for n in range(5):
        recorder.register_event(Tick(n))
    kill(runtime)
    assert runtime.get_status() is S.FAILURE
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [record.getMessage() for record in critical] == ["the runtime's thread ended unexpectedly"]
    assert critical[0].exc_info is not None
    with pytest.raises(MetricsRuntimeInvalidStateError, match="'FAILURE'"):
        runtime.create_recorder("y")
    with pytest.raises(RecorderInvalidStateError):
        recorder.register_event(Tick())
    assert count.total == 5
    assert recorder.log[-1] == "stopped"
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 5}
    assert balanced(recorder.statistics())
    runtime.shutdown()


def test_whoever_waits_for_a_thread_that_dies_is_told(backend: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    """A creation and a stop under way end with an error instead of never."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    starting, stopped = Gate(), Gate()
    creation = pool.submit(runtime.create_recorder, "x", factory=gated(starting, "starting"))
    assert starting.reached.wait(DEADLINE)
    recorder = runtime.create_recorder("y", factory=gated(stopped, "stopped"))
    stopping = recorder.stop()
    assert stopped.reached.wait(DEADLINE)
    runtime.portal.start_task_soon(sys.exit, 3)
    assert isinstance(creation.exception(DEADLINE), MetricsRuntimeRecorderStartupError)
    # The last hook is shielded, whatever happens to the thread.
    stopped.open()
    assert stopping.wait(DEADLINE).op_name == "STOP"
    assert recorder.get_status() is not RecorderState.STOPPING
    engine_of(runtime).thread.join(DEADLINE)
    assert runtime.get_status() is S.FAILURE


# --- many ----------------------------------------------------------------------------------------


# Without asyncio's debug mode, which makes each task several times as expensive.
MANY = [pytest.param(("asyncio", {}), id="asyncio"), *BACKENDS[1:]]


@pytest.mark.parametrize("anyio_backend", MANY, indirect=False)
def test_ten_thousand_recorders(backend: dict[str, Any]) -> None:
    """Created, used, drained and stopped in one runtime; every event is measured."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorders = [runtime.create_recorder(f"r{n}") for n in range(10_000)]
        assert len(runtime.list_recorder_ids()) == 10_000
        counts = [Count() for _ in recorders]
        for recorder, count in zip(recorders, counts, strict=True):
            recorder.register_metric(count)
        for n in range(3):
            for recorder in recorders:
                recorder.register_event(Tick(n))
    assert runtime.get_status() is S.CLOSED
    assert {count.total for count in counts} == {3}
    assert {recorder.get_status() for recorder in recorders} == {RecorderState.STOPPED}
    assert all(balanced(recorder.statistics()) for recorder in recorders)


@pytest.mark.anyio
async def test_recorders_created_by_many_tasks(backend: dict[str, Any]) -> None:
    """A thousand at once from one loop."""
    async with MetricsRuntime(namespace="t", **backend) as runtime:
        async with anyio.create_task_group() as group:
            for n in range(1000):
                group.start_soon(create, runtime, f"r{n}")
        assert len(runtime.list_recorder_ids()) == 1000


def test_a_shutdown_cut_short_by_ctrl_c_is_taken_up_by_the_next(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C right before the engine is told leaves nothing behind that could not be shut down."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorder = runtime.create_recorder("x")
    with monkeypatch.context() as patched:

        def interrupted(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        patched.setattr("mvx.common.metrics._engine.Engine.submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runtime.shutdown()
    assert runtime.get_status() is MetricsRuntimeState.STOPPING
    runtime.shutdown()
    assert runtime.get_status() is MetricsRuntimeState.CLOSED
    assert recorder.get_status() is RecorderState.STOPPED
