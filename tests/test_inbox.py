"""The inbox's protocol, one forced ordering at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from mvx.common.metrics import MetricEvent, OverflowPolicy, RecorderQueueOverflowError
from mvx.common.metrics._copying import copied
from mvx.common.metrics._inbox import SEALED, SEALING, Inbox
from mvx.common.metrics._room import WaitingLine
from tests.inbox_stage import Consumer, HeldUp, Hub, Make, Told, end, inboxes_of
from tests.support import DEADLINE, Tick, Tock


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def make(consumer: Consumer) -> Iterator[Make]:
    """Makes an inbox whose consumer is awake, and ends it after the test."""
    with inboxes_of(consumer) as make_inbox:
        yield make_inbox


# --- waking up -------------------------------------------------------------------------------------


def test_a_producer_rings_for_a_sleeping_consumer_once(make: Make, consumer: Consumer) -> None:
    """The first event after the consumer went to sleep rings, the next ones do not."""
    inbox = make()
    inbox.put(Tick())
    assert consumer.rings == 0
    inbox.events.clear()
    inbox.doze(Hub())  # type: ignore[arg-type] # a stand-in with the one method that is used
    for n in range(10):
        inbox.put(Tick(n))
    assert consumer.rings == 1


class Sneaky(deque[MetricEvent]):
    """Lets another thread's event in right after somebody has looked whether there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.sneak: Callable[[], object] | None = None

    def __len__(self) -> int:
        length = super().__len__()
        sneak, self.sneak = self.sneak, None
        if sneak is not None:
            sneak()
        return length


def sneaky(inbox: Inbox) -> Sneaky:
    inbox.events = inbox._late = events = Sneaky()
    return events


def test_an_event_that_comes_while_the_consumer_falls_asleep(make: Make) -> None:
    """It came after the last look and before the nap: the look after lying down finds it."""
    inbox = make(linger=1.0)
    events = sneaky(inbox)
    inbox.doze(Hub())  # type: ignore[arg-type] # a stand-in with the one method that is used
    assert inbox.lingering
    events.sneak = lambda: inbox._late.append(Tick())  # the producer looks at the nap before: nobody rings
    inbox.look()
    assert inbox.awake


def test_a_request_that_comes_while_the_consumer_falls_asleep(make: Make) -> None:
    """Requests are looked for as well."""
    inbox = make()
    inbox.requests.append(object())
    inbox.doze(Hub())  # type: ignore[arg-type] # a stand-in with the one method that is used
    assert inbox.awake


def test_without_a_ticking_hub_there_is_no_linger(make: Make) -> None:
    """A hub that cannot look later leaves waking up to the producers."""
    inbox = make(linger=1.0)
    inbox.doze(Hub(ticking=False))  # type: ignore[arg-type] # a stand-in with the one method that is used
    assert not inbox.lingering
    assert inbox.idle


def test_heal_wakes_only_a_sleeping_consumer_with_something_to_do(make: Make) -> None:
    """The heartbeat leaves an idle inbox asleep."""
    inbox = make()
    inbox.doze(Hub())  # type: ignore[arg-type] # a stand-in with the one method that is used
    inbox.heal()
    assert not inbox.awake
    inbox._late.append(Tick())
    inbox.heal()
    assert inbox.awake


def test_a_half_full_inbox_hurries_once_a_linger(make: Make, consumer: Consumer) -> None:
    """Crossing the half rings, and the events behind it do not ring again."""
    inbox = make(capacity=10, linger=1.0)
    inbox.doze(Hub())  # type: ignore[arg-type] # a stand-in with the one method that is used
    for n in range(10):
        inbox.put(Tick(n))
    assert consumer.rings == 1


# --- closing ---------------------------------------------------------------------------------------


def test_a_late_event_is_not_accepted(make: Make) -> None:
    """A producer that was held up before its append, over the end, is told so."""
    inbox = make()
    producer = HeldUp(inbox, Tick(), before=True)
    assert end(inbox) == []
    assert producer.go_on() is False
    assert inbox.waiting() == 0


def test_a_drained_event_was_accepted(make: Make) -> None:
    """A producer that was held up after its append is told what became of its event."""
    inbox = make()
    event = Tick()
    producer = HeldUp(inbox, event, before=False)
    assert end(inbox) == [event]
    assert producer.go_on() is True


