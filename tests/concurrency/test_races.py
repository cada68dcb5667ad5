"""Everybody at once, at a switch interval of a microsecond: order, bound, books, and no lost wake-up.

Nothing in here is healed: the heartbeats, which make up for a wake-up that an exception has cut
short, are out of reach, so that one that is lost in any other way holds its test up for good.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from contextlib import AsyncExitStack
from queue import SimpleQueue
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
)
from mvx.common.metrics._actor import ActorRun
from mvx.common.metrics._copying import copied
from mvx.common.metrics._inbox import Inbox
from mvx.common.metrics._plain import PlainRun
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._waiting import TaskWaiter
from tests.concurrency.racing import Hooked, Race, check_refusal
from tests.conftest import Effort, Tally
from tests.inbox_stage import Tampered
from tests.support import DEADLINE, Count, Failing, Gate, Journal, Tick, auntil, run_threads, until, virgin

pytestmark = pytest.mark.usefixtures("fast_switching", "no_heartbeat")


@pytest.fixture
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put every heartbeat off until long after the test has given up."""
    for module in ("_waiting", "_inbox", "_hub"):
        monkeypatch.setattr(f"mvx.common.metrics.{module}.HEARTBEAT", 3600.0)


# --- everybody -----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("failure_policy", list(FailurePolicy))
@pytest.mark.parametrize("policy", list(OverflowPolicy))
async def test_everybody_at_once(
    home: str,
    anyio_backend: tuple[str, dict[str, Any]],
    policy: OverflowPolicy,
    failure_policy: FailurePolicy,
    effort: Effort,
    tally: Tally,
) -> None:
    """Emitters, registrars, readers, a stopper and a restarter: every event ends in one class, in order, as told."""
    other_loop = "trio" if anyio_backend[0] == "asyncio" else "asyncio"
    offered = 0
    for seed in range(effort(2, 40)):
        kind, linger = ((MetricsRecorder, 0.0), (Hooked, 0.001), (Hooked, 0.0), (MetricsRecorder, 0.001))[seed % 4]
        async with virgin(
            home,
            kind,
            "raced",
            queue_max_size=(7, 64, 1)[seed % 3],
            queue_overflow_policy=policy,
            failure_policy=failure_policy,
            quarantine_after=3,
            block_timeout=DEADLINE,
            linger=linger,
        ) as recorder:
            race = Race(
                recorder, policy=policy, failure_policy=failure_policy, events=100, other_loop=other_loop, seed=seed
            )
            await race.run()
            await recorder.stop()
            offered += race.audit().offered
    tally(f"events raced under {policy.value}", offered)


# --- wake-ups ------------------------------------------------------------------------------------


class Signal(Count):
    """Tells another thread of every event."""

    def __init__(self) -> None:
        super().__init__()
        self.handled: SimpleQueue[None] = SimpleQueue()

    def handle_event(self, event: MetricEvent) -> bool:
        self.handled.put(None)
        return False


class Edge:
    """When to emit the next event: right on the heels of the last one, a little later, or to a sleeper."""

    def __init__(self, recorder: MetricsRecorder, seed: int) -> None:
        self._recorder = recorder
        self._chance = random.Random(seed)

    def approach(self) -> None:
        match self._chance.randrange(4):
            case 0:
                deadline = time.monotonic() + DEADLINE
                while not core_of(self._recorder).inbox.idle:
                    assert time.monotonic() < deadline
            case 1:
                pass
            case _:
                # The consumer needs some microseconds from the event to its sleep: hit all of them.
                for _ in range(self._chance.randrange(300)):
                    pass


