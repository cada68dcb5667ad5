"""MetricsEmitter: what it hands on, what it swallows, and what it never does to production."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import logging
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import anyio
import pytest

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsEmitter,
    MetricsRecorder,
    MetricsRecorderProto,
    MetricsRuntime,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
)
from mvx.common.metrics._log import REPEAT_INTERVAL
from tests.emitting.stage import Clock, Component, Listener, logged, stacks
from tests.support import DEADLINE, Count, Journal, Tick, run_threads, virgin

is_anyio = pytest.mark.anyio


class Untitled(Count):
    """A metric that no recorder can register."""

    @property
    def metric_name(self) -> str:
        return " "


class Full(MetricsRecorder):
    """A recorder with room for nothing more."""

    def __init__(self, entity_id: str = "full", **options: Any) -> None:
        super().__init__(entity_id, queue_max_size=1, linger=0.0, **options)


# --- what it hands on ----------------------------------------------------------------------------


def test_it_registers_the_metrics_in_order() -> None:
    """At construction, each with the recorder."""
    listener = Listener()
    metrics = (Count("a"), Count("b"))
    emitter = MetricsEmitter(listener, metrics)
    assert tuple(listener.metrics) == metrics
    assert emitter.swallowed == 0


def test_metrics_may_come_from_any_iterable() -> None:
    """A list, a set, a generator."""
    listener = Listener()
    MetricsEmitter(listener, (Count(name) for name in "abc"))
    assert [metric.metric_name for metric in listener.metrics] == ["a", "b", "c"]


def test_it_hands_events_on() -> None:
    """The very object, in order, before ``emit`` returns."""
    listener = Listener()
    emitter = MetricsEmitter(listener)
    events: list[MetricEvent] = [Tick(n) for n in range(3)]
    for event in events:
        emitter.emit(event)
    assert all(one is other for one, other in zip(listener.events, events, strict=True))


def test_a_runtimes_recorder_counts_what_is_emitted(backend: dict[str, Any]) -> None:
    """On every backend; the metric sees each event."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("component")
        emitter = MetricsEmitter(recorder, (Count(),))
        for n in range(10):
            emitter.emit(Tick(n))
        assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 10}
        assert emitter.swallowed == 0


@is_anyio
async def test_a_recorder_of_any_home_counts_what_is_emitted(home: str) -> None:
    """Started by its first event, wherever it lives; ``emit`` and ``aemit`` alike."""
    async with virgin(home, MetricsRecorder, "component") as recorder:
        emitter = MetricsEmitter(recorder, [Count()])
        emitter.emit(Tick(1))
        await emitter.aemit(Tick(2))
        emitter.emit_lazily(Tick, n=3)
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots["count"]["dimensions"] == {"total": 3}


def test_it_shows_its_recorder() -> None:
    """As ``recorder``, and in its repr."""
    listener = Listener()
    emitter = MetricsEmitter(listener)
    assert emitter.recorder is listener
    assert emitter.enabled
    assert repr(emitter) == f"<MetricsEmitter to {listener!r}>"


# --- without a recorder --------------------------------------------------------------------------


@is_anyio
async def test_without_a_recorder_it_does_nothing() -> None:
    """No metric is looked at, no event, and nothing is logged or counted."""

    def metrics() -> Iterator[Metric]:
        yield pytest.fail("made in vain")

    emitter = MetricsEmitter(None, metrics())
    emitter.emit(Tick())
    emitter.emit("no event")  # type: ignore[arg-type] # because nobody looks
    emitter.emit_lazily(Mock(side_effect=AssertionError("called in vain")))
    await emitter.aemit(Tick())
    assert (emitter.recorder, emitter.enabled, emitter.swallowed) == (None, False, 0)
    assert repr(emitter) == "<MetricsEmitter to nobody>"