def test_two_late_producers_do_not_mistake_each_others_events(make: Make) -> None:
    """Equal events are told apart: the drained one was accepted, the late one was not."""
    inbox = make()
    early = HeldUp(inbox, Tick(7), before=False)
    late = HeldUp(inbox, Tick(7), before=True)
    assert len(end(inbox)) == 1
    assert late.go_on() is False
    assert early.go_on() is True


def test_a_late_look_at_events_calls_none_of_their_code(make: Make) -> None:
    """Whose event it is, is decided by identity: == is the user's."""

    class Touchy(Tick):
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment] # it is not to be hashed either

    inbox = make()
    inbox.known.add(Touchy)
    producers = [HeldUp(inbox, Touchy(), before=True) for _ in range(2)]
    end(inbox)
    assert [producer.go_on() for producer in producers] == [False, False]


def test_the_same_object_twice_about_the_seal(make: Make) -> None:
    """One copy was taken and one came too late: one is accepted and one is not, whoever asks first."""
    event = Tick(7)
    for late_first in (True, False):
        inbox = make()
        early = HeldUp(inbox, event, before=False)
        late = HeldUp(inbox, event, before=True)
        assert end(inbox) == [event]
        producers = (late, early) if late_first else (early, late)
        assert sorted(bool(producer.go_on()) for producer in producers) == [False, True]


def test_an_event_between_the_last_look_and_the_seal(make: Make) -> None:
    """It is the consumer's: the producer looked at the nap before the seal."""
    inbox = make()
    events = sneaky(inbox)
    event = Tick()
    events.append(event)
    inbox.close()
    assert end(inbox) == [event]
    assert inbox.sealed


def test_a_producer_waits_for_a_seal_under_way(make: Make) -> None:
    """And never the other way round: the seal needs nothing of a producer."""
    inbox = make()
    event = Tick()
    inbox._late.append(event)
    inbox.nap = SEALING
    results: list[bool] = []
    producer = threading.Thread(target=lambda: results.append(inbox.announce(event)))
    producer.start()
    producer.join(0.05)
    assert producer.is_alive()
    inbox.seal()
    producer.join(DEADLINE)
    assert results == [True]


def test_a_producer_only_yields_to_a_seal_under_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is made in a moment: whoever waits for it does not sleep longer than that."""
    inbox = make()
    event = Tick()
    inbox._late.append(event)
    inbox.nap = SEALING
    rests: list[float] = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        inbox.seal()

    monkeypatch.setattr("mvx.common.metrics._inbox.time", SimpleNamespace(sleep=sleep))
    assert inbox.announce(event) is True
    assert rests == [0]


def test_a_seal_only_yields_to_another_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over in a moment likewise."""
    inbox = make()
    inbox._right_to_seal.clear()
    inbox.nap = SEALING
    rests: list[float] = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        inbox.nap = SEALED

    monkeypatch.setattr("mvx.common.metrics._inbox.time", SimpleNamespace(sleep=sleep))
    inbox.seal()
    assert rests == [0]
    inbox._shut_stream()


