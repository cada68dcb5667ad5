"""The ledger: where every offered event went, exactly."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvx.common.metrics import (
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStopError,
    OverflowPolicy,
    RecorderDrainTimeoutError,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderStatistics,
)
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._statistics import AtomicCounter, Ledger
from tests.support import (
    DEADLINE,
    GROWING,
    Count,
    Failing,
    Gate,
    Journal,
    LoudTick,
    Tick,
    Tock,
    adds_up,
    balanced,
    run_threads,
)

# --- the counter ---------------------------------------------------------------------------------


def test_a_counter_begins_at_zero() -> None:
    """And reading it does not count."""
    counter = AtomicCounter()
    assert [counter.value() for _ in range(3)] == [0, 0, 0]
    counter.increment()
    assert [counter.value() for _ in range(3)] == [1, 1, 1]


@pytest.mark.usefixtures("fast_switching")
def test_a_counter_is_exact_between_threads() -> None:
    """No increment is lost, and no reading is ahead of the increments or behind an earlier reading."""
    counter = AtomicCounter()
    done = threading.Event()
    per_thread, writers = 20_000, 4
    left = AtomicCounter()

    def write() -> None:
        for _ in range(per_thread):
            counter.increment()
        left.increment()
        if left.value() == writers:
            done.set()

    def read() -> None:
        last = 0
        while not done.is_set():
            value = counter.value()
            assert last <= value <= per_thread * writers
            last = value

    run_threads(*[write] * writers, read, read)
    assert counter.value() == per_thread * writers


def test_a_ledger_read_against_the_stream_counts_nothing_twice() -> None:
    """An event that moves on during the reading may be missed, but is never counted double."""
    ledger = Ledger()

    moves = 1

    def waiting() -> int:
        # The one event was waiting when the reading began, and is processed by now.
        nonlocal moves
        ledger.taken += moves
        ledger.processed += moves
        moves = 0
        return 0

    now = ledger.read(waiting=waiting, capacity=5)
    assert (now.accepted, now.processed, now.pending) == (1, 1, 0)


def test_a_ledger_in_endless_motion_is_read_all_the_same() -> None:
    """Reading gives up its wish for rest after a while, and still counts nothing twice."""
    ledger = Ledger()

    def waiting() -> int:
        ledger.taken += 1
        ledger.processed += 1
        return 1

    now = ledger.read(waiting=waiting, capacity=5)
    assert now.accepted == now.processed + now.pending
    assert now.accepted <= ledger.processed


def test_overlapping_readings_do_not_undo_each_other() -> None:
    """A reading that was held up while another one ended does not make the counts fall for the next."""
    ledger = Ledger()
    others = [12]

    class HeldUp(int):
        """A number that takes so long to add, the first time, that somebody else reads the ledger meanwhile."""

        def __radd__(self, other: int) -> int:
            if others:
                ledger.read(waiting=others.pop, capacity=20)
            return other + int(self)

    ledger.read(waiting=lambda: HeldUp(10), capacity=20)
    now = ledger.read(waiting=lambda: 5, capacity=20)
    assert (now.accepted, now.high_water) == (12, 12)


# --- the model -----------------------------------------------------------------------------------


@dataclass
class Model:
    """What must become of events that are emitted while the recorder is held up."""

    policy: OverflowPolicy
    capacity: int
    accepted: int = 0
    dropped: int = 0
    rejected: int = 0
    evicted: int = 0
    under_way: int = 0
    waiting: int = 0

    def emit(self) -> bool:
        """Return whether the emitter sees an error."""
        limit = self.capacity - self.under_way
        if self.policy is OverflowPolicy.DROP_OLDEST:
            # The event under way cannot be evicted: with a capacity of one, one more waits beside it.
            limit = max(1, limit)
        if self.waiting >= limit:
            if self.policy is OverflowPolicy.DROP:
                self.dropped += 1
                return False
            if self.policy in (OverflowPolicy.RAISE_ERROR, OverflowPolicy.BLOCK):
                self.rejected += 1
                return True
            self.evicted += 1
            self.waiting -= 1
        self.accepted += 1
        self.waiting += 1
        return False

    def take_one(self) -> None:
        self.waiting -= 1
        self.under_way = 1

    def release(self) -> None:
        self.waiting = self.under_way = 0

    def check(self, s: RecorderStatistics) -> None:
        pending = self.waiting + self.under_way
        assert adds_up(s)
        assert (s.accepted, s.dropped, s.rejected, s.evicted, s.pending, s.abandoned, s.capacity) == (
            self.accepted,
            self.dropped,
            self.rejected,
            self.evicted,
            pending,
            0,
            self.capacity,
        )
        assert s.offered == self.accepted + self.dropped + self.rejected
        assert s.processed == self.accepted - self.evicted - pending


def emit(recorder: MetricsRecorder, model: Model) -> None:
    """Emit one event to both, and see that both raise or neither."""
    if model.emit():
        with pytest.raises(RecorderQueueOverflowError):
            recorder.register_event(Tick())
    else:
        recorder.register_event(Tick())


@pytest.mark.parametrize("policy", list(OverflowPolicy))
def test_the_ledger_of_a_recorder_held_up_in_a_hook(backend: dict[str, Any], policy: OverflowPolicy) -> None:
    """Bursts, each while one event is under way, with restarts between them: every count as in the model."""
    with MetricsRuntime(namespace="t", **backend) as runtime:

        @settings(max_examples=25, deadline=None, database=None)
        @given(
            capacity=st.integers(1, 5),
            linger=st.sampled_from([0.0, 0.002]),
            bursts=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=3),
        )
        def check(capacity: int, linger: float, bursts: list[tuple[int, bool]]) -> None:
            recorder = runtime.create_recorder(
                "x",
                factory=Journal,
                queue_max_size=capacity,
                queue_overflow_policy=policy,
                linger=linger,
                block_timeout=0.0,
            )
            count = Count()
            recorder.register_metric(count)
            model = Model(policy, capacity)
            for burst, restart in bursts:
                recorder.changed = gate = Gate()
                emit(recorder, model)
                assert gate.reached.wait(DEADLINE)
                model.take_one()
                for _ in range(burst - 1):
                    emit(recorder, model)
                    model.check(recorder.statistics())
                gate.open()
                model.release()
                if restart:
                    runtime.stop_recorder("x")
                    assert recorder.start().wait(DEADLINE).success
                else:
                    assert recorder.flush().wait(DEADLINE).success
                model.check(recorder.statistics())
            assert count.total == model.accepted - model.evicted
            assert runtime.stop_and_remove_recorder("x") is recorder
            model.check(recorder.statistics())

        check()


@pytest.mark.parametrize("policy", list(OverflowPolicy))
def test_the_ledger_of_a_recorder_held_up_in_its_start(backend: dict[str, Any], policy: OverflowPolicy) -> None:
    """Before the first event is handled the whole capacity is there to wait in."""
    with MetricsRuntime(namespace="t", **backend) as runtime:

        @settings(max_examples=25, deadline=None, database=None)
        @given(capacity=st.integers(1, 6), count=st.integers(0, 15))
        def check(capacity: int, count: int) -> None:
            recorder = runtime.create_recorder(
                "x", factory=Journal, queue_max_size=capacity, queue_overflow_policy=policy, block_timeout=0.0
            )
            recorder.register_metric(metric := Count())
            runtime.stop_recorder("x")
            recorder.starting = gate = Gate()
            starting = recorder.start()
            assert gate.reached.wait(DEADLINE)
            model = Model(policy, capacity)
            for _ in range(count):
                emit(recorder, model)
                model.check(recorder.statistics())
            gate.open()
            assert starting.wait(DEADLINE).success
            assert recorder.flush().wait(DEADLINE).success
            model.release()
            model.check(recorder.statistics())
            assert metric.total == model.accepted - model.evicted
            runtime.stop_and_remove_recorder("x")

        check()


# --- single counts -------------------------------------------------------------------------------


@pytest.fixture
def runtime(backend: dict[str, Any]) -> Iterator[MetricsRuntime]:
    with MetricsRuntime(namespace="t", **backend) as runtime:
        yield runtime


def test_a_new_recorder_has_counted_nothing(runtime: MetricsRuntime) -> None:
    """All zero, but for the capacity."""
    s = runtime.create_recorder("x", queue_max_size=7).statistics()
    assert {field: getattr(s, field) for field in (*GROWING, "pending")} == dict.fromkeys((*GROWING, "pending"), 0)
    assert s.capacity == 7


def test_statistics_are_a_record() -> None:
    """Frozen, and equal when all counts are."""
    ledger = Ledger()
    first, second = (ledger.read(waiting=lambda: 0, capacity=1) for _ in range(2))
    assert first == second
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.offered = 1  # type: ignore[misc] # because that is what must not work


def test_high_water_is_the_most_that_was_pending(runtime: MetricsRuntime) -> None:
    """It counts the event under way, and stays when the inbox empties."""
    recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=100, linger=0.0)
    recorder.register_metric(Count())
    recorder.changed = gate = Gate()
    recorder.register_event(Tick())
    assert gate.reached.wait(DEADLINE)
    for _ in range(4):
        recorder.register_event(Tick())
    assert recorder.statistics().high_water == 5
    gate.open()
    assert recorder.flush().wait(DEADLINE).success
    assert recorder.statistics().high_water == 5
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success
    assert recorder.statistics().high_water == 5


def test_high_water_is_right_though_nobody_looked(runtime: MetricsRuntime) -> None:
    """It does not depend on statistics() having been called at the height."""
    recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=100)
    recorder.register_metric(Count())
    runtime.stop_recorder("x")
    recorder.starting = gate = Gate()
    starting = recorder.start()
    assert gate.reached.wait(DEADLINE)
    for _ in range(9):
        recorder.register_event(Tick())
    gate.open()
    assert starting.wait(DEADLINE).success
    assert recorder.flush().wait(DEADLINE).success
    assert recorder.statistics().high_water == 9


def test_high_water_reaches_the_capacity_on_overflow(runtime: MetricsRuntime) -> None:
    """Whoever lost events finds the mark at the bound, also when nobody looked at the time."""
    recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=3, linger=0.0)
    recorder.register_metric(Count())
    recorder.changed = gate = Gate()
    recorder.register_event(Tick())
    assert gate.reached.wait(DEADLINE)
    for _ in range(5):
        recorder.register_event(Tick())
    gate.open()
    assert recorder.flush().wait(DEADLINE).success
    s = recorder.statistics()
    assert (s.dropped, s.high_water, s.capacity) == (3, 3, 3)


class Held(Count):
    """A metric that holds the recorder's thread up in ``handle_event``."""

    def __init__(self) -> None:
        super().__init__("held")
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def handle_event(self, event: MetricEvent) -> bool:
        self.reached.set()
        assert self.go_on.wait(DEADLINE)
        return super().handle_event(event)


