"""What the inbox promises at its edges: races that no timing would show, forced from the inside."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import pytest

from mvx.common.metrics import MetricEvent, OverflowPolicy, RecorderQueueOverflowError
from mvx.common.metrics._inbox import AWAKE, SEALED, SEALING, UNATTENDED, Inbox
from tests.inbox_stage import Consumer, HeldUp, Hub, Make, Told, end, inboxes_of
from tests.support import DEADLINE, Tick, Tock, until

POLICIES = pytest.mark.parametrize("policy", list(OverflowPolicy))


class Watched(deque[MetricEvent]):
    """Lets something happen after each look at its length: what another thread may do between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.after: deque[Callable[[], object]] = deque()

    def __len__(self) -> int:
        length = super().__len__()
        if self.after:
            self.after.popleft()()
        return length


def nothing() -> None:
    """A look at which nothing happens."""


def watched(inbox: Inbox, *events: MetricEvent) -> Watched:
    """Put a watched deque in the place of the inbox's own, holding ``events``."""
    inbox.events = inbox._late = watched = Watched()
    watched.extend(events)
    return watched


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def make(consumer: Consumer) -> Iterator[Make]:
    """Makes an inbox whose consumer is awake, and ends it after the test."""
    with inboxes_of(consumer) as make_inbox:
        yield make_inbox


def full(make: Make, policy: OverflowPolicy = OverflowPolicy.RAISE_ERROR, **options: Any) -> Inbox:
    """An inbox with no room left for a third event."""
    inbox = make(capacity=2, policy=policy, **options)
    inbox.put(Tick(0))
    inbox.put(Tick(1))
    return inbox


def doze(inbox: Inbox, *, ticking: bool = True) -> Hub:
    hub = Hub(ticking=ticking)
    inbox.doze(hub)  # type: ignore[arg-type] # a stand-in with the one method that is used
    return hub


# --- before there is a consumer --------------------------------------------------------------------


def test_a_new_inbox_rings_at_every_event(make: Make, consumer: Consumer) -> None:
    """Nobody attends to it yet, so each producer tells; its consumer counts as asleep."""
    inbox = make(attended=False)
    assert inbox.nap is UNATTENDED
    assert inbox.idle
    assert not any((inbox.awake, inbox.lingering, inbox.closed, inbox.sealed))
    for n in range(3):
        assert inbox.put(Tick(n)) is True
    assert consumer.rings == 3


def test_an_attended_inbox_is_awake(make: Make, consumer: Consumer) -> None:
    """Its consumer is going to look by itself, and from now on another bell rings for it."""
    inbox = make(attended=False)
    other = Consumer()
    inbox.attend(other.ring)
    assert inbox.awake
    assert inbox.nap is AWAKE
    assert not inbox.idle
    assert inbox.put(Tick())
    assert (consumer.rings, other.rings) == (0, 0)
    inbox.events.clear()
    doze(inbox)
    assert inbox.put(Tick())
    assert (consumer.rings, other.rings) == (0, 1)


def test_an_inbox_that_nobody_attended_to_can_be_ended(make: Make) -> None:
    """Waking it does nothing, and its end counts what is left."""
    inbox = make(attended=False)
    inbox.put(Tick())
    inbox.wake()
    assert not inbox.awake
    assert inbox.abandon() == 1
    assert inbox.sealed