def test_a_seal_is_seen_before_the_copy_is_made(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever appends from then on finds it, and looks which side of the copy its event is on."""
    inbox = make()
    naps: list[object] = []

    def copy(events: deque[MetricEvent]) -> tuple[MetricEvent, ...]:
        naps.append(inbox.nap)
        return copied(events)

    monkeypatch.setattr("mvx.common.metrics._inbox.copied", copy)
    inbox.seal()
    assert naps == [SEALING]
    assert inbox.sealed


def test_an_exception_in_the_midst_of_a_seal(make: Make, consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, say: as if nothing had been, but that the entry is closed; the next seal is the seal."""
    inbox = make()
    event = Tick()
    inbox._late.append(event)
    before = inbox.nap

    def interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mvx.common.metrics._inbox.copied", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inbox.seal()
    assert inbox.nap is before
    assert list(inbox.events) == [event]
    assert not inbox.sealed
    assert end(inbox) == [event]
    assert inbox.sealed


def test_many_seals_at_once_are_one(make: Make) -> None:
    """Several threads may find at the same time that the loop is gone."""
    inbox = make(capacity=1000)
    for n in range(1000):
        inbox.put(Tick(n))
    lost: list[int] = []
    threads = [threading.Thread(target=lambda: lost.append(inbox.abandon())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sum(lost) == 1000


def test_the_consumer_cannot_open_a_closed_gate(make: Make) -> None:
    """stop() in another thread and the consumer set the same number: closed wins."""
    inbox = make()
    inbox.close()
    inbox.begin_handling()
    inbox.end_handling()
    assert inbox.threshold == -1
    assert inbox.put(Tick()) is False


def test_a_close_tells_those_in_line(make: Make) -> None:
    """At once: they need not wait for the heartbeat to find out."""
    inbox = make()
    told = Told()
    inbox.line._waiters.append(told)
    inbox.close()
    assert told.count == 1


def test_abandon_counts_what_is_left(make: Make) -> None:
    """And what comes too late is not among it."""
    inbox = make()
    for n in range(3):
        inbox.put(Tick(n))
    late = HeldUp(inbox, Tick(9), before=True)
    assert inbox.abandon() == 3
    assert late.go_on() is False
    assert inbox.abandon() == 0
    assert inbox.waiting() == 0


def test_a_request_after_the_end_is_the_askers_own(make: Make) -> None:
    """Nobody would see it any more; as long as what was taken is being handled, the consumer will."""
    inbox = make()
    end(inbox)
    request = object()
    assert inbox.ask(request) is True
    assert list(inbox.requests) == [request]
    inbox.deaf = True
    assert inbox.ask(object()) is False
    assert list(inbox.requests) == [request]


def test_a_consumer_that_cannot_be_reached(make: Make, consumer: Consumer) -> None:
    """The recorder is told, and answers for it."""
    inbox = make()
    inbox.doze(Hub())  # type: ignore[arg-type] # a stand-in with the one method that is used
    consumer.reachable = False
    with pytest.raises(ConnectionError):
        inbox.put(Tick())
    assert inbox.ask(object())
    assert consumer.checks == 1


# --- room ------------------------------------------------------------------------------------------


def test_the_bound(make: Make) -> None:
    """So many and no more; while one is being handled, one less may wait."""
    inbox = make(capacity=3)
    for n in range(3):
        inbox.put(Tick(n))
    with pytest.raises(RecorderQueueOverflowError):
        inbox.put(Tick())
    inbox.events.popleft()
    inbox.begin_handling()
    with pytest.raises(RecorderQueueOverflowError):
        inbox.put(Tick())
    inbox.end_handling()
    assert inbox.put(Tick())
    assert inbox.ledger.rejected.value() == 2


def test_drop_and_drop_oldest(make: Make) -> None:
    """One throws the new event away, the other the oldest, and both count it."""
    dropping = make(capacity=2, policy=OverflowPolicy.DROP)
    evicting = make(capacity=2, policy=OverflowPolicy.DROP_OLDEST)
    for n in range(5):
        assert dropping.put(Tick(n))
        assert evicting.put(Tick(n))
    assert list(dropping.events) == [Tick(0), Tick(1)]
    assert list(evicting.events) == [Tick(3), Tick(4)]
    assert (dropping.ledger.dropped.value(), evicting.ledger.evicted.value()) == (3, 3)


def test_a_class_is_looked_at_once(make: Make) -> None:
    """The first event of a class is checked, and what is remembered is bounded."""
    inbox = make()
    for _ in range(2):
        inbox.put(Tock())
    assert Tock in inbox.known
    inbox.known.update(type(f"E{n}", (), {}) for n in range(5000))
    inbox.known.discard(Tock)
    inbox.put(Tock())
    assert inbox.known == {Tock}


def test_room_is_passed_on_by_whoever_does_not_take_it() -> None:
    """The first in line is told, gives up, and the second is told in its place."""
    line = WaitingLine(lambda: 1)
    first, second = Told(), Told()
    with line.waiting(second):
        with line.waiting(first):
            line._waiters.reverse()
            line.grant()
            assert (first.count, second.count) == (1, 0)
        assert second.count == 1
    assert len(line) == 0


def test_no_more_are_told_than_there_is_room_for() -> None:
    """First come, first told."""
    room = 2
    line = WaitingLine(lambda: room)
    waiters: list[Any] = [Told() for _ in range(5)]
    line._waiters.extend(waiters)
    line.grant()
    assert [waiter.count for waiter in waiters] == [1, 1, 0, 0, 0]
    line.dismiss()
    assert [waiter.count for waiter in waiters] == [1] * 5
    line.grant()
