"""The way in: a thread-safe bounded entry in front of a memory object stream.

Any thread, event loop, signal handler or finalizer puts events in; one consumer, the actor, takes
them out on its own event loop.  There is no lock anywhere: a signal handler may wait for the actor
while the thread that it interrupted is in here.  The stream behind the entry carries wake-ups only:
a memory object stream is not thread-safe, so only the consumer's loop ever touches it.

The protocol, and why no event is lost
--------------------------------------
*Wake-up.*  A producer appends and *then* looks at ``nap``.  The consumer lies down (``nap`` holds a
token) and *then* looks for events once more before it sleeps.  Whichever comes second sees the
other, so an event cannot lie in the inbox unseen.  Of the producers that see the token, the one that
takes it rings.  An exception may hit that one before it rings, Ctrl-C say; the heartbeat heals that.
Inboxes on a roster share one nap: there the roster lies down, and then looks into every one of them.

*Close.*  ``close()`` turns new events away, but a producer that had passed the gate before may still
append.  ``seal()`` sets ``nap`` to SEALING, copies the events of one moment, and sets ``nap`` to
SEALED.  A producer appends to the deque that was there when it began, also when the seal has meanwhile put another
in its place for the consumer.  One that looked at ``nap`` before had appended before, so its event is in the copy,
and the consumer handles it.  A producer that finds the seal looks which side of the copy its event is
on; behind the copy nobody will take it, so it was not accepted.  Only the producer waits for the
consumer there, for the time of one copy, and never the other way round.

*Bound.*  ``len(events) < threshold`` is checked before the append and not together with it, so each
other thread that is emitting at that instant may exceed the bound by one event.

*One order for all of it.*  Under the interpreter lock, reading or writing an attribute and each operation of a
deque or a list is one step, and all threads see these steps in one order.  Whatever two sides have to know of
each other, each writes its own part first and looks at the other's afterwards, so that of two that meet at
least one sees the other:

* ``put()`` appends an event, then looks at ``nap``; ``park()`` lays the token, then looks at ``events``,
  ``requests`` and ``closed``.
* ``ask()`` appends a request, then looks at ``deaf``; the end of the run sets ``deaf``, then takes the requests
  once more.
* Who waits for room stands in line, then looks at ``closed`` and at the room; ``close()``, or whoever makes room,
  does that, then tells those in line.

Both sides write ``threshold``, and it ends right all the same: ``close()`` writes it behind ``closed``, and whoever
else writes it then looks at ``closed`` and makes it -1; a producer that ends a linger looks whether the
``hard_limit`` that it wrote there has been changed meanwhile.  ``closed`` never goes back, and the consumer is told
of it behind the write.

A token is that of one nap.  Who finds it gone relies on whoever took it, or on the consumer, which has got up
since; either way the consumer looks for events after this append and before its next nap.  Who was held up and
takes the token of a nap that is over rings once too often, which does no harm.  ``nap`` is assigned by whoever acts
for the consumer: its loop, the thread that starts it, a forked child, and, when the loop is gone, the one thread
with the right to seal.

``tests/concurrency/test_interleavings.py`` runs this code under every schedule of two to four threads with at most
so many preemptions at the places where CPython changes threads: one or two in most scenarios, up to five in the
smallest.  Its long profile also preempts once, before any instruction that touches something shared.

An inbox is used for one run of the recorder.  A restart gets a new one, so that a producer that was
held up over the end of a run can never mistake the next run for its own.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from ._copying import copied
from ._event import MAX_KNOWN_CLASSES, MetricEvent, ensure_event, is_event_class
from ._hub import LoopHub
from ._room import WaitingLine
from ._statistics import Ledger
from ._waiting import HEARTBEAT, TaskWaiter, ThreadWaiter
from .errors import RecorderQueueOverflowError


class OverflowPolicy(StrEnum):
    """What to do with an event when the inbox is full."""

    DROP = "DROP"
    """Throw the new event away and count it: production never notices, the oldest data is kept."""
    DROP_OLDEST = "DROP_OLDEST"
    """Throw the longest waiting event away and count it: production never notices, the newest data is kept."""
    RAISE_ERROR = "RAISE_ERROR"
    """Raise RecorderQueueOverflowError to the emitter: nothing is lost without somebody being told."""
    BLOCK = "BLOCK"
    """Let the emitting thread wait for room, up to ``block_timeout``: nothing is lost, production slows down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxOptions:
    """The bounds of an inbox."""

    capacity: int
    """Events that may be accepted and not yet processed."""
    overflow_policy: OverflowPolicy
    block_timeout: float
    """Seconds that ``OverflowPolicy.BLOCK`` lets a thread wait."""
    linger: float
    """Seconds between two drains while events keep coming."""
    half: int = field(init=False)
    """Half of the capacity."""

    def __post_init__(self) -> None:
        # Here and not where it is used: one object for all recorders, instead of one more to bring into the cache.
        object.__setattr__(self, "half", self.capacity // 2)


class Consumer(Protocol):
    """What the inbox asks of the recorder that it belongs to."""

    def on_own_loop(self) -> bool:
        """Whether the calling thread runs the consumer's event loop."""
        ...

    def in_own_task(self) -> bool:
        """Whether the consumer's own task is running in the calling thread."""
        ...

    def check_loop(self) -> None:
        """Fail the recorder if its event loop has ended without a word."""
        ...

    def refuse_unheard(self) -> NoReturn:
        """Fail the recorder, whose event loop has ended, and raise; what is pending is counted as abandoned."""
        ...


class Roster(Protocol):
    """Looks into many inboxes by turns, and sleeps when there is nothing in any of them."""

    nap: list[None]
    """Holds a token while it sleeps."""

    def ring(self) -> bool:
        """Wake it; from any thread; return False if it is gone."""
        ...


# What ``nap`` is, but for the list with one token in which the consumer sleeps.
AWAKE: Final = ()
"""The consumer is going to look by itself."""
UNATTENDED: Final = ("unattended",)
"""There is no consumer yet: everybody rings."""
SEALING: Final = ("sealing",)
"""The consumer is copying what it will still handle."""
SEALED: Final = ("sealed",)
"""Nothing is accepted any more."""


class _Entry:
    """What every emit touches, side by side, because the slots of a base class come first.

    Whoever emits to one of thousands of recorders has none of this in the cache, and waits for each line of it.
    """

    __slots__ = ("events", "known", "nap", "threshold")


class Inbox(_Entry):
    """See the module's docstring for the contract."""

    __slots__ = (
        "_bell",
        "_checked_at",
        "_claims",
        "_consumer",
        "_events_came",
        "_late",
        "_receive",
        "_right_to_seal",
        "_roster",
        "_rouse",
        "_send",
        "_taken",
        "_unheard",
        "awake",
        "closed",
        "deaf",
        "hard_limit",
        "ledger",
        "line",
        "lingering",
        "options",
        "requests",
    )

    def __init__(
        self,
        options: InboxOptions,
        *,
        ledger: Ledger,
        consumer: Consumer,
        bell: Callable[[], bool],
        known: set[type],
    ) -> None:
        """Make an inbox whose consumer is asleep.

        :param bell: called, from any thread, to get the sleeping consumer's attention; never raises
            and returns False if there is no consumer any more
        :param known: the event classes checked so far, shared by all inboxes of one home
        """
        self.options = options
        self.ledger = ledger
        self._consumer = consumer
        self._bell = bell
        self._rouse: Callable[[], object] | None = None
        self._roster: Roster | None = None
        self.known = known
        self.line = WaitingLine(self._room)
        """The producers that wait for room."""
        self._send: MemoryObjectSendStream[None] | None = None
        self._receive: MemoryObjectReceiveStream[None] | None = None
        self.events: deque[MetricEvent] = deque()
        self.requests: list[Any] = []
        """What else the consumer is asked for, in order; see :meth:`ask`."""
        self.hard_limit = options.capacity
        """How many events may wait; one less than the capacity while another is being handled."""
        self.threshold = options.capacity
        """How many may wait before a producer must look closer: the hard limit; half of the room where the consumer is
        going to look at a set time; -1 if closed."""
        self.nap: Sequence[object] = UNATTENDED
        """Not empty when the consumer will look for events only if told; assigned by whoever acts for the consumer,
        while producers only take the token out of it."""
        self.awake = False
        """Whether the consumer is working, or has been woken to."""
        self._events_came = False
        """Whether there were any since the consumer last slept."""
        self.lingering = False
        """Whether the hub is going to look for events at a set time."""
        self.closed = False
        self._checked_at = time.monotonic()
        self.deaf = False
        """Whether nobody will look at ``requests`` any more; later than sealed, as what was taken is still handled."""
        self._right_to_seal = [None]
        self._taken = 0
        """How many of the events in ``_late`` the consumer has taken; those behind them came too late."""
        self._late = self.events
        self._claims: dict[tuple[int, int], object] = {}
        # Events that found out that the consumer is gone: their emitters are told, so they are rejected.
        self._unheard: list[MetricEvent] = []

    def _room(self) -> int:
        return self.hard_limit - len(self.events)

    @property
    def idle(self) -> bool:
        """Whether the next producer has to ring, or is too late."""
        return bool(self.nap)

    @property
    def sealed(self) -> bool:
        """Whether nothing is accepted any more."""
        return self.nap is SEALED

    # --- the producers' side: any thread ---------------------------------------------------------

    def put(self, event: MetricEvent) -> bool:
        """Offer ``event``; return False if the inbox is closed, and True if the event was dealt with.

        Dealt with is accepted, or dropped and counted.

        :raises ValueError: if ``event`` is None, or its ``event_type`` raises or is not a str
        :raises TypeError: if it is not a MetricEvent
        :raises RecorderQueueOverflowError: if there is no room under RAISE_ERROR or BLOCK
        """
        # First of all: a seal that comes between takes what is appended here for late.
        events = self.events
        if type(event) in self.known and len(events) < self.threshold:
            events.append(event)
            if self.nap:
                return self.announce(event)
            return True
        return self._put_with_care(event)

    async def put_when_room(self, event: MetricEvent) -> bool:
        """Offer ``event`` and wait for room as long as it takes; return False if the inbox is closed.

        A checkpoint, passed before the event is accepted: cancelled means not accepted.

        :raises ValueError: if ``event`` is None, or its ``event_type`` raises or is not a str
        :raises TypeError: if it is not a MetricEvent
        :raises RecorderQueueOverflowError: if there is no room and the caller is the consumer's own task
        """
        self._admit(event)
        await anyio.lowlevel.checkpoint()
        while True:
            if (accepted := self._put_if_room(event)) is not None:
                return accepted
            if self._consumer.in_own_task():
                self._reject(hint="a hook cannot wait for the recorder that it holds up")
            waiter = TaskWaiter()
            with self.line.waiting(waiter):
                if self.closed or len(self.events) < self.hard_limit:
                    continue
                self.hurry()
                if not await waiter.wait(HEARTBEAT):
                    self._consumer.check_loop()

    def _put_with_care(self, event: MetricEvent) -> bool:
        """The rest of :meth:`put`: an unknown class, a closed inbox, or one that is half or quite full."""
        self._admit(event)
        if (accepted := self._put_if_room(event)) is not None:
            return accepted
        if self._is_forsaken():
            return False
        self.ledger.full = self.options.capacity
        policy = self.options.overflow_policy
        if policy is OverflowPolicy.DROP:
            self.ledger.dropped.increment()
            return True
        if policy is OverflowPolicy.DROP_OLDEST:
            return self._put_in_place_of_the_oldest(event)
        if policy is OverflowPolicy.RAISE_ERROR:
            self._reject()
        return self._put_blocking(event)

    def _is_forsaken(self) -> bool:
        """There is no room: see now and then whether there will ever be any; True if it turns out that there will not.

        A loop that is closed may have left a wake-up undone, and then no producer rings in vain.
        """
        now = time.monotonic()
        if now - self._checked_at >= HEARTBEAT:
            self._checked_at = now
            self._consumer.check_loop()
        return self._is_closed()

    def _admit(self, event: object) -> None:
        kind = type(event)
        if kind not in self.known:
            ensure_event(event)
            if not is_event_class(kind):
                return  # it says that it is an event, as a mock does: others of its class may not
            if len(self.known) >= MAX_KNOWN_CLASSES:
                self.known.clear()
            self.known.add(kind)

    def _put_if_room(self, event: MetricEvent) -> bool | None:
        """Return whether the event was accepted, or None if there is no room."""
        events = self.events  # as in put()
        if self.closed:
            return False
        if len(events) >= self.hard_limit:
            return None
        events.append(event)
        if self.nap:
            return self.announce(event)
        if len(events) >= self.threshold:
            self._end_linger()
        return True

    def _end_linger(self) -> None:
        """Half of the room is taken: wake the consumer, and let nobody else do so."""
        limit = None
        # Again if the consumer has changed the limit meanwhile: what is written must not be out of date.
        while limit != self.hard_limit:
            limit = self.hard_limit
            self._set_threshold(limit)
        self.hurry()

    def announce(self, event: MetricEvent) -> bool:
        """Tell the consumer, which may be asleep or gone; return whether the event was accepted."""
        nap = self.nap
        if nap is SEALING or nap is SEALED:
            return self._was_taken(event)
        if isinstance(nap, list):
            try:
                nap.pop()
            except IndexError:
                return True  # another producer rings
        roster = self._roster
        try:
            heard = self._bell() if roster is None else roster.ring()
        except BaseException:  # Ctrl-C, say, or no stack left: the next producer shall ring
            if isinstance(nap, list):
                nap.append(None)
            raise
        if not heard:
            if self.nap is SEALING or self.nap is SEALED:  # stopped, and gone, since this producer looked
                return self._was_taken(event)
            self._unheard.append(event)
            self._consumer.refuse_unheard()
        return True

    def _was_taken(self, event: MetricEvent) -> bool:
        """Whether ``event``, appended about the time of the seal, is among what the consumer has taken."""
        while self.nap is SEALING:
            time.sleep(0)
        # By identity: == would call the events' own code.
        late = sum(waiting is event for waiting in copied(self._late)[self._taken :])
        # Several threads may have put the very same object: then as many are refused as came too late,
        # each by claiming one of the late copies, which setdefault() does in one step.
        me = object()
        return not any(self._claims.setdefault((id(event), copy), me) is me for copy in range(late))

    def _put_in_place_of_the_oldest(self, event: MetricEvent) -> bool:
        events = self.events  # as in put()
        # Taken out and counted in one step of C, so that Ctrl-C cannot come between the two; and without a
        # sentinel, which would be compared with the event.
        oldest = map(deque.popleft, itertools.repeat(events))
        evict = zip(oldest, self.ledger.evicted).__next__  # noqa: B905 — neither ends
        # The event under way cannot be evicted: with a capacity of one, one more waits beside it.
        while len(events) >= max(1, self.hard_limit):
            # In one step with the eviction, as the interpreter changes threads only after a call: what
            # is copied by the seal, which comes after the close, nobody takes away.
            if self.closed:
                return False
            try:
                evict()
            except IndexError:
                break
        if self.closed:
            return False
        events.append(event)
        return self.announce(event) if self.nap else True

    def _put_blocking(self, event: MetricEvent) -> bool:
        if self._consumer.on_own_loop():
            self._reject(hint="the recorder's own event loop cannot wait for itself; await aregister_event() there")
        limit = self.options.block_timeout
        deadline = time.monotonic() + limit
        while True:
            waiter = ThreadWaiter()
            with self.line.waiting(waiter):
                if (accepted := self._put_if_room(event)) is not None:
                    return accepted
                left = deadline - time.monotonic()
                if left <= 0:
                    self._reject(waited=limit)
                self.hurry()
                if not waiter.wait(min(left, HEARTBEAT)):
                    self._consumer.check_loop()

    def _reject(self, *, waited: float | None = None, hint: str | None = None) -> NoReturn:
        self.ledger.rejected.increment()
        raise RecorderQueueOverflowError(self.options.capacity, waited=waited, hint=hint)

    def ask(self, request: object) -> bool:
        """Queue a request behind all events accepted so far; return False if nobody will see it any more."""
        self.requests.append(request)
        if self.deaf:
            try:
                self.requests.remove(request)
            except ValueError:
                return True  # seen after all
            return False
        # Also when the consumer is awake: it may be held up where a request could be answered all the same.
        if not self._bell():
            self._consumer.check_loop()
        return True

    def hurry(self) -> None:
        """Wake the consumer even out of a linger."""
        if not (self.awake or self._bell()):
            self._consumer.check_loop()

    # --- the consumer's side: its event loop -----------------------------------------------------

    def attend(self, bell: Callable[[], bool]) -> None:
        """The consumer comes to life: until it dozes nobody needs to tell it anything, and then by ``bell``."""
        if self._send is None:
            # Not before: a stream that is dropped without having been closed warns.
            self._send, self._receive = anyio.create_memory_object_stream[None](1)
        self._bell = bell
        self.awake = True
        self._set_nap(AWAKE)

    def attend_in_turn(
        self, bell: Callable[[], bool], rouse: Callable[[], object], roster: Roster | None = None
    ) -> None:
        """The consumer works when it is roused; from now on somebody has to tell it of events.

        :param bell: tells it that somebody is in a hurry, and of events where there is no roster
        :param rouse: called in its loop, to wake it
        :param roster: looks for events by itself or, if it sleeps, when it is told
        """
        self._roster = roster
        self._bell = bell
        self._lie_down()
        # Behind the nap: from now on the consumer may work, and come to its seal.  Whoever launches it looks after
        # what has rung in vain meanwhile.
        self._rouse = rouse

    def _lie_down(self) -> None:
        """Rest until told; the caller looks for events behind this."""
        if self._roster is None:
            self._set_threshold(self.hard_limit)
            self._set_nap([None])
        else:
            self._set_threshold(self.options.half)
            self._set_nap(self._roster.nap)

    def _set_nap(self, nap: Sequence[object]) -> None:
        # Never over a seal: another thread may have found the loop gone.  There is no call between look and write.
        if self.nap is not SEALING and self.nap is not SEALED:
            self.nap = nap

    def unattend(self, bell: Callable[[], bool]) -> None:
        """The consumer that was announced will not come: tell the next producer so, by ``bell``."""
        self._bell = bell
        self._roster = None
        self.awake = False
        self._set_threshold(self.hard_limit)
        self._set_nap(UNATTENDED)

    async def wait(self) -> None:
        """Sleep until woken; a checkpoint.  Cancelled is awake, too."""
        try:
            if self._receive is not None:
                await self._receive.receive()
        finally:
            self._get_up()

    def wake(self) -> None:
        """Wake the consumer if it sleeps; only in its loop."""
        if self.awake or self.sealed:
            return
        if self._rouse is not None:
            self._get_up()
            self._rouse()
        elif self._send is not None:
            self._get_up()
            try:
                self._send.send_nowait(None)
            except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # woken already, or at its end

    def _get_up(self) -> None:
        self.awake = True
        self.lingering = False
        if self._roster is None:
            self._set_nap(AWAKE)
        self._set_threshold(self.hard_limit)

    def doze(self, hub: LoopHub) -> None:
        """The consumer is about to sleep: until the roster's next look, behind events for a linger, or until told.

        A full half of the room taken ends either early, so that a burst finds room.
        """
        self.awake = False
        self._set_hard_limit(self.options.capacity)
        events_came, self._events_came = self._events_came, False
        if self._roster is None:
            linger = self.options.linger if events_came and not self.closed else 0.0
            if linger <= 0 or not hub.look_later(self, linger):
                self.park()
                return
            self.lingering = True
        self._set_threshold(self.options.half)
        if self.requests or self._is_closed() or len(self.events) >= max(1, self.threshold):
            self.wake()

    def look(self) -> None:
        """The linger is over: wake the consumer if there is something to do, else let it sleep."""
        if self.lingering:
            self.lingering = False
            if self.events or self.requests:
                self.wake()
            else:
                self.park()

    def park(self) -> None:
        """Sleep until told."""
        self._lie_down()
        if self.events or self.requests or self._is_closed():
            self.wake()

    def _is_closed(self) -> bool:
        return self.closed  # a method, because the type checker does not know that another thread writes it

    def heal(self) -> None:
        """Make up for a wake-up that was lost, because an exception hit the producer that owed it."""
        if self.awake or self.lingering:
            return
        if self.events or self.requests:
            self.wake()
        elif self._roster is None and not self.nap:  # the token was taken by a producer that has not rung
            self.park()

    def begin_handling(self) -> None:
        """An event is taken out to be handled: it counts against the bound until it is processed."""
        self._events_came = True
        self._set_hard_limit(self.options.capacity - 1)

    def end_handling(self) -> None:
        """Nothing is being handled."""
        self._set_hard_limit(self.options.capacity)

    def _set_hard_limit(self, limit: int) -> None:
        self.hard_limit = limit
        self._set_threshold(limit)

    def _set_threshold(self, threshold: int) -> None:
        self.threshold = threshold
        if self.closed:  # read after the write: close() may have come between
            self.threshold = -1

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Turn new events away, from any thread; what was accepted is still to be taken out."""
        self.closed = True
        self.threshold = -1
        self.line.dismiss()

    def seal(self) -> None:
        """Accept nothing any more: what ``events`` holds now is the consumer's alone."""
        self.close()
        try:
            self._right_to_seal.pop()
        except IndexError:
            while not self.sealed:  # another thread, which found the loop gone as well, is at it
                time.sleep(0)
            return
        before = self.nap
        try:
            self.nap = SEALING
            # First out of sight: what comes too late must not be seen waiting by statistics().
            left: deque[MetricEvent] = deque()
            self.events = left
            taken = copied(self._late)
            self._taken = len(taken)
            left.extend(taken)
        except BaseException:  # Ctrl-C: as if nothing had been; the end of the run seals again
            self._taken = 0
            self.events, self.nap = self._late, before
            self._right_to_seal.append(None)
            raise
        try:
            # Nobody else takes anything out of it any more; what is left there is late, and nothing is kept for ever.
            while self._taken:
                self._late.popleft()
                self._taken -= 1
        finally:
            self.nap = SEALED  # also if Ctrl-C hits right here: producers wait for it
        self._shut_stream()

    def abandon(self) -> int:
        """Accept nothing any more and throw away what is left; return how many accepted events that cost."""
        self.seal()
        lost = 0
        unheard = list(self._unheard)
        while True:
            try:
                event = self.events.popleft()
            except IndexError:
                return lost
            for index, refused in enumerate(unheard):
                if refused is event:
                    del unheard[index]
                    self.ledger.rejected.increment()
                    break
            else:
                lost += 1

    def leave_behind(self) -> None:
        """In a forked child: what was appended by now is the parent's; who was at it finds this inbox closed.

        The forking thread may have been interrupted in the midst of any method, by a signal handler.
        """
        self._taken = len(self.events)
        self._late = self.events
        self._right_to_seal.clear()
        self.deaf = True
        self.closed = True
        self.threshold = -1
        self.nap = SEALED
        self.line.dismiss()

    def position(self) -> int:
        """Return how many events the recorder has accepted so far, over all its runs.

        Rather too many: one that moves on meanwhile counts twice.
        """
        held = len(self.events)
        return held + self.ledger.taken + self.ledger.evicted.value() + self.ledger.abandoned

    def waiting(self) -> int:
        """Return how many accepted events have not been taken out."""
        return len(self.events)

    def _shut_stream(self) -> None:
        try:
            if self._send is not None and self._receive is not None:
                self._send.close()
                self._receive.close()
        except RecursionError:
            raise
        except RuntimeError:
            pass  # a task of a loop that is gone waited for it