def test_what_is_remembered_of_classes_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the number: when so many are known, a new one makes the rest forgotten."""
    monkeypatch.setattr("mvx.common.metrics._inbox.MAX_KNOWN_CLASSES", 3)
    inbox = make()
    kinds = [type(f"Kind{n}", (Tick,), {}) for n in range(7)]
    known = []
    for kind in kinds:
        assert inbox.put(kind()) is True
        known.append(len(inbox.known))
    assert known == [2, 3, 1, 2, 3, 1, 2]


# --- full ------------------------------------------------------------------------------------------


@POLICIES
def test_the_capacity_is_the_bound_whatever_the_policy(make: Make, policy: OverflowPolicy) -> None:
    """As many as the capacity are accepted before the policy has a say."""
    inbox = make(capacity=3, policy=policy)
    for n in range(3):
        assert inbox.put(Tick(n)) is True
    ledger = inbox.ledger
    assert inbox.waiting() == 3
    assert (ledger.dropped.value(), ledger.evicted.value(), ledger.rejected.value(), ledger.full) == (0, 0, 0, 0)


def test_a_full_inbox_is_noted_in_the_ledger(make: Make) -> None:
    """The mark at the bound, for high_water."""
    inbox = full(make, OverflowPolicy.DROP)
    assert inbox.put(Tick(2)) is True
    assert inbox.ledger.full == 2


def test_a_rejection_says_how_much_room_there_is(make: Make) -> None:
    """The whole message, and no waiting where there was none."""
    inbox = full(make)
    with pytest.raises(RecorderQueueOverflowError) as caught:
        inbox.put(Tick())
    assert str(caught.value) == "the inbox is full: 2 events wait to be processed"
    assert caught.value.details == {"capacity": 2}


def test_block_on_the_own_loop_says_what_to_do_instead(make: Make, consumer: Consumer) -> None:
    """At once, without ringing."""
    inbox = full(make, OverflowPolicy.BLOCK)
    consumer.own_loop = True
    with pytest.raises(RecorderQueueOverflowError) as caught:
        inbox.put(Tick())
    assert str(caught.value) == (
        "the inbox is full: 2 events wait to be processed; "
        "the recorder's own event loop cannot wait for itself; await aregister_event() there"
    )
    assert inbox.ledger.rejected.value() == 1
    assert not inbox.line


@POLICIES
def test_a_full_inbox_looks_after_the_loop_now_and_then(
    make: Make, consumer: Consumer, monkeypatch: pytest.MonkeyPatch, policy: OverflowPolicy
) -> None:
    """At the first event that finds no room once a heartbeat has passed; then not before another one has."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr("mvx.common.metrics._inbox.time", clock)
    inbox = full(make, policy, block_timeout=0.0)
    checks = []
    for now[0] in (0.5, 1.0, 1.5, 1.9, 2.0, 2.5):
        try:
            assert inbox.put(Tick()) is True
        except RecorderQueueOverflowError:
            pass
        checks.append(consumer.checks)
    assert checks == [0, 1, 1, 1, 2, 2]
    now[0] = 3.0
    consumer.at_check = inbox.close
    before = (inbox.ledger.dropped.value(), inbox.ledger.evicted.value(), inbox.ledger.rejected.value())
    assert inbox.put(Tick()) is False
    assert before == (inbox.ledger.dropped.value(), inbox.ledger.evicted.value(), inbox.ledger.rejected.value())


# --- DROP_OLDEST -----------------------------------------------------------------------------------


def test_drop_oldest_wakes_a_sleeping_consumer(make: Make, consumer: Consumer) -> None:
    """An event that takes another one's place is announced like any other, and only to a consumer that sleeps."""
    inbox = full(make, OverflowPolicy.DROP_OLDEST)
    assert inbox.put(Tick(2)) is True
    assert consumer.rings == 0
    inbox.nap = [None]
    assert inbox.put(Tick(3)) is True
    assert consumer.rings == 1
    assert list(inbox.events) == [Tick(2), Tick(3)]


def test_drop_oldest_evicts_nothing_after_the_close(make: Make) -> None:
    """The close that comes while a producer looks for room: the oldest stays, the new event is refused."""
    inbox = make(capacity=2, policy=OverflowPolicy.DROP_OLDEST)
    events = watched(inbox, Tick(0), Tick(1))
    # Looks at the length: the fast path's, the careful one's, then the loop's own.
    events.after.extend([nothing, nothing, inbox.close])
    assert inbox.put(Tick(2)) is False
    assert list(events) == [Tick(0), Tick(1)]
    assert inbox.ledger.evicted.value() == 0


def test_drop_oldest_adds_nothing_after_the_close(make: Make) -> None:
    """The close that comes just after the eviction: the new event is refused all the same."""
    inbox = make(capacity=2, policy=OverflowPolicy.DROP_OLDEST)
    events = watched(inbox, Tick(0), Tick(1))
    events.after.extend([nothing, nothing, nothing, inbox.close])
    assert inbox.put(Tick(2)) is False
    assert list(events) == [Tick(1)]
    assert inbox.ledger.evicted.value() == 1


def test_drop_oldest_of_what_the_consumer_has_just_taken(make: Make) -> None:
    """There was something to evict, and then there was not: the new event is accepted, nothing was evicted."""
    inbox = make(capacity=2, policy=OverflowPolicy.DROP_OLDEST)
    events = watched(inbox, Tick(0), Tick(1))
    events.after.extend([nothing, nothing, events.clear])
    assert inbox.put(Tick(2)) is True
    assert list(events) == [Tick(2)]
    assert inbox.ledger.evicted.value() == 0


