"""A recorder that can be tried in many ways, knows what its users were told, and can compare the two."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    RecorderError,
    RecorderState,
    RecorderWaitHandle,
)
from mvx.common.metrics._hosting import BIRTH, Birth, GroupHome
from mvx.common.metrics._hub import LoopHub, hub_of
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._waiting import current_loop
from tests.support import Gate, Seen, Tick, auntil, balanced

LASTING = frozenset({RecorderState.VIRGIN, RecorderState.STOPPED, RecorderState.FAILURE, RecorderState.CANCELLED})
"""The states in which no run is under way."""

WELL_BEHAVED = ("suspends", "tidies up")
"""Hooks that pass a cancellation on; the second kind suspend themselves before they do."""
CONTRARY = ("resents", "swallows")
"""Hooks that turn a cancellation into an exception of their own, or return as if nothing had happened."""
RAISING = ("raises in starting", "raises in changed", "raises in stopped")
TEMPERS = (*WELL_BEHAVED, *CONTRARY, *RAISING)


class HookError(Exception):
    """Raised by a hook."""


async def pause() -> None:
    """Suspend twice: once for a turn of the loop, and once until somebody says so."""
    await anyio.lowlevel.checkpoint()
    said = anyio.Event()
    current_loop().post(said.set)
    await said.wait()


def library_threads() -> list[str]:
    """Return the names of the library's threads; the backends have some of their own."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mvx")]