@pytest.mark.anyio
@pytest.mark.parametrize("linger", [0.0, 0.0005])
async def test_an_idle_recorder_always_wakes(home: str, linger: float, effort: Effort, tally: Tally) -> None:
    """An event is handled whenever it comes: to a sleeper, in a linger, and on the edge of either."""
    tries = effort(300, 90_000) if linger == 0 else effort(60, 6000)
    async with virgin(home, MetricsRecorder, "x", linger=linger) as recorder:
        signal = Signal()
        recorder.register_metric(signal)
        edge = Edge(recorder, seed=1)

        def emit() -> None:
            for n in range(tries):
                recorder.register_event(Tick(n))
                signal.handled.get(timeout=DEADLINE)
                edge.approach()

        await anyio.to_thread.run_sync(emit)
        assert (await recorder.flush()).success
        assert recorder.statistics().processed == tries
    tally("wake-ups of an idle recorder", tries)


@pytest.mark.anyio
async def test_an_idle_recorder_wakes_for_its_own_loop(effort: Effort, tally: Tally) -> None:
    """So it does for an event that a task of the very same loop emits."""
    tries = effort(300, 30_000)

    class Handled(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            handled.set()
            return False

    async with MetricsRecorder("x", linger=0.0) as recorder:
        recorder.register_metric(Handled())
        for n in range(tries):
            handled = anyio.Event()
            for _ in range(n % 5):  # asleep, or about to be
                await anyio.lowlevel.checkpoint()
            if n % 2:
                recorder.register_event(Tick(n))
            else:
                await recorder.aregister_event(Tick(n))
            with anyio.fail_after(DEADLINE):
                await handled.wait()
    tally("wake-ups of an idle recorder", tries)


@pytest.mark.anyio
@pytest.mark.parametrize("linger", [0.0, 0.0005])
async def test_one_event_for_each_of_many_recorders(
    backend: dict[str, Any], linger: float, effort: Effort, tally: Tally
) -> None:
    """Recorders of one loop share their wake-ups: each handles the one event that it gets, whoever else gets one."""
    count, rounds, emitters = 60, effort(3, 500), 3

    def emit_to(recorders: list[MetricsRecorder], signal: Signal, seed: int) -> None:
        def emit(who: int) -> None:
            mine = recorders[who::emitters]
            random.Random(seed + who).shuffle(mine)
            for recorder in mine:
                recorder.register_event(Tick(seed))
            for _ in mine:
                signal.handled.get(timeout=DEADLINE)

        run_threads(*(lambda who=who: emit(who) for who in range(emitters)))
        for recorder in recorders:
            assert recorder.flush().wait(DEADLINE).success

    signal = Signal()
    async with AsyncExitStack() as stack:
        by_hand = [
            await stack.enter_async_context(MetricsRecorder(f"x{n}", linger=linger))
            if n % 2
            else MetricsRecorder(f"x{n}", linger=linger)
            for n in range(count)
        ]
        runtime = await stack.enter_async_context(MetricsRuntime(namespace="t", **backend))
        hosted = [await runtime.acreate_recorder(f"x{n}", linger=linger) for n in range(count)]
        for recorders in (by_hand, hosted):
            for recorder in recorders:
                recorder.register_metric(signal)
            for n in range(rounds):
                await anyio.to_thread.run_sync(emit_to, recorders, signal, n)
            assert all(recorder.statistics().processed == rounds for recorder in recorders)
        for recorder in by_hand[::2]:
            assert (await recorder.stop()).success
    tally("wake-ups of an idle recorder", 2 * count * rounds)


@pytest.mark.anyio
@pytest.mark.parametrize("linger", [0.0, 3600.0])
async def test_an_idle_recorder_answers(home: str, linger: float, effort: Effort, tally: Tally) -> None:
    """A flush, a snapshot and a stop reach a recorder that sleeps, and one in the longest linger."""
    tries = effort(50, 5000)
    async with virgin(home, MetricsRecorder, "x", linger=linger) as recorder:
        recorder.register_metric(Count())
        edge = random.Random(1)
        emitted = 0

        def ask(n: int) -> None:
            nonlocal emitted
            if edge.random() < 0.5:
                recorder.register_event(Tick(n))
                emitted += 1
            for _ in range(edge.randrange(100)):
                pass
            match n % 3:
                case 0:
                    assert recorder.flush().wait(DEADLINE).success
                    assert recorder.statistics().processed == emitted
                case 1:
                    assert recorder.get_metric_snapshots()["count"]["dimensions"]["total"] == emitted
                case _:
                    assert recorder.stop().wait(DEADLINE).success
                    assert recorder.statistics().processed == emitted
                    assert recorder.start().wait(DEADLINE).success

        def ask_often() -> None:
            assert recorder.start().wait(DEADLINE).success
            for n in range(tries):
                ask(n)

        await anyio.to_thread.run_sync(ask_often)
    tally("requests to an idle recorder", tries)


# --- orderings that a race meets once in a million -----------------------------------------------


class Stuck(Count):
    """Is held up by the event number 7, in its recorder's thread."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.release = threading.Event()

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, Tick) and event.n == 7:
            self.reached.set()
            assert self.release.wait(DEADLINE)
        return super().handle_event(event)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request to an actor so far, whether it will be answered: then whoever has asked waits."""
    answers: list[bool] = []
    ask = Inbox.ask

    def ask_watched(inbox: Inbox, request: object) -> bool:
        answers.append(ask(inbox, request))
        return answers[-1]

    monkeypatch.setattr(Inbox, "ask", ask_watched)
    return answers


def test_an_event_accepted_by_the_seal_is_waited_for(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch, asked: list[bool]
) -> None:
    """An emitter held up over a stop, whose event the last copy takes: its flush and its snapshot contain that event."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", linger=0.0)
        metric = Stuck()
        recorder.register_metric(metric)
        recorder.register_event(Tick(0))
        assert recorder.flush().wait(DEADLINE).success
        inbox = core_of(recorder).inbox
        events = Tampered(inbox)
        at_the_gate, sealing, appended = threading.Event(), threading.Event(), threading.Event()
        shown: list[int] = []
        flushed: list[int] = []

        def held_up(event: MetricEvent) -> None:
            at_the_gate.set()
            assert sealing.wait(DEADLINE)
            events.really_append(event)
            appended.set()

        def copied_late(items: Any) -> Any:
            sealing.set()
            assert appended.wait(DEADLINE)
            return copied(items)

        def emit_and_read() -> None:
            recorder.register_event(Tick(7))
            assert metric.reached.wait(DEADLINE)
            flush = recorder.flush()
            if flush.done():  # it must not be: the event is being handled
                flushed.append(metric.total)
            asked.clear()
            reader.start()
            until(lambda: shown or asked)
            metric.release.set()
            assert flush.wait(DEADLINE).success
            flushed.append(metric.total)

        def read() -> None:
            shown.append(recorder.get_metric_snapshots()["count"]["dimensions"]["total"])

        reader = threading.Thread(target=read)
        emitter = threading.Thread(target=emit_and_read)
        events.tampered = held_up
        emitter.start()
        assert at_the_gate.wait(DEADLINE)
        monkeypatch.setattr("mvx.common.metrics._inbox.copied", copied_late)
        stop = recorder.stop()
        emitter.join(DEADLINE)
        reader.join(DEADLINE)
        assert stop.wait(DEADLINE).success
        assert (shown, flushed) == ([2], [2])


def test_an_event_accepted_by_a_restart_is_waited_for(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch, asked: list[bool]
) -> None:
    """From the moment a restart takes events on, flushes and snapshots wait for them."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", linger=0.0)
        recorder.register_metric(Count())
        assert recorder.stop().wait(DEADLINE).success
        attend = PlainRun.attend
        shown: list[int] = []
        states: list[RecorderState] = []

        def emit_and_read() -> None:
            recorder.register_event(Tick())
            states.append(recorder.get_status())
            shown.append(recorder.get_metric_snapshots()["count"]["dimensions"]["total"])

        emitter = threading.Thread(target=emit_and_read)

        def attend_watched(run: PlainRun) -> None:
            attend(run)
            emitter.start()
            until(lambda: shown or asked)

        monkeypatch.setattr(PlainRun, "attend", attend_watched)
        start = recorder.start()
        emitter.join(DEADLINE)
        assert start.wait(DEADLINE).success
        assert shown == [1]
        assert states == [RecorderState.RUNNING]


