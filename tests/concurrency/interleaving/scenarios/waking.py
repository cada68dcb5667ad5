"""Waking a consumer that sleeps, lingers or is about to: by events and by requests."""

from __future__ import annotations

from mvx.common.metrics import OverflowPolicy
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.station import Station
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body
from tests.support import Tick

CASES = Cases()


def _wake(*, producers: int, events: int, linger: float, asleep: bool) -> Make:
    def make(stage: Stage) -> Scenario:
        station = Station(stage, linger=linger, asleep=asleep)
        threads = {
            f"producer-{n}": station.offers.put(station.inbox, *(Tick(10 * n + i) for i in range(events)))
            for n in range(producers)
        }
        services = {"consumer": station.loop.run}
        return Scenario(threads=threads, services=services, check=station.check, horizon=4 * linger)

    return make


CASES.add("wake a sleeper: one producer", _wake(producers=1, events=2, linger=0, asleep=True), short=2, long=4)
CASES.add("wake a sleeper: two producers", _wake(producers=2, events=1, linger=0, asleep=True), short=1, long=3)
CASES.add("fall asleep: one producer", _wake(producers=1, events=2, linger=0, asleep=False), short=2, long=4)
CASES.add("fall asleep: two producers", _wake(producers=2, events=1, linger=0, asleep=False), short=1, long=2)
CASES.add(
    "linger: one producer", _wake(producers=1, events=2, linger=0.5, asleep=True), short=2, long=3, time_passes=True
)
CASES.add(
    "linger: two producers", _wake(producers=2, events=1, linger=0.5, asleep=False), short=1, long=2, time_passes=True
)


def _burst(*, producers: int, asleep: bool) -> Make:
    """Nobody has to wait for the end of the linger when half of the room is taken: no time passes here."""

    def make(stage: Stage) -> Scenario:
        station = Station(stage, linger=0.5, capacity=4, policy=OverflowPolicy.DROP, asleep=asleep)
        offers, inbox = station.offers, station.inbox
        threads = {f"producer-{n}": offers.put(inbox, *(Tick(10 * n + i) for i in range(3))) for n in range(producers)}

        def check() -> None:
            assert not inbox.awake
            assert inbox.lingering
            # It is the next one after the half is full that rings.
            assert len(inbox.events) <= 2, "half of the room is taken and nobody hurries"
            assert inbox.threshold == 2
            here = [*station.taken, *inbox.events]
            assert len(here) + inbox.ledger.dropped.value() == len(offers.accepted)
            station.loop.close()

        return Scenario(threads=threads, services={"consumer": station.loop.run}, check=check)

    return make


CASES.add("linger: a burst fills half of the room", _burst(producers=2, asleep=True), short=0, long=1)
CASES.add("linger: a burst while it lies down", _burst(producers=1, asleep=False), short=1, long=3)


@CASES.case("threshold: closed wins", short=3, long=5)
def _closed_wins(stage: Stage) -> Scenario:
    """Whatever the consumer sets meanwhile."""
    station = Station(stage, linger=0.5, capacity=4)
    inbox = station.inbox

    def consume() -> None:
        inbox.look()
        inbox.wake()
        inbox.doze(station)  # type: ignore[arg-type] # a stand-in with the one method that is used
        inbox.begin_handling()
        inbox.end_handling()

    def check() -> None:
        assert inbox.threshold == -1
        assert inbox.put(Tick()) is False
        station.loop.close()

    return Scenario(threads={"consumer": consume, "stopper": inbox.close}, check=check)


@CASES.case("threshold: a hurrying producer", short=2, long=3)
def _hurrying(stage: Stage) -> Scenario:
    """It sets the threshold from outside, and must not leave an old one behind."""
    station = Station(stage, linger=0.5, capacity=3)
    inbox = station.inbox

    def consume() -> None:
        inbox.look()
        inbox.wake()
        inbox.begin_handling()
        inbox.end_handling()
        inbox.begin_handling()

    def check() -> None:
        assert inbox.threshold == inbox.hard_limit == 2
        station.loop.close()

    threads = {"producer": station.offers.put(inbox, Tick(1), Tick(2)), "consumer": consume}
    return Scenario(threads=threads, check=check)


def _ask(*, asleep: bool) -> Make:
    def make(stage: Stage) -> Scenario:
        station = Station(stage, asleep=asleep)
        inbox = station.inbox
        asked: list[tuple[object, bool]] = []

        def ask() -> None:
            request = object()
            asked.append((request, inbox.ask(request)))

        def check() -> None:
            assert [station.answered.count(request) for request, _ in asked] == [int(seen) for _, seen in asked]
            station.check()

        threads: dict[str, Body] = {"asker-1": ask, "asker-2": ask}
        return Scenario(threads=threads, services={"consumer": station.loop.run}, check=check)

    return make


CASES.add("ask a sleeper", _ask(asleep=True), short=1, long=3)
CASES.add("ask what falls asleep", _ask(asleep=False), short=1, long=3)