def test_drop_oldest_makes_room_for_itself_only(make: Make) -> None:
    """While one event is being handled one less may wait, but with a capacity of one still one does."""
    inbox = make(capacity=1, policy=OverflowPolicy.DROP_OLDEST)
    inbox.begin_handling()
    for n in range(3):
        assert inbox.put(Tick(n)) is True
        assert list(inbox.events) == [Tick(n)]
    assert inbox.ledger.evicted.value() == 2


def test_a_late_event_that_evicted_is_not_accepted(make: Make) -> None:
    """A producer held up over the end, before its append in another event's place, is told so."""
    inbox = full(make, OverflowPolicy.DROP_OLDEST)
    producer = HeldUp(inbox, Tick(2), before=True)
    assert end(inbox) == [Tick(1)]
    assert producer.go_on() is False


# --- waiting for room in a task --------------------------------------------------------------------


@pytest.fixture
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever misses being told waits for ever, instead of for a second."""
    monkeypatch.setattr("mvx.common.metrics._inbox.HEARTBEAT", 3600.0)


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits look after their loop without keeping the tests waiting."""
    monkeypatch.setattr("mvx.common.metrics._inbox.HEARTBEAT", 0.001)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_heartbeat")
async def test_room_that_comes_before_the_task_is_in_line(make: Make, consumer: Consumer) -> None:
    """Nobody was in line to be told of it, so the task looks once more before it waits."""
    inbox = full(make)
    consumer.at_question = inbox.events.clear
    with anyio.fail_after(DEADLINE):
        assert await inbox.put_when_room(Tick(2)) is True
    assert list(inbox.events) == [Tick(2)]
    assert not inbox.line


@pytest.mark.anyio
@pytest.mark.usefixtures("no_heartbeat")
async def test_a_close_that_comes_before_the_task_is_in_line(make: Make, consumer: Consumer) -> None:
    """Likewise."""
    inbox = full(make)
    consumer.at_question = inbox.close
    with anyio.fail_after(DEADLINE):
        assert await inbox.put_when_room(Tick(2)) is False
    assert inbox.waiting() == 2


@pytest.mark.anyio
@pytest.mark.usefixtures("fast_heartbeat")
async def test_a_task_that_waits_looks_after_the_loop(make: Make, consumer: Consumer) -> None:
    """At each heartbeat that brings no word; the third time, the recorder is found to have ended."""
    inbox = full(make)

    def third_time() -> None:
        if consumer.checks == 3:
            inbox.close()

    consumer.at_check = third_time
    with anyio.fail_after(DEADLINE):
        assert await inbox.put_when_room(Tick(2)) is False
    assert consumer.checks == 3


@pytest.mark.anyio
@pytest.mark.usefixtures("no_heartbeat")
async def test_a_task_that_is_told_does_not_look_after_the_loop(make: Make, consumer: Consumer) -> None:
    """Whoever told it is alive."""
    inbox = full(make)
    results: list[bool] = []

    async def put() -> None:
        results.append(await inbox.put_when_room(Tick(2)))

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(put)
            while not inbox.line:
                await anyio.sleep(0)
            inbox.events.popleft()
            inbox.line.grant()
    assert results == [True]
    assert consumer.checks == 0
    assert list(inbox.events) == [Tick(1), Tick(2)]


@pytest.mark.anyio
@pytest.mark.usefixtures("no_heartbeat")
async def test_a_task_that_waits_wakes_the_consumer_out_of_a_linger(make: Make, consumer: Consumer) -> None:
    """It is room that it waits for, so the consumer shall not lie on."""
    inbox = full(make)
    inbox.awake = False
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.put_when_room, Tick(2))
            while not consumer.rings:
                await anyio.sleep(0)
            group.cancel_scope.cancel()
    assert consumer.rings == 1


@pytest.mark.anyio
async def test_put_when_room_is_a_checkpoint_before_it_accepts(make: Make) -> None:
    """Cancelled, the event was not accepted, also where there is room; a class unknown so far is checked first."""
    inbox = make()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await inbox.put_when_room(Tock())
    assert scope.cancelled_caught
    assert inbox.waiting() == 0
    assert Tock in inbox.known
    with pytest.raises(TypeError):
        await inbox.put_when_room("no event")  # type: ignore[arg-type] # because that is what is tested
    assert await inbox.put_when_room(Tock()) is True


