"""User code that blocks the runtime's thread: production goes on, waits are bounded, and all is well when it returns.

What never returns is left to processes of their own: test_isolation_never.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeShutdownError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderTimeoutError,
)
from mvx.common.metrics import _actor as actor
from mvx.common.metrics import _supervisor as supervisor
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._runtime import supervisor_of
from tests.conftest import Effort
from tests.faults.hostile import Theatre, causes, every_home, theatre_for, told
from tests.support import DEADLINE, Count, Journal, Tick, balanced, run_threads, until

SHORT = 0.05
"""Seconds that the waits for a blocked thread are given here."""
CAPACITY = 10


class Block:
    """Blocks a thread, once it has been armed, until it is lifted."""

    def __init__(self) -> None:
        self.armed = False
        self.entered = threading.Event()
        self._lifted = threading.Event()

    def pass_through(self) -> None:
        if self.armed:
            self.entered.set()
            assert self._lifted.wait(3 * DEADLINE)

    def lift(self) -> None:
        self._lifted.set()


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture
def backend(theatre: Theatre) -> dict[str, Any]:
    return theatre.keywords


@pytest.fixture
def block() -> Iterator[Block]:
    block = Block()
    yield block
    block.lift()


@pytest.fixture
def runtime(backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsRuntime]:
    """A runtime that does not wait for long."""
    monkeypatch.setattr(supervisor, "GRACE", SHORT)
    monkeypatch.setattr(supervisor, "MIN_STOPPED_HOOK_TIMEOUT", 0.0)
    monkeypatch.setattr(actor, "MIN_STOPPED_HOOK_TIMEOUT", 0.0)
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    yield runtime
    told(runtime.shutdown, MetricsRuntimeShutdownError)


def wait_for_creations(runtime: MetricsRuntime, seconds: float) -> None:
    """Change how long the runtime waits; only for a thread that is blocked may that be too short for a busy machine."""
    object.__setattr__(supervisor_of(runtime).options, "startup_timeout", seconds)


def wait_for_drains(recorder: MetricsRecorder, seconds: float) -> None:
    """Likewise for the drain, and the snapshots, of a recorder."""
    object.__setattr__(core_of(recorder).options, "drain_timeout", seconds)


class BlockingMetric(Count):
    """Blocks in one of its methods."""

    def __init__(self, block: Block, place: str) -> None:
        super().__init__("blocking")
        self.block, self.place = block, place

    def handle_event(self, event: MetricEvent) -> bool:
        if self.place == "handle_event":
            self.block.pass_through()
        return super().handle_event(event)

    def snapshot(self) -> Mapping[str, Any]:
        if self.place == "snapshot":
            self.block.pass_through()
        return super().snapshot()


class BlockingRecorder(MetricsRecorder):
    """Blocks in one of its hooks, without giving the thread back."""

    def __init__(self, entity_id: str, *, block: Block, place: str, **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.block, self.place = block, place
        self.log: list[str] = []
        self._hook("__init__")

    async def _on_starting(self) -> None:
        self._hook("_on_starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self._hook("_on_metric_changed")

    async def _on_stopped(self) -> None:
        self._hook("_on_stopped")

    def _hook(self, place: str) -> None:
        self.log.append(place)
        if self.place == place:
            self.block.pass_through()


class Scene:
    """A runtime whose thread is blocked by one recorder, and another that has to suffer it."""

    def __init__(self, runtime: MetricsRuntime, block: Block, place: str, **options: Any) -> None:
        self.runtime, self.block, self.place = runtime, block, place
        self.count = Count()
        self.neighbour = runtime.create_recorder("neighbour", drain_timeout=DEADLINE, queue_max_size=CAPACITY)
        self.neighbour.register_metric(self.count)
        block.armed = place in ("__init__", "_on_starting")
        self.threads: list[threading.Thread] = []
        if block.armed:
            wait_for_creations(runtime, SHORT)
            self.aside(self._create)
            self.recorder: BlockingRecorder | None = None
        else:
            self.recorder = runtime.create_recorder(
                "blocking",
                factory=BlockingRecorder,
                block=block,
                place=place,
                drain_timeout=DEADLINE,
                queue_max_size=CAPACITY,
                **options,
            )
            self.recorder.register_metric(BlockingMetric(block, place))
            block.armed = True
            self._get_stuck(self.recorder)
        assert block.entered.wait(DEADLINE)
        wait_for_creations(runtime, SHORT)
        wait_for_drains(self.neighbour, SHORT)

    def aside(self, call: Callable[[], object]) -> None:
        thread = threading.Thread(target=call)
        self.threads.append(thread)
        thread.start()

    def _create(self) -> None:
        told(
            lambda: self.runtime.create_recorder(
                "blocking", factory=BlockingRecorder, block=self.block, place=self.place, drain_timeout=DEADLINE
            ),
            MetricsRuntimeRecorderStartupError,
        )

    def _get_stuck(self, recorder: BlockingRecorder) -> None:
        recorder.register_event(Tick())
        if self.place == "snapshot":
            self.aside(lambda: told(recorder.get_metric_snapshots, RecorderTimeoutError))
        elif self.place == "_on_stopped":
            recorder.stop()

    def recover(self) -> None:
        """Lift the block, and check that everything works again."""
        self.block.lift()
        wait_for_creations(self.runtime, DEADLINE)
        wait_for_drains(self.neighbour, DEADLINE)
        for thread in self.threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert self.neighbour.flush().wait(DEADLINE).success
        self.neighbour.register_event(Tick())
        assert self.neighbour.get_metric_snapshots()["count"]["dimensions"] == {"total": self.count.total}
        assert balanced(self.neighbour.statistics())
        if self.recorder is not None:
            assert self.recorder.flush().wait(DEADLINE).success
            self.recorder.stop().wait(DEADLINE)
            assert self.recorder.log[-1] == "_on_stopped"
            assert balanced(self.recorder.statistics())
        self.runtime.shutdown()
        assert self.runtime.get_status() is MetricsRuntimeState.CLOSED


PLACES = ("handle_event", "snapshot", "__init__", "_on_starting", "_on_metric_changed", "_on_stopped")


@pytest.mark.parametrize("place", PLACES)
def test_production_goes_on_while_the_thread_is_blocked(runtime: MetricsRuntime, block: Block, place: str) -> None:
    """Calls that need not wait return, those that must wait give up in time, and nothing is lost uncounted."""
    scene = Scene(runtime, block, place)
    neighbour = scene.neighbour

    def emit() -> None:
        for n in range(3 * CAPACITY):
            neighbour.register_event(Tick(n))

    run_threads(*[emit] * 4)
    assert neighbour.statistics().dropped >= 11 * CAPACITY - 4
    assert neighbour.statistics().pending <= CAPACITY + 4
    neighbour.register_metric(Count("another"))
    assert [metric.metric_name for metric in neighbour.iter_metrics()] == ["count", "another"]
    assert neighbour.start().wait(DEADLINE).success is False
    flush = neighbour.flush()
    assert not flush.done()
    with pytest.raises(TimeoutError):
        flush.wait(0.001)
    with pytest.raises(RecorderTimeoutError):
        neighbour.get_metric_snapshots()
    assert runtime.get_status() is MetricsRuntimeState.RUNNING
    assert runtime.get_recorder("neighbour") is neighbour
    scene.recover()
    assert flush.done()


@pytest.mark.parametrize("policy", OverflowPolicy)
def test_every_overflow_policy_holds_while_the_thread_is_blocked(
    runtime: MetricsRuntime, block: Block, policy: OverflowPolicy
) -> None:
    """Of the recorder that blocks it; only BLOCK may wait, and for no longer than it was told to."""
    scene = Scene(runtime, block, "handle_event", queue_overflow_policy=policy, block_timeout=0.01)
    recorder = scene.recorder
    assert recorder is not None
    errors = 0
    for n in range(3 * CAPACITY):
        error = told(lambda: recorder.register_event(Tick(n)), RecorderQueueOverflowError)
        errors += error is not None
    statistics = recorder.statistics()
    assert statistics.pending <= CAPACITY
    lost = {
        OverflowPolicy.DROP: statistics.dropped,
        OverflowPolicy.DROP_OLDEST: statistics.evicted,
        OverflowPolicy.RAISE_ERROR: statistics.rejected,
        OverflowPolicy.BLOCK: statistics.rejected,
    }
    assert lost[policy] == 2 * CAPACITY + 1
    assert errors == statistics.rejected
    scene.recover()


@pytest.mark.parametrize("place", PLACES)
def test_a_creation_gives_up_while_the_thread_is_blocked(runtime: MetricsRuntime, block: Block, place: str) -> None:
    """It says so after the time that it was given; the id is free at once, and can be used when the thread is back."""
    scene = Scene(runtime, block, place)
    for _ in range(2):
        with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
            runtime.create_recorder("late", factory=Journal)
        assert any(isinstance(cause, TimeoutError) for cause in causes(caught.value))
    assert runtime.try_get_recorder("late") is None
    block.lift()
    for thread in scene.threads:
        thread.join(DEADLINE)
    wait_for_creations(runtime, DEADLINE)
    late = runtime.create_recorder("late")
    late.register_event(Tick())
    assert late.flush().wait(DEADLINE).success
    assert runtime.list_recorder_ids().count("late") == 1
    scene.recover()


def test_an_id_is_free_when_its_creation_took_too_long(runtime: MetricsRuntime) -> None:
    """At once, and not when the loop has got round to it."""

    class Endless(MetricsRecorder):
        async def _on_starting(self) -> None:
            await anyio.sleep_forever()

    wait_for_creations(runtime, SHORT)
    for _ in range(3):
        with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
            runtime.create_recorder("x", factory=Endless)
        assert any(isinstance(cause, TimeoutError) for cause in causes(caught.value))
    wait_for_creations(runtime, DEADLINE)
    recorder = runtime.create_recorder("x")
    assert runtime.list_recorder_ids() == ("x",)
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success


@pytest.mark.parametrize("place", ["handle_event", "snapshot", "_on_metric_changed"])
def test_a_stop_gives_up_while_the_thread_is_blocked(runtime: MetricsRuntime, block: Block, place: str) -> None:
    """Of a neighbour: it goes on by itself when the thread is back."""
    scene = Scene(runtime, block, place)
    scene.neighbour.register_event(Tick())
    with pytest.raises(MetricsRuntimeRecorderStopError) as caught:
        runtime.stop_recorder("neighbour")
    assert any(isinstance(cause, RecorderTimeoutError) for cause in causes(caught.value))
    assert scene.neighbour.get_status() is RecorderState.STOPPING
    block.lift()
    until(lambda: scene.neighbour.get_status() is RecorderState.STOPPED)
    statistics = scene.neighbour.statistics()
    assert balanced(statistics)
    assert statistics.processed + statistics.abandoned == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_shutdown_gives_up_while_the_thread_is_blocked(runtime: MetricsRuntime, block: Block, place: str) -> None:
    """It names those that it could not stop; when the thread is back after all, it ends by itself."""
    scene = Scene(runtime, block, place)
    if scene.recorder is not None:
        wait_for_drains(scene.recorder, SHORT)
    scene.neighbour.register_event(Tick())
    with pytest.raises(MetricsRuntimeShutdownError, match="has not ended within") as caught:
        runtime.shutdown()
    assert "neighbour" in caught.value.details["failed_recorder_ids"]
    assert set(caught.value.details["recorder_errors"]) == set(caught.value.details["failed_recorder_ids"])
    assert runtime.get_status() is MetricsRuntimeState.FAILURE
    runtime.shutdown()  # done is done
    block.lift()
    for thread in scene.threads:
        thread.join(DEADLINE)
    engine = supervisor_of(runtime)._engine
    assert engine is not None
    engine.thread.join(DEADLINE)
    assert not engine.thread.is_alive()
    assert balanced(scene.neighbour.statistics())
    assert scene.neighbour.get_status() in (RecorderState.STOPPED, RecorderState.CANCELLED)