@pytest.mark.parametrize("kind", [MetricsRecorder, Journal])
def test_an_event_that_a_metric_is_at_work_on_is_pending(runtime: MetricsRuntime, kind: type[MetricsRecorder]) -> None:
    """Accepted and not yet processed, the one under way included, with and without a hook."""
    recorder = runtime.create_recorder("x", factory=kind)
    recorder.register_metric(held := Held())
    recorder.register_event(Tick())
    try:
        assert held.reached.wait(DEADLINE)
        recorder.register_event(Tick())
        s = recorder.statistics()
        assert (s.offered, s.accepted, s.processed, s.pending) == (2, 2, 0, 2)
    finally:
        held.go_on.set()
    assert recorder.flush().wait(DEADLINE).success
    assert recorder.statistics().processed == 2


@pytest.mark.parametrize("kind", [MetricsRecorder, Journal])
def test_an_event_that_nobody_wants_is_unmatched(runtime: MetricsRuntime, kind: type[MetricsRecorder]) -> None:
    """Processed and counted, with and without a hook; a subclass of what is wanted is wanted."""
    recorder = runtime.create_recorder("x", factory=kind)
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success
    recorder.register_metric(Count())
    for event in (Tick(), LoudTick(), Tock(), Tock()):
        recorder.register_event(event)
    assert recorder.flush().wait(DEADLINE).success
    s = recorder.statistics()
    assert (s.processed, s.unmatched) == (5, 3)
    assert balanced(s)


