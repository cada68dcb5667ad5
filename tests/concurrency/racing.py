"""Everybody at once on one recorder, and afterwards the books: where every single event went."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import anyio

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderStatistics,
    RecorderUnexpectedError,
    RecorderWaitHandle,
)
from mvx.common.metrics._recorder import core_of
from tests.support import DEADLINE, GROWING, adds_up, auntil, balanced, run_threads


@dataclass(frozen=True, slots=True)
class Stamp(MetricEvent):
    """The ``n``-th event of one emitter."""

    who: int
    n: int

    @property
    def event_type(self) -> str:
        return "race.stamp"


@dataclass(frozen=True, slots=True)
class Poison(Stamp):
    """What a moody metric cannot stand under any policy."""


@dataclass(frozen=True, slots=True)
class Orphan(MetricEvent):
    """The ``n``-th event of one emitter, which no metric wants."""

    who: int
    n: int

    @property
    def event_type(self) -> str:
        return "race.orphan"


class Auditor(Metric):
    """Writes down the number of every stamp, for each emitter."""

    event_types = (Stamp,)

    def __init__(self, emitters: int) -> None:
        self.seen: list[list[int]] = [[] for _ in range(emitters)]
        self.latest: Stamp | None = None

    @property
    def metric_name(self) -> str:
        return "auditor"

    def handle_event(self, event: MetricEvent) -> bool:
        assert isinstance(event, Stamp)
        self.seen[event.who].append(event.n)
        self.latest = event
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"last": [numbers[-1] if numbers else -1 for numbers in self.seen]}


class Moody(Metric):
    """Raises something new on every third event; on every event once it has seen poison, if it is ``sour``."""

    event_types = (Stamp,)

    def __init__(self, failure_policy: FailurePolicy) -> None:
        self._failure_policy = failure_policy
        self.raised = 0

    @property
    def metric_name(self) -> str:
        return "moody"

    def handle_event(self, event: MetricEvent) -> bool:
        assert isinstance(event, Stamp)
        match self._failure_policy:
            case FailurePolicy.ISOLATE:
                bad = event.n % 3 == 0
            case FailurePolicy.QUARANTINE:
                bad = True
            case FailurePolicy.FAIL:
                bad = isinstance(event, Poison)
        if bad:
            self.raised += 1
            raise ArithmeticError(event.who, event.n)
        return False

    def snapshot(self) -> Mapping[str, Any]:
        return {}


class Guest(Metric):
    """Registered by one thread in place of its last one."""

    event_types = (Stamp,)

    def __init__(self, who: int) -> None:
        self._who = who
        self.seen: set[int] = set()

    @property
    def metric_name(self) -> str:
        return f"guest of {self._who}"

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, Stamp) and event.who == self._who:
            self.seen.add(event.n)
        return False

    def snapshot(self) -> Mapping[str, Any]:
        return {}


class Hooked(MetricsRecorder):
    """Counts its hooks, and really suspends in the one after an event."""

    def __init__(self, entity_id: str, **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.started = self.changed = self.stopped = 0
        self.wrong: list[MetricEvent] = []

    async def _on_starting(self) -> None:
        await anyio.sleep(0)
        self.started += 1

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        assert isinstance(metric, Auditor)
        self.changed += 1
        if metric.latest is not event:
            self.wrong.append(event)
        await anyio.sleep(0)
        if metric.latest is not event:
            self.wrong.append(event)

    async def _on_stopped(self) -> None:
        await anyio.sleep(0)
        self.stopped += 1


class Emitter:
    """One source of numbered events, and what it was told about each of them."""

    def __init__(self, recorder: MetricsRecorder, who: int) -> None:
        self.recorder = recorder
        self.who = who
        self.n = -1
        """The number of the last event."""
        self.returned: list[int] = []
        self.orphans = 0
        self.full = 0
        self.refused = 0
        self.cancelled = 0

    @property
    def offered(self) -> int:
        return self.n + 1 - self.cancelled

    def emit(self, kind: type[Stamp | Orphan] = Stamp) -> bool:
        """Emit one event; return whether the call returned."""
        self.n += 1
        try:
            self.recorder.register_event(kind(self.who, self.n))
        except RecorderQueueOverflowError:
            self.full += 1
            return False
        except RecorderInvalidStateError as exc:
            self._note_refusal(exc)
            return False
        self._note(kind)
        return True

    async def aemit(self, kind: type[Stamp | Orphan] = Stamp, *, patience: float = DEADLINE) -> bool:
        """Emit one event by the async form, cancelled after ``patience`` seconds."""
        self.n += 1
        try:
            with anyio.move_on_after(patience) as scope:
                await self.recorder.aregister_event(kind(self.who, self.n))
        except RecorderInvalidStateError as exc:
            self._note_refusal(exc)
            return False
        if scope.cancelled_caught:
            self.cancelled += 1
            return False
        self._note(kind)
        return True

    def _note_refusal(self, error: RecorderInvalidStateError) -> None:
        check_refusal(error)
        self.refused += 1

    def _note(self, kind: type[Stamp | Orphan]) -> None:
        if kind is Orphan:
            self.orphans += 1
        else:
            self.returned.append(self.n)


class Race:
    """Who takes part, each with a method: ``run()`` lets them loose, ``audit()`` then compares the books."""

    EMITTERS = 7

    def __init__(
        self,
        recorder: MetricsRecorder,
        *,
        policy: OverflowPolicy,
        failure_policy: FailurePolicy,
        events: int,
        other_loop: str,
        seed: int,
    ) -> None:
        """Prepare a race.

        :param recorder: with these policies
        :param events: how many each emitter emits
        :param other_loop: the backend of the emitter on a loop that is not the recorder's
        :param seed: of what is left to chance
        """
        self.recorder = recorder
        self.failure_policy = failure_policy
        self.lossless = (
            policy in (OverflowPolicy.RAISE_ERROR, OverflowPolicy.BLOCK) and failure_policy is not FailurePolicy.FAIL
        )
        """Whether an event for which the call returned is processed without an exception."""
        self.events = events
        self._other_loop = other_loop
        self._chance = [random.Random(seed + n) for n in range(self.EMITTERS)]
        self.emitters = [Emitter(recorder, who) for who in range(self.EMITTERS)]
        self.auditor = Auditor(self.EMITTERS)
        self.moody: list[Moody] = []
        self._up = threading.Event()
        self._up.set()
        self._at_work = self.EMITTERS
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._stops: SimpleQueue[bool] = SimpleQueue()
        self._restarts: SimpleQueue[RecorderWaitHandle | None] = SimpleQueue()
        self._own_loop_errors: list[BaseException] = []
        self._own_loop_tasks = 0

    async def run(self) -> None:
        """Let everybody loose and return when the last one has finished; on any loop."""
        self.recorder.register_metric(self.auditor)
        self._replace_moody()
        self._launch_on_own_loop(self._own_task, self._cancelling_task)
        await anyio.to_thread.run_sync(
            lambda: run_threads(
                self._emitter(0, self._leading_emitter),
                self._emitter(1, self._plain_emitter),
                self._emitter(2, self._reading_emitter),
                self._emitter(3, self._registrar),
                self._emitter(4, self._foreign_loop),
                self._statistics_reader,
                self._flusher,
                self._stopper,
                self._restarter,
            )
        )
        await auntil(lambda: self._own_loop_tasks == 0)
        if self._own_loop_errors:
            raise self._own_loop_errors[0]
        flushed = await self.recorder.flush()
        assert flushed.success or self.failure_policy is FailurePolicy.FAIL

    # --- the emitters ----------------------------------------------------------------------------

    def _leading_emitter(self, me: Emitter) -> None:
        """Sets the pace of the stops, and poisons the recorder where that ends it."""
        for n in range(self.events):
            self._emit(me, Orphan if n % 5 == 0 else Stamp)
            if n % 30 == 29:
                self._stops.put(True)
            if self.failure_policy is FailurePolicy.FAIL and n == 2 * self.events // 3:
                while self.recorder.get_status() is not RecorderState.FAILURE:
                    self._emit(me, Poison)

    def _plain_emitter(self, me: Emitter) -> None:
        for _ in range(self.events):
            self._emit(me)

    def _reading_emitter(self, me: Emitter) -> None:
        """Reads what it has written."""
        last = -1
        for _ in range(self.events // 2):
            returned = self._emit(me)
            shown: int = self.recorder.get_metric_snapshots()["auditor"]["last"][me.who]
            self._check_shown(me, last, shown, returned=returned)
            last = shown

    def _registrar(self, me: Emitter) -> None:
        """A metric registered before an event is emitted sees it."""
        for n in range(self.events // 4):
            guest = Guest(me.who)
            try:
                self.recorder.register_metric(guest)
                if n % 4 == 0:
                    self._replace_moody()
            except RecorderInvalidStateError:
                self._wait_until_up()
                continue
            if self._emit(me):
                flushed = self.recorder.flush().wait(DEADLINE)
                processed = self.lossless or me.n in self.auditor.seen[me.who][-1:]
                assert me.n in guest.seen or not processed
                assert flushed.success or self.failure_policy is FailurePolicy.FAIL

    def _foreign_loop(self, me: Emitter) -> None:
        """A loop in another thread."""

        async def emit() -> None:
            for n in range(self.events // 2):
                if not (await me.aemit() if n % 3 else me.emit()):
                    await self._await_until_up()

        anyio.run(emit, backend=self._other_loop)

    async def _own_task(self, me: Emitter) -> None:
        """A task on the recorder's loop, which reads what it has written, too."""
        last = -1
        for n in range(self.events // 2):
            returned = await me.aemit() if n % 3 else me.emit()
            if not returned:
                await self._await_until_up()
            if n % 4 == 0:
                shown: int = (await self.recorder.aget_metric_snapshots())["auditor"]["last"][me.who]
                self._check_shown(me, last, shown, returned=returned)
                last = shown

    async def _cancelling_task(self, me: Emitter) -> None:
        """Another one, which now and then has no patience."""
        for _ in range(self.events // 2):
            if not await me.aemit(patience=self._chance[me.who].choice((0, 0.0001, DEADLINE))):
                await self._await_until_up()

    def _check_shown(self, me: Emitter, before: int, shown: int, *, returned: bool) -> None:
        assert before <= shown <= me.n
        if returned and self.lossless:
            assert shown == me.n

    # --- the others ------------------------------------------------------------------------------

    def _statistics_reader(self) -> None:
        before = self.recorder.statistics()
        while not self._over.is_set():
            before = check_reading(before, self.recorder.statistics())
            assert before.high_water <= before.capacity + self._other_emitting_threads

    @property
    def _other_emitting_threads(self) -> int:
        return 5  # five threads beside the one of the recorder's loop, less the one that is emitting

    def _flusher(self) -> None:
        while not self._over.is_set():
            flushed = self.recorder.flush().wait(DEADLINE)
            assert flushed.success or self.failure_policy is FailurePolicy.FAIL

    def _stopper(self) -> None:
        while self._stops.get():
            self._up.clear()
            handle = self.recorder.stop()
            self._restarts.put(handle)
            self._check_error(handle.wait(DEADLINE).error)
            self._check_error(self.recorder.start().wait(DEADLINE).error)
        self._restarts.put(None)

    def _restarter(self) -> None:
        while (stop := self._restarts.get()) is not None:
            self._check_error(self.recorder.start().wait(DEADLINE).error)
            self._check_error(stop.wait(DEADLINE).error)
            self._check_error(self.recorder.start().wait(DEADLINE).error)
            self._up.set()

    def _check_error(self, error: BaseException | None) -> None:
        if self.failure_policy is FailurePolicy.FAIL and isinstance(error, RecorderUnexpectedError):
            return
        if error is not None:
            assert isinstance(error, RecorderInvalidStateError)
            check_refusal(error)

    # --- the machinery ---------------------------------------------------------------------------

    def _emit(self, me: Emitter, kind: type[Stamp | Orphan] = Stamp) -> bool:
        returned = me.emit(kind)
        if not returned:
            self._wait_until_up()
        return returned

    def _wait_until_up(self) -> None:
        """Do not spend all events on a recorder that is down."""
        assert self._up.wait(DEADLINE)

    async def _await_until_up(self) -> None:
        await auntil(self._up.is_set)

    def _replace_moody(self) -> None:
        moody = Moody(self.failure_policy)
        self.recorder.register_metric(moody)
        self.moody.append(moody)

    def _emitter(self, who: int, body: Callable[[Emitter], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                body(self.emitters[who])
            finally:
                self._one_has_finished()

        return run

    def _one_has_finished(self) -> None:
        with self._lock:
            self._at_work -= 1
            if self._at_work == 0:
                self._over.set()
                self._stops.put(False)

    def _launch_on_own_loop(self, *bodies: Callable[[Emitter], Awaitable[None]]) -> None:
        def launch(who: int, body: Callable[[Emitter], Awaitable[None]]) -> None:
            async def main() -> None:
                try:
                    await body(self.emitters[who])
                except BaseException as exc:
                    self._own_loop_errors.append(exc)

            def ended() -> None:
                self._one_has_finished()
                with self._lock:
                    self._own_loop_tasks -= 1

            self._own_loop_tasks += 1
            core_of(self.recorder).home.launch(main, name="race", ended=ended)

        for number, body in enumerate(bodies):
            launch(self.EMITTERS - len(bodies) + number, body)

    # --- the books -------------------------------------------------------------------------------

    def audit(self) -> RecorderStatistics:
        """Compare what the emitters were told, what the metrics saw, and what the recorder says."""
        statistics = self.recorder.statistics()
        assert balanced(statistics)
        assert statistics.offered == sum(emitter.offered for emitter in self.emitters)
        assert statistics.rejected == sum(emitter.full + emitter.refused for emitter in self.emitters)
        assert statistics.processed == statistics.unmatched + sum(map(len, self.auditor.seen))
        assert statistics.metric_errors == sum(moody.raised for moody in self.moody)
        assert statistics.hook_errors == 0
        assert statistics.high_water <= statistics.capacity + self._other_emitting_threads
        for emitter in self.emitters:
            seen = self.auditor.seen[emitter.who]
            assert all(one < next_one for one, next_one in pairwise(seen))
            assert set(seen) <= set(emitter.returned)
            if self.lossless:
                assert seen == emitter.returned
        returned = sum(len(emitter.returned) + emitter.orphans for emitter in self.emitters)
        assert returned == statistics.accepted + statistics.dropped
        if self.lossless:
            assert statistics.unmatched == sum(emitter.orphans for emitter in self.emitters)
        if isinstance(self.recorder, Hooked):
            assert self.recorder.started == self.recorder.stopped
            assert self.recorder.changed == sum(map(len, self.auditor.seen))
            assert self.recorder.wrong == []
        return statistics


def check_refusal(error: RecorderInvalidStateError) -> None:
    """A call is not refused in a state in which it is allowed."""
    assert error.details["recorder_state"] not in error.details["expected_states"], error.message


def check_reading(before: RecorderStatistics, now: RecorderStatistics) -> RecorderStatistics:
    """Both equations hold in ``now`` and no number has fallen since ``before``; return ``now``."""
    assert adds_up(now)
    assert now.pending >= 0
    for name in GROWING:
        assert getattr(before, name) <= getattr(now, name), name
    return now
