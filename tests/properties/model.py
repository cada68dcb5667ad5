"""What a recorder does, told in the simplest way: one thing after the other, without threads, tasks or clocks.

Written from the contract, not from the code.  What is hard in the engine is left out here: nothing
happens at the same time as something else, and nothing is fast.

The actor is a generator.  It yields wherever it may be held up, and where it has nothing to do;
:meth:`Model.advance` moves it on from there as far as it gets, which is what an event loop does when
it is given the time.  A time limit is an exception thrown into it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvx.common.metrics import FailurePolicy, MetricEvent, MetricsError, OverflowPolicy, RecorderOp, RecorderState

S = RecorderState

MIN_STOPPED_HOOK_TIMEOUT = 10.0
"""Seconds that ``_on_stopped()`` has at least."""
DEFAULT_STOPPED_HOOK_TIMEOUT = 30.0
"""Seconds that it has after a failure or a cancellation if ``drain_timeout`` is None."""


# --- what events, metrics and hooks are made of --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping(MetricEvent):
    """An event whose mark decides what metrics and hooks do with it."""

    serial: str
    mark: int

    @property
    def event_type(self) -> str:
        return "model.ping"


@dataclass(frozen=True, slots=True)
class LoudPing(Ping):
    """A subclass of an event."""


@dataclass(frozen=True, slots=True, eq=False)
class Pong(MetricEvent):
    """Another event, whose own code nobody may call; what is emitted in the midst of an event is one of these, marked 0."""

    serial: str
    mark: int

    @property
    def event_type(self) -> str:
        return "model.pong"

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")

    def __bool__(self) -> bool:
        raise AssertionError("asked for its truth")

    def __len__(self) -> int:
        raise AssertionError("measured")


Event = Ping | Pong
Entry = tuple[object, ...]


def entry(point: str, key: int, event: Event | None, *shown: object) -> Entry:
    """Make an entry of the journal."""
    return (
        (point, key, *shown) if event is None else (point, key, type(event).__name__, event.serial, event.mark, *shown)
    )


@dataclass(frozen=True, slots=True)
class Script:
    """What one metric does, by the marks of the events."""

    name: str
    wants: tuple[type[MetricEvent], ...] | None = None
    fails: tuple[int, ...] = ()
    error: type[BaseException] = ValueError
    refuses: tuple[int, ...] = ()
    """It returns False."""
    emits: tuple[int, ...] = ()
    """It emits another event, never for a mark of 0; if it cannot, it lets the error out."""
    holds: tuple[int, ...] = ()
    """It can be held up there."""
    snapshot_fails: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The options of a recorder."""

    capacity: int
    overflow: OverflowPolicy
    block_timeout: float
    failures: FailurePolicy
    quarantine_after: int
    drain_timeout: float | None
    linger: float
    reacting: bool
    """Whether it has an ``_on_metric_changed``."""
    antics: Mapping[int | str, str]
    """What else that hook does, by the marks of the events, but for 0; and what the others do, by their names."""
    hook_error: type[BaseException]
    """What a broken hook raises."""


# --- what comes out ------------------------------------------------------------------------------

UNTOLD = frozenset({"RecorderLoopUnavailableError", "RecorderWouldDeadlockError"})
"""The errors whose details are a wording."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error, as far as the contract tells it."""

    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)
    cause: Trouble | None = None
    says: str | None = None
    """Its message, if it is not the library's own."""

    @classmethod
    def of(cls, error: BaseException) -> Trouble:
        """Tell what a real error is."""
        kind = type(error).__name__
        if not isinstance(error, MetricsError):
            return cls(kind, says=str(error))
        cause = None if error.cause is None else cls.of(error.cause)
        return cls(kind, {} if kind in UNTOLD else dict(error.details), cause)


