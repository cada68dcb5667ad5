"""An inbox and those around it.

The consumer takes the same steps, in the same order, as ``ActorRun`` does in ``_work()``, ``_pass()`` and ``_drain()``,
the last of these with batches of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NoReturn

from mvx.common.metrics import MetricEvent, OverflowPolicy, RecorderQueueOverflowError
from mvx.common.metrics._inbox import Inbox, InboxOptions
from mvx.common.metrics._statistics import Ledger
from tests.concurrency.interleaving.loop import ScriptedLoop
from tests.concurrency.interleaving.points import interleaved
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body
from tests.support import Tick


class Owner:
    """Stands in for the recorder, whose event loop lives or not."""

    def __init__(self) -> None:
        self._lost: list[int] = []
        self.inbox: Inbox | None = None

    @property
    def lost(self) -> int:
        return sum(self._lost)

    def on_own_loop(self) -> bool:
        return False

    def in_own_task(self) -> bool:
        return False

    def check_loop(self) -> None:
        pass

    def refuse_unheard(self) -> NoReturn:
        self.abandon()
        raise ConnectionError

    def abandon(self) -> None:
        """As the run's conclude() does in the stead of an actor whose loop is gone."""
        assert self.inbox is not None
        self._lost.append(self.inbox.abandon())


@dataclass
class Offers:
    """What became of the events that were offered, as their emitters were told."""

    told: list[tuple[Tick, object]] = field(default_factory=list)
    begun: int = 0

    def put(self, inbox: Inbox, *events: Tick) -> Body:
        """Return a body that offers the events one after the other."""

        def body() -> None:
            for event in events:
                self.begun += 1
                try:
                    self.told.append((event, inbox.put(event)))
                except (RecorderQueueOverflowError, ConnectionError) as exc:
                    self.told.append((event, type(exc)))

        return body

    def of(self, answer: object) -> list[Tick]:
        return [event for event, told in self.told if told is answer]

    @property
    def accepted(self) -> list[Tick]:
        return self.of(True)


def same(some: Sequence[MetricEvent], others: Sequence[MetricEvent]) -> bool:
    """Whether both hold the same objects, each as often, in any order."""
    return Counter(map(id, some)) == Counter(map(id, others))


def in_order(taken: Sequence[MetricEvent], offered: Sequence[MetricEvent]) -> bool:
    """Whether those of ``offered`` that are in ``taken`` are in the same order there."""
    places = [next((n for n, event in enumerate(taken) if event is mine), None) for mine in offered]
    known = [place for place in places if place is not None]
    return known == sorted(known)


class Station:
    """An inbox and its consumer on a scripted loop."""

    def __init__(
        self,
        stage: Stage,
        *,
        capacity: int = 10,
        policy: OverflowPolicy = OverflowPolicy.RAISE_ERROR,
        linger: float = 0.0,
        asleep: bool = True,
    ) -> None:
        self.stage = stage
        self.loop = ScriptedLoop(stage)
        self.owner = Owner()
        self.ledger = Ledger()
        options = InboxOptions(capacity=capacity, overflow_policy=policy, block_timeout=1.0, linger=linger)
        self.inbox = Inbox(options, ledger=self.ledger, consumer=self.owner, bell=self.ring, known={Tick})
        self.owner.inbox = self.inbox
        self.taken: list[MetricEvent] = []
        self.processed = 0
        self.answered: list[object] = []
        self.naps = self.rings = 0
        self.offers = Offers()
        self.inbox.attend(self.ring)
        # As behind an event: else there would be no linger.
        self.inbox.begin_handling()
        self.inbox.end_handling()
        self.loop.spawn(self.consume, name="consumer", ended=lambda: None)
        if asleep:
            self.loop.run_what_is_ready()
            assert self.inbox.idle or linger

    @property
    def pending(self) -> int:
        return len(self.inbox.events) + len(self.taken) - self.processed

    def ring(self) -> bool:
        """As ActorRun.ring() does, with nothing in between; the hub has scenarios of its own."""
        self.rings += 1
        self.loop.post(self.inbox.wake)
        return True

    def look_later(self, sleeper: Inbox, delay: float) -> bool:
        """As the hub does by its own clock."""
        self.loop.timers.append((self.stage.clock + delay, sleeper.look))
        return True

    @interleaved
    async def consume(self) -> None:
        """As ActorRun._work() does."""
        inbox = self.inbox
        while True:
            if inbox.events or inbox.requests:
                requests = [inbox.requests.pop(0) for _ in range(len(inbox.requests))]
                count = len(inbox.events)
                take = inbox.events.popleft
                for _ in range(count):
                    inbox.begin_handling()
                    try:
                        # Taken and noted in one step, so that the bound can be watched.
                        self.taken.extend(islice(iter(take, None), 1))
                        self.processed = len(self.taken)
                    except IndexError:
                        break  # evicted meanwhile
                    finally:
                        inbox.end_handling()
                        if inbox.line:
                            inbox.line.grant()
                self.answered.extend(requests)
            elif inbox.sealed:
                return
            elif inbox.closed:
                inbox.seal()
            else:
                self.naps += 1
                inbox.doze(self)  # type: ignore[arg-type] # a stand-in with the one method that is used
                await inbox.wait()

    def stop(self) -> None:
        """As ActorRun.request_stop() does."""
        self.inbox.close()
        self.loop.post(self.inbox.wake)

    def check(self) -> None:
        """Everything accepted has been taken, and the next event will be, too."""
        assert not self.inbox.events, "an event lies unseen"
        assert not self.inbox.requests, "a request lies unseen"
        if not (self.stage.preempted or self.answered or self.inbox.options.linger or self.inbox.closed):
            # With preemptions there may be more: duplicates are harmless.
            assert self.rings < self.naps, "two rang for one nap"
        evicted = self.ledger.evicted.value()
        assert evicted or same(self.taken, self.offers.accepted)
        assert len(self.taken) + evicted == len(self.offers.accepted)
        if not self.inbox.closed:
            assert not self.inbox.awake, "it is at rest and thinks that it is awake"
            assert self.inbox.threshold == self.inbox.hard_limit == self.inbox.options.capacity
            assert self.inbox.put(late := Tick(-1))
            self.loop.run_what_is_ready()
            assert self.taken[-1] is late, "it would not wake up any more"
        else:
            assert self.inbox.threshold == -1
            assert self.inbox.sealed
            assert self.inbox.put(Tick(-1)) is False
        self.loop.close()


def inbox_alone(
    owner: Owner,
    *,
    capacity: int = 10,
    policy: OverflowPolicy = OverflowPolicy.RAISE_ERROR,
    bell: Callable[[], bool],
    known: set[type] | None = None,
) -> Inbox:
    options = InboxOptions(capacity=capacity, overflow_policy=policy, block_timeout=1.0, linger=0.0)
    known = {Tick} if known is None else known
    owner.inbox = Inbox(options, ledger=Ledger(), consumer=owner, bell=bell, known=known)
    return owner.inbox
