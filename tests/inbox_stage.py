"""Stand-ins for what surrounds an inbox, and a producer that can be held up in the midst of its append."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from mvx.common.metrics import MetricEvent, OverflowPolicy
from mvx.common.metrics._inbox import Inbox, InboxOptions
from mvx.common.metrics._statistics import Ledger
from tests.support import DEADLINE, Tick


class Consumer:
    """Stands in for the recorder: remembers what it was asked, and does what the test wants meanwhile."""

    def __init__(self) -> None:
        self.rings = 0
        self.checks = 0
        self.reachable = True
        self.own_loop = False
        self.own_task = False
        self.at_check: Callable[[], object] = lambda: None
        self.at_question: Callable[[], object] = lambda: None

    def ring(self) -> bool:
        self.rings += 1
        return self.reachable

    def on_own_loop(self) -> bool:
        self.at_question()
        return self.own_loop

    def in_own_task(self) -> bool:
        self.at_question()
        return self.own_task

    def check_loop(self) -> None:
        self.checks += 1
        self.at_check()

    def refuse_unheard(self) -> NoReturn:
        raise ConnectionError


class Hub:
    """Stands in for the hub: remembers who wants to be looked at, and when."""

    def __init__(self, *, ticking: bool = True) -> None:
        self.ticking = ticking
        self.asked: list[tuple[Inbox, float]] = []

    def look_later(self, sleeper: Inbox, delay: float) -> bool:
        self.asked.append((sleeper, delay))
        return self.ticking


Make = Callable[..., Inbox]


@contextmanager
def inboxes_of(consumer: Consumer) -> Iterator[Make]:
    """Yield what makes an inbox whose consumer is awake; all are ended with the block."""
    made: list[Inbox] = []

    def make_inbox(
        *,
        capacity: int = 100,
        policy: OverflowPolicy = OverflowPolicy.RAISE_ERROR,
        linger: float = 0.0,
        block_timeout: float = DEADLINE,
        attended: bool = True,
    ) -> Inbox:
        options = InboxOptions(capacity=capacity, overflow_policy=policy, block_timeout=block_timeout, linger=linger)
        inbox = Inbox(options, ledger=Ledger(), consumer=consumer, bell=consumer.ring, known={Tick})
        if attended:
            inbox.attend(consumer.ring)
            # As behind an event: else there would be no linger.
            inbox.begin_handling()
            inbox.end_handling()
        made.append(inbox)
        return inbox

    yield make_inbox
    for inbox in made:
        inbox.abandon()


class Tampered(deque[MetricEvent]):
    """The events of an inbox, with an ``append`` of the test's own."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(inbox.events)
        self.tampered: Callable[[MetricEvent], object] = self.really_append
        inbox.events = inbox._late = self

    def append(self, event: MetricEvent) -> None:
        self.tampered(event)

    def really_append(self, event: MetricEvent) -> None:
        super().append(event)


class HeldUp:
    """A producer in a thread that is held up just before, or just after, its append."""

    def __init__(self, inbox: Inbox, event: MetricEvent, *, before: bool) -> None:
        self.result: bool | BaseException | None = None
        self._go = threading.Event()
        there = threading.Event()
        events = inbox.events if isinstance(inbox.events, Tampered) else Tampered(inbox)

        def slow_append(event: MetricEvent) -> None:
            if not before:
                events.really_append(event)
            there.set()
            assert self._go.wait(DEADLINE)
            if before:
                events.really_append(event)

        def produce() -> None:
            try:
                self.result = inbox.put(event)
            except BaseException as exc:
                self.result = exc

        events.tampered = slow_append
        self._thread = threading.Thread(target=produce)
        self._thread.start()
        assert there.wait(DEADLINE)
        events.tampered = events.really_append

    def go_on(self) -> bool | BaseException | None:
        self._go.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return self.result


class Told:
    """A waiter that counts."""

    def __init__(self) -> None:
        self.count = 0

    def notify(self) -> None:
        self.count += 1


def end(inbox: Inbox) -> list[MetricEvent]:
    """Seal as the actor does when it has nothing left to do; return what it finds to be done yet."""
    inbox.seal()
    left = list(inbox.events)
    inbox.events.clear()
    return left