def test_bad_input_is_not_offered(runtime: MetricsRuntime) -> None:
    """What was no event leaves no trace."""
    recorder = runtime.create_recorder("x")
    for value in (None, "event", Tick):
        with pytest.raises((TypeError, ValueError)):
            recorder.register_event(value)  # type: ignore[arg-type] # because bad input is what is tested
    s = recorder.statistics()
    assert (s.offered, s.rejected) == (0, 0)


def test_an_event_for_a_stopped_recorder_is_rejected(runtime: MetricsRuntime) -> None:
    """The emitter was told; the ledger knows."""
    recorder = runtime.create_recorder("x")
    recorder.register_event(Tick())
    runtime.stop_recorder("x")
    for _ in range(3):
        with pytest.raises(RecorderInvalidStateError):
            recorder.register_event(Tick())
    s = recorder.statistics()
    assert (s.offered, s.accepted, s.rejected) == (4, 1, 3)
    assert balanced(s)


def test_what_a_drain_leaves_over_is_abandoned(runtime: MetricsRuntime) -> None:
    """The event under way has been shown to the metrics and counts as processed, those behind it as abandoned."""
    recorder = runtime.create_recorder("x", factory=Journal, drain_timeout=0.05)
    recorder.register_metric(count := Count())
    recorder.changed = gate = Gate()
    recorder.register_event(Tick())
    assert gate.reached.wait(DEADLINE)
    for _ in range(4):
        recorder.register_event(Tick())
    with pytest.raises(MetricsRuntimeRecorderStopError) as caught:
        runtime.stop_and_remove_recorder("x")
    s = recorder.statistics()
    assert (s.accepted, s.processed, s.abandoned, s.hook_errors) == (5, 1, 4, 1)
    assert balanced(s)
    assert count.total == 1
    assert isinstance(caught.value.cause, RecorderDrainTimeoutError)
    assert caught.value.cause.details["abandoned"] == 4