@pytest.mark.anyio
async def test_a_hook_in_a_full_inbox_is_told_why_it_cannot_wait(make: Make, consumer: Consumer) -> None:
    """The whole message."""
    inbox = full(make)
    consumer.own_task = True
    with pytest.raises(RecorderQueueOverflowError) as caught:
        await inbox.put_when_room(Tick())
    assert str(caught.value) == (
        "the inbox is full: 2 events wait to be processed; a hook cannot wait for the recorder that it holds up"
    )
    assert inbox.ledger.rejected.value() == 1


# --- waiting for room in a thread ------------------------------------------------------------------


@pytest.mark.usefixtures("no_heartbeat")
def test_room_that_comes_before_the_thread_is_in_line(make: Make, consumer: Consumer) -> None:
    """It looks once more before it waits."""
    inbox = full(make, OverflowPolicy.BLOCK)
    consumer.at_question = inbox.events.clear
    assert inbox.put(Tick(2)) is True
    assert list(inbox.events) == [Tick(2)]
    assert not inbox.line


@pytest.mark.usefixtures("no_heartbeat")
def test_a_close_that_comes_before_the_thread_is_in_line(make: Make, consumer: Consumer) -> None:
    """Likewise."""
    inbox = full(make, OverflowPolicy.BLOCK)
    consumer.at_question = inbox.close
    assert inbox.put(Tick(2)) is False
    assert inbox.waiting() == 2


@pytest.mark.usefixtures("fast_heartbeat")
def test_a_thread_that_waits_looks_after_the_loop(make: Make, consumer: Consumer) -> None:
    """At each heartbeat that brings no word; the third time, the recorder is found to have ended."""
    inbox = full(make, OverflowPolicy.BLOCK)

    def third_time() -> None:
        if consumer.checks == 3:
            inbox.close()

    consumer.at_check = third_time
    assert inbox.put(Tick(2)) is False
    assert consumer.checks == 3
    assert consumer.rings == 0  # the consumer was awake all the time


@pytest.mark.usefixtures("no_heartbeat")
def test_a_thread_that_is_told_does_not_look_after_the_loop(make: Make, consumer: Consumer) -> None:
    """Whoever told it is alive."""
    inbox = full(make, OverflowPolicy.BLOCK)
    results: list[bool] = []
    producer = threading.Thread(target=lambda: results.append(inbox.put(Tick(2))))
    producer.start()
    until(lambda: inbox.line)
    inbox.events.popleft()
    inbox.line.grant()
    producer.join(DEADLINE)
    assert results == [True]
    assert consumer.checks == 0


@pytest.mark.usefixtures("no_heartbeat")
def test_a_thread_that_waits_wakes_the_consumer_out_of_a_linger(make: Make, consumer: Consumer) -> None:
    """It is room that it waits for, so the consumer shall not lie on."""
    inbox = full(make, OverflowPolicy.BLOCK)
    inbox.awake = False

    def ring() -> bool:
        inbox.close()  # nothing else would end the wait
        return consumer.ring()

    inbox._bell = ring
    assert inbox.put(Tick(2)) is False
    assert consumer.rings == 1


