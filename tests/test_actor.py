"""One run of a recorder, step by step: batches, time limits, and what is told of failures."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    OverflowPolicy,
    RecorderDispatcherCancelledError,
    RecorderDrainTimeoutError,
    RecorderOnStartingHookFailedError,
    RecorderOnStoppedHookFailedError,
    RecorderOp,
    RecorderState,
    RecorderUnexpectedError,
)
from mvx.common.metrics._actor import MIN_STOPPED_HOOK_TIMEOUT, ActorRun
from mvx.common.metrics._dispatch import Dispatcher
from mvx.common.metrics._hub import LoopHub, hub_of
from mvx.common.metrics._inbox import Inbox
from mvx.common.metrics._interrupt import holds
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._run import DEFAULT_DRAIN_TIMEOUT
from mvx.common.metrics._waiting import current_loop
from tests.support import DEADLINE, Count, Failing, Gate, Journal, Plain, Seen, Tick, auntil, balanced, virgin

pytestmark = pytest.mark.anyio

ANYIO = tuple(int(number) for number in version("anyio").split(".")[:2])
ROUNDED = 0.001
"""Seconds that what is left of a limit may be longer, where a clock plus the limit has been rounded up."""
WITH_TRIO = pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")
ON_TRIO = pytest.mark.parametrize("anyio_backend", [pytest.param(("trio", {}), marks=WITH_TRIO)])
"""What only trio can show."""
KINDS = pytest.mark.parametrize("kind", [Plain, Journal])
"""Without and with ``_on_metric_changed``: two ways through the events."""


def run_of(recorder: MetricsRecorder) -> ActorRun:
    run = core_of(recorder)._run
    assert isinstance(run, ActorRun)
    return run


@pytest.fixture
def tired(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the hub says of its weariness: the last item, for ever; untouched, never."""
    answers = [False]
    monkeypatch.setattr(LoopHub, "is_tired", lambda _self: answers.pop(0) if len(answers) > 1 else answers[0])
    return answers


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the hub rested: one item for each."""
    rests: list[int] = []

    async def rest(_self: LoopHub) -> None:
        rests.append(1)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(LoopHub, "rest", rest)
    return rests


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits that the dispatcher is given."""
    limits: list[int] = []
    plain = Dispatcher.dispatch

    def dispatch(self: Dispatcher, take: Callable[[], MetricEvent], limit: int) -> int:
        limits.append(limit)
        return plain(self, take, limit)

    monkeypatch.setattr(Dispatcher, "dispatch", dispatch)
    return limits