class Refused(Exception):
    """An emitter, a metric or a hook gets an error."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble)
        self.trouble = trouble


class Fatal(Exception):
    """``FailurePolicy.FAIL``: the run is over."""

    def __init__(self, cause: Trouble) -> None:
        super().__init__(cause)
        self.trouble = Trouble("RecorderUnexpectedError", cause=cause)


class OutOfTime(Exception):
    """The time limit of what is under way has passed."""


@dataclass(eq=False, slots=True)
class Item:
    """An accepted event, and what became of it."""

    event: Event
    fate: str | None = None


@dataclass(eq=False, slots=True)
class Promise:
    """What stands behind a wait handle."""

    op: RecorderOp
    done: bool = False
    error: Trouble | None = None

    def keep(self, error: Trouble | None = None) -> None:
        if not self.done:
            self.done, self.error = True, error


@dataclass(eq=False, slots=True)
class Flush:
    """A promise about certain events."""

    items: list[Item]
    run: Run | None

    @property
    def may_be_done(self) -> bool:
        return all(item.fate is not None for item in self.items)

    @property
    def lost(self) -> bool:
        return any(item.fate == "abandoned" for item in self.items)


@dataclass(eq=False, slots=True)
class Run:
    """From a start to the end that belongs to it."""

    starting: Promise = field(default_factory=lambda: Promise(RecorderOp.START))
    stopping: Promise = field(default_factory=lambda: Promise(RecorderOp.STOP))
    items: list[Item] = field(default_factory=list)
    error: Trouble | None = None
    asked: bool = False
    """Whether it was asked to stop."""
    drained: bool = False
    """Whether every event that it will ever take has been dealt with."""


@dataclass(eq=False, slots=True)
class Subject:
    """A metric: which events it has taken into account."""

    key: int
    script: Script
    seen: list[str] = field(default_factory=list)


def understudies() -> Iterator[Subject]:
    """Make the metrics that a hook registers."""
    return (Subject(key, Script("a")) for key in itertools.count(1000))


@dataclass(eq=False, slots=True)
class Slot:
    """A registered metric, and how it fares."""

    subject: Subject
    failures: int = 0
    """How many running."""
    error: Trouble | None = None
    aside: bool = False

    def wants(self, event: Event) -> bool:
        wanted = self.subject.script.wants
        return wanted is None or isinstance(event, wanted)

    def shown(self) -> dict[str, Any]:
        script = self.subject.script
        shown: dict[str, Any] = {"name": script.name, "dimensions": {"seen": tuple(self.subject.seen)}}
        if script.snapshot_fails:
            shown = {"name": script.name, "dimensions": {}, "error": {"type": "LookupError", "message": "snapshot"}}
        if self.aside and self.error is not None:
            told = {"type": self.error.kind, "message": self.error.says}
            shown["quarantined"] = {"failures": self.failures, "error": told}
        return shown


Life = Generator[str, None, None]


class Model:
    """One recorder."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.state = S.VIRGIN
        self.run: Run | None = None
        self.lost: Trouble | None = None
        """Set when a recorder at rest finds that its loop is gone."""
        self.loop_is_gone = False
        self._is_cancelled = False
        self.slots: dict[str, Slot] = {}
        self.understudies = understudies()
        self.journal: list[Entry] = []
        """What metrics and hooks were called with, in order."""

        self.waiting: deque[Item] = deque()
        self.under_way: Item | None = None
        self.in_line: Item | None = None
        """Somebody waits for room with it: ``aregister_event``, or a thread under BLOCK."""

        self.accepted = self.processed = self.dropped = self.rejected = self.evicted = self.abandoned = 0
        self.metric_errors = self.hook_errors = self.unmatched = 0
        self.peak = 0
        """The most events that ever were pending."""
        self.noticed = 0
        """The most that somebody had to notice."""

        self.held: set[str] = set()
        """Where the actor stops on its way: in the hooks "starting", "changed", "stopped", in a "metric"."""
        self.broken: set[str] = set()
        """The hooks that raise."""
        self._life: Life | None = None
        self._place: str | None = None
        self._left: float | None = None

    # --- reading ---------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        return len(self.waiting) + (self.under_way is not None)

    @property
    def is_open(self) -> bool:
        return self.state in (S.VIRGIN, S.STARTING, S.RUNNING)

    @property
    def error(self) -> Trouble | None:
        return self.lost or (None if self.run is None else self.run.error)

    @property
    def standing(self) -> str | None:
        """Where the actor is held up."""
        return self._place if self._place in self.held else None

    def snapshots(self) -> dict[str, dict[str, Any]]:
        return {name: slot.shown() for name, slot in self.slots.items()}

    def statistics(self) -> dict[str, int]:
        """All but ``high_water``, which is somewhere from ``noticed`` to ``peak``."""
        self.noticed = max(self.noticed, self.pending)
        return {
            "offered": self.accepted + self.dropped + self.rejected,
            "accepted": self.accepted,
            "processed": self.processed,
            "pending": self.pending,
            "dropped": self.dropped,
            "rejected": self.rejected,
            "evicted": self.evicted,
            "abandoned": self.abandoned,
            "metric_errors": self.metric_errors,
            "hook_errors": self.hook_errors,
            "unmatched": self.unmatched,
            "capacity": self.terms.capacity,
        }

    # --- operations ------------------------------------------------------------------------------

    def start(self) -> Promise:
        if self.state is S.STARTING and self.run is not None:
            return self.run.starting
        if self.state not in (S.VIRGIN, S.STOPPED):
            return self._refusal(RecorderOp.START, "VIRGIN", "STOPPED")
        if self.loop_is_gone:
            return self._lose_loop(RecorderOp.START)
        self.state = S.STARTING
        self.run = Run()
        self._life, self._place = self._live(self.run), None
        return self.run.starting

    def stop(self) -> Promise:
        if self.run is None or self.state not in (S.RUNNING, S.STOPPING):
            return self._refusal(RecorderOp.STOP, "RUNNING")
        self.run.asked = True
        if self.state is S.RUNNING:
            self.state = S.STOPPING
            self._left = self.terms.drain_timeout
        return self.run.stopping

    def flush(self) -> Flush:
        if self.run is None:
            return Flush([], None)
        return Flush(list(self.run.items), self.run)

    def register(self, subject: Subject) -> None:
        if not self.is_open:
            raise Refused(self._invalid_state("VIRGIN", "STARTING", "RUNNING"))
        self.slots[subject.script.name] = Slot(subject)

    def offer(self, event: Event, *, on_own_loop: bool) -> None:
        """``register_event``."""
        if self.state is S.VIRGIN and self.loop_is_gone:
            self._lose_loop(RecorderOp.START)
        if not self.is_open:
            self.rejected += 1
            raise Refused(self._invalid_state("VIRGIN", "STARTING", "RUNNING"))
        if self.state is S.VIRGIN:
            self.start()
        if self.pending < self.terms.capacity:
            self._accept(Item(event))
            return
        self.notice_full()
        match self.terms.overflow:
            case OverflowPolicy.DROP:
                self.dropped += 1
            case OverflowPolicy.DROP_OLDEST:
                # The event under way cannot be evicted: with a capacity of one, another waits beside it.
                if self.waiting:
                    self.waiting.popleft().fate = "evicted"
                    self.evicted += 1
                self._accept(Item(event))
            case OverflowPolicy.RAISE_ERROR:
                self._overflow()
            case OverflowPolicy.BLOCK:
                self._overflow({} if on_own_loop else {"waited_seconds": self.terms.block_timeout})

    def notice_full(self) -> None:
        """``register_event`` has found no room."""
        self.noticed = max(self.noticed, self.terms.capacity)

    def turn_away_who_waits(self) -> None:
        """Whoever waits for room is told that there will be none."""
        if self.in_line is not None and not self.is_open:
            self.in_line.fate = "refused"
            self.in_line = None
            self.rejected += 1

    def _accept(self, item: Item) -> None:
        if self.run is not None:
            self.run.items.append(item)
        self.waiting.append(item)
        self.accepted += 1
        self.peak = max(self.peak, self.pending)

    def _overflow(self, more: Mapping[str, Any] | None = None) -> None:
        self.rejected += 1
        raise Refused(Trouble("RecorderQueueOverflowError", {"capacity": self.terms.capacity, **(more or {})}))

    def _invalid_state(self, *expected: str) -> Trouble:
        details = {"recorder_state": self.state.value, "expected_states": expected}
        return Trouble("RecorderInvalidStateError", details, self.error)

    def enter_block(self) -> Promise:
        """``__aenter__``, up to where it waits for the start."""
        if self.state in (S.VIRGIN, S.STOPPED):
            return self.start()
        return self._refusal(RecorderOp.START, "VIRGIN", "STOPPED")

    def leave_block(self) -> Trouble | None:
        """``__aexit__``, with all the time that it needs; return what it raises if nothing else is being raised."""
        run = self.run
        # The user's own stop has told the user.
        told = run is not None and run.asked and run.stopping.done
        if self.state is S.STARTING:
            self.advance()
        self.stop()
        self.advance()
        return None if told else self.error

    def _refusal(self, op: RecorderOp, *expected: str) -> Promise:
        return Promise(op, done=True, error=self._invalid_state(*expected))

    def _lose_loop(self, op: RecorderOp) -> Promise:
        self.state = S.FAILURE
        self.lost = Trouble("RecorderLoopUnavailableError")
        return Promise(op, done=True, error=self.lost)

    # --- the surroundings ------------------------------------------------------------------------

    def advance(self) -> None:
        """The loop runs: the actor goes on until it is held up, has nothing to do, or has ended."""
        while self._life is not None and not self._stays():
            self._go_on(self._life)
        self.turn_away_who_waits()

    def let_pass(self) -> None:
        """Whatever holds the actor up lets it go on, this once."""
        if self._life is not None:
            self._go_on(self._life)
        self.advance()

    def pass_time(self, seconds: float) -> None:
        """Let the clock run on while the actor is held up."""
        if self._left is None or self._life is None:
            return
        self._left -= seconds
        if self._left < 0 and self._place in ("changed", "stopped"):
            self._go_on(self._life, OutOfTime())
            self.advance()

    def end_loop(self) -> None:
        """The loop ends, and nothing holds the actor up: its task is cancelled, but what it owes is done."""
        self.loop_is_gone = True
        if self.state is S.RUNNING:
            self.state = S.STOPPING
            self._is_cancelled = True
        self.advance()

    def _stays(self) -> bool:
        if self._place == "idle":
            return not self.waiting and self.state is not S.STOPPING
        return self.standing is not None

    def _go_on(self, life: Life, cut: OutOfTime | None = None) -> None:
        try:
            self._place = next(life) if cut is None else life.throw(cut)
        except StopIteration:
            self._life = self._place = self._left = None

    # --- the actor -------------------------------------------------------------------------------

    def _live(self, run: Run) -> Life:
        try:
            yield from self._hook("starting")
        except Refused as refused:
            self.hook_errors += 1
            run.error = Trouble("RecorderOnStartingHookFailedError", cause=refused.trouble)
            self._abandon_the_rest(run)
            self._conclude(run, S.FAILURE)
            return
        run.starting.keep()
        self.state = S.RUNNING
        verdict, error = S.STOPPED, None
        try:
            yield from self._serve()
        except Fatal as fatal:
            verdict, error = S.FAILURE, fatal.trouble
        except OutOfTime:
            details = {"abandoned": len(self.waiting), "drain_timeout_seconds": self.terms.drain_timeout}
            error = Trouble("RecorderDrainTimeoutError", details)
        if self._is_cancelled:
            # Whatever came of it then: this came first.
            verdict, error = S.CANCELLED, Trouble("RecorderDispatcherCancelledError", {"abandoned": len(self.waiting)})
        yield from self._end(run, verdict, error)

    def _serve(self) -> Life:
        while True:
            self.noticed = max(self.noticed, len(self.waiting))
            while self.waiting:
                yield from self._handle(self.waiting.popleft())
            if self.state is S.STOPPING:
                return
            yield "idle"

    def _end(self, run: Run, verdict: RecorderState, error: Trouble | None) -> Life:
        # Whatever ends it, the entry is closed from now on.
        self.state = S.STOPPING
        run.error = error
        self._abandon_the_rest(run)
        self._left = self.terms.drain_timeout
        if self._left is None and verdict is not S.STOPPED:
            self._left = DEFAULT_STOPPED_HOOK_TIMEOUT
        if self._left is not None:
            self._left = limit = max(self._left, MIN_STOPPED_HOOK_TIMEOUT)
        failure = None
        try:
            yield from self._hook("stopped")
        except Refused as refused:
            failure = refused.trouble
        except OutOfTime:
            failure = Trouble("TimeoutError", says=f"_on_stopped() did not return within {limit:g} s")
        if failure is not None:
            self.hook_errors += 1
            if verdict is S.STOPPED:
                verdict = S.FAILURE
                run.error = Trouble("RecorderOnStoppedHookFailedError", cause=failure)
        self._conclude(run, verdict)

    def _abandon_the_rest(self, run: Run) -> None:
        for item in self.waiting:
            item.fate = "abandoned"
            self.abandoned += 1
        self.waiting.clear()
        run.drained = True

    def _conclude(self, run: Run, state: RecorderState) -> None:
        self.state = state
        run.starting.keep(run.error)
        run.stopping.keep(run.error)

    def _handle(self, item: Item) -> Life:
        self.under_way = item
        event = item.event
        wanting = [slot for slot in self.slots.values() if slot.wants(event)]
        if not wanting:
            self.unmatched += 1
        still_to_see = iter([slot for slot in wanting if not slot.aside])
        try:
            yield from self._show_to_all(still_to_see, event)
        except OutOfTime:
            # The hook was cut short; the metrics that come after it see the event all the same.
            for slot in still_to_see:
                yield from self._show(slot, event)
            raise
        finally:
            self.under_way = None
            self.processed += 1
            item.fate = "processed"
        if self.in_line is not None and self.is_open and self.pending < self.terms.capacity:
            self._accept(self.in_line)
            self.in_line = None

    def _show_to_all(self, still_to_see: Iterator[Slot], event: Event) -> Life:
        for slot in still_to_see:
            changed = yield from self._show(slot, event)
            if not (changed and self.terms.reacting):
                continue
            try:
                yield from self._hook("changed", slot.subject.key, event, tuple(slot.subject.seen))
            except Refused as refused:
                self.hook_errors += 1
                if self.terms.failures is FailurePolicy.FAIL:
                    raise Fatal(refused.trouble) from None
            except OutOfTime:
                self.hook_errors += 1
                raise

    def _show(self, slot: Slot, event: Event) -> Generator[str, None, bool]:
        """Hand an event to one metric; tell whether that changed its state."""
        subject, script = slot.subject, slot.subject.script
        self.journal.append(entry("metric", subject.key, event))
        if event.mark in script.holds:
            yield "metric"
        try:
            if event.mark in script.emits:
                self.offer(Pong(f"{event.serial}>{subject.key}", 0), on_own_loop=True)
            if event.mark in script.fails:
                raise Refused(Trouble(script.error.__name__, says=f"{script.name} {event.mark}"))
        except Refused as refused:
            self.metric_errors += 1
            slot.failures += 1
            slot.error = refused.trouble
            if self.terms.failures is FailurePolicy.FAIL:
                raise Fatal(refused.trouble) from None
            if self.terms.failures is FailurePolicy.QUARANTINE and slot.failures >= self.terms.quarantine_after:
                slot.aside = True
            return False
        slot.failures = 0
        if event.mark in script.refuses:
            return False
        subject.seen.append(event.serial)
        return True

    def _hook(self, point: str, key: int = 0, event: Event | None = None, *shown: object) -> Life:
        self.journal.append(entry(point, key, event, *shown))
        try:
            yield point
        except OutOfTime:
            self.journal.append((point, "cut short"))
            raise
        cue, serial = (point, point) if event is None else (event.mark, f"{event.serial}>>{key}")
        self._antic(self.terms.antics.get(cue, ""), Pong(serial, 0))
        if point in self.broken:
            raise Refused(Trouble(self.terms.hook_error.__name__, says=point))
        self.journal.append((point, "returns"))

    def _antic(self, antic: str, echo: Event) -> None:
        match antic:
            case "emit":
                self.offer(echo, on_own_loop=True)
            case "await room":
                if self.is_open and self.pending >= self.terms.capacity:
                    self._overflow()
                self.offer(echo, on_own_loop=True)
            case "await flush" | "await snapshots":
                raise Refused(Trouble("RecorderWouldDeadlockError"))
            case "replace":
                self.register(next(self.understudies))
            case "stop":
                self.stop()
