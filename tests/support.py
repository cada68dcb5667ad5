"""What many tests need: events, metrics, recorders that can be held up, and the three homes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
import sniffio

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRuntime, RecorderStatistics
from mvx.common.metrics._hosting import BIRTH, Birth, GroupHome
from mvx.common.metrics._hub import hub_of
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._waiting import current_loop

R = TypeVar("R", bound=MetricsRecorder)

HOMES = ("loop", "group", "runtime")
DEADLINE = 20.0
"""Seconds after which a test gives up; no test waits for it when all is well."""


@dataclass(frozen=True, slots=True)
class Tick(MetricEvent):
    """An event with a number."""

    n: int = 0

    @property
    def event_type(self) -> str:
        return "test.tick"


@dataclass(frozen=True, slots=True)
class LoudTick(Tick):
    """A subclass of an event."""


@dataclass(frozen=True, slots=True)
class Tock(MetricEvent):
    """Another event."""

    @property
    def event_type(self) -> str:
        return "test.tock"


class Seen(Metric):
    """Remembers every event in order."""

    def __init__(self, name: str = "seen") -> None:
        self._name = name
        self.events: list[MetricEvent] = []

    @property
    def metric_name(self) -> str:
        return self._name

    def handle_event(self, event: MetricEvent) -> bool:
        self.events.append(event)
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self._name, "dimensions": {"total": len(self.events)}}


class Count(Metric):
    """Counts ticks."""

    event_types = (Tick,)

    def __init__(self, name: str = "count") -> None:
        self._name = name
        self.total = 0

    @property
    def metric_name(self) -> str:
        return self._name

    def handle_event(self, event: MetricEvent) -> bool:
        self.total += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self._name, "dimensions": {"total": self.total}}


class Failing(Count):
    """Raises a given exception on every event."""

    def __init__(self, error: BaseException, name: str = "failing") -> None:
        super().__init__(name)
        self.error = error

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        raise self.error


class Gate:
    """Holds tasks of any loop until it is opened from any thread, or by a signal handler; tells when the first waits."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open
        self.reached = threading.Event()
        self._openers: list[Callable[[], object]] = []

    def open(self) -> None:
        self.is_open = True
        for let_through in tuple(self._openers):
            with contextlib.suppress(RuntimeError):  # that loop has been closed
                let_through()

    async def passage(self) -> None:
        self.reached.set()
        event = anyio.Event()
        let_through = _from_any_thread(event.set)
        self._openers.append(let_through)
        try:
            # Behind the entry, so that whoever opens the gate meanwhile is seen here or sees that.
            if not self.is_open:
                await event.wait()
        finally:
            self._openers.remove(let_through)


def _from_any_thread(call: Callable[[], None]) -> Callable[[], object]:
    """Return what any thread may call to have ``call`` made in the running loop."""
    if sniffio.current_async_library() == "trio":
        import trio  # noqa: PLC0415 — only where it is asked for

        return partial(trio.lowlevel.current_trio_token().run_sync_soon, call)
    return partial(asyncio.get_running_loop().call_soon_threadsafe, call)


class Journal(MetricsRecorder):
    """Writes down its hooks, in each of which it can be held up or made to fail."""

    def __init__(self, entity_id: str = "journal", **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.log: list[str] = []
        self.starting = Gate(is_open=True)
        self.changed = Gate(is_open=True)
        self.stopped = Gate(is_open=True)
        self.errors: dict[str, BaseException] = {}

    async def _on_starting(self) -> None:
        self.log.append("starting")
        await self.starting.passage()
        self._fail("starting")
        self.log.append("started")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self.log.append("changed")
        await self.changed.passage()
        self._fail("changed")

    async def _on_stopped(self) -> None:
        self.log.append("stopping")
        await self.stopped.passage()
        self._fail("stopped")
        self.log.append("stopped")

    def _fail(self, hook: str) -> None:
        if hook in self.errors:
            raise self.errors[hook]


class Plain(Journal):
    """A journal that does not react to changes: its events take the path without suspensions."""

    _on_metric_changed = MetricsRecorder._on_metric_changed


@asynccontextmanager
async def virgin(home: str, kind: type[R], *args: Any, **options: Any) -> AsyncIterator[R]:
    """A recorder of class ``kind`` that has not been started, in the given home; stopped in the end."""
    backend = current_loop().backend
    if home == "runtime":
        async with MetricsRuntime(namespace="test", backend=backend) as runtime:
            token = BIRTH.set(Birth(home=supervisor_of(runtime).home, options={}))
            try:
                recorder = kind(*args, **options)
            finally:
                BIRTH.reset(token)
            yield recorder
            await recorder.stop()
        return
    recorder = kind(*args, **options)
    if home == "loop":
        yield recorder
        await recorder.stop()
        return
    async with anyio.create_task_group() as group:
        core_of(recorder).home = GroupHome(hub_of(current_loop()), group, shielded=True)
        try:
            yield recorder
        finally:
            # Also when the test has failed: the group would wait for the shielded recorder for ever.
            with anyio.CancelScope(shield=True):
                await recorder.stop()
        group.cancel_scope.cancel()


def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens elsewhere and tells nobody, such as a thread's blocking or a change of state."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def auntil(condition: Callable[[], object]) -> None:
    """The same without holding up the loop."""
    with anyio.fail_after(DEADLINE):
        while not condition():
            await anyio.sleep(0.001)


def run_threads(*bodies: Callable[[], object]) -> None:
    """Run each body in a thread of its own, all released at once, and raise what one of them raises."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(bodies))

    def run(body: Callable[[], object]) -> None:
        try:
            barrier.wait(DEADLINE)
            body()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


GROWING = tuple(
    field.name for field in dataclasses.fields(RecorderStatistics) if field.name not in ("pending", "capacity")
)
"""The statistics that never fall."""


def adds_up(statistics: RecorderStatistics) -> bool:
    """Whether both equations of the ledger hold, as they do in every reading."""
    s = statistics
    return (
        s.offered == s.accepted + s.dropped + s.rejected
        and s.accepted == s.processed + s.pending + s.evicted + s.abandoned
    )


def balanced(statistics: RecorderStatistics) -> bool:
    """Whether both equations of the ledger hold and nothing is pending."""
    return statistics.pending == 0 and adds_up(statistics)
