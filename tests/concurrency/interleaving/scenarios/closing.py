"""The end of an inbox: whoever is late is told so, and what was accepted is handled or counted."""

from __future__ import annotations

from collections.abc import Sequence

from mvx.common.metrics import MetricEvent, OverflowPolicy
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.points import interleaved
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.station import Offers, Owner, Station, inbox_alone, same
from tests.concurrency.interleaving.stage import Stage
from tests.support import Tick

CASES = Cases()


def _stop(*, events: Sequence[Tick], linger: float = 0, asleep: bool = True) -> Make:
    def make(stage: Stage) -> Scenario:
        station = Station(stage, linger=linger, asleep=asleep)
        threads = {f"producer-{n}": station.offers.put(station.inbox, event) for n, event in enumerate(events)}

        def check() -> None:
            assert station.inbox.sealed, "it sleeps through its stop"
            assert len(station.offers.accepted) + len(station.offers.of(False)) == len(events)
            station.check()

        return Scenario(
            threads={**threads, "stopper": station.stop}, services={"consumer": station.loop.run}, check=check
        )

    return make


_ONE = Tick(1)
CASES.add("stop a sleeper", _stop(events=[Tick(1)]), short=1, long=2)
CASES.add("stop what falls asleep", _stop(events=[Tick(1)], asleep=False), short=1, long=2)
CASES.add("stop what lingers", _stop(events=[Tick(1)], linger=0.5), short=1, long=3)
CASES.add("stop with two producers", _stop(events=[Tick(1), Tick(2)]), short=0, long=1)
CASES.add("stop with one object put twice", _stop(events=[_ONE, _ONE]), short=0, long=1)


class Forgetful(set[type]):
    """The known event classes, of which each event turns out to be none.

    So every event takes the long way, on which it may be held up between the gate and the append;
    on the short one there is no call between the two.
    """

    def __contains__(self, kind: object) -> bool:
        return False

    def add(self, kind: type) -> None:
        pass


def _seal(*events: Tick, careful: bool = True) -> Make:
    """The end alone, without a consumer that has slept before."""

    def make(stage: Stage) -> Scenario:
        inbox = inbox_alone(Owner(), bell=lambda: True, known=Forgetful() if careful else None)
        offers, taken = Offers(), list[MetricEvent]()

        @interleaved
        def end() -> None:
            inbox.close()
            inbox.seal()
            for _ in range(len(inbox.events)):
                # One by one, as the actor does.
                taken.append(inbox.events.popleft())

        def check() -> None:
            assert same(taken, offers.accepted)
            assert len(offers.of(False)) == len(events) - len(taken)
            assert not inbox.events
            assert inbox.threshold == -1

        inbox.attend(lambda: True)
        threads = {f"producer-{n}": offers.put(inbox, event) for n, event in enumerate(events)}
        return Scenario(threads={**threads, "consumer": end}, check=check)

    return make


CASES.add("seal: one producer", _seal(Tick(1)), short=2, long=4)
CASES.add("seal: two producers", _seal(Tick(1), Tick(2)), short=1, long=2)
CASES.add("seal: two producers on the short way", _seal(Tick(1), Tick(2), careful=False), short=1, long=2)
CASES.add("seal: the collector runs in the copy", _seal(Tick(1), Tick(2)), short=1, long=3, in_copies=True)
CASES.add("seal: equal events", _seal(Tick(1), Tick(1)), short=1, long=2)
CASES.add("seal: one object put twice", _seal(_ONE, _ONE), short=1, long=2)
CASES.add("seal: one object put three times", _seal(_ONE, _ONE, _ONE), short=0, long=1)


@CASES.case("seal: against an eviction", short=2, long=3)
def _seal_and_evict(stage: Stage) -> Scenario:
    """What the seal has copied nobody takes away, so that nothing is both abandoned and evicted."""
    owner = Owner()
    inbox = inbox_alone(owner, capacity=1, policy=OverflowPolicy.DROP_OLDEST, bell=lambda: True)
    inbox.attend(lambda: True)
    offers = Offers()
    offers.put(inbox, Tick(0))()

    def check() -> None:
        assert owner.lost + inbox.ledger.evicted.value() == len(offers.accepted)
        assert len(offers.accepted) + len(offers.of(False)) == 3

    return Scenario(threads={"producer": offers.put(inbox, Tick(1), Tick(2)), "finder": owner.abandon}, check=check)


UNHEARD = "nobody may come between a producer's last look at `nap` and its note that its event is unheard"


def _loop_gone(*, unattended: bool, same_object: bool = False) -> Make:
    """Two threads found out by themselves that the loop is gone, and two producers do."""

    def make(stage: Stage) -> Scenario:
        owner = Owner()
        inbox = inbox_alone(owner, bell=lambda: False)
        if not unattended:
            inbox.nap = [None]
        offers = Offers()
        events = [_ONE, _ONE] if same_object else [Tick(1), Tick(2)]

        def check() -> None:
            told, refused = offers.of(ConnectionError), offers.of(False)
            assert len(told) + len(refused) + len(offers.accepted) == 2
            assert owner.lost == len(offers.accepted), "abandoned are the accepted events and no others"
            assert inbox.ledger.rejected.value() == len(told)
            assert not inbox.events
            assert inbox.sealed

        threads = {f"producer-{n}": offers.put(inbox, event) for n, event in enumerate(events)}
        return Scenario(threads={**threads, "waiter-1": owner.abandon, "waiter-2": owner.abandon}, check=check)

    return make


CASES.add("loop gone: of a sleeper", _loop_gone(unattended=False), short=0, long=1, needs_the_lock=UNHEARD)
CASES.add("loop gone: before there is a consumer", _loop_gone(unattended=True), short=0, long=1, needs_the_lock=UNHEARD)
CASES.add(
    "loop gone: one object put twice",
    _loop_gone(unattended=True, same_object=True),
    short=0,
    long=1,
    needs_the_lock=UNHEARD,
)