@is_anyio
async def test_aemit_without_a_recorder_is_no_checkpoint() -> None:
    """It does not even look whether it has been cancelled."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await MetricsEmitter(None).aemit(Tick())
        await MetricsEmitter(Listener()).aemit(Tick())
    assert not scope.cancelled_caught


# --- lazy events ---------------------------------------------------------------------------------


def test_a_lazy_event_is_made_of_its_arguments() -> None:
    """Positional and keyword ones."""
    listener = Listener()
    MetricsEmitter(listener).emit_lazily(Tick, n=7)
    MetricsEmitter(listener).emit_lazily(Tick, 8)
    assert listener.events == [Tick(7), Tick(8)]


def test_a_lazy_event_may_have_fields_of_any_name() -> None:
    """Also those of the method's own parameters; production must not stumble over what an event calls its fields."""

    def make(**fields: int) -> Tick:
        return Tick(sum(fields.values()))

    listener = Listener()
    for recorder in (listener, None):
        MetricsEmitter(recorder).emit_lazily(make, self=1, make_event=2, event=4)
    assert listener.events == [Tick(7)]


def test_a_lazy_event_may_turn_out_to_be_none() -> None:
    """Then nothing is emitted, and nothing went wrong."""
    listener = Listener()
    emitter = MetricsEmitter(listener)
    emitter.emit_lazily(lambda: None)
    assert (listener.events, emitter.swallowed) == ([], 0)