def test_a_block_timeout_of_nothing_does_not_wait(
    make: Make, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at once, before the clock has moved, that it waited for 0 s; the consumer is not even rung for."""
    monkeypatch.setattr("mvx.common.metrics._inbox.time", SimpleNamespace(monotonic=lambda: 0.0))
    inbox = full(make, OverflowPolicy.BLOCK, block_timeout=0.0)
    inbox.awake = False
    with pytest.raises(RecorderQueueOverflowError) as caught:
        inbox.put(Tick(2))
    assert str(caught.value) == "the inbox is full: 2 events wait to be processed, and no room came within 0 s"
    assert caught.value.details == {"capacity": 2, "waited_seconds": 0.0}
    assert consumer.rings == 0
    assert not inbox.line


def test_a_blocked_thread_waits_its_time_by_the_clock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is woken in between, the deadline stays where it was."""
    monkeypatch.setattr("mvx.common.metrics._inbox.HEARTBEAT", 0.001)
    inbox = full(make, OverflowPolicy.BLOCK, block_timeout=0.02)
    began = time.monotonic()
    with pytest.raises(RecorderQueueOverflowError):
        inbox.put(Tick(2))
    assert 0.02 <= time.monotonic() - began < DEADLINE


# --- the linger ------------------------------------------------------------------------------------


def test_a_linger_is_asked_of_the_hub(make: Make, consumer: Consumer) -> None:
    """The hub is to look after so many seconds; meanwhile nobody rings below half of the room."""
    inbox = make(capacity=11, linger=0.25)
    hub = doze(inbox)
    assert hub.asked == [(inbox, 0.25)]
    assert (inbox.lingering, inbox.awake, inbox.idle) == (True, False, False)
    assert (inbox.threshold, inbox.hard_limit) == (5, 11)
    for n in range(5):
        assert inbox.put(Tick(n)) is True
        assert consumer.rings == 0
    assert inbox.put(Tick(5)) is True
    assert consumer.rings == 1


def test_no_linger_is_asked_of_the_hub_where_there_is_none(make: Make) -> None:
    """A linger of 0 is none, and a closed inbox has nothing to linger for."""
    inbox = make()
    assert doze(inbox).asked == []
    assert not inbox.lingering
    assert inbox.idle
    closed = make(linger=1.0)
    closed.close()
    assert doze(closed).asked == []
    assert closed.awake


def ask_quietly(inbox: Inbox) -> None:
    """A request whose ring has not come through."""
    inbox.requests.append(object())


def fill_half(inbox: Inbox) -> None:
    inbox._late.append(Tick(0))
    inbox._late.append(Tick(1))


def one_event(inbox: Inbox) -> None:
    inbox._late.append(Tick(0))


@pytest.mark.parametrize("meanwhile", [ask_quietly, fill_half, Inbox.close])
def test_going_to_sleep_over_something_to_do_is_not_sleeping(make: Make, meanwhile: Callable[[Inbox], object]) -> None:
    """What came while the consumer lay down for a linger, and rang for nobody: it is found, and ends the linger."""
    inbox = make(capacity=4, linger=1.0)

    class Slow(Hub):
        def look_later(self, sleeper: Inbox, delay: float) -> bool:
            meanwhile(inbox)
            return True

    inbox.doze(Slow())  # type: ignore[arg-type] # a stand-in with the one method that is used
    assert (inbox.awake, inbox.lingering) == (True, False)


def test_an_event_or_two_do_not_end_a_linger(make: Make) -> None:
    """Less than half of the room, and the consumer lies on."""
    inbox = make(capacity=4, linger=1.0)
    inbox.put(Tick())
    doze(inbox)
    assert (inbox.awake, inbox.lingering) == (False, True)


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_one_event_is_half_of_a_small_inbox(make: Make, capacity: int) -> None:
    """It came while the consumer lay down for a linger: that ends it."""
    inbox = make(capacity=capacity, linger=1.0)
    inbox.put(Tick())
    doze(inbox)
    assert (inbox.awake, inbox.lingering) == (True, False)


def test_the_smallest_inbox_lingers_too(make: Make, consumer: Consumer) -> None:
    """Half of a capacity of one is nothing: empty, it lingers; the first event is told."""
    inbox = make(capacity=1, linger=1.0)
    doze(inbox)
    assert inbox.lingering
    assert not inbox.awake
    assert inbox.put(Tick()) is True
    assert consumer.rings == 1


@pytest.mark.parametrize(("meanwhile", "awake"), [(one_event, True), (ask_quietly, True), (Inbox.waiting, False)])
def test_the_look_after_a_linger(make: Make, meanwhile: Callable[[Inbox], object], awake: bool) -> None:
    """Something to do: awake. Nothing: asleep until told."""
    inbox = make(linger=1.0)
    doze(inbox)
    meanwhile(inbox)
    inbox.look()
    assert (inbox.awake, inbox.lingering, inbox.idle) == (awake, False, not awake)


def test_a_look_without_a_linger(make: Make) -> None:
    """The linger was ended before its time: the look is not for this sleep."""
    inbox = make()
    doze(inbox)
    one_event(inbox)
    inbox.look()
    assert not inbox.awake


def test_parking_gives_the_whole_room(make: Make) -> None:
    """After a linger the threshold is the bound again, and the nap has one token."""
    inbox = make(capacity=10, linger=1.0)
    doze(inbox)
    inbox.look()
    assert (inbox.threshold, inbox.hard_limit, inbox.nap) == (10, 10, [None])


def test_dozing_gives_back_the_room_of_what_was_handled(make: Make) -> None:
    """Nobody is handling anything now."""
    inbox = make(capacity=10)
    inbox.begin_handling()
    assert (inbox.hard_limit, inbox.threshold) == (9, 9)
    doze(inbox)
    assert (inbox.hard_limit, inbox.threshold) == (10, 10)


@pytest.mark.anyio
async def test_awaited_events_end_a_linger_at_the_half(make: Make, consumer: Consumer) -> None:
    """They bypass the fast path, so it is the one that reaches the half that rings; those behind it do not."""
    inbox = make(capacity=10, linger=1.0)
    doze(inbox)
    rings = []
    for n in range(9):
        assert await inbox.put_when_room(Tick(n)) is True
        rings.append(consumer.rings)
    assert rings == [0] * 4 + [1] * 5
    assert inbox.threshold == 10


def test_the_heartbeat_does_not_end_a_linger(make: Make) -> None:
    """What has come is due at the linger's end; a request that nobody rang for is waited for likewise."""
    inbox = make(linger=1.0)
    doze(inbox)
    inbox.put(Tick())
    inbox.heal()
    assert inbox.lingering
    assert not inbox.awake


def test_the_heartbeat_lays_a_token_that_was_taken_for_nothing(make: Make, consumer: Consumer) -> None:
    """Whoever took it was hit by an exception before it rang, and its event is gone: the next one rings."""
    inbox = make()
    doze(inbox)
    assert isinstance(inbox.nap, list)
    inbox.nap.pop()
    inbox.heal()
    assert not inbox.awake
    inbox.put(Tick())
    assert consumer.rings == 1


def test_the_heartbeat_leaves_a_consumer_at_work_alone(make: Make, consumer: Consumer) -> None:
    """It looks for events by itself, so nobody has to ring."""
    inbox = make()
    inbox.heal()
    inbox.put(Tick())
    assert consumer.rings == 0


def test_the_heartbeat_wakes_for_a_request(make: Make) -> None:
    """As well as for an event."""
    inbox = make()
    doze(inbox)
    ask_quietly(inbox)
    inbox.heal()
    assert inbox.awake


# --- waking up -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_wake_up_ends_the_sleep(make: Make) -> None:
    """Given before the sleep or during it, and given twice it is one."""
    inbox = make()
    doze(inbox)
    inbox.wake()
    inbox.wake()
    assert inbox.awake
    with anyio.fail_after(DEADLINE):
        await inbox.wait()
        doze(inbox)
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.wait)
            await anyio.wait_all_tasks_blocked()
            assert inbox.idle
            inbox.wake()
    assert inbox.awake
    assert not inbox.idle


