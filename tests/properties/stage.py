"""An event loop that takes a step when it is told to and stands still in between, and what plays on it.

While the loop stands still, no actor does anything, so that events pile up as they are told to.  It is
held up by its own main task, which waits for the next step without letting go of the thread.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

import anyio
import anyio.abc

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRuntime
from mvx.common.metrics._waiting import current_loop
from tests.properties.model import Entry, Event, Pong, Subject, entry, understudies
from tests.support import DEADLINE

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds after which a loop in which nothing moves any more is taken to have come to rest.

Less than the engine's heartbeat, which would heal a lost wake-up unseen.
"""
MANY_ROUNDS = 1000
"""As many rounds of the loop, too: on a busy machine half a second is nothing."""


class SkippingLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop with a clock that can be put forward."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


def skipping_clock() -> Any:
    """trio's clock, likewise."""
    import trio  # noqa: PLC0415 — not installed everywhere

    class SkippingClock(trio.abc.Clock):
        skipped = 0.0

        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            return time.perf_counter() + self.skipped

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return deadline - self.current_time()

    return SkippingClock()


class Stage:
    """Owns a thread with an event loop: that of a runtime, or one for recorders made by hand."""

    def __init__(self, backend: str, options: dict[str, Any], *, in_a_runtime: bool) -> None:
        """Begin.

        :param options: of a backend as ``conftest.BACKENDS`` has them
        """
        self.ended = False
        self.paused = False
        """Whether the step under way is held up, with the whole loop, in the midst of a metric."""
        self._clock: Any = None
        self._steps: queue.SimpleQueue[Callable[[], Awaitable[object]] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._resume: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._backend, self._options = backend, dict(options)
        self.can_skip = not options.get("use_uvloop", False)
        """Whether the loop's clock can be put forward."""
        if backend == "trio":
            self._clock = self._options["clock"] = skipping_clock()
        elif self.can_skip:
            self._options["loop_factory"] = SkippingLoop
        self.runtime: MetricsRuntime | None = None
        if in_a_runtime:
            self.runtime = MetricsRuntime(namespace="model", backend=backend, backend_options=self._options)
            self.runtime.start()
            self.runtime.portal.start_task_soon(self._play)
        else:
            self._thread = threading.Thread(target=self._run, name="stage", daemon=True)
            self._thread.start()
        self.at_once(self._begin)

    def _run(self) -> None:
        anyio.run(self._play, backend=self._backend, backend_options=self._options)

    async def _play(self) -> None:
        async with anyio.create_task_group() as self.group:
            while (step := self._steps.get()) is not None:
                try:
                    outcome = await step()
                except Exception as exc:
                    self._outcomes.put(_raising(exc))
                else:
                    self._outcomes.put(_returning(outcome))

    def _begin(self) -> None:
        self.loop = current_loop()
        if self._backend == "asyncio" and self.can_skip:
            self._clock = asyncio.get_running_loop()

    # --- for the thread that directs -------------------------------------------------------------

    def at_once(self, function: Callable[[], T]) -> T:
        """Run ``function()`` in the loop's main task, and nothing else."""

        async def step() -> T:
            return function()

        self._steps.put(step)
        return cast("T", self._outcome())

    def play(self, function: Callable[[], Awaitable[T]]) -> T | None:
        """Run ``function()`` there, and whatever else wants to run meanwhile; return None if it gets held up."""
        self._steps.put(function)
        return cast("T | None", self._outcome())

    def go_on(self) -> None:
        """Let go on what holds up the loop."""
        self.paused = False
        self._resume.put(None)
        self._outcome()

    def meanwhile(self, function: Callable[[], T]) -> T:
        """Run ``function()`` in this thread while the loop is free to work."""
        ready: queue.SimpleQueue[anyio.Event] = queue.SimpleQueue()

        async def work() -> None:
            event = anyio.Event()
            ready.put(event)
            await event.wait()

        self._steps.put(work)
        enough = ready.get(timeout=DEADLINE)
        try:
            return function()
        finally:
            self.loop.post(enough.set)
            self._outcome()

    def _outcome(self) -> object:
        try:
            outcome = self._outcomes.get(timeout=DEADLINE)
        except queue.Empty:
            self.ended = True  # given up
            msg = "the loop's main task hangs"
            raise AssertionError(msg) from None
        if outcome is None:
            self.paused = True
            return None
        return outcome()

    def end(self) -> None:
        """End the loop."""
        self.ended = True
        if self.paused:
            self._resume.put(None)
        self._steps.put(None)
        if self.runtime is not None:
            self.runtime.shutdown()
        else:
            self._thread.join(DEADLINE)
            assert not self._thread.is_alive()

    # --- for what plays there --------------------------------------------------------------------

    def pause(self) -> None:
        """Hold up the whole loop until told to go on."""
        self._outcomes.put(None)
        self._resume.get()

    def skip(self, seconds: float) -> None:
        """Put the loop's clock forward."""
        self._clock.skipped += seconds

    async def rest(self, agreed: Callable[[], bool], moved: Callable[[], object], *, after: int) -> None:
        """Let the loop work until ``agreed()``, or, failing that, until it has come to rest.

        :param moved: whatever changes while something is still going on
        :param after: how often the loop goes round once more
        """
        last, still, since = moved(), 0, time.monotonic()
        while not agreed():
            still += 1
            if still > 10:
                # A thread that never really sleeps would keep the interpreter from the others.
                time.sleep(0.000_05)  # noqa: ASYNC251 — the loop is ours
            if last != (now := moved()):
                last, still, since = now, 0, time.monotonic()
            elif still > MANY_ROUNDS and time.monotonic() - since > PATIENCE:
                return
            await anyio.lowlevel.checkpoint()
        for _ in range(after):
            await anyio.lowlevel.checkpoint()


def _returning(value: object) -> Callable[[], object]:
    return lambda: value


def _raising(error: BaseException) -> Callable[[], object]:
    def throw() -> object:
        raise error

    return throw


class Prop:
    """What the metrics and hooks of one recorder share: the journal, and where they are held up."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.journal: list[Entry] = []
        self.held: set[str] = set()
        self.broken: set[str] = set()
        self.standing: str | None = None
        self.snapshots_failed = 0
        self._go_on: anyio.Event | None = None

    async def passage(self, point: str) -> None:
        """Go through a hook's gate."""
        if point in self.held:
            self.standing = point
            self._go_on = go_on = anyio.Event()
            try:
                await go_on.wait()
            finally:
                self.standing = None

    def go_on(self) -> None:
        """Let go on who stands in a gate; in the loop."""
        if self._go_on is not None:
            self._go_on.set()

    def hold_the_loop(self) -> None:
        """Hold up a metric."""
        if "metric" in self.held:
            self.standing = "metric"
            self.stage.pause()
            self.standing = None


class Player(Metric):
    """Plays a metric of the model; nobody may compare it."""

    def __init__(self, subject: Subject, prop: Prop, recorder: MetricsRecorder) -> None:
        self.key, self.script = subject.key, subject.script
        self.event_types = self.script.wants  # type: ignore[misc] # an instance may narrow its class's answer
        self.seen: list[str] = []
        self._prop, self._recorder = prop, recorder

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        raise AssertionError("hashed")

    def __bool__(self) -> bool:
        raise AssertionError("asked for its truth")

    @property
    def metric_name(self) -> str:
        return self.script.name

    def handle_event(self, event: MetricEvent) -> bool:
        assert isinstance(event, Event)
        self._prop.journal.append(entry("metric", self.key, event))
        if event.mark in self.script.holds:
            self._prop.hold_the_loop()
        if event.mark in self.script.emits:
            self._recorder.register_event(Pong(f"{event.serial}>{self.key}", 0))
        if event.mark in self.script.fails:
            raise self.script.error(f"{self.script.name} {event.mark}")
        if event.mark in self.script.refuses:
            return False
        self.seen.append(event.serial)
        return True

    def snapshot(self) -> dict[str, Any]:
        if self.script.snapshot_fails:
            self._prop.snapshots_failed += 1
            raise LookupError("snapshot")
        return {"name": self.script.name, "dimensions": {"seen": tuple(self.seen)}}


class Acting(MetricsRecorder):
    """Plays a recorder of the model."""

    def __init__(
        self,
        entity_id: str,
        *,
        prop: Prop,
        antics: Mapping[int | str, str],
        hook_error: type[BaseException],
        **options: Any,
    ) -> None:
        super().__init__(entity_id, **options)
        self.prop = prop
        self.antics = antics
        self.hook_error = hook_error
        self.understudies = understudies()

    async def _on_starting(self) -> None:
        await self.hook("starting")

    async def _on_stopped(self) -> None:
        await self.hook("stopped")

    async def hook(self, point: str, key: int = 0, event: Event | None = None, *shown: object) -> None:
        journal = self.prop.journal
        journal.append(entry(point, key, event, *shown))
        try:
            await self.prop.passage(point)
        except BaseException:
            journal.append((point, "cut short"))
            raise
        cue, serial = (point, point) if event is None else (event.mark, f"{event.serial}>>{key}")
        await self.antic(self.antics.get(cue, ""), Pong(serial, 0))
        if point in self.prop.broken:
            raise self.hook_error(point)
        journal.append((point, "returns"))

    async def antic(self, antic: str, echo: Event) -> None:
        match antic:
            case "emit":
                self.register_event(echo)
            case "await room":
                await self.aregister_event(echo)
            case "await flush":
                await self.flush()
            case "await snapshots":
                await self.aget_metric_snapshots()
            case "replace":
                self.register_metric(Player(next(self.understudies), self.prop, self))
            case "stop":
                self.stop()


class Reacting(Acting):
    """The same with a hook for changes."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        assert isinstance(metric, Player)
        assert isinstance(event, Event)
        await self.hook("changed", metric.key, event, tuple(metric.seen))