def test_a_restart_goes_on_counting(runtime: MetricsRuntime) -> None:
    """The counts are the recorder's, not the run's."""
    recorder = runtime.create_recorder("x")
    recorder.register_metric(Count())
    for runs in range(1, 4):
        for _ in range(10):
            recorder.register_event(Tick())
        runtime.stop_recorder("x")
        s = recorder.statistics()
        assert (s.offered, s.accepted, s.processed) == (10 * runs,) * 3
        assert balanced(s)
        assert recorder.start().wait(DEADLINE).success


class FailingSnapshot(Count):
    """Fails to show itself."""

    def snapshot(self) -> Mapping[str, Any]:
        raise ValueError("no")


def test_errors_of_metrics_and_hooks_are_counted_apart(runtime: MetricsRuntime) -> None:
    """``handle_event`` and ``snapshot`` on one side, the hooks on the other."""
    recorder = runtime.create_recorder("x", factory=Journal)
    recorder.register_metric(Failing(ValueError("boom")))
    recorder.register_metric(FailingSnapshot("count"))
    recorder.errors["changed"] = ValueError("bang")
    for _ in range(3):
        recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success
    s = recorder.statistics()
    assert (s.metric_errors, s.hook_errors, s.processed) == (3, 3, 3)
    recorder.get_metric_snapshots()
    s = recorder.statistics()
    assert (s.metric_errors, s.hook_errors) == (4, 3)


# --- in motion -----------------------------------------------------------------------------------


class Interposed(Ledger):
    """Is read by somebody else after every single change that the actor makes."""

    __slots__ = ("look",)

    look: Callable[[], object]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # Not after what reading itself writes.
        if name in ("processed", "taken", "abandoned", "unmatched") and hasattr(self, "look"):
            self.look()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [MetricsRecorder, Journal])
async def test_no_reading_between_two_steps_counts_an_event_twice(kind: type[MetricsRecorder]) -> None:
    """Wherever the actor is interrupted, no more was accepted than emitted; a count too high would stay."""
    recorder = kind("x")
    core = core_of(recorder)
    core.ledger = core.dispatcher._ledger = core.inbox.ledger = ledger = Interposed()
    seen: list[RecorderStatistics] = []
    ledger.look = lambda: seen.append(recorder.statistics())
    recorder.register_metric(Count())
    for n in range(1, 4):
        recorder.register_event(Tick(n))
        assert (await recorder.flush()).success
        assert seen
        assert max(s.accepted for s in seen) <= n
    await recorder.stop()
    assert recorder.statistics().processed == 3


@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize("policy", list(OverflowPolicy))
@pytest.mark.parametrize("kind", [MetricsRecorder, Journal])
def test_counts_only_grow_while_events_flow(
    runtime: MetricsRuntime, policy: OverflowPolicy, kind: type[MetricsRecorder]
) -> None:
    """Read from another thread, no count ever falls or runs ahead; at rest, every event is accounted for."""
    recorder = runtime.create_recorder(
        "x", factory=kind, queue_max_size=16, queue_overflow_policy=policy, block_timeout=DEADLINE
    )
    recorder.register_metric(count := Count())
    per_thread, emitters = 1000, 3
    begun, raised, left = AtomicCounter(), AtomicCounter(), AtomicCounter()
    done = threading.Event()

    def write() -> None:
        for n in range(per_thread):
            begun.increment()
            try:
                recorder.register_event(Tick(n))
            except RecorderQueueOverflowError:
                raised.increment()
        left.increment()
        if left.value() == emitters:
            done.set()

    def read() -> None:
        before = recorder.statistics()
        while not done.is_set():
            now = recorder.statistics()
            assert adds_up(now)
            assert 0 <= now.offered <= begun.value()
            assert now.pending >= 0
            for field in GROWING:
                assert getattr(now, field) >= getattr(before, field), field
            before = now

    run_threads(*[write] * emitters, read, read)
    assert recorder.flush().wait(DEADLINE).success
    s = recorder.statistics()
    assert balanced(s)
    assert s.offered == per_thread * emitters
    assert s.processed == count.total
    assert s.rejected == raised.value()
    assert s.high_water <= s.capacity + emitters
    losses = {
        OverflowPolicy.DROP: s.rejected + s.evicted,
        OverflowPolicy.DROP_OLDEST: s.rejected + s.dropped,
        OverflowPolicy.RAISE_ERROR: s.dropped + s.evicted,
        OverflowPolicy.BLOCK: s.dropped + s.evicted + s.rejected,
    }
    assert losses[policy] == 0