def test_an_event_that_cannot_be_made_is_swallowed(caplog: pytest.LogCaptureFixture) -> None:
    """Counted, and logged with the traceback of what made it."""
    emitter = MetricsEmitter(Listener())
    emitter.emit_lazily(lambda: Tick(1 // 0))
    assert emitter.swallowed == 1
    (record,) = logged(caplog, "no event was emitted")
    assert "integer division or modulo by zero" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


# --- what is swallowed ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [OverflowPolicy.RAISE_ERROR, OverflowPolicy.BLOCK])
@is_anyio
async def test_an_overflow_is_swallowed(policy: OverflowPolicy, home: str, caplog: pytest.LogCaptureFixture) -> None:
    """Under RAISE_ERROR and BLOCK, on every backend and in every home: counted here and in the ledger."""
    async with virgin(
        home, Journal, "narrow", queue_max_size=1, queue_overflow_policy=policy, block_timeout=0.0, linger=0.0
    ) as recorder:
        recorder.changed.is_open = False
        emitter = MetricsEmitter(recorder, (Count(),))
        emitter.emit(Tick(0))
        await anyio.to_thread.run_sync(recorder.changed.reached.wait, DEADLINE)
        for n in range(1, 6):
            emitter.emit(Tick(n))
        rejected = recorder.statistics().rejected
        recorder.changed.open()
        await recorder.flush()
        assert emitter.swallowed == rejected == 5
        assert recorder.statistics().processed == 1
    (record,) = logged(caplog, "an event of class Tick was not emitted: the inbox is full")
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert vars(record)["entity_id"] == "narrow"
    assert vars(record)["swallowed"] == 1


@pytest.mark.parametrize("policy", [OverflowPolicy.DROP, OverflowPolicy.DROP_OLDEST])
@is_anyio
async def test_what_the_recorder_drops_is_its_own_to_count(policy: OverflowPolicy, home: str) -> None:
    """DROP and DROP_OLDEST do not raise, so nothing is swallowed."""
    async with virgin(home, Full, queue_overflow_policy=policy) as recorder:
        emitter = MetricsEmitter(recorder)
        for n in range(100):
            emitter.emit(Tick(n))
        await recorder.flush()
        assert recorder.statistics().offered == 100
        assert emitter.swallowed == 0


@is_anyio
async def test_a_stopped_recorder_is_no_concern_of_production(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """Events and metrics are swallowed, by all ways of emitting; one warning says so."""
    async with virgin(home, MetricsRecorder, "stopped") as recorder:
        await recorder.start()
        await recorder.stop()
        emitter = MetricsEmitter(recorder, (Count(),))
        assert emitter.swallowed == 1
        emitter.emit(Tick())
        await emitter.aemit(Tick())
        emitter.emit_lazily(Tick)
        assert emitter.swallowed == 4
        assert emitter.enabled
    assert [record.levelno for record in logged(caplog)] == [logging.WARNING]


@is_anyio
async def test_a_failed_recorder_is_no_concern_of_production(home: str) -> None:
    """Also when its start failed."""
    async with virgin(home, Journal, "failed") as recorder:
        recorder.errors["starting"] = OSError("no disk")
        await recorder.start()
        emitter = MetricsEmitter(recorder, (Count(),))
        emitter.emit(Tick())
        await emitter.aemit(Tick())
        assert emitter.swallowed == 3


@is_anyio
async def test_emitting_resumes_with_the_recorder(home: str) -> None:
    """What was swallowed is gone; a recorder that is started again gets what comes then."""
    async with virgin(home, MetricsRecorder, "again") as recorder:
        emitter = MetricsEmitter(recorder, (Count(),))
        await recorder.start()
        emitter.emit(Tick())
        await recorder.stop()
        emitter.emit(Tick())
        await recorder.start()
        emitter.emit(Tick())
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots["count"]["dimensions"] == {"total": 2}
        assert emitter.swallowed == 1


@pytest.mark.parametrize("wrong", [None, 7, "tick", Tick, object()])
def test_what_is_no_event_is_swallowed_and_logged_as_an_error(
    wrong: Any, backend: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A slip in what is measured must not stop what is done; its traceback is in the log."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        emitter = MetricsEmitter(runtime.create_recorder("x"))
        emitter.emit(wrong)
        emitter.emit(wrong)
    assert emitter.swallowed == 2
    (record,) = logged(caplog)
    assert record.levelno == logging.ERROR
    assert f"an event of class {type(wrong).__qualname__} was not emitted" in record.getMessage()
    assert record.exc_info is not None


def test_each_metric_is_registered_for_itself(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """One that cannot be registered is swallowed and logged; those after it are registered."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        metrics: Any = (Count("before"), Untitled(), Count, None, Count("after"))
        emitter = MetricsEmitter(recorder, metrics)
        emitter.emit(Tick())
        assert set(recorder.get_metric_snapshots()) == {"before", "after"}
    assert emitter.swallowed == 3
    assert [record.levelno for record in logged(caplog, "could not be registered")] == [logging.ERROR] * 3


def test_metrics_that_cannot_be_made_are_swallowed(caplog: pytest.LogCaptureFixture) -> None:
    """A generator that raises midway; what came before it is registered."""

    def metrics() -> Iterator[Metric]:
        yield Count()
        raise OSError("no disk")

    listener = Listener()
    emitter = MetricsEmitter(listener, metrics())
    assert len(listener.metrics) == 1
    assert emitter.swallowed == 1
    assert logged(caplog, "the metrics could not be made: no disk")


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError(), StopIteration(3), RecursionError(), ExceptionGroup("g", [ValueError()])]
)
@is_anyio
async def test_whatever_a_recorder_raises_is_swallowed(error: Exception) -> None:
    """Any Exception of any recorder."""
    listener = Listener(error)
    emitter = MetricsEmitter(listener, (Count(),))
    emitter.emit(Tick())
    emitter.emit_lazily(Tick)
    await emitter.aemit(Tick())
    assert emitter.swallowed == 4


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(2), GeneratorExit(), asyncio.CancelledError(), BaseException()]
)
@is_anyio
async def test_what_is_no_exception_passes(error: BaseException) -> None:
    """It is meant for the thread or the task, and the same object arrives."""
    listener = Listener()
    emitter = MetricsEmitter(listener)
    listener.error = error
    with pytest.raises(type(error)) as caught:
        emitter.emit(Tick())
    assert caught.value is error
    with pytest.raises(type(error)):
        await emitter.aemit(Tick())
    with pytest.raises(type(error)):
        emitter.emit_lazily(Tick)
    with pytest.raises(type(error)):
        MetricsEmitter(listener, (Count(),))
    assert emitter.swallowed == 0


@pytest.mark.parametrize("way", ["emit", "emit_lazily"])
@pytest.mark.parametrize("error", [None, OSError("away")])
def test_it_swallows_also_where_the_stack_ends(way: str, error: Exception | None) -> None:
    """With no frame left for the recorder, for the log, or for what makes the event: only its own call may fail."""
    emitter = MetricsEmitter(Listener(error))
    event = Tick()
    innermost = []

    def emit_at_every_depth() -> None:
        try:
            if way == "emit":
                emitter.emit(event)
            else:
                emitter.emit_lazily(Tick)
        except RecursionError as exc:
            traceback = exc.__traceback__
            while traceback is not None and traceback.tb_next is not None:
                traceback = traceback.tb_next
            assert traceback is not None
            code = traceback.tb_frame.f_code
            # Python 3.11 shows the call that failed as a frame that has come to no line of its own.
            if traceback.tb_lineno != code.co_firstlineno:
                innermost.append(code.co_name)
            raise
        emit_at_every_depth()

    before = sys.getrecursionlimit()
    # Each depth is tried, so the stack ends at every place of the call once.
    try:
        for limit in stacks(30):
            sys.setrecursionlimit(limit)
            with pytest.raises(RecursionError):
                emit_at_every_depth()
    finally:
        sys.setrecursionlimit(before)
    assert set(innermost) <= {"emit_at_every_depth"}
    if error is not None:
        assert emitter.swallowed > 0


# --- what is logged ------------------------------------------------------------------------------


def test_it_logs_once_a_minute_for_each_recorder(caplog: pytest.LogCaptureFixture) -> None:
    """Emitters may be made by the thousand: the limit is their recorder's, not their own."""
    listener, other = Listener(OSError("away")), Listener(OSError("away"))
    emitters = [MetricsEmitter(listener) for _ in range(50)]
    for emitter in emitters:
        emitter.emit(Tick())
    assert len(logged(caplog)) == 1
    assert [emitter.swallowed for emitter in emitters] == [1] * 50
    MetricsEmitter(other).emit(Tick())
    assert len(logged(caplog)) == 2


def test_it_tells_how_many_it_held_back(caplog: pytest.LogCaptureFixture) -> None:
    """After the interval, the next record says how many there were."""
    clock = Clock()
    emitter = MetricsEmitter(Listener(OSError("away")))
    emitter.emit(Tick())
    assert emitter._log is not None
    emitter._log._clock = clock
    emitter._log._seen.clear()
    for _ in range(4):
        emitter.emit(Tick())
    clock.passes(REPEAT_INTERVAL)
    emitter.emit(Tick())
    assert "(3 more like this held back)" in logged(caplog)[-1].getMessage()


class Equal(Listener):
    """A recorder without a hash."""

    __hash__ = None  # type: ignore[assignment] # because that is the point

    def __eq__(self, other: object) -> bool:
        return True


class Touchy(Listener):
    """A recorder that does not want to be hashed."""

    def __hash__(self) -> int:
        raise OSError("do not touch")


@pytest.mark.parametrize("kind", [Equal, Touchy])
def test_a_recorder_that_cannot_be_hashed_is_logged_at_a_limited_rate(
    kind: type[Listener], caplog: pytest.LogCaptureFixture
) -> None:
    """Then by its emitter; also as its metrics are registered."""
    emitter = MetricsEmitter(kind(OSError("away")), (Count(), Count()))
    emitter.emit(Tick())
    emitter.emit(Tick())
    assert len(logged(caplog, "could not be registered")) == 1
    assert len(logged(caplog, "was not emitted")) == 1
    assert emitter.swallowed == 4


def test_a_recorder_that_will_not_say_its_name_is_logged_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A stand-in need not have an ``entity_id``, and may raise when it is asked."""

    class Shy(Listener):
        @property
        def entity_id(self) -> str:
            raise OSError("secret")

        @property
        def namespace(self) -> int:
            return 7

    emitter = MetricsEmitter(Shy(OSError("away")))
    emitter.emit(Tick())
    (record,) = logged(caplog)
    assert (vars(record)["entity_id"], vars(record)["namespace"]) == (None, None)


def test_what_is_held_back_from_the_log_keeps_no_frames() -> None:
    """One and the same exception, raised again and again, does not get longer with each time."""
    error = OSError("away")
    emitter = MetricsEmitter(Listener(error))
    for _ in range(5):
        emitter.emit(Tick())
    assert error.__traceback__ is None


def test_a_log_handler_that_emits_ends(caplog: pytest.LogCaptureFixture) -> None:
    """One that counts log records through the very emitter that logs: what is swallowed then is not logged again."""
    emitter = MetricsEmitter(Listener(OSError("away")))

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emitter.emit(Tick())

    handler = Counting()
    logger = logging.getLogger("mvx.common.metrics")
    logger.addHandler(handler)
    try:
        emitter.emit(Tick())
    finally:
        logger.removeHandler(handler)
    assert emitter.swallowed == 2


def test_an_emitter_keeps_no_recorder_alive_by_its_log() -> None:
    """The log of a recorder goes with it."""
    listener = Listener(RecorderQueueOverflowError(1))  # logged without its traceback, in which the recorder is
    MetricsEmitter(listener).emit(Tick())
    gone = weakref.ref(listener)
    del listener
    gc.collect()
    assert gone() is None


# --- waiting for room ----------------------------------------------------------------------------


@is_anyio
async def test_aemit_waits_for_room(home: str) -> None:
    """Where ``emit`` would overflow; nothing is lost."""
    async with virgin(home, Full) as recorder:
        emitter = MetricsEmitter(recorder, (Count(),))
        for n in range(50):
            await emitter.aemit(Tick(n))
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots["count"]["dimensions"] == {"total": 50}
        assert emitter.swallowed == 0


@pytest.mark.parametrize("means", ["scope", "task"])
@is_anyio
async def test_aemit_lets_cancellation_through(means: str, home: str, anyio_backend: tuple[str, Any]) -> None:
    """By a scope and by Task.cancel(); the event was not accepted, and nothing is counted as swallowed."""
    if means == "task" and anyio_backend[0] != "asyncio":
        pytest.skip("trio has no Task.cancel()")
    async with virgin(home, Journal, "narrow", queue_max_size=1, linger=0.0) as recorder:
        recorder.changed.is_open = False
        emitter = MetricsEmitter(recorder, (Count(),))
        await emitter.aemit(Tick(0))
        await anyio.to_thread.run_sync(recorder.changed.reached.wait, DEADLINE)
        if means == "scope":
            with anyio.move_on_after(0) as scope:
                await emitter.aemit(Tick(1))
            assert scope.cancelled_caught
        else:
            task = asyncio.create_task(emitter.aemit(Tick(1)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        recorder.changed.open()
        await recorder.flush()
        assert recorder.statistics().accepted == 1
        assert emitter.swallowed == 0


@is_anyio
async def test_aemit_goes_by_emit_where_the_recorder_cannot_wait() -> None:
    """A recorder that has nothing but the protocol; one that answers to any name, as a mock does."""
    listener = Listener()
    await MetricsEmitter(listener).aemit(Tick())
    assert listener.events == [Tick()]
    mock = Mock()
    emitter = MetricsEmitter(mock)
    await emitter.aemit(Tick())
    mock.register_event.assert_called_once_with(Tick())
    assert emitter.swallowed == 0
    patient = Mock(aregister_event=AsyncMock())
    await MetricsEmitter(patient).aemit(Tick())
    patient.aregister_event.assert_awaited_once_with(Tick())
    patient.register_event.assert_not_called()


@is_anyio
async def test_aemit_in_a_hook_of_the_recorder_itself_is_swallowed() -> None:
    """There is no room while the hook runs, and waiting for it could never end."""

    class Echo(Full):
        emitter: MetricsEmitter

        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            await self.emitter.aemit(Tick())

    async with Echo() as recorder:
        recorder.emitter = MetricsEmitter(recorder, (Count(),))
        await recorder.emitter.aemit(Tick())
        await recorder.flush()
        assert recorder.emitter.swallowed == 1


# --- misuse at construction ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [7, "recorder", object(), MetricsRecorder, MetricsRuntime(namespace="t"), Count(), MetricsEmitter(None)]
)
def test_a_recorder_is_a_recorder_or_none(wrong: Any) -> None:
    """Anything else is a mistake of whoever puts the application together, and shows as it is put together."""
    with pytest.raises(TypeError, match="argument 'recorder' must be a recorder or None, got"):
        MetricsEmitter(wrong)


@pytest.mark.parametrize("recorder", [None, Listener()])
def test_metrics_are_an_iterable(recorder: Any) -> None:
    """Also without a recorder, so that the mistake shows in any test; a forgotten comma is named."""
    with pytest.raises(
        TypeError, match=r"argument 'metrics' must be an iterable of metrics, got .*; write a tuple, \(metric,\)"
    ):
        MetricsEmitter(recorder, (Count()))  # type: ignore[arg-type] # because the comma is missing
    with pytest.raises(TypeError, match="argument 'metrics' must be an iterable of metrics, got None"):
        MetricsEmitter(recorder, None)  # type: ignore[arg-type] # because None is no iterable


def test_what_it_accepts_fulfils_the_protocol() -> None:
    """The tests' stand-in is nothing more than the documented contract."""
    assert isinstance(Listener(), MetricsRecorderProto)


# --- threads, copies, processes ------------------------------------------------------------------


def test_what_is_swallowed_is_counted_exactly(fast_switching: None) -> None:
    """In any number of threads."""
    emitter = MetricsEmitter(Listener(OSError("away")))

    def emit() -> None:
        for _ in range(500):
            emitter.emit(Tick())

    run_threads(*[emit] * 4)
    assert emitter.swallowed == 2000


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_same_emitter(copied: Any, backend: dict[str, Any]) -> None:
    """So a component can be copied, with a recorder, which cannot, and without."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        component = Component(runtime.create_recorder("x"))
        assert copied(component)._metrics is component._metrics


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_emitter_comes_back_without_its_recorder(protocol: int, backend: dict[str, Any]) -> None:
    """A recorder belongs to its process; its component can be sent elsewhere all the same."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        component = Component(runtime.create_recorder("x"))
        there = pickle.loads(pickle.dumps(component, protocol))
        there._metrics.emit(Tick())
        assert (there._metrics.recorder, there._metrics.enabled, there._metrics.swallowed) == (None, False, 0)
        assert component._metrics.enabled


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_in_a_forked_child_it_goes_on_and_counts_anew() -> None:
    """What the parent swallowed is the parent's; the child's recorder works anew."""
    # The hook that runs in the child, called here: the fork itself is tested with the recorder that an emitter has.
    listener = Listener(OSError("away"))
    emitter = MetricsEmitter(listener)
    emitter.emit(Tick())
    emitter._tally.after_fork_in_child()
    assert emitter.swallowed == 0
    emitter.emit(Tick())
    assert emitter.swallowed == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_emitter_works_in_a_forked_child(backend: dict[str, Any]) -> None:
    """With a runtime's recorder; its count begins at zero there."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        emitter = MetricsEmitter(recorder, (Count(),))
        emitter.emit(None)  # type: ignore[arg-type] # because something must have been swallowed
        emitter.emit(Tick())
        recorder.get_metric_snapshots()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                emitter.emit(Tick())
                counted = recorder.get_metric_snapshots()["count"]["dimensions"]["total"]
                status = 0 if (emitter.swallowed, counted) == (0, 2) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert emitter.swallowed == 1


def test_an_emitter_may_emit_in_a_finalizer() -> None:
    """As its recorder may."""
    listener = Listener()
    emitter = MetricsEmitter(listener)

    class Dying:
        def __del__(self) -> None:
            emitter.emit(Tick())

    Dying()
    gc.collect()
    assert listener.events == [Tick()]


def test_a_recorder_of_another_thread_is_emitted_to(backend: dict[str, Any]) -> None:
    """Made here, used there."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        emitter = MetricsEmitter(recorder, (Count(),))
        thread = threading.Thread(target=functools.partial(emitter.emit, Tick()))
        thread.start()
        thread.join(DEADLINE)
        assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}


def test_after_the_runtime_production_goes_on(backend: dict[str, Any]) -> None:
    """A component outlives the runtime that its recorder belongs to."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        emitter = MetricsEmitter(recorder)
    emitter.emit(Tick())
    assert emitter.swallowed == 1
    with pytest.raises(RecorderInvalidStateError):
        recorder.register_event(Tick())
