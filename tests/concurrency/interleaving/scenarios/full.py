"""An inbox without room: each overflow policy, and those who wait in line."""

from __future__ import annotations

from mvx.common.metrics import MetricEvent, OverflowPolicy, RecorderQueueOverflowError
from mvx.common.metrics._room import WaitingLine
from mvx.common.metrics._waiting import ThreadWaiter
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.loop import ScriptedLoop
from tests.concurrency.interleaving.points import interleaved
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.station import Offers, Owner, Station, in_order, inbox_alone, same
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body
from tests.support import Tick

CASES = Cases()


def _overflow(policy: OverflowPolicy, *, stop: bool = False, asleep: bool = False) -> Make:
    """Room for one event only."""

    def make(stage: Stage) -> Scenario:
        station = Station(stage, capacity=1, policy=policy, asleep=asleep)
        inbox, offers = station.inbox, station.offers
        if policy is OverflowPolicy.BLOCK:
            offers.put(inbox, Tick(20))()
            threads = {f"producer-{n}": offers.put(inbox, Tick(10 * n)) for n in range(2)}
        else:
            threads = {f"producer-{n}": offers.put(inbox, Tick(10 * n), Tick(10 * n + 1)) for n in range(2)}
        if stop:
            threads = {"producer": offers.put(inbox, Tick(0), Tick(1), Tick(2)), "stopper": station.stop}

        def always() -> None:
            # Each other thread that is emitting may exceed it by one; and with a capacity of one,
            # DROP_OLDEST has the new event wait beside the one that is being handled.
            beside = int(policy is OverflowPolicy.DROP_OLDEST)
            others = 0 if stop else 1
            assert station.pending <= 1 + others + beside, f"{station.pending} pending"

        def check() -> None:
            dropped = inbox.ledger.dropped.value()
            told = len(offers.of(RecorderQueueOverflowError))
            assert inbox.ledger.rejected.value() == told
            assert dropped == 0 or policy is OverflowPolicy.DROP
            assert told == 0 or policy in (OverflowPolicy.RAISE_ERROR, OverflowPolicy.BLOCK)
            assert len(offers.told) == offers.begun
            # "Dealt with" is True for a dropped event, too.
            taken, evicted = len(station.taken), inbox.ledger.evicted.value()
            assert taken + evicted + dropped == len(offers.accepted)
            assert len(set(map(id, station.taken))) == taken
            assert not {id(event) for event in offers.of(False)} & set(map(id, station.taken))
            assert not inbox.events
            assert not len(inbox.line), "somebody waits in line for ever"
            for n in range(3):
                assert in_order(station.taken, [event for event, _ in offers.told if event.n // 10 == n])
            assert inbox.threshold == (-1 if stop else 1)
            station.loop.close()

        services = {"consumer": station.loop.run}
        return Scenario(threads=threads, services=services, check=check, always=always)

    return make


for _policy in OverflowPolicy:
    CASES.add(
        f"full: {_policy}",
        _overflow(_policy, asleep=_policy is not OverflowPolicy.BLOCK),
        short=int(_policy is OverflowPolicy.DROP_OLDEST),
        long=1,
    )
CASES.add("full while stopping: DROP", _overflow(OverflowPolicy.DROP, stop=True), short=0, long=1)
CASES.add("full while stopping: DROP_OLDEST", _overflow(OverflowPolicy.DROP_OLDEST, stop=True), short=0, long=1)
CASES.add("full while stopping: RAISE_ERROR", _overflow(OverflowPolicy.RAISE_ERROR, stop=True), short=0, long=1)
CASES.add("full while stopping: BLOCK", _overflow(OverflowPolicy.BLOCK, stop=True), short=0, long=1)
CASES.add("full: time runs out", _overflow(OverflowPolicy.BLOCK), short=0, long=1, time_passes=True)


class Crowd:
    """Producers that wait for room in an inbox whose consumer only makes room."""

    def __init__(self, stage: Stage, *, room: int) -> None:
        self.owner = Owner()
        self.inbox = inbox_alone(self.owner, capacity=2, policy=OverflowPolicy.BLOCK, bell=lambda: True)
        self.inbox.attend(lambda: True)
        self.offers = Offers()
        self.early = [Tick(-1), Tick(-2)]
        for event in self.early:
            self.inbox.put(event)
        self.taken: list[MetricEvent] = []
        self._room = room

    @interleaved
    def make_room(self) -> None:
        for _ in range(self._room):
            self.inbox.begin_handling()
            self.taken.append(self.inbox.events.popleft())
            self.inbox.end_handling()
            if self.inbox.line:
                self.inbox.line.grant()


def _wait_for_room(*, waiters: int, room: int, close: bool = False) -> Make:
    def make(stage: Stage) -> Scenario:
        crowd = Crowd(stage, room=room)
        inbox, offers = crowd.inbox, crowd.offers
        threads = {f"producer-{n}": offers.put(inbox, Tick(n)) for n in range(waiters)}
        threads["consumer"] = crowd.make_room
        if close:
            threads["stopper"] = inbox.close

        def check() -> None:
            assert not len(inbox.line)
            here = [*crowd.taken, *inbox.events]
            assert same(here, [*crowd.early, *offers.accepted])
            assert len(offers.told) == waiters
            if not close:
                assert len(offers.accepted) + len(offers.of(RecorderQueueOverflowError)) == waiters
                # Whoever ran out of time has left the room to the others.
                assert len(offers.accepted) == min(waiters, room) or offers.of(RecorderQueueOverflowError)
            inbox.abandon()

        return Scenario(threads=threads, check=check)

    return make


CASES.add("line: two wait for two places", _wait_for_room(waiters=2, room=2), short=1, long=2)
CASES.add("line: one place, and the end", _wait_for_room(waiters=2, room=1, close=True), short=0, long=1)
CASES.add("line: two places, and time runs out", _wait_for_room(waiters=2, room=2), short=0, long=1, time_passes=True)


@CASES.case("line: one leaves", short=2, long=4)
def _one_leaves(stage: Stage) -> Scenario:
    """The one that is told and has no use for the room passes it on."""
    room = 0
    line = WaitingLine(lambda: room)

    def leave() -> None:
        with line.waiting(ThreadWaiter()):
            pass

    @interleaved
    def stay() -> None:
        with line.waiting(waiter := ThreadWaiter()):
            if not room:
                waiter.wait(1)  # no time passes: told, or asleep for ever

    @interleaved
    def make_room() -> None:
        nonlocal room
        room = 1
        line.grant()

    return Scenario(threads={"leaver": leave, "stayer": stay, "consumer": make_room})


@CASES.case("line: tasks of other loops", short=0, long=1)
def _tasks_in_line(stage: Stage) -> Scenario:
    """put_when_room() of two other event loops."""
    crowd = Crowd(stage, room=2)
    inbox = crowd.inbox
    results: list[bool] = []

    def produce(n: int) -> None:
        async def wait() -> None:
            results.append(await inbox.put_when_room(Tick(n)))

        ScriptedLoop(stage).run_task(wait)

    def check() -> None:
        assert results == [True, True]
        assert not len(inbox.line)
        assert len(inbox.events) == len(crowd.taken) == 2
        inbox.abandon()

    threads: dict[str, Body] = {f"task-{n}": lambda n=n: produce(n) for n in range(2)}  # type: ignore[misc] # bound now
    return Scenario(threads={**threads, "consumer": crowd.make_room}, check=check)


@CASES.case("line: a task and the end", short=1, long=2)
def _task_and_close(stage: Stage) -> Scenario:
    crowd = Crowd(stage, room=1)
    inbox = crowd.inbox
    results: list[bool] = []

    def produce() -> None:
        async def wait() -> None:
            results.append(await inbox.put_when_room(Tick()))

        ScriptedLoop(stage).run_task(wait)

    def check() -> None:
        assert len(inbox.events) == 1 + (results == [True])
        assert not len(inbox.line)
        inbox.abandon()

    return Scenario(threads={"task": produce, "consumer": crowd.make_room, "stopper": inbox.close}, check=check)