class Trial(MetricsRecorder):
    """Its hooks suspend themselves and behave as ``temper`` says; it notes every answer that its users get."""

    def __init__(self, entity_id: str = "trial", *, temper: str = "suspends", **options: Any) -> None:
        super().__init__(entity_id, **options)
        assert temper in TEMPERS
        self.temper = temper
        self.begun: Counter[str] = Counter()
        """How often each hook was called."""
        self.completed: Counter[str] = Counter()
        """How often each hook returned."""
        self.held: Gate | None = None
        """Holds up ``_on_metric_changed``."""
        self.seen = (Seen("first"), Seen("second"))
        for metric in self.seen:
            self.register_metric(metric)
        self.handles: list[RecorderWaitHandle] = []
        self.accepted: list[MetricEvent] = []
        self.refused = 0
        self.offered = 0
        self.hung = False

    async def _on_starting(self) -> None:
        await self._hook("starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if self.held is not None:
            await self.held.passage()
        # A hook for each of two metrics: one that is cut must be followed by the next metric.
        await self._hook("changed", pause if metric is self.seen[0] else anyio.lowlevel.checkpoint)

    async def _on_stopped(self) -> None:
        await self._hook("stopped")

    async def _hook(self, name: str, wait: Callable[[], Awaitable[None]] = pause) -> None:
        self.begun[name] += 1
        try:
            await wait()
        except anyio.get_cancelled_exc_class():
            if self.temper == "resents":
                raise HookError(name) from None
            if self.temper != "swallows":
                raise
        finally:
            if self.temper == "tidies up":
                with anyio.CancelScope(shield=True):
                    await pause()
        if self.temper == f"raises in {name}":
            raise HookError(name)
        self.completed[name] += 1

    # --- its users -------------------------------------------------------------------------------

    def emit(self) -> None:
        """Emit the next event; an error is an answer, too."""
        event = self._next_event()
        try:
            self.register_event(event)
        except RecorderError:
            self.refused += 1
        else:
            self.accepted.append(event)

    async def emit_when_room(self) -> None:
        """Likewise, waiting for room; cancelled, the event must not have been accepted."""
        event = self._next_event()
        try:
            await self.aregister_event(event)
        except RecorderError:
            self.refused += 1
        else:
            self.accepted.append(event)

    def _next_event(self) -> Tick:
        self.offered += 1
        return Tick(self.offered)

    async def begin(self, operation: Callable[[], RecorderWaitHandle]) -> bool:
        """Begin an operation, await it, and return whether it succeeded."""
        handle = operation()
        self.handles.append(handle)
        return (await handle).success

    async def end(self) -> None:
        """Bring it to an end in the orderly way, whatever state it was left in."""
        if self.get_status() is RecorderState.STARTING:
            await self.begin(self.start)
        await self.begin(self.flush)
        await self.begin(self.stop)
        run = core_of(self)._run
        if run is not None:
            await run.stopping  # a recorder that has failed tells so before the last of its handles is done
        assert self.get_status() in LASTING

    # --- what must hold at the end ---------------------------------------------------------------

    def check(self, *, complete: bool, every_metric: bool = True) -> None:
        """Check everything that holds once the recorder has ended, however often it was cancelled.

        :param complete: whether no accepted event may have been abandoned
        :param every_metric: whether every metric must have seen every processed event, and not the first one alone
        """
        statistics = self.statistics()
        assert self.get_status() in LASTING
        assert balanced(statistics), statistics
        assert (statistics.accepted, statistics.rejected) == (len(self.accepted), self.refused), statistics
        assert not (complete and statistics.abandoned), statistics
        self._check_delivery(self.seen if every_metric else self.seen[:1], complete=statistics.abandoned == 0)
        assert self.begun["stopped"] == self.completed["starting"], (self.begun, self.completed)
        assert self.begun["starting"] <= 1 or self.get_status() is not RecorderState.VIRGIN
        assert [handle for handle in self.handles if not handle.done()] == []
        self._check_residue()

    def _check_delivery(self, seen: tuple[Seen, ...], *, complete: bool) -> None:
        """Each metric has seen each processed event once, and no event that was not accepted."""
        processed = self.statistics().processed
        for metric in seen:
            numbers = [event.n for event in metric.events if isinstance(event, Tick)]
            assert len(numbers) == len(set(numbers)) == processed, (metric.metric_name, numbers)
            accepted = {event.n for event in self.accepted if isinstance(event, Tick)}
            assert set(numbers) <= accepted, "an event was handled that was not accepted"
            assert not complete or set(numbers) == accepted

    def _check_residue(self) -> None:
        """Nothing is left inside that waits for something, or that somebody would wait for."""
        core = core_of(self)
        inbox, run = core.inbox, core._run
        assert len(inbox.line) == 0, "somebody is still in line for room"
        assert not inbox.requests
        assert not inbox.events
        for handle in self.handles:
            assert not handle._outcome._waiters, "a wait has not been forgotten"
        if run is not None:
            assert run.task is None
            assert not run._owed
            assert run.starting.done()
            assert run.stopping.done()
            assert inbox.sealed
            assert not run.starting._outcome._waiters
            assert not run.stopping._outcome._waiters


class PlainTrial(Trial):
    """Does not react to changes: its events take the path without suspensions, but for rests."""

    _on_metric_changed = MetricsRecorder._on_metric_changed


class Make(Protocol):
    """Makes a trial of the given kind in a home."""

    def __call__(self, kind: type[Trial] = Trial, **options: Any) -> Trial: ...


def make_here(kind: type[Trial] = Trial, **options: Any) -> Trial:
    return kind(**options)


class Place:
    """A home for many trials, one after the other."""

    def __init__(self, home: str, make: Make, hub: Callable[[], LoopHub]) -> None:
        self.home = home
        self.make = make
        self._hub = hub

    async def at_rest(self) -> None:
        """Wait until the hub has nothing to look after, and check that it has forgotten everything."""
        hub = self._hub()
        await auntil(lambda: not hub._beating)
        assert hub.active == 0
        assert not hub._attached
        assert not hub.rounds
        assert not hub._timetable._wanted


@asynccontextmanager
async def place(home: str, backend: dict[str, Any]) -> AsyncIterator[Place]:
    """Open a home that stays open over many trials, and look at its end that nothing has damaged it."""
    here = hub_of(current_loop())
    if home == "loop":
        yield Place(home, make_here, lambda: here)
    elif home == "group":

        def make(kind: type[Trial] = Trial, **options: Any) -> Trial:
            trial = kind(**options)
            core_of(trial).home = GroupHome(here, group, shielded=True)
            return trial

        intact = False
        async with anyio.create_task_group() as group:
            yield Place(home, make, lambda: here)
            intact = not group.cancel_scope.cancel_called
            group.cancel_scope.cancel()
        # Looked at here: a group that was brought down has cancelled the test, too, and hushed that up.
        assert intact, "a recorder has brought its group down"
    else:
        async with MetricsRuntime(namespace="test", **backend) as runtime:
            theirs = supervisor_of(runtime).home

            def make_there(kind: type[Trial] = Trial, **options: Any) -> Trial:
                token = BIRTH.set(Birth(home=theirs, options={}))
                try:
                    return kind(**options)
                finally:
                    BIRTH.reset(token)

            yield Place(home, make_there, theirs.hub)
        assert library_threads() == []