def test_a_consumer_at_work_is_not_woken(make: Make) -> None:
    """Its next sleep would end before it began."""
    inbox = make()
    inbox.wake()
    assert inbox._receive is not None
    assert inbox._receive.statistics().current_buffer_used == 0


@pytest.mark.anyio
async def test_a_sleep_that_is_cancelled_has_ended(make: Make) -> None:
    """The consumer is awake then, and the room is the whole one."""
    inbox = make(capacity=10, linger=1.0)
    doze(inbox)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await inbox.wait()
    assert scope.cancelled_caught
    assert (inbox.awake, inbox.lingering) == (True, False)
    assert inbox.nap is AWAKE
    assert inbox.threshold == 10


def test_two_wake_ups_before_the_consumer_gets_up(make: Make) -> None:
    """The second finds one under way; a closed stream has nobody to wake."""
    inbox = make()
    doze(inbox)
    inbox.wake()
    inbox.awake = False
    inbox.wake()
    assert inbox.awake
    assert inbox._receive is not None
    inbox._receive.close()
    inbox.awake = False
    inbox.wake()
    assert inbox.awake


def test_a_sealed_inbox_sleeps_no_more(make: Make) -> None:
    """Neither waking up nor lying down opens it again."""
    inbox = make()
    inbox.seal()
    inbox.awake = False
    inbox.wake()
    assert not inbox.awake
    doze(inbox)
    assert inbox.sealed
    inbox._get_up()
    assert inbox.nap is SEALED
    assert inbox.threshold == -1


def test_one_producer_of_many_rings(make: Make, consumer: Consumer) -> None:
    """Of those that see the nap, the one that takes its token; the others' events are accepted as well."""
    inbox = make()
    doze(inbox)
    token = inbox.nap
    assert inbox.put(Tick(0)) is True
    inbox.nap = token
    assert token == []
    # A producer that saw the nap while the token was there, and comes to take it now.
    assert inbox.announce(Tick(1)) is True
    assert consumer.rings == 1


