"""Counting, and reading what was counted, while it goes on."""

from __future__ import annotations

from mvx.common.metrics import FailurePolicy, OverflowPolicy, RecorderStatistics
from mvx.common.metrics._dispatch import Dispatcher
from mvx.common.metrics._inbox import Inbox, InboxOptions
from mvx.common.metrics._log import LimitedLog
from mvx.common.metrics._statistics import AtomicCounter, Ledger
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.points import interleaved
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.station import Offers, Owner
from tests.concurrency.interleaving.stage import Stage
from tests.support import GROWING, Seen, Tick, adds_up

CASES = Cases()


@CASES.case("ledger: a counter", short=1, long=3)
def _counter(stage: Stage) -> Scenario:
    """No step is lost, and no reader sees more than there were."""
    counter = AtomicCounter()
    begun = ended = 0
    readings: list[int] = []

    @interleaved
    def count() -> None:
        nonlocal begun, ended
        for _ in range(2):
            begun += 1
            counter.increment()
            ended += 1

    @interleaved
    def read() -> None:
        for _ in range(2):
            before = ended
            readings.append(counter.value())
            assert before <= readings[-1] <= begun

    def check() -> None:
        assert counter.value() == 4
        assert readings == sorted(readings)

    return Scenario(threads={"one": count, "two": count, "reader": read}, check=check)


def _ledger(
    policy: OverflowPolicy = OverflowPolicy.DROP, *, capacity: int = 10, readers: int = 1, end: bool = False
) -> Make:
    """One thread emits, one dispatches, and others read, twice each."""

    def make(stage: Stage) -> Scenario:
        ledger, owner, offers = Ledger(), Owner(), Offers()
        options = InboxOptions(capacity=capacity, overflow_policy=policy, block_timeout=1.0, linger=0.0)
        inbox = owner.inbox = Inbox(options, ledger=ledger, consumer=owner, bell=lambda: True, known={Tick})
        inbox.attend(lambda: True)
        dispatcher = Dispatcher(
            policy=FailurePolicy.ISOLATE, quarantine_after=5, ledger=ledger, log=LimitedLog(), fields={}
        )
        metric = Seen()
        dispatcher.register("seen", metric)
        first = Tick(0)
        inbox.put(first)

        @interleaved
        def dispatch() -> None:
            for _ in range(2):
                inbox.begin_handling()
                try:
                    dispatcher.dispatch(inbox.events.popleft, 1)
                finally:
                    inbox.end_handling()
            if end:
                inbox.close()
                ledger.abandoned += inbox.abandon()

        def read() -> None:
            earlier: RecorderStatistics | None = None
            for _ in range(2):
                ended = 1 + len(offers.told) - len(offers.of(False))
                now = ledger.read(waiting=inbox.waiting, capacity=capacity)
                begun = 1 + offers.begun
                assert adds_up(now)
                # What is just being moved may be missed: by the dispatcher, and by an emitter that evicts.
                assert ended - 1 - (policy is OverflowPolicy.DROP_OLDEST) <= now.offered <= begun
                assert now.pending >= 0
                if earlier is not None:
                    fallen = [name for name in GROWING if getattr(now, name) < getattr(earlier, name)]
                    assert not fallen, f"{fallen} fell from {earlier} to {now}"
                earlier = now

        def check() -> None:
            now = ledger.read(waiting=inbox.waiting, capacity=capacity)
            refused = len(offers.of(False))
            assert adds_up(now)
            assert now.offered == 1 + offers.begun - refused
            assert now.accepted == 1 + len(offers.accepted) - now.dropped
            assert now.processed == len(metric.events)
            assert now.pending == len(inbox.events)
            inbox.abandon()

        threads = {"emitter": offers.put(inbox, Tick(1), Tick(2)), "dispatcher": dispatch}
        for n in range(readers):
            threads[f"reader-{n}"] = read
        return Scenario(threads=threads, check=check)

    return make


CASES.add("ledger: emit, dispatch, read", _ledger(), short=1, long=1)
CASES.add("ledger: two readers", _ledger(readers=2), short=0, long=1)
CASES.add("ledger: the collector runs in the copy", _ledger(readers=2), short=0, long=1, every=0, in_copies=True)
CASES.add("ledger: evict, dispatch, read", _ledger(OverflowPolicy.DROP_OLDEST, capacity=1), short=0, long=1)
CASES.add("ledger: drop, dispatch, read", _ledger(OverflowPolicy.DROP, capacity=1), short=0, long=1)
CASES.add("ledger: the end", _ledger(end=True), short=0, long=1)
