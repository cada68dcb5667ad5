"""The dispatcher by itself: routes, counts and failures, one event at a time and without an actor."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mvx.common.metrics import FailurePolicy, Metric, MetricEvent, RecorderUnexpectedError
from mvx.common.metrics._dispatch import Dispatcher, MetricSlot
from mvx.common.metrics._interrupt import is_for_the_thread
from mvx.common.metrics._log import LimitedLog
from mvx.common.metrics._statistics import Ledger
from tests.support import DEADLINE, Count, Failing, LoudTick, Seen, Tick, Tock, run_threads

POLICIES = pytest.mark.parametrize("policy", list(FailurePolicy))
TOLERANT = pytest.mark.parametrize("policy", [FailurePolicy.ISOLATE, FailurePolicy.QUARANTINE])
Make = Callable[..., Dispatcher]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def make(ledger: Ledger) -> Make:
    """Makes a dispatcher with the given metrics."""

    def make_dispatcher(
        *metrics: Metric, policy: FailurePolicy = FailurePolicy.ISOLATE, quarantine_after: int = 3
    ) -> Dispatcher:
        dispatcher = Dispatcher(
            policy=policy,
            quarantine_after=quarantine_after,
            ledger=ledger,
            log=LimitedLog(),
            fields={"entity_id": "x", "namespace": "n"},
        )
        for metric in metrics:
            dispatcher.register(metric.metric_name, metric)
        return dispatcher

    return make_dispatcher


def dispatch(dispatcher: Dispatcher, *events: MetricEvent, limit: int = 100) -> int:
    return dispatcher.dispatch(deque(events).popleft, limit)


class Moody(Count):
    """Raises what it finds in its list, one a call; None means that all is well."""

    def __init__(self, *moods: BaseException | None, name: str = "moody") -> None:
        super().__init__(name)
        self.moods = deque(moods)

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        mood = self.moods.popleft() if self.moods else None
        if mood is not None:
            raise mood
        return True


# --- a batch ---------------------------------------------------------------------------------------


@POLICIES
def test_a_batch_ends_at_its_limit(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """So many events are taken and no more, each handed over in order and counted."""
    dispatcher = make(seen := Seen(), policy=policy)
    waiting: deque[MetricEvent] = deque(Tick(n) for n in range(5))
    assert dispatcher.dispatch(waiting.popleft, 3) == 3
    assert seen.events == [Tick(0), Tick(1), Tick(2)]
    assert (ledger.taken, ledger.processed, len(waiting)) == (3, 3, 2)
    assert dispatcher.dispatch(waiting.popleft, 3) == 2
    assert (ledger.taken, ledger.processed, ledger.unmatched) == (5, 5, 0)
    assert dispatcher.dispatch(waiting.popleft, 3) == 0
    assert (ledger.taken, ledger.processed) == (5, 5)


@POLICIES
def test_an_event_is_taken_before_it_is_processed(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """While a metric is at work, exactly the event under way is between the two counts."""
    counts: list[tuple[int, int]] = []

    class Looking(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            counts.append((ledger.taken, ledger.processed))
            return True

    dispatch(make(Looking(), policy=policy), Tick(), Tick(), Tick())
    assert counts == [(1, 0), (2, 1), (3, 2)]


def test_a_batch_that_ends_with_an_exception_counts_what_it_took(make: Make, ledger: Ledger) -> None:
    """The event under way was processed as far as it went."""
    error = ValueError("no")
    dispatcher = make(Moody(None, error), policy=FailurePolicy.FAIL)
    with pytest.raises(RecorderUnexpectedError) as caught:
        dispatch(dispatcher, Tick(), Tick(), Tick())
    assert str(caught.value) == "metric 'moody' raised on Tick: ValueError('no')"
    assert caught.value.cause is error
    assert caught.value.__cause__ is error
    assert (ledger.taken, ledger.processed, ledger.metric_errors.value()) == (2, 2, 1)


def test_nobody_wants_an_event(make: Make, ledger: Ledger) -> None:
    """Processed and unmatched, on both paths, each time."""
    dispatcher = make(Count())
    assert dispatch(dispatcher, Tock(), Tick(), Tock()) == 3
    assert (ledger.processed, ledger.unmatched) == (3, 2)
    assert dispatcher.wanting(Tock()) == ()
    assert ledger.unmatched == 3
    (slot,) = dispatcher.wanting(Tick())
    assert slot.name == "count"
    assert ledger.unmatched == 3


# --- routes ----------------------------------------------------------------------------------------


@POLICIES
def test_a_route_is_looked_for_once(make: Make, policy: FailurePolicy) -> None:
    """A class seen before costs no look at the metrics, on neither path, until one is registered."""
    looks: list[Metric] = []

    class Asked(Count):
        @property
        def event_types(self) -> tuple[type[MetricEvent], ...]:  # type: ignore[override] # to see who asks
            looks.append(self)
            return (Tick,)

    dispatcher = make(Asked(), policy=policy)
    dispatch(dispatcher, Tick(), Tick())
    dispatcher.wanting(Tick())
    asked = len(looks)
    dispatch(dispatcher, Tick(), Tick())
    dispatcher.wanting(Tick())
    assert len(looks) == asked
    dispatch(dispatcher, LoudTick())
    assert len(looks) > asked
    asked = len(looks)
    dispatcher.register("other", Count("other"))
    dispatch(dispatcher, Tick())
    assert len(looks) > asked


def test_a_metric_is_called_without_a_detour(make: Make) -> None:
    """Where nothing is to be counted or told apart, every event goes straight to the metrics' own methods."""
    first, second = Count("first"), Count("second")
    assert make(first, second)._route(Tick()).handlers == (first.handle_event, second.handle_event)