def test_an_exception_in_the_bell_leaves_the_ring_to_the_next(make: Make, consumer: Consumer) -> None:
    """Ctrl-C, say: the token is back, once."""
    inbox = make()
    doze(inbox)
    plain = inbox._bell

    def interrupted() -> bool:
        raise KeyboardInterrupt

    inbox._bell = interrupted
    with pytest.raises(KeyboardInterrupt):
        inbox.put(Tick(0))
    assert inbox.nap == [None]
    inbox._bell = plain
    assert inbox.put(Tick(1)) is True
    assert inbox.put(Tick(2)) is True
    assert consumer.rings == 1
    assert inbox.waiting() == 3


def test_an_exception_in_the_bell_of_an_unattended_inbox(make: Make) -> None:
    """There is no token to give back."""
    inbox = make(attended=False)

    def interrupted() -> bool:
        raise KeyboardInterrupt

    inbox._bell = interrupted
    with pytest.raises(KeyboardInterrupt):
        inbox.put(Tick(0))
    assert inbox.nap is UNATTENDED


def test_an_unheard_event_is_the_emitters(make: Make, consumer: Consumer) -> None:
    """The consumer is gone: the emitter is told, and the event is rejected and not abandoned."""
    inbox = make()
    doze(inbox)
    consumer.reachable = False
    unheard = Tick(1)
    with pytest.raises(ConnectionError):
        inbox.put(unheard)
    inbox._late.append(Tick(2))
    inbox._late.append(Tick(1))
    assert inbox.abandon() == 2
    assert inbox.ledger.rejected.value() == 1


@pytest.mark.parametrize("under_way", [False, True])
def test_an_unheard_event_that_the_end_has_taken(
    make: Make, consumer: Consumer, monkeypatch: pytest.MonkeyPatch, under_way: bool
) -> None:
    """The consumer has ended between the append and the bell, or is about to: the event is among what it took."""
    inbox = make()
    event = Tick()
    doze(inbox)

    def ring() -> bool:
        if under_way:
            inbox.nap = SEALING
        else:
            inbox.seal()
        return False

    monkeypatch.setattr("mvx.common.metrics._inbox.time", SimpleNamespace(sleep=lambda _: inbox.seal()))
    inbox._bell = ring
    assert inbox.put(event) is True
    assert list(inbox.events) == [event]


def test_the_same_object_unheard_once_and_accepted_once(make: Make, consumer: Consumer) -> None:
    """As many are rejected as emitters were told, and no more."""
    inbox = make()
    event = Tick()
    inbox._late.append(event)
    doze(inbox)
    inbox.nap = [None]
    consumer.reachable = False
    with pytest.raises(ConnectionError):
        inbox.put(event)
    assert inbox.abandon() == 1
    assert inbox.ledger.rejected.value() == 1


def test_an_answered_ring_is_not_checked(make: Make, consumer: Consumer) -> None:
    """Asking and hurrying look after the loop only if the bell says that nobody is there."""
    inbox = make()
    assert inbox.ask(object()) is True
    assert (consumer.rings, consumer.checks) == (1, 0)
    inbox.hurry()
    assert (consumer.rings, consumer.checks) == (1, 0)
    inbox.awake = False
    inbox.hurry()
    assert (consumer.rings, consumer.checks) == (2, 0)
    consumer.reachable = False
    inbox.hurry()
    assert (consumer.rings, consumer.checks) == (3, 1)
    assert inbox.ask(object()) is True
    assert (consumer.rings, consumer.checks) == (4, 2)


def test_a_request_seen_just_before_the_end_was_seen(make: Make) -> None:
    """The consumer took it between its being queued and the look whether anybody still listens."""
    inbox = make()
    inbox.deaf = True

    class Taken(list[Any]):
        def append(self, item: Any) -> None:
            """The consumer is faster."""

    inbox.requests = Taken()
    assert inbox.ask(object()) is True


def test_a_request_after_the_seal(make: Make, consumer: Consumer) -> None:
    """What was taken is still being handled, so there is something to wait for."""
    inbox = make()
    assert inbox.deaf is False
    inbox.seal()
    assert inbox.ask(request := object()) is True
    assert list(inbox.requests) == [request]
    assert consumer.rings == 1


# --- the end ---------------------------------------------------------------------------------------