def test_a_refusal_that_a_restart_overtakes(backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that met the end of one run, and the next run before it was refused, is accepted by that."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        recorder.register_metric(Count())
        assert recorder.stop().wait(DEADLINE).success
        put = Inbox.put

        def put_held_up(inbox: Inbox, event: MetricEvent) -> bool:
            monkeypatch.setattr(Inbox, "put", put)
            accepted = put(inbox, event)
            assert recorder.start().wait(DEADLINE).success
            return accepted

        # Looked up when it is called, as the emitter's own way in is a method that is bound already.
        core = core_of(recorder)
        monkeypatch.setattr(Inbox, "put", put_held_up)
        core.put_again(Tick())
        assert recorder.flush().wait(DEADLINE).success
        statistics = recorder.statistics()
        assert (statistics.processed, statistics.rejected) == (1, 0)


def test_a_refusal_while_the_recorder_fails(backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a failing recorder turns events away, its state says so."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", failure_policy=FailurePolicy.FAIL)
        recorder.register_metric(Failing(ArithmeticError()))
        abandon = Inbox.abandon
        abandoned, refused = threading.Event(), threading.Event()

        def abandon_watched(inbox: Inbox) -> int:
            lost = abandon(inbox)
            abandoned.set()
            assert refused.wait(DEADLINE)
            return lost

        monkeypatch.setattr(Inbox, "abandon", abandon_watched)
        recorder.register_event(Tick())
        assert abandoned.wait(DEADLINE)
        try:
            with pytest.raises(RecorderInvalidStateError) as raised:
                recorder.register_event(Tick())
            check_refusal(raised.value)
        finally:
            refused.set()
        until(lambda: recorder.get_status() is RecorderState.FAILURE)
        runtime._supervisor.take("x")  # a shutdown would report the failure
        runtime._supervisor.removed("x")


@pytest.mark.anyio
async def test_room_that_is_not_taken_goes_to_the_next(
    home: str, anyio_backend: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cancelled after having been told that there is room passes it on."""
    if anyio_backend[0] == "trio":
        pytest.skip("a task that is about to be woken cannot be cancelled there")
    notify = TaskWaiter.notify

    async with virgin(home, Journal, queue_max_size=1) as recorder:
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        await auntil(recorder.changed.reached.is_set)
        emitters: list[asyncio.Task[None]] = []
        for n in range(2):
            emitters.append(asyncio.create_task(recorder.aregister_event(Tick(n))))
            await auntil(lambda: len(core_of(recorder).inbox.line) == len(emitters))
        loop = asyncio.get_running_loop()

        def notify_and_cancel(waiter: TaskWaiter) -> None:
            monkeypatch.setattr(TaskWaiter, "notify", notify)

            def tell() -> None:
                waiter._event.set()
                emitters[0].cancel()

            loop.call_soon_threadsafe(tell)

        monkeypatch.setattr(TaskWaiter, "notify", notify_and_cancel)
        recorder.changed.open()
        with anyio.fail_after(DEADLINE):
            await asyncio.wait(emitters)
        assert emitters[0].cancelled()
        assert not emitters[1].cancelled()
        assert (await recorder.flush()).success
        assert recorder.statistics().accepted == 2


def fill(recorder: MetricsRecorder, *, at_most: int = 100) -> int:
    """Emit until there is no room, and return how many events are pending then."""
    for _ in range(at_most):
        try:
            recorder.register_event(Tick(9))
        except RecorderQueueOverflowError:
            break
    return recorder.statistics().pending


def test_one_emitter_keeps_to_the_bound_while_a_hook_comes_up(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event on its way from the inbox to the metric and its hook counts already."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=Journal, queue_max_size=4, queue_overflow_policy=OverflowPolicy.RAISE_ERROR
        )
        recorder.register_metric(Count())
        recorder.changed = Gate()
        recorder.register_event(Tick())
        assert recorder.changed.reached.wait(DEADLINE)
        assert fill(recorder) == 4
        note = ActorRun._note_high_water
        pending: list[int] = []
        taken = threading.Event()
        full = threading.Event()

        def note_watched(run: ActorRun, count: int) -> None:
            if run._event is not None and not taken.is_set():
                taken.set()
                assert full.wait(DEADLINE)
            note(run, count)

        def emit() -> None:
            assert taken.wait(DEADLINE)
            pending.append(fill(recorder))
            full.set()

        monkeypatch.setattr(ActorRun, "_note_high_water", note_watched)
        emitter = threading.Thread(target=emit)
        emitter.start()
        recorder.changed.open()
        emitter.join(DEADLINE)
        assert pending == [4]
        assert recorder.flush().wait(DEADLINE).success
        assert recorder.statistics().high_water == 4


def in_a_linger(runtime: MetricsRuntime, policy: OverflowPolicy) -> tuple[MetricsRecorder, Stuck]:
    """A recorder for four events that lingers until it is asked for something, and has two waiting."""
    recorder = runtime.create_recorder("x", queue_max_size=4, linger=3600.0, queue_overflow_policy=policy)
    metric = Stuck()
    recorder.register_metric(metric)
    recorder.register_event(Tick())
    inbox = core_of(recorder).inbox
    until(lambda: inbox.lingering and inbox.threshold == 2)
    recorder.register_event(Tick(7))
    recorder.register_event(Tick())
    return recorder, metric


def test_one_emitter_keeps_to_the_bound_at_the_end_of_a_linger(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emitter held up while it raises the threshold does not put back what has been lowered since."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder, metric = in_a_linger(runtime, OverflowPolicy.RAISE_ERROR)
        set_threshold = Inbox._set_threshold
        emitter = threading.current_thread()

        def set_threshold_late(inbox: Inbox, threshold: int) -> None:
            if threading.current_thread() is emitter and not metric.reached.is_set():
                recorder.flush()  # ends the linger: the actor takes an event, and lowers the limit
                assert metric.reached.wait(DEADLINE)
            set_threshold(inbox, threshold)

        monkeypatch.setattr(Inbox, "_set_threshold", set_threshold_late)
        try:
            recorder.register_event(Tick())  # half of the room is taken: it looks closer
            assert fill(recorder) == 4
        finally:
            metric.release.set()


def test_one_emitter_keeps_to_the_bound_in_place_of_the_oldest(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emitter held up before it looks whether the oldest must go knows of the event that has been taken since."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder, metric = in_a_linger(runtime, OverflowPolicy.DROP_OLDEST)
        inbox = core_of(recorder).inbox
        monkeypatch.setattr(Inbox, "hurry", lambda inbox: None)
        recorder.register_event(Tick())
        recorder.register_event(Tick())
        assert recorder.statistics().pending == 4

        class HeldUp(deque[MetricEvent]):
            """Holds an emitter up between the limit and the length."""

            def __len__(self) -> int:
                if threading.current_thread() is emitter and evicting.is_set():
                    evicting.clear()
                    recorder.flush()
                    assert metric.reached.wait(DEADLINE)
                return super().__len__()

        evicting = threading.Event()
        evict = Inbox._put_in_place_of_the_oldest

        def evict_watched(self: Inbox, event: MetricEvent) -> bool:
            evicting.set()
            return evict(self, event)

        emitter = threading.current_thread()
        monkeypatch.setattr(Inbox, "_put_in_place_of_the_oldest", evict_watched)
        monkeypatch.setattr(inbox, "events", HeldUp(inbox.events))
        try:
            recorder.register_event(Tick())
            assert recorder.statistics().pending <= 4
        finally:
            metric.release.set()