def records(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


# --- batches and rests -----------------------------------------------------------------------------


async def test_batches_grow_while_nobody_is_tired(tired: list[bool], rests: list[int], batches: list[int]) -> None:
    """From one, doubling, to 32 events between two looks at the clock; the last one is what is left."""
    async with Plain() as recorder:
        assert (await recorder.flush()).success
        batches.clear()
        for n in range(100):
            recorder.register_event(Tick(n))
        assert (await recorder.flush()).success
        assert batches == [1, 2, 4, 8, 16, 32, 32, 5]
        assert rests == []


async def test_batches_begin_anew_after_a_rest(tired: list[bool], rests: list[int], batches: list[int]) -> None:
    """Whoever is tired rests and goes on with one event; the rest after the last event is the pass's."""
    async with Plain() as recorder:
        assert (await recorder.flush()).success
        for n in range(10):
            recorder.register_event(Tick(n))
        batches.clear()
        tired[:] = [False, False, True, False, False, True, False]
        assert (await recorder.flush()).success
        # After 1 + 2 + 4 tired; again from 1; the 2 that are left end the batch, and then it is the pass that is tired.
        assert batches == [1, 2, 4, 1, 2]
        assert len(rests) == 2


async def test_a_weary_loop_rests_after_each_event(tired: list[bool], rests: list[int], batches: list[int]) -> None:
    """Without a hook between events, but not after the last; with one after each; and after each pass."""
    tired[:] = [True]
    async with Plain() as recorder:
        for n in range(5):
            recorder.register_event(Tick(n))
        assert (await recorder.flush()).success
        assert batches == [1] * 5
        assert len(rests) == 5
    rests.clear()
    async with Journal() as recorder:
        recorder.register_metric(Count())
        for n in range(5):
            recorder.register_event(Tick(n))
        assert (await recorder.flush()).success
        assert len(rests) == 6


@KINDS
async def test_a_recorder_counts_as_active_while_it_works(kind: type[Journal]) -> None:
    """From its start to its sleep, and from its waking on; the hub tells a busy loop from an idle one by it."""
    hub = hub_of(current_loop())
    seen: list[int] = []

    class Looking(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            seen.append(hub.active)
            return super().handle_event(event)

    assert hub.active == 0
    recorder = kind()
    recorder.register_metric(Looking())
    recorder.starting = Gate()
    start = recorder.start()
    await auntil(recorder.starting.reached.is_set)
    assert hub.active == 1
    recorder.starting.open()
    assert (await start).success
    run = run_of(recorder)
    await auntil(lambda: not hub.active)
    assert not run._working
    recorder.register_event(Tick())
    await auntil(lambda: recorder.statistics().processed)
    assert seen == [1]
    await auntil(lambda: not hub.active)
    assert (await recorder.stop()).success
    await auntil(lambda: run.task is None)
    assert hub.active == 0


async def test_each_of_two_recorders_counts_as_active() -> None:
    """Also once both have slept before."""
    hub = hub_of(current_loop())
    recorders = [Journal(linger=0.0), Journal(linger=0.0)]
    for recorder in recorders:
        recorder.register_metric(Count())
        assert (await recorder.start()).success
    await auntil(lambda: not hub.active)
    for active, recorder in enumerate(recorders, start=1):
        recorder.changed = Gate()
        recorder.register_event(Tick())
        await auntil(recorder.changed.reached.is_set)
        assert hub.active == active
    for recorder in recorders:
        recorder.changed.open()
        assert (await recorder.stop()).success
    await auntil(lambda: not hub.active)


async def test_each_of_two_recorders_that_start_counts_as_active() -> None:
    """The second one adds itself to the first."""
    hub = hub_of(current_loop())
    recorders = [Journal(), Journal()]
    for active, recorder in enumerate(recorders, start=1):
        recorder.starting = Gate()
        recorder.start()
        await auntil(recorder.starting.reached.is_set)
        assert hub.active == active
    for recorder in recorders:
        recorder.starting.open()
        assert (await core_of(recorder).starting()).success
        assert (await recorder.stop()).success
    await auntil(lambda: not hub.active)


@KINDS
async def test_the_room_is_given_back_after_each_event(kind: type[Journal]) -> None:
    """An event under way counts against the bound, and then does not any more."""
    limits: list[int] = []

    class Looking(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            limits.append(core_of(recorder).inbox.hard_limit)
            return super().handle_event(event)

    async with kind(queue_max_size=10) as recorder:
        recorder.register_metric(Looking())
        for n in range(3):
            recorder.register_event(Tick(n))
        assert (await recorder.flush()).success
        assert limits == [9, 9, 9]
        assert core_of(recorder).inbox.hard_limit == 10


@KINDS
async def test_events_evicted_in_the_midst_of_a_pass(kind: type[Journal], batches: list[int]) -> None:
    """Fewer are there than when the pass began: it ends, and what came instead is the next pass's."""
    recorder = kind(queue_max_size=3, queue_overflow_policy=OverflowPolicy.DROP_OLDEST)
    seen = Seen()

    class Flooding(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            if not self.total:
                core_of(recorder).inbox.events.clear()  # what an emitter's evictions look like from here
            return super().handle_event(event)

    recorder.register_metric(Flooding())
    recorder.register_metric(seen)
    recorder.starting = Gate()
    for n in range(3):
        recorder.register_event(Tick(n))
    recorder.starting.open()
    assert (await recorder.flush()).success
    assert seen.events == [Tick(0)]
    recorder.register_event(Tick(3))
    assert (await recorder.flush()).success
    assert seen.events == [Tick(0), Tick(3)]
    assert (await recorder.stop()).success


@KINDS
async def test_whoever_waits_is_told_of_room_after_each_event(kind: type[Journal], batches: list[int]) -> None:
    """Not only at the end of a pass."""
    recorder = kind(queue_max_size=3)
    lines: list[int] = []

    class Looking(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            lines.append(len(core_of(recorder).inbox.line))
            return super().handle_event(event)

    class Told:
        def notify(self) -> None:
            """Takes its time."""

    recorder.register_metric(Looking())
    recorder.starting = Gate()
    for n in range(3):
        recorder.register_event(Tick(n))
    line = core_of(recorder).inbox.line
    line._waiters.extend(Told() for _ in range(5))
    recorder.starting.open()
    assert (await recorder.flush()).success
    # One event, one place for one of them; then at least as many as are free.
    assert lines[:2] == [5, 4]
    assert len(line) <= 1
    line.dismiss()
    assert (await recorder.stop()).success


# --- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("asleep_before", [False, True])
async def test_a_flush_is_answered_after_what_was_accepted_before(home: str, asleep_before: bool) -> None:
    """And not before, in the recorder's first work and after a sleep; what comes after it does not hold it up."""
    async with virgin(home, Journal, linger=0.0) as recorder:
        if asleep_before:
            assert (await recorder.start()).success
            await auntil(lambda: core_of(recorder).inbox.idle)
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick(0))
        await auntil(recorder.changed.reached.is_set)
        flush = recorder.flush()
        heard = threading.Event()
        core_of(recorder).home.hub().call_soon(heard.set)  # behind the flush's own call
        await auntil(heard.is_set)
        assert not flush.done()
        recorder.register_event(Tick(1))
        recorder.changed.open()
        assert (await flush).success
        assert recorder.statistics().processed >= 1


@pytest.mark.parametrize("lost", [0, 2])
async def test_who_waits_while_the_stopped_hook_is_at_work(home: str, lost: int) -> None:
    """Only whoever asked for more than was processed, and is told how the run has ended when it has."""
    async with virgin(home, Journal, drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.stopped = Gate()
        for n in range(1 + lost):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        snapshots = core_of(recorder)._ask_for_snapshots()
        flush = recorder.flush()
        stop = recorder.stop()
        await auntil(recorder.stopped.reached.is_set)
        assert snapshots is not None
        assert snapshots.reply.is_set
        assert flush.done() is (lost == 0)
        recorder.stopped.open()
        assert isinstance((await stop).error, RecorderDrainTimeoutError)
        assert isinstance((await flush).error, RecorderDrainTimeoutError) is (lost > 0)


async def test_what_an_overflow_has_cost_is_logged(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """How many events, as a warning."""
    async with virgin(home, Journal, queue_max_size=1, queue_overflow_policy=OverflowPolicy.DROP) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        await auntil(recorder.changed.reached.is_set)
        for _ in range(3):
            recorder.register_event(Tick())
        recorder.changed.open()
        assert (await recorder.flush()).success
    (record,) = records(caplog, "the inbox overflowed: 3 events thrown away since the last word of it")
    assert record.levelno == logging.WARNING


async def test_a_sleeping_recorder_answers_without_being_woken() -> None:
    """There is nothing to process: the loop answers in the actor's stead, and the actor sleeps on."""
    async with MetricsRecorder("x", linger=0.0) as recorder:
        inbox = core_of(recorder).inbox
        await auntil(lambda: inbox.idle)
        wakes: list[Inbox] = []
        inbox_wake = Inbox.wake

        class Wakeless(Inbox):
            __slots__ = ()

            def wake(self) -> None:
                wakes.append(self)
                inbox_wake(self)

        inbox.__class__ = Wakeless
        assert (await recorder.flush()).success
        assert wakes == []
        assert inbox.idle
        # Somebody has rung, for an event that was evicted before anybody looked: the next one rings again.
        assert isinstance(inbox.nap, list)
        inbox.nap.clear()
        assert (await recorder.flush()).success
        assert inbox.nap == [None]
        assert wakes == []
        recorder.register_event(Tick())
        assert (await recorder.flush()).success
        assert wakes
        inbox.__class__ = Inbox


async def test_a_flush_does_not_end_a_linger() -> None:
    """It is answered at once, and the linger goes on: later events still wait for its end."""
    async with MetricsRecorder("x", linger=3600.0, queue_max_size=10) as recorder:
        inbox = core_of(recorder).inbox
        recorder.register_event(Tick())
        await auntil(lambda: inbox.lingering)
        assert (await recorder.flush()).success
        assert (inbox.lingering, inbox.idle, inbox.threshold) == (True, False, 5)
        recorder.register_event(Tick())
        assert (await recorder.flush()).success
        assert recorder.statistics().processed == 2


@KINDS
async def test_the_height_is_seen_at_the_beginning_of_a_pass(home: str, kind: type[Journal]) -> None:
    """Nobody had looked before the events were processed."""
    async with virgin(home, kind) as recorder:
        recorder.register_metric(Count())
        recorder.starting = Gate()
        for n in range(3):
            recorder.register_event(Tick(n))
        recorder.starting.open()
        assert (await recorder.flush()).success
        assert recorder.statistics().high_water == 3


async def test_the_height_is_seen_between_events(home: str) -> None:
    """Events that came in the midst of a pass are counted with those that were there."""

    class Echo(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            if event == Tick(0):
                self.register_event(Tick(7))
                self.register_event(Tick(7))

    async with virgin(home, Echo) as recorder:
        recorder.register_metric(Count())
        recorder.starting = Gate()
        for n in range(3):
            recorder.register_event(Tick(n))
        recorder.starting.open()
        assert (await recorder.flush()).success
        await auntil(lambda: recorder.statistics().processed == 5)
        assert recorder.statistics().high_water == 4


async def test_the_hooks_run_in_a_task_that_says_whose_it_is(home: str) -> None:
    """For whoever looks at the tasks of a loop."""
    names: list[str | None] = []

    class Named(Journal):
        async def _on_starting(self) -> None:
            names.append(anyio.get_current_task().name)

    async with virgin(home, Named, "orders") as recorder:
        assert (await recorder.start()).success
    assert names == ["mvx.common.metrics recorder orders"]


# --- time limits -----------------------------------------------------------------------------------


def test_the_documented_limits() -> None:
    """Half a minute for a drain, and ten seconds at least for the stopped hook."""
    assert (DEFAULT_DRAIN_TIMEOUT, MIN_STOPPED_HOOK_TIMEOUT) == (30.0, 10.0)


@pytest.mark.parametrize(
    ("drain_timeout", "limit"), [(5.0, 20.0), (40.0, 40.0), (None, float("inf"))], ids=["short", "long", "none"]
)
async def test_how_long_the_stopped_hook_may_take(
    home: str, monkeypatch: pytest.MonkeyPatch, drain_timeout: float | None, limit: float
) -> None:
    """As long as the drain, but never less than the minimum; without a limit, after a stop that went well, for ever."""
    monkeypatch.setattr("mvx.common.metrics._actor.MIN_STOPPED_HOOK_TIMEOUT", 20.0)
    left: list[float] = []

    class Watching(Journal):
        async def _on_stopped(self) -> None:
            left.append(anyio.current_effective_deadline() - anyio.current_time())
            await super()._on_stopped()

    async with virgin(home, Watching, drain_timeout=drain_timeout) as recorder:
        assert (await recorder.start()).success
        assert (await recorder.stop()).success
    assert left[0] == limit or limit - 2 < left[0] < limit + ROUNDED


async def test_how_long_the_stopped_hook_may_take_after_a_failure(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has asked for the end then, so without a limit of its own it has the default."""
    monkeypatch.setattr("mvx.common.metrics._actor.DEFAULT_DRAIN_TIMEOUT", 17.0)
    left: list[float] = []

    class Watching(Journal):
        async def _on_stopped(self) -> None:
            left.append(anyio.current_effective_deadline() - anyio.current_time())

    async with virgin(home, Watching, drain_timeout=None, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.register_metric(Failing(ValueError()))
        recorder.register_event(Tick())
        await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)
    assert 15 < left[0] < 17 + ROUNDED


async def out_of_time(
    home: str, monkeypatch: pytest.MonkeyPatch, answer: Callable[[BaseException], BaseException]
) -> Any:
    """What a stop says whose stopped hook takes too long, and answers that with an exception."""
    monkeypatch.setattr("mvx.common.metrics._actor.MIN_STOPPED_HOOK_TIMEOUT", 0.01)

    class Slow(Journal):
        async def _on_stopped(self) -> None:
            try:
                await anyio.sleep_forever()
            except BaseException as exc:
                raise answer(exc) from None

    async with virgin(home, Slow, drain_timeout=0.001) as recorder:
        assert (await recorder.start()).success
        run_of(recorder)._stopping_begun = True  # the drain itself shall have all the time that a busy machine takes
        result = await recorder.stop()
        assert recorder.get_status() is RecorderState.FAILURE
    assert isinstance(result.error, RecorderOnStoppedHookFailedError)
    return result.error.cause


async def test_a_stopped_hook_that_wraps_its_end(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with the cancellation in it is the cancellation, too: it has run out of time."""
    cause = await out_of_time(home, monkeypatch, lambda exc: BaseExceptionGroup("wrapped", [exc]))
    assert isinstance(cause, TimeoutError)


async def test_a_stopped_hook_that_fails_at_its_end(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own exception says more than that it was cut."""
    error = ValueError("not yet")
    assert await out_of_time(home, monkeypatch, lambda _: error) is error


async def test_the_stopped_hook_of_an_interrupted_start(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """The starting hook has swallowed it: what it has set up is put away all the same, undisturbed and in time."""
    left: list[float] = []

    class Stubborn(Journal):
        async def _on_starting(self) -> None:
            self.starting.reached.set()
            with contextlib.suppress(BaseException):
                await anyio.sleep_forever()

        async def _on_stopped(self) -> None:
            left.append(anyio.current_effective_deadline() - anyio.current_time())
            await super()._on_stopped()

    async with virgin(home, Stubborn, drain_timeout=40.0) as recorder:
        recorder.stopped = Gate()
        start = recorder.start()
        await auntil(recorder.starting.reached.is_set)
        core_of(recorder).home.hub().call_soon(core_of(recorder).interrupt)
        assert (await start).success
        await auntil(recorder.stopped.reached.is_set)
        recorder.stopped.open()
        result = await run_of(recorder).stopping
    assert isinstance(result.error, RecorderDispatcherCancelledError)
    assert recorder.log == ["stopping", "stopped"]
    assert 38 < left[0] < 40 + ROUNDED
    assert caplog.records == []


async def test_a_stopped_hook_that_takes_too_long(
    home: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is cancelled, counted, logged and reported with the limit, and the recorder has failed."""
    monkeypatch.setattr("mvx.common.metrics._actor.MIN_STOPPED_HOOK_TIMEOUT", 0.01)
    async with virgin(home, Journal, drain_timeout=0.001) as recorder:
        assert (await recorder.start()).success
        recorder.stopped = Gate()
        run_of(recorder)._stopping_begun = True  # the drain itself shall have all the time that a busy machine takes
        result = await recorder.stop()
    assert isinstance(result.error, RecorderOnStoppedHookFailedError)
    assert str(result.error.cause) == "_on_stopped() did not return within 0.01 s"
    assert recorder.get_status() is RecorderState.FAILURE
    assert recorder.statistics().hook_errors == 1
    (record,) = records(caplog, "_on_stopped() failed")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is result.error.cause


class Timed(Journal):
    """Shows how much time its change hook has, whenever that is asked for."""

    def __init__(self, entity_id: str = "timed", **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.question, self.answer = Gate(), Gate()
        self.deadline = 0.0

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        while True:
            await self.question.passage()
            if self.changed.is_open:
                return
            self.deadline = anyio.current_effective_deadline()
            self.question, answer = Gate(), self.answer
            answer.open()

    def let_go(self) -> None:
        self.changed.open()
        self.question.open()


async def held_up(recorder: Timed) -> None:
    """Hold the recorder up in its hook."""
    recorder.register_metric(Count())
    recorder.changed = Gate()
    recorder.register_event(Tick())
    assert await deadline_of(recorder) == float("inf")


async def deadline_of(recorder: Timed) -> float:
    """Have the hook look at its deadline, behind what the recorder's loop was asked for before."""
    asked = Gate()
    core_of(recorder).home.hub().call_soon(asked.open)
    await asked.passage()
    recorder.answer = Gate()
    recorder.question.open()
    await recorder.answer.passage()
    return recorder.deadline


@pytest.mark.parametrize("count", [1, 3])
async def test_a_hook_that_swallows_the_end_of_the_drain(home: str, tired: list[bool], count: int) -> None:
    """It does not get the next event, even if nobody is tired and the recorder need not pause before that; the stop tells."""

    class Deaf(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            self.changed.reached.set()
            with contextlib.suppress(BaseException):
                await anyio.sleep_forever()

    async with virgin(home, Deaf, drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        for n in range(count):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        result = await recorder.stop()
    assert isinstance(result.error, RecorderDrainTimeoutError)
    statistics = recorder.statistics()
    assert (statistics.processed, statistics.abandoned) == (1, count - 1)


async def test_a_hook_that_wraps_the_end_of_the_drain(home: str) -> None:
    """A group with the cancellation in it is the cancellation, too: what is left was not processed, and the stop says so."""

    class Wrapping(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            self.changed.reached.set()
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class() as exc:
                raise BaseExceptionGroup("wrapped", [exc]) from None

    async with virgin(home, Wrapping, drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        for n in range(3):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        result = await recorder.stop()
        assert isinstance(result.error, RecorderDrainTimeoutError)
        assert recorder.get_status() is RecorderState.STOPPED
    statistics = recorder.statistics()
    assert (statistics.processed, statistics.abandoned) == (1, 2)


async def test_the_metrics_behind_a_hook_that_is_cut(home: str) -> None:
    """They see the event all the same, out of time or not; then it is done, whatever the stopped hook is about."""
    async with virgin(home, Journal, drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        recorder.register_metric(seen := Seen())
        recorder.changed = Gate()
        recorder.stopped = Gate()
        recorder.register_event(Tick(7))
        await auntil(recorder.changed.reached.is_set)
        stop = recorder.stop()
        await auntil(recorder.stopped.reached.is_set)
        assert seen.events == [Tick(7)]
        statistics = recorder.statistics()
        assert (statistics.processed, statistics.pending) == (1, 0)
        recorder.stopped.open()
        assert isinstance((await stop).error, RecorderDrainTimeoutError)


async def test_a_metric_that_fails_behind_a_hook_that_is_cut(home: str) -> None:
    """Under FAIL that is how the recorder ends."""
    async with virgin(home, Journal, drain_timeout=0.01, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.register_metric(Count())
        recorder.register_metric(Failing(error := ValueError("no")))
        recorder.changed = Gate()
        recorder.register_event(Tick())
        await auntil(recorder.changed.reached.is_set)
        result = await recorder.stop()
        assert recorder.get_status() is RecorderState.FAILURE
    assert isinstance(result.error, RecorderUnexpectedError)
    assert result.error.cause is error


@KINDS
@pytest.mark.parametrize("left", [0, 2])
async def test_a_drain_that_runs_out_of_time_while_nothing_is_handled(
    home: str, kind: type[Journal], left: int, tired: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is left makes a difference to the stop."""
    tired[:] = [True]
    resting = threading.Event()

    async def rest(_self: LoopHub) -> None:
        resting.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(LoopHub, "rest", rest)
    async with virgin(home, kind, drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        recorder.starting = Gate()
        for n in range(1 + left):
            recorder.register_event(Tick(n))
        recorder.starting.open()
        await auntil(resting.is_set)
        result = await recorder.stop()
        assert isinstance(result.error, RecorderDrainTimeoutError) is (left > 0)
        assert result.success is (left == 0)
        assert recorder.get_status() is RecorderState.STOPPED
    statistics = recorder.statistics()
    assert (statistics.processed, statistics.abandoned) == (1, left)


async def test_a_second_stop_does_not_prolong_the_drain(home: str) -> None:
    """The deadline is the first one's, whoever asks again, and the heartbeat neither."""
    async with virgin(home, Timed, drain_timeout=3600.0) as recorder:
        await held_up(recorder)
        try:
            first = recorder.stop()
            deadline = await deadline_of(recorder)
            assert deadline < float("inf")
            assert recorder.stop() is first
            core_of(recorder).home.hub().call_soon(run_of(recorder).heal)
            assert await deadline_of(recorder) == deadline
        finally:
            recorder.let_go()
        assert (await first).success


async def test_a_drain_without_a_limit(home: str) -> None:
    """It has no deadline."""
    async with virgin(home, Timed, drain_timeout=None) as recorder:
        await held_up(recorder)
        try:
            stop = recorder.stop()
            assert await deadline_of(recorder) == float("inf")
            assert run_of(recorder)._stopping_begun
        finally:
            recorder.let_go()
        assert (await stop).success


async def test_a_stop_that_did_not_come_through(home: str) -> None:
    """An exception hit whoever asked between two steps: the heartbeat does the rest, and only then."""
    async with virgin(home, Timed, drain_timeout=3600.0) as recorder:
        await held_up(recorder)
        try:
            run = run_of(recorder)
            core_of(recorder).home.hub().call_soon(run.heal)
            assert await deadline_of(recorder) == float("inf")
            assert not core_of(recorder).inbox.closed
            run._stop_requested = True
            core_of(recorder).home.hub().call_soon(run.heal)
            assert await deadline_of(recorder) < float("inf")
            assert core_of(recorder).inbox.closed
            stop = recorder.stop()
        finally:
            recorder.let_go()
        assert (await stop).success


@pytest.mark.parametrize(("drain_timeout", "limit"), [(7.0, 7.0), (None, 17.0)])
def test_how_long_a_drain_may_take_after_the_end_of_its_loop(
    anyio_backend: tuple[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    drain_timeout: float | None,
    limit: float,
) -> None:
    """As long as after a stop; without a limit of its own it has the default; and it is cut only once."""
    monkeypatch.setattr("mvx.common.metrics._actor.DEFAULT_DRAIN_TIMEOUT", 17.0)
    left: list[float] = []
    states: list[RecorderState] = []

    class Cut(Journal):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            self.changed.reached.set()
            if event == Tick(0):
                await anyio.sleep_forever()
            await anyio.sleep(0)
            left.append(anyio.current_effective_deadline() - anyio.current_time())
            states.append(self.get_status())

    async def main() -> Cut:
        recorder = Cut(drain_timeout=drain_timeout)
        recorder.register_metric(Count())
        for n in range(3):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        return recorder

    name, options = anyio_backend
    recorder = anyio.run(main, backend=name, backend_options=options)
    assert len(left) == 2
    assert all(limit - 2 < seconds < limit + ROUNDED for seconds in left)
    assert states == [RecorderState.STOPPING] * 2
    assert recorder.get_status() is RecorderState.CANCELLED
    statistics = recorder.statistics()
    assert (statistics.processed, statistics.hook_errors) == (3, 1)


@WITH_TRIO
def test_the_last_hook_outlives_the_end_of_its_loop_under_trio() -> None:
    """It has begun, so it may end; trio would cancel it at every checkpoint, asyncio once, which nobody can prevent."""
    import trio  # noqa: PLC0415 — an extra

    reached: list[str] = []
    ending: anyio.Event

    class Closing(Journal):
        async def _on_stopped(self) -> None:
            reached.append("begun")
            await ending.wait()
            await anyio.lowlevel.checkpoint()
            reached.append("done")

    async def tell_the_end(telling: anyio.Event) -> None:
        telling.set()
        try:
            await anyio.sleep_forever()
        finally:
            ending.set()

    async def main() -> Closing:
        nonlocal ending
        ending, telling = anyio.Event(), anyio.Event()
        # Ended by trio when it ends the recorder's task, a system task like it.
        trio.lowlevel.spawn_system_task(tell_the_end, telling)
        await telling.wait()
        recorder = Closing()
        assert (await recorder.start()).success
        recorder.stop()
        await auntil(lambda: reached)
        return recorder

    recorder = anyio.run(main, backend="trio")
    assert reached == ["begun", "done"]
    assert recorder.get_status() is RecorderState.STOPPED


async def test_a_drain_that_ran_out_of_time_is_logged(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """With what the result says, for those who do not look at results."""
    async with virgin(home, Journal, drain_timeout=0.01) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        for n in range(3):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        result = await recorder.stop()
    assert isinstance(result.error, RecorderDrainTimeoutError)
    (record,) = records(caplog, result.error.message)
    assert record.levelno == logging.ERROR
    assert vars(record)["entity_id"] == "journal"
    assert result.error.details["abandoned"] == 2


# --- failures --------------------------------------------------------------------------------------


async def test_a_starting_hook_that_fails(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """FAILURE at once; what had come is abandoned, a flush says why; no hook follows; counted and logged."""
    async with virgin(home, Journal) as recorder:
        recorder.errors["starting"] = error = ValueError("no")
        recorder.starting = Gate()
        start = recorder.start()
        recorder.register_event(Tick())
        flush = recorder.flush()
        recorder.starting.open()
        result = await start
        assert isinstance(result.error, RecorderOnStartingHookFailedError)
        assert result.error.cause is error
        assert isinstance((await flush).error, RecorderOnStartingHookFailedError)
        assert recorder.get_status() is RecorderState.FAILURE
        assert recorder.log == ["starting"]
        statistics = recorder.statistics()
        assert (statistics.hook_errors, statistics.abandoned) == (1, 1)
        assert balanced(statistics)
    (record,) = caplog.records
    assert record.getMessage() == "_on_starting() raised"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_a_change_hook_that_fails_under_fail(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """The reason is the hook's exception; it is counted and logged as the hook's."""
    async with virgin(home, Journal, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.errors["changed"] = error = ValueError("no")
        recorder.register_metric(Count())
        recorder.register_event(Tick())
        await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)
        failure = core_of(recorder).error
    assert isinstance(failure, RecorderUnexpectedError)
    assert str(failure) == "_on_metric_changed() raised: ValueError('no')"
    assert failure.cause is error
    assert recorder.statistics().hook_errors == 1
    (record,) = records(caplog, "_on_metric_changed() raised")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_nobody_sees_the_event_after_a_hook_that_fails_under_fail(home: str) -> None:
    """The recorder has failed: the metrics that come later are not shown what is left of the event."""
    async with virgin(home, Journal, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.errors["changed"] = ValueError("no")
        recorder.register_metric(Count())
        recorder.register_metric(seen := Seen())
        recorder.register_event(Tick())
        await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)
    assert seen.events == []
    assert recorder.statistics().processed == 1


async def test_each_kind_of_failure_is_logged_once(home: str, caplog: pytest.LogCaptureFixture) -> None:
    """Another class of exception and another hook are told; a repetition is held back."""
    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Count())
        raised = [ValueError(1), ValueError(2), KeyError(3)]
        for error in raised:
            recorder.errors["changed"] = error
            recorder.register_event(Tick())
            assert (await recorder.flush()).success
        recorder.errors["stopped"] = KeyError(4)
        assert not (await recorder.stop()).success
    told = [(record.getMessage(), record.exc_info and record.exc_info[0]) for record in caplog.records]
    assert told == [
        ("_on_metric_changed() raised", ValueError),
        ("_on_metric_changed() raised", KeyError),
        ("_on_stopped() failed", KeyError),
    ]
    # What was not told keeps nothing alive of what it came through.
    assert [error.__traceback__ is None for error in raised] == [False, True, False]


async def test_a_fault_of_the_library_is_logged(
    home: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback: it ends the recorder, and nobody else would tell."""
    error = ArithmeticError("no")
    async with virgin(home, MetricsRecorder, "x") as recorder:

        def broken(*_: object) -> int:
            raise error

        monkeypatch.setattr(core_of(recorder).dispatcher, "dispatch", broken)
        recorder.register_event(Tick())
        await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)
        failure = core_of(recorder).error
    assert isinstance(failure, RecorderUnexpectedError)
    assert str(failure) == "the recorder failed: ArithmeticError('no')"
    assert failure.cause is error
    (record,) = records(caplog, "the recorder failed")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize("where", ["group", "runtime"])
async def test_a_hook_that_leaves_a_scope_open(
    where: str, anyio_backend: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The recorder has failed, its neighbours' task group has not, and the log leads to what came out of the task."""

    class Leaky(Journal):
        async def _on_starting(self) -> None:
            anyio.CancelScope().__enter__()

    async with virgin(where, Leaky) as recorder:
        assert (await recorder.start()).success
        result = await recorder.stop()
        assert isinstance(result.error, RecorderUnexpectedError)
        assert isinstance(result.error.cause, RuntimeError)
        message = "the recorder's task ended badly: did a hook leave a scope open?"
        await auntil(lambda: records(caplog, message))
        assert recorder.get_status() is RecorderState.FAILURE
    (record,) = records(caplog, message)
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)


@ON_TRIO
async def test_a_hook_that_leaves_a_task_group_open(
    home: str, anyio_backend: object, caplog: pytest.LogCaptureFixture
) -> None:
    """That is the reason of the failure, where trio says so only behind the end of the recorder's task."""

    class Leaky(Journal):
        async def _on_starting(self) -> None:
            group = await anyio.create_task_group().__aenter__()
            group.cancel_scope.__exit__(None, None, None)  # or the recorder's own scope would find it in its way

    async with virgin(home, Leaky) as recorder:
        assert (await recorder.start()).success
        result = await recorder.stop()
        assert recorder.get_status() is RecorderState.FAILURE
    assert isinstance(result.error, RecorderUnexpectedError)
    assert str(result.error).startswith("a hook left a scope or task group open: ")
    (record,) = records(caplog, "the recorder's task ended badly: did a hook leave a scope open?")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)
    assert result.error.cause is record.exc_info[1]


@pytest.mark.parametrize("hook", ["starting", "changed", "stopped"])
@ON_TRIO
async def test_ctrl_c_in_a_hook(anyio_backend: object, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    """It ends the recorder, and goes its way to whoever owns the task group, as nobody's fault."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with virgin("group", Journal) as recorder:
            recorder.errors[hook] = interrupt = KeyboardInterrupt()
            recorder.register_metric(Count())
            recorder.register_event(Tick())
            run = run_of(recorder)
            if hook == "stopped":
                assert (await recorder.flush()).success
                recorder.stop()
            await auntil(run.stopping.done)
    assert holds(caught.value, KeyboardInterrupt)
    assert recorder.get_status() is RecorderState.FAILURE
    assert core_of(recorder).error is not None
    assert run._ctrl_c is interrupt
    assert records(caplog, "the recorder's task ended badly: did a hook leave a scope open?") == []


async def test_a_failure_keeps_its_reason(home: str) -> None:
    """What came first counts: a failing stopped hook after a failing metric is told, and is not the reason."""
    async with virgin(home, Journal, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.errors["stopped"] = ValueError("second")
        recorder.register_metric(Failing(ValueError("first")))
        recorder.register_event(Tick())
        await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)
        error = core_of(recorder).error
        assert isinstance(error, RecorderUnexpectedError)
        assert str(error.cause) == "first"
        assert recorder.statistics().hook_errors == 1


async def test_a_failing_recorder_shows_its_end_at_once(home: str) -> None:
    """While the stopped hook is at work it is stopping, and takes nothing any more."""
    async with virgin(home, Journal, failure_policy=FailurePolicy.FAIL) as recorder:
        recorder.stopped = Gate()
        recorder.register_metric(Failing(ValueError("first")))
        recorder.register_event(Tick())
        await auntil(recorder.stopped.reached.is_set)
        assert recorder.get_status() is RecorderState.STOPPING
        assert core_of(recorder).inbox.closed
        recorder.stopped.open()
        await auntil(lambda: recorder.get_status() is RecorderState.FAILURE)


async def test_an_interrupted_run(home: str) -> None:
    """Cancelled before its first step: its hooks are not called; in the midst: what was accepted is abandoned."""
    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Count())
        recorder.starting = Gate()
        start = recorder.start()
        recorder.register_event(Tick())
        await auntil(recorder.starting.reached.is_set)
        core_of(recorder).home.hub().call_soon(core_of(recorder).interrupt)
        result = await start
        assert isinstance(result.error, RecorderDispatcherCancelledError)
        assert recorder.get_status() is RecorderState.CANCELLED
        assert recorder.statistics().abandoned == 1
        assert recorder.log == ["starting"]


async def test_an_interrupted_drain(home: str) -> None:
    """A run that is interrupted at work: the hook is cut, what waits is abandoned, the stopped hook runs as ever."""
    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        for n in range(3):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        run = run_of(recorder)
        core_of(recorder).home.hub().call_soon(core_of(recorder).interrupt)
        result = await run.stopping
        assert isinstance(result.error, RecorderDispatcherCancelledError)
        assert result.error.details == {"abandoned": 2}
        assert recorder.get_status() is RecorderState.CANCELLED
        statistics = recorder.statistics()
        assert (statistics.processed, statistics.abandoned, statistics.hook_errors) == (1, 2, 1)
        assert recorder.log == ["starting", "started", "changed", "stopping", "stopped"]


@pytest.mark.parametrize("hook", ["starting", "changed", "stopped"])
async def test_a_shielded_recorder_is_only_stopped(hook: str) -> None:
    """What cancels its task group from around finds it working on until it is asked to stop."""
    with anyio.CancelScope() as scope:
        async with virgin("group", Journal) as recorder:
            gate = Gate()
            setattr(recorder, hook, gate)
            recorder.register_metric(Count())
            recorder.register_event(Tick())
            if hook == "stopped":
                assert (await core_of(recorder).starting()).success
                recorder.stop()
            await auntil(gate.reached.is_set)
            scope.cancel()
            with anyio.CancelScope(shield=True):
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                gate.open()
                assert (await core_of(recorder).starting()).success
    assert recorder.get_status() is RecorderState.STOPPED
    assert core_of(recorder).error is None
    assert recorder.log == ["starting", "started", "changed", "stopping", "stopped"]


async def test_a_scope_between_the_starting_and_the_stopped_hook() -> None:
    """A shielded recorder works on when it is cancelled: what the scope is about is the hooks' business."""

    class Opening(Journal):
        async def _on_starting(self) -> None:
            self.scope = anyio.CancelScope()
            self.scope.__enter__()

        async def _on_stopped(self) -> None:
            self.scope.__exit__(None, None, None)

    async with virgin("group", Opening) as recorder:
        recorder.register_metric(Count())
        assert (await recorder.start()).success
        recorder.scope.cancel()
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        recorder.register_event(Tick())
        assert (await recorder.flush()).success
        assert recorder.get_status() is RecorderState.RUNNING
        assert (await recorder.stop()).success


async def test_a_starting_hook_that_answers_an_interruption_with_an_error(home: str) -> None:
    """It has failed, whatever has made it fail."""

    class Grumpy(Journal):
        async def _on_starting(self) -> None:
            try:
                await super()._on_starting()
            except BaseException:
                raise error from None

    error = ValueError("not now")
    async with virgin(home, Grumpy) as recorder:
        recorder.starting = Gate()
        start = recorder.start()
        await auntil(recorder.starting.reached.is_set)
        core_of(recorder).home.hub().call_soon(core_of(recorder).interrupt)
        result = await start
        assert isinstance(result.error, RecorderOnStartingHookFailedError)
        assert result.error.cause is error
        assert recorder.get_status() is RecorderState.FAILURE


class Swallowing(Journal):
    """Does not pass on that its change hook was cancelled."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        with contextlib.suppress(BaseException):
            await super()._on_metric_changed(metric=metric, event=event)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
async def test_a_hook_that_swallows_the_cancellation_of_its_task(anyio_backend: object) -> None:
    """asyncio would not cancel the task again: the recorder ends all the same, with everything processed."""
    recorder = Swallowing()
    recorder.register_metric(Count())
    recorder.changed = Gate()
    for n in range(3):
        recorder.register_event(Tick(n))
    await auntil(recorder.changed.reached.is_set)
    run = run_of(recorder)
    assert isinstance(run.task, asyncio.Task)
    run.task.cancel()
    await auntil(lambda: len(recorder.log) > 3)
    recorder.changed.open()
    with anyio.fail_after(DEADLINE):
        result = await run.stopping
    assert isinstance(result.error, RecorderDispatcherCancelledError)
    assert recorder.statistics().processed == 3


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.skipif(ANYIO < (4, 16), reason="anyio took it for that of its scope")
async def test_a_cancellation_that_comes_with_the_end_of_the_drain(anyio_backend: object) -> None:
    """The one of the task counts: somebody from outside has ended the recorder."""
    recorder = Journal(drain_timeout=3600.0)
    recorder.register_metric(Count())
    recorder.changed = Gate()
    for n in range(3):
        recorder.register_event(Tick(n))
    await auntil(recorder.changed.reached.is_set)
    stop = recorder.stop()
    run = run_of(recorder)
    assert isinstance(run.task, asyncio.Task)
    run.interrupt()
    run.task.cancel()
    result = await stop
    assert isinstance(result.error, RecorderDispatcherCancelledError)
    assert recorder.get_status() is RecorderState.CANCELLED
    assert recorder.statistics().abandoned == 2


async def test_an_interrupted_stop(home: str) -> None:
    """Somebody has asked for the end: it is that of a drain that had no more time."""
    async with virgin(home, Journal, drain_timeout=3600.0) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        for n in range(3):
            recorder.register_event(Tick(n))
        await auntil(recorder.changed.reached.is_set)
        stop = recorder.stop()
        core_of(recorder).home.hub().call_soon(core_of(recorder).interrupt)
        result = await stop
        assert isinstance(result.error, RecorderDrainTimeoutError)
        assert result.error.details["abandoned"] == 2
        assert recorder.get_status() is RecorderState.STOPPED


@pytest.mark.parametrize("where", ["loop", "group"])
async def test_ending_a_recorder(where: str) -> None:
    """One that runs is stopped; one that is starting is waited for, for as long as a drain may take, and then stopped."""
    async with virgin(where, Journal, drain_timeout=3600.0) as recorder:
        core = core_of(recorder)
        assert (await recorder.start()).success
        result = await core.end()
        assert (result.op_name, result.success) == (RecorderOp.STOP, True)
        recorder.starting = Gate()
        recorder.start()
        async with anyio.create_task_group() as group:

            async def open_later() -> None:
                await auntil(recorder.starting.reached.is_set)
                assert recorder.get_status() is RecorderState.STARTING
                recorder.starting.open()

            group.start_soon(open_later)
            result = await core.end()
        assert (result.op_name, result.success) == (RecorderOp.STOP, True)
        assert recorder.get_status() is RecorderState.STOPPED


@pytest.mark.parametrize("where", ["loop", "group"])
async def test_ending_a_recorder_that_does_not_start(where: str) -> None:
    """It is interrupted after that time, and the result is that of the start."""
    async with virgin(where, Journal, drain_timeout=0.01) as recorder:
        recorder.starting = Gate()
        recorder.start()
        with anyio.fail_after(DEADLINE):
            result = await core_of(recorder).end()
        assert result.op_name is RecorderOp.START
        assert isinstance(result.error, RecorderDispatcherCancelledError)
        assert recorder.log == ["starting"]


# --- the account -----------------------------------------------------------------------------------


async def test_a_run_that_has_begun_cannot_be_taken_back(home: str) -> None:
    """Its hooks have been called: it goes on."""
    async with virgin(home, Journal) as recorder:
        assert (await recorder.start()).success
        assert not run_of(recorder).withdraw(ValueError("too late"))
        assert recorder.get_status() is RecorderState.RUNNING
        assert (await recorder.stop()).success


@KINDS
async def test_a_run_is_concluded_once(home: str, kind: type[Journal]) -> None:
    """Whoever concludes again changes nothing."""
    async with virgin(home, kind) as recorder:
        recorder.register_metric(Count())
        recorder.register_event(Tick())
        assert (await recorder.flush()).success
        assert (await recorder.stop()).success
        before: Any = recorder.statistics()
        run_of(recorder).conclude()
        run_of(recorder).lose_loop()
        assert recorder.statistics() == before
        assert balanced(before)