def test_a_close_sends_everybody_away(make: Make) -> None:
    """Those in line are told, and newcomers are refused on either path."""
    inbox = full(make, OverflowPolicy.BLOCK)
    results: list[bool] = []
    producer = threading.Thread(target=lambda: results.append(inbox.put(Tick(2))))
    producer.start()
    until(lambda: inbox.line)
    inbox.close()
    producer.join(DEADLINE)
    assert results == [False]
    assert inbox.closed
    assert not inbox.sealed
    assert inbox.put(Tick(3)) is False
    assert inbox.waiting() == 2


def test_a_seal_takes_what_is_there_in_order(make: Make) -> None:
    """The consumer finds every accepted event where it looks for them, and nobody else's."""
    inbox = make()
    for n in range(5):
        inbox.put(Tick(n))
    inbox.seal()
    assert list(inbox.events) == [Tick(n) for n in range(5)]
    assert inbox.nap is SEALED
    inbox._late.append(Tick(9))  # a producer that was held up
    assert inbox.waiting() == 5


def test_a_seal_while_another_one_is_under_way_waits_for_it(make: Make) -> None:
    """Whoever comes second may rely on its being sealed."""
    inbox = make()
    inbox._right_to_seal.clear()
    inbox.nap = SEALING
    sealed: list[bool] = []

    def seal() -> None:
        inbox.seal()
        sealed.append(inbox.sealed)

    second = threading.Thread(target=seal)
    second.start()
    second.join(0.05)
    assert second.is_alive()
    inbox.nap = SEALED
    second.join(DEADLINE)
    assert sealed == [True]
    inbox._shut_stream()  # the first one's task


def test_a_seal_cut_short_does_not_keep_producers_waiting(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the midst of the copy: as if nothing had been, and the next seal takes all."""
    inbox = make()
    inbox.put(Tick())

    def interrupted(_items: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mvx.common.metrics._inbox.copied", interrupted)
        inbox.seal()
    assert inbox.nap is not SEALING
    assert inbox.abandon() == 1
    assert inbox.sealed


def test_the_end_closes_both_ends_of_the_stream(make: Make) -> None:
    """A stream that is dropped open warns."""
    inbox = make()
    inbox.seal()
    assert inbox._send is not None
    assert inbox._receive is not None
    with pytest.raises(anyio.ClosedResourceError):
        inbox._send.send_nowait(None)
    with pytest.raises(anyio.ClosedResourceError):
        inbox._receive.receive_nowait()


# --- a forked child ----------------------------------------------------------------------------------


def test_an_inbox_left_behind(make: Make) -> None:
    """It is closed at once to whoever was at it; what had been appended counts as the parent's."""
    inbox = make()
    early = HeldUp(inbox, Tick(1), before=False)
    late = HeldUp(inbox, Tick(2), before=True)
    told = Told()
    inbox.line._waiters.append(told)
    inbox.leave_behind()
    assert (inbox.closed, inbox.sealed, inbox.deaf, inbox.threshold) == (True, True, True, -1)
    assert inbox.put(Tick(3)) is False
    assert inbox.ask(object()) is False
    assert late.go_on() is False
    assert early.go_on() is True
    assert told.count == 1
    inbox.seal()  # does not wait for anybody
    inbox._shut_stream()


def test_the_position_of_the_next_event(make: Make) -> None:
    """How many were accepted before it, wherever they are now."""
    inbox = make()
    assert inbox.position() == 0
    inbox.put(Tick(0))
    inbox.put(Tick(1))
    inbox.ledger.taken += 4
    inbox.ledger.abandoned += 8
    for _ in range(16):
        inbox.ledger.evicted.increment()
    inbox.ledger.rejected.increment()
    inbox.ledger.dropped.increment()
    inbox.ledger.processed += 3
    assert inbox.position() == 2 + 4 + 8 + 16


def test_an_inbox_left_behind_is_not_sealed_again(make: Make) -> None:
    """Its events are the parent's, and so is the end of its consumer."""
    inbox = make()
    inbox.put(Tick())
    events = inbox.events
    inbox.leave_behind()
    inbox.seal()
    assert inbox.events is events
    assert list(events) == [Tick()]
    inbox._shut_stream()


def test_an_inbox_left_behind_in_the_midst_of_a_seal(make: Make) -> None:
    """Who had appended before the fork has nothing to be told: its event is the parent's."""
    inbox = make()
    event = Tick()
    inbox._late.append(event)
    inbox.nap = SEALING
    inbox.events = deque()
    inbox.leave_behind()
    assert inbox.announce(event) is True
    inbox._shut_stream()