def test_the_routes_remembered_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the number: when there are so many, a new class makes the rest forgotten."""
    monkeypatch.setattr("mvx.common.metrics._dispatch.MAX_KNOWN_CLASSES", 3)
    dispatcher = make(count := Count())
    known: list[int] = []
    for kind in [type(f"Kind{n}", (Tick,), {}) for n in range(7)]:
        dispatch(dispatcher, kind())
        known.append(len(dispatcher._table.routes))
    assert known == [1, 2, 3, 1, 2, 3, 1]
    assert count.total == 7


def test_registering_in_the_place_of_another_one(make: Make, ledger: Ledger) -> None:
    """The order stays, the old one's failures are forgotten, and the next event finds the new one."""
    old, other, new = Moody(ValueError(1), ValueError(2)), Count("other"), Moody(ValueError(3))
    dispatcher = make(old, other, policy=FailurePolicy.QUARANTINE)
    dispatch(dispatcher, Tick(), Tick())
    dispatcher.register("moody", new)
    assert dispatcher.metrics() == (new, other)
    dispatch(dispatcher, Tick(), Tick())
    assert (old.total, new.total, other.total) == (2, 2, 4)
    assert ledger.metric_errors.value() == 3


def test_registering_after_a_fork(make: Make) -> None:
    """Another thread of the parent held the lock: the child's own is free."""
    dispatcher = make()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with dispatcher._lock:
            held.set()
            done.wait(DEADLINE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(DEADLINE)
    try:
        dispatcher.after_fork()
        assert dispatcher._lock.acquire(blocking=False)
        assert dispatcher._lock.acquire(blocking=False), "reentrant, for a signal handler that registers, too"
        dispatcher.register("count", Count())
    finally:
        done.set()
        holder.join(DEADLINE)


# --- failures --------------------------------------------------------------------------------------


@TOLERANT
def test_all_that_come_after_a_failure_see_the_event(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """Once each, also those that fail as well; those before it do not see it again."""
    metrics = [Count("a"), Failing(ValueError(), "b"), Count("c"), Failing(ValueError(), "d"), Count("e")]
    dispatcher = make(*metrics, policy=policy)
    assert dispatch(dispatcher, Tick(), Tick()) == 2
    assert [metric.total for metric in metrics] == [2] * 5
    assert (ledger.metric_errors.value(), ledger.processed) == (4, 2)


def test_nobody_sees_the_event_after_a_failure_under_fail(make: Make, ledger: Ledger) -> None:
    """The recorder is at its end."""
    before, after = Count("before"), Count("after")
    dispatcher = make(before, Failing(ValueError()), after, policy=FailurePolicy.FAIL)
    with pytest.raises(RecorderUnexpectedError):
        dispatch(dispatcher, Tick())
    assert (before.total, after.total) == (1, 0)


@TOLERANT
def test_one_metric_under_two_names_fails_under_each(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """The failures are told apart by the name."""
    failing = Failing(ValueError())
    dispatcher = make(policy=policy, quarantine_after=2)
    dispatcher.register("one", failing)
    dispatcher.register("two", failing)
    dispatch(dispatcher, Tick())
    assert [slot.consecutive_failures for slot in dispatcher.wanting(Tick())] == [1, 1]
    assert (failing.total, ledger.metric_errors.value()) == (2, 2)


def test_quarantine_begins_with_the_nth_failure_running(make: Make, ledger: Ledger) -> None:
    """Not before and not later; until then each success forgives, on either path."""
    no = ValueError("no")
    dispatcher = make(moody := Moody(no, no, None, no, no, no, no), policy=FailurePolicy.QUARANTINE)
    for n, failures in enumerate([1, 2, 0, 1, 2], start=1):
        dispatch(dispatcher, Tick())
        (slot,) = dispatcher.wanting(Tick())
        assert (moody.total, slot.consecutive_failures, slot.quarantine) == (n, failures, None)
    dispatch(dispatcher, Tick(), Tick())
    assert slot.consecutive_failures == 3
    assert slot.quarantine == {"failures": 3, "error": {"type": "ValueError", "message": "no"}}
    assert dispatcher.wanting(Tick()) == ()
    assert moody.total == 6
    assert ledger.unmatched == 0
    assert dispatcher.metrics() == (moody,)


def test_failures_without_quarantine_set_nobody_aside(make: Make) -> None:
    """However many."""
    dispatcher = make(failing := Failing(ValueError()), quarantine_after=1)
    dispatch(dispatcher, *[Tick()] * 5)
    assert failing.total == 5
    assert "quarantined" not in dispatcher.snapshots()["failing"]


def test_handing_an_event_to_one_metric(make: Make, ledger: Ledger) -> None:
    """Whether it changed, as a bool; failed is not changed; success forgives."""
    moody = Moody(None, ValueError("no"), None)
    dispatcher = make(moody, policy=FailurePolicy.QUARANTINE)
    (slot,) = dispatcher.wanting(Tick())
    assert dispatcher.handle(slot, Tick()) is True
    assert dispatcher.handle(slot, Tick()) is False
    assert slot.consecutive_failures == 1
    assert dispatcher.handle(slot, Tick()) is True
    assert slot.consecutive_failures == 0
    assert ledger.metric_errors.value() == 1

    class Odd(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            return []  # type: ignore[return-value] # users forget what they return

    assert dispatcher.handle(MetricSlot("odd", Odd()), Tick()) is False


def test_a_new_slot_has_no_past() -> None:
    """Its counters are at zero."""
    metric = Count()
    slot = MetricSlot("name", metric)
    assert (slot.name, slot.metric, slot.consecutive_failures, slot.quarantine) == ("name", metric, 0, None)
    assert slot.handle_counted(Tick()) is True


# --- Ctrl-C ----------------------------------------------------------------------------------------


def test_ctrl_c_is_the_main_threads(make: Make, ledger: Ledger) -> None:
    """KeyboardInterrupt there goes its way, from events and snapshots; nothing is counted as the metric's doing."""
    interrupt = KeyboardInterrupt()

    class Interrupted(Failing):
        def snapshot(self) -> Mapping[str, Any]:
            raise self.error

    dispatcher = make(Interrupted(interrupt), after := Count("after"))
    with pytest.raises(KeyboardInterrupt) as caught:
        dispatch(dispatcher, Tick())
    assert caught.value is interrupt
    with pytest.raises(KeyboardInterrupt):
        dispatcher.snapshots()
    assert (after.total, ledger.metric_errors.value(), ledger.processed) == (0, 0, 1)
    run_threads(lambda: dispatch(dispatcher, Tick()), dispatcher.snapshots)
    assert (after.total, ledger.metric_errors.value()) == (1, 2)


def test_what_is_for_the_thread() -> None:
    """KeyboardInterrupt in the main thread, and nothing else anywhere."""
    assert is_for_the_thread(KeyboardInterrupt())
    assert not is_for_the_thread(SystemExit())
    elsewhere: list[bool] = []
    run_threads(lambda: elsewhere.append(is_for_the_thread(KeyboardInterrupt())))
    assert elsewhere == [False]


# --- snapshots -------------------------------------------------------------------------------------


def test_the_snapshots_of_all_metrics(make: Make) -> None:
    """By name, in the order of registration, as the metrics give them."""
    dispatcher = make(Count("b"), Count("a"))
    dispatch(dispatcher, Tick())
    one = {"dimensions": {"total": 1}}
    assert list(dispatcher.snapshots().items()) == [("b", {"name": "b", **one}), ("a", {"name": "a", **one})]


def test_a_snapshot_that_is_none(make: Make, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """What is no mapping is the metric's failure, and is told like an exception of its own."""

    class Wrong(Count):
        def snapshot(self) -> Mapping[str, Any]:
            return 7  # type: ignore[return-value] # because that is what is tested

    dispatcher = make(Wrong("wrong"), Count())
    snapshots = dispatcher.snapshots()
    message = "test_a_snapshot_that_is_none.<locals>.Wrong.snapshot() must return a mapping, got 7"
    assert snapshots["wrong"] == {
        "name": "wrong",
        "dimensions": {},
        "error": {"type": "TypeError", "message": message},
    }
    assert snapshots["count"] == {"name": "count", "dimensions": {"total": 0}}
    assert ledger.metric_errors.value() == 1
    assert [record.getMessage() for record in caplog.records] == ["snapshot() of metric 'wrong' raised"]


def test_the_snapshot_of_a_metric_set_aside(make: Make) -> None:
    """Its own, and beside it what happened."""
    dispatcher = make(Failing(ValueError("first")), policy=FailurePolicy.QUARANTINE, quarantine_after=1)
    dispatch(dispatcher, Tick())
    assert dispatcher.snapshots()["failing"] == {
        "name": "failing",
        "dimensions": {"total": 1},
        "quarantined": {"failures": 1, "error": {"type": "ValueError", "message": "first"}},
    }


def test_a_failing_snapshot_of_a_metric_set_aside(make: Make) -> None:
    """Both are told."""

    class Broken(Failing):
        def snapshot(self) -> Mapping[str, Any]:
            raise KeyError("k")

    dispatcher = make(Broken(ValueError("v")), policy=FailurePolicy.QUARANTINE, quarantine_after=1)
    dispatch(dispatcher, Tick())
    assert dispatcher.snapshots()["failing"] == {
        "name": "failing",
        "dimensions": {},
        "error": {"type": "KeyError", "message": "'k'"},
        "quarantined": {"failures": 1, "error": {"type": "ValueError", "message": "v"}},
    }


# --- hostile metrics -------------------------------------------------------------------------------


class Unanswerable:
    """Cannot say whether it is true."""

    def __bool__(self) -> bool:
        raise ValueError("neither")


def test_a_metric_whose_answer_fails(make: Make, ledger: Ledger) -> None:
    """On the way where the answer is asked for, that is the metric's failure, and success does not forgive it."""

    class Odd(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            return Unanswerable()  # type: ignore[return-value] # because that is what is tested

    dispatcher = make(Odd(), policy=FailurePolicy.QUARANTINE, quarantine_after=2)
    dispatch(dispatcher, Tick())
    (slot,) = dispatcher.wanting(Tick())
    assert dispatcher.handle(slot, Tick()) is False
    assert slot.quarantine == {"failures": 2, "error": {"type": "ValueError", "message": "neither"}}
    assert ledger.metric_errors.value() == 2


@TOLERANT
def test_a_metric_that_does_not_know_what_it_wants(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """Its failure, told with the class of the event; the others see the event, and it does not."""

    class Undecided(Count):
        asked = 0

        @property
        def event_types(self) -> tuple[type[MetricEvent], ...]:  # type: ignore[override] # because it fails
            self.asked += 1
            raise ValueError("no idea")

    undecided, other = Undecided("undecided"), Count()
    dispatcher = make(undecided, other, policy=policy)
    assert dispatch(dispatcher, Tick(), Tick()) == 2
    assert (undecided.total, other.total, ledger.metric_errors.value(), ledger.unmatched) == (0, 2, undecided.asked, 0)


@TOLERANT
def test_a_metric_that_finds_out_what_it_wants(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """Whoever could not say is asked again about the next event of the class."""

    class Late(Count):
        knows = False

        @property
        def event_types(self) -> tuple[type[MetricEvent], ...]:  # type: ignore[override] # because it fails
            if not self.knows:
                raise ValueError("no idea")
            return (Tick,)

    dispatcher = make(late := Late(), Count("other"), policy=policy)
    dispatch(dispatcher, Tick())
    late.knows = True
    dispatch(dispatcher, Tick(), Tick())
    assert (late.total, ledger.metric_errors.value()) == (2, 1)


def disguised(kind: type[BaseException] | None) -> MetricEvent:
    """No MetricEvent, though it says that it is a Tick, as a mock does; or raises ``kind`` when it is asked."""

    class Disguised:
        @property  # type: ignore[misc] # because that is what a mock does
        def __class__(self) -> Any:
            if kind is not None:
                raise kind
            return Tick

    event: MetricEvent = Disguised()  # type: ignore[assignment] # because it says so
    return event


def test_an_event_that_says_it_is_one(make: Make, ledger: Ledger) -> None:
    """It goes by what it says; what cannot say it goes by what it is, which nobody wants."""
    dispatcher = make(count := Count())
    dispatch(dispatcher, disguised(None), disguised(ValueError), disguised(None))
    assert (count.total, ledger.unmatched, ledger.processed) == (2, 1, 3)
    with pytest.raises(KeyboardInterrupt):
        dispatch(dispatcher, disguised(KeyboardInterrupt))


def test_events_of_one_class_that_say_different_things(make: Make, ledger: Ledger) -> None:
    """What one of them is taken for says nothing of the next."""

    class Fickle:
        says: type[MetricEvent] | None = None

        @property  # type: ignore[misc] # because that is what a mock does
        def __class__(self) -> Any:
            if self.says is None:
                raise ValueError("no idea")
            return self.says

    dispatcher = make(count := Count())
    event: Any = Fickle()
    dispatch(dispatcher, event)
    assert (count.total, ledger.unmatched) == (0, 1)
    event.says = Tick
    dispatch(dispatcher, event)
    assert (count.total, ledger.unmatched) == (1, 1)


def test_a_failure_over_an_event_that_cannot_say_what_it_is(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is told with the class that the event is of."""

    class Undecided(Count):
        @property
        def event_types(self) -> tuple[type[MetricEvent], ...]:  # type: ignore[override] # because it fails
            raise ValueError("no idea")

    dispatch(make(Undecided()), disguised(ValueError))
    (record,) = caplog.records
    assert record.getMessage() == "metric 'count' raised on an event of class disguised.<locals>.Disguised"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no idea"


@TOLERANT
def test_one_handler_for_two_metrics(make: Make, ledger: Ledger, policy: FailurePolicy) -> None:
    """A callable that is shared fails under each name once, and those between and behind see the event once."""
    calls: list[MetricEvent] = []

    def shared(event: MetricEvent) -> bool:
        calls.append(event)
        raise ValueError

    one, between, two, behind = Count("one"), Count("between"), Count("two"), Count("behind")
    one.handle_event = two.handle_event = shared  # type: ignore[method-assign] # because that is what is tested
    dispatcher = make(one, between, two, behind, policy=policy)
    dispatch(dispatcher, Tick())
    assert (len(calls), between.total, behind.total, ledger.metric_errors.value()) == (2, 1, 1, 2)
    assert [slot.consecutive_failures for slot in dispatcher.wanting(Tick())] == [1, 0, 1, 0]


@TOLERANT
def test_a_failure_that_is_not_told_keeps_nothing_alive(make: Make, policy: FailurePolicy) -> None:
    """The same exception again and again: what it came through is forgotten; the one that is told keeps it."""
    first, second = ValueError(1), ValueError(2)
    dispatcher = make(Moody(first, second), policy=policy)
    dispatch(dispatcher, Tick(), Tick())
    assert first.__traceback__ is not None
    assert second.__traceback__ is None


def test_the_failure_that_ends_a_recorder_keeps_its_traceback(make: Make) -> None:
    """Also where the log has held it back: it is the cause of what everybody is told."""
    first, second = ValueError(1), ValueError(2)
    dispatcher = make(Moody(first, second), policy=FailurePolicy.FAIL)
    for error in (first, second):
        with pytest.raises(RecorderUnexpectedError) as caught:
            dispatch(dispatcher, Tick())
        assert caught.value.cause is error
        assert error.__traceback__ is not None


# --- diagnostics -----------------------------------------------------------------------------------


def test_a_failure_is_logged_once_for_each_metric_and_kind(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Another metric, another exception class and another method are told; a repetition is not."""
    value, key = ValueError("v"), KeyError("k")

    class Shy(Moody):
        def snapshot(self) -> Mapping[str, Any]:
            raise value

    dispatcher = make(Shy(value, value, key, name="shy"), Moody(value, name="moody"))
    dispatch(dispatcher, Tick(), Tick(), Tick())
    dispatcher.snapshots()
    dispatcher.snapshots()
    told = [
        (record.getMessage(), record.levelno, vars(record)["metric_name"], record.exc_info and record.exc_info[1])
        for record in caplog.records
    ]
    on_tick = "metric {!r} raised on an event of class Tick".format
    assert told == [
        (on_tick("shy"), logging.ERROR, "shy", value),
        (on_tick("moody"), logging.ERROR, "moody", value),
        (on_tick("shy"), logging.ERROR, "shy", key),
        ("snapshot() of metric 'shy' raised", logging.ERROR, "shy", value),
    ]
    assert {(vars(record)["entity_id"], vars(record)["namespace"]) for record in caplog.records} == {("x", "n")}
