"""Metrics and hooks that turn on the library from within: they call everything, and do what they like with the loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsError,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeShutdownError,
    MetricsRuntimeState,
    MetricsRuntimeWouldDeadlockError,
    RecorderInvalidStateError,
    RecorderState,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._waiting import current_loop
from tests.conftest import Effort, Tally
from tests.faults.hostile import (
    KINDS,
    POLICIES,
    Afflicted,
    Stage,
    Theatre,
    Unhooked,
    every_home,
    held_up,
    theatre_for,
    told,
)
from tests.support import DEADLINE, Count, Seen, Tick, auntil, balanced, until

TRIED = "hostile metrics, hooks and events"
N = 3


pytest_generate_tests = every_home
WITH_UVLOOP = True


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


class Calling(MetricsRecorder):
    """Calls something in one of its hooks."""

    def __init__(
        self, entity_id: str, *, place: str = "", call: Callable[[Calling], object] = lambda _: None, **options: Any
    ) -> None:
        super().__init__(entity_id, **options)
        self.place, self.call = place, call
        self.log: list[str] = []
        self.answers: list[BaseException | None] = []
        """What the calls came to."""

    async def _on_starting(self) -> None:
        await self._hook("_on_starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await self._hook("_on_metric_changed")

    async def _on_stopped(self) -> None:
        await self._hook("_on_stopped")

    async def _hook(self, place: str) -> None:
        self.log.append(place)
        if self.place == place:
            try:
                answer = self.call(self)
                if isinstance(answer, Awaitable):
                    await answer
            except MetricsError as exc:
                self.answers.append(exc)
            else:
                self.answers.append(None)


class CallingMetric(Count):
    """Does so in ``handle_event`` or ``snapshot``."""

    def __init__(self, recorder: Calling) -> None:
        super().__init__("calling")
        self.recorder = recorder
        self.within = False

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        self._call("handle_event")
        return True

    def snapshot(self) -> Mapping[str, Any]:
        self._call("snapshot")
        return super().snapshot()

    def _call(self, place: str) -> None:
        # A snapshot that asks for snapshots would ask itself.
        if self.recorder.place != place or self.within:
            return
        self.within = True
        try:
            answer = self.recorder.call(self.recorder)
            if asyncio.iscoroutine(answer):
                answer.close()
        except MetricsError as exc:
            self.recorder.answers.append(exc)
        else:
            self.recorder.answers.append(None)
        finally:
            self.within = False


def more_snapshots(recorder: Calling) -> object:
    assert set(recorder.get_metric_snapshots()) <= {"calling"}
    return None


def emit_once(recorder: Calling) -> object:
    if len(recorder.answers) < N:
        recorder.register_event(Tick(-1))
    return None


def register_another(recorder: Calling) -> object:
    recorder.register_metric(Count(f"another {len(recorder.answers)}"))
    return None


def replace_self(recorder: Calling) -> object:
    recorder.register_metric(CallingMetric(recorder))
    return None


def stop_and_start(recorder: Calling) -> object:
    recorder.stop()
    recorder.start()
    return None


def iterate(recorder: Calling) -> object:
    for metric in recorder.iter_metrics():
        recorder.register_metric(metric)
    return None


RECORDER_CALLS: dict[str, Callable[[Calling], object]] = {
    "start": lambda recorder: repr(recorder.start()),
    "stop": lambda recorder: repr(recorder.stop()),
    "stop and start": stop_and_start,
    "flush": lambda recorder: repr(recorder.flush()),
    "flush and wait": lambda recorder: recorder.flush().wait(),
    "stop and wait": lambda recorder: recorder.stop().wait(),
    "await start": lambda recorder: recorder.start(),
    "await stop": lambda recorder: recorder.stop(),
    "await flush": lambda recorder: recorder.flush(),
    "snapshots": more_snapshots,
    "await snapshots": lambda recorder: recorder.aget_metric_snapshots(),
    "statistics": lambda recorder: recorder.statistics(),
    "emit": emit_once,
    "await emit": lambda recorder: recorder.aregister_event(Tick(-1)) if len(recorder.answers) < N else None,
    "register": register_another,
    "replace": replace_self,
    "iterate": iterate,
}
PLACES = ("handle_event", "snapshot", "_on_starting", "_on_metric_changed", "_on_stopped")


@pytest.mark.parametrize("place", PLACES)
def test_a_recorder_that_is_called_from_within(theatre: Theatre, home: str, place: str, tally: Tally) -> None:
    """Every call returns or raises an error of the library; what was accepted is processed; the recorder can be stopped."""

    async def scene(stage: Stage) -> None:
        for name, call in RECORDER_CALLS.items():
            with stage.trial(name):

                async def act(recorder: Calling) -> None:
                    told(lambda: recorder.register_metric(CallingMetric(recorder)), RecorderInvalidStateError)
                    for n in range(N):
                        told(lambda: recorder.register_event(Tick(n)), RecorderInvalidStateError)
                    await recorder.flush()
                    await recorder.aget_metric_snapshots()
                    if recorder.get_status() is RecorderState.RUNNING:
                        await recorder.flush()

                part = await stage.play(Calling, act, place=place, call=call)
                recorder = part.recorder
                await auntil(lambda: recorder.get_status() is RecorderState.STOPPED)
                assert recorder.log.count("_on_starting") == recorder.log.count("_on_stopped")
                assert recorder.log[-1] == "_on_stopped"
                statistics = recorder.statistics()
                assert balanced(statistics)
                assert statistics.abandoned == statistics.metric_errors == statistics.hook_errors == 0
                assert statistics.processed == statistics.accepted
                assert recorder.answers or "stop" in name
                if name.endswith("wait"):
                    assert all(isinstance(answer, RecorderWouldDeadlockError) for answer in recorder.answers if answer)
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


RUNTIME_CALLS: dict[str, Callable[[MetricsRuntime], object]] = {
    "shutdown": lambda runtime: runtime.shutdown(),
    "ashutdown": lambda runtime: runtime.ashutdown(),
    "exit": lambda runtime: runtime.__exit__(None, None, None),
    "create": lambda runtime: runtime.create_recorder("z"),
    "stop": lambda runtime: runtime.stop_recorder("neighbour"),
    "remove": lambda runtime: runtime.stop_and_remove_recorder("neighbour"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_runtime_that_is_called_from_within(theatre: Theatre, place: str, tally: Tally) -> None:
    """Where it would wait for its own thread it says so, and goes on."""

    async def scene(stage: Stage) -> None:
        runtime = stage.runtime
        assert runtime is not None
        for name, call in RUNTIME_CALLS.items():
            with stage.trial(name):
                if name == "ashutdown" and place in ("handle_event", "snapshot"):
                    continue  # nobody awaits it there

                async def act(recorder: Calling) -> None:
                    recorder.register_metric(CallingMetric(recorder))
                    recorder.register_event(Tick())
                    await recorder.aget_metric_snapshots()

                part = await stage.play(Calling, act, place=place, call=lambda _: call(runtime))
                assert part.spoilt is None
                assert part.recorder.answers
                assert all(isinstance(answer, MetricsRuntimeWouldDeadlockError) for answer in part.recorder.answers)
                assert runtime.list_recorder_ids() == ("neighbour",)
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show("runtime", scene))


def test_a_hook_that_creates_recorders(theatre: Theatre) -> None:
    """What does not wait for the hook's own thread is allowed there: new recorders can be made, used and stopped."""
    made: list[MetricsRecorder] = []

    async def scene(stage: Stage) -> None:
        runtime = stage.runtime
        assert runtime is not None

        async def create(_: Calling) -> None:
            recorder = await runtime.acreate_recorder(f"made {len(made)}")
            made.append(recorder)
            recorder.register_event(Tick())
            assert (await recorder.flush()).success
            assert (await recorder.aget_metric_snapshots()) == {}

        for place in ("_on_starting", "_on_metric_changed", "_on_stopped"):

            async def act(recorder: Calling) -> None:
                recorder.register_metric(Count())
                recorder.register_event(Tick())
                await recorder.flush()

            assert (await stage.play(Calling, act, place=place, call=create)).spoilt is None
            await stage.neighbour_is_well()
        assert len(made) == 3
        assert len(runtime.list_recorder_ids()) == 4

    theatre.show("runtime", scene)
    assert [recorder.get_status() for recorder in made] == [RecorderState.STOPPED] * 3


def test_two_hooks_that_wait_for_each_others_stop(theatre: Theatre) -> None:
    """Nobody can tell that two hooks wait for each other; the time limit of their drains parts them."""

    async def scene(stage: Stage) -> None:
        runtime = stage.runtime
        assert runtime is not None

        in_their_hooks: list[Calling] = []

        async def other(recorder: Calling) -> None:
            in_their_hooks.append(recorder)
            await auntil(lambda: len(in_their_hooks) == 2)
            await pair[1 - pair.index(recorder)].stop()

        options: dict[str, Any] = {"place": "_on_metric_changed", "call": other, "drain_timeout": 0.05}
        pair = [await runtime.acreate_recorder(name, factory=Calling, **options) for name in "ab"]
        for recorder in pair:
            recorder.register_metric(Count())
            recorder.register_event(Tick())
        for recorder in pair:
            await auntil(lambda: recorder.get_status() is RecorderState.STOPPED)
            assert recorder.log[-1] == "_on_stopped"
            assert balanced(recorder.statistics())
        await stage.neighbour_is_well()

    theatre.show("runtime", scene)


# --- replacing and multiplying -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("raises", [False, True])
def test_a_metric_that_replaces_itself(
    theatre: Theatre, home: str, kind: type[Afflicted], policy: FailurePolicy, raises: bool
) -> None:
    """The event under way is the old one's, the next one is the new one's; a failure counts for the one that failed."""
    generations: list[int] = []

    class Phoenix(Count):
        def __init__(self, recorder: MetricsRecorder, generation: int = 0) -> None:
            super().__init__("phoenix")
            self.recorder, self.generation = recorder, generation

        def handle_event(self, event: MetricEvent) -> bool:
            generations.append(self.generation)
            self.recorder.register_metric(Phoenix(self.recorder, self.generation + 1))
            if raises:
                raise ValueError("after having been replaced")
            return super().handle_event(event)

    async def scene(stage: Stage) -> None:
        generations.clear()
        after = Seen("after")

        async def act(recorder: MetricsRecorder) -> None:
            recorder.register_metric(Phoenix(recorder))
            recorder.register_metric(after)
            for n in range(5):
                told(lambda: recorder.register_event(Tick(n)), RecorderInvalidStateError)
                await recorder.flush()
            snapshots = await recorder.aget_metric_snapshots()
            assert list(snapshots) == ["phoenix", "after"]
            assert "quarantined" not in snapshots["phoenix"]

        part = await stage.play(kind, act, failure_policy=policy, quarantine_after=1)
        failed = raises and policy is FailurePolicy.FAIL
        assert (part.spoilt is not None) is failed
        assert generations == ([0] if failed else [0, 1, 2, 3, 4])
        assert part.recorder.statistics().metric_errors == raises * len(generations)
        assert len(after.events) == (0 if failed else 5)
        await stage.neighbour_is_well()

    theatre.show(home, scene)


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_that_registers_ever_more_metrics(theatre: Theatre, home: str, kind: type[Afflicted]) -> None:
    """Every event of it makes the next one dearer, for its own recorder; the neighbour's stay as they are."""
    registered = 0

    class Breeding(Count):
        def __init__(self, recorder: MetricsRecorder) -> None:
            super().__init__("breeding")
            self.recorder = recorder

        def handle_event(self, event: MetricEvent) -> bool:
            nonlocal registered
            registered += 1
            self.recorder.register_metric(Count(f"bred {registered}"))
            return super().handle_event(event)

    async def scene(stage: Stage) -> None:
        nonlocal registered
        registered = 0

        async def act(recorder: MetricsRecorder) -> None:
            recorder.register_metric(Breeding(recorder))
            for n in range(100):
                recorder.register_event(Tick(n))
                if n % 10 == 0:
                    await stage.neighbour_is_well()
            snapshots = await recorder.aget_metric_snapshots()
            assert len(snapshots) == registered + 1 == 101
            # Each sees the events behind the one in which it was registered.
            assert [s["dimensions"]["total"] for s in snapshots.values()] == [100, *range(99, -1, -1)]

        assert (await stage.play(kind, act)).spoilt is None
        await stage.neighbour_is_well()

    theatre.show(home, scene)


# --- the loop and its tasks ----------------------------------------------------------------------


class Doing(Count):
    """Does something in the midst of its first event."""

    def __init__(self, deed: Callable[[], object]) -> None:
        super().__init__("doing")
        self.deed = deed

    def handle_event(self, event: MetricEvent) -> bool:
        if super().handle_event(event) and self.total == 1:
            self.deed()
        return True


def run_another_loop() -> None:
    async def nothing() -> None:
        await anyio.sleep(0)

    anyio.run(nothing, backend=current_loop().backend)


def close_own_loop() -> None:
    asyncio.get_running_loop().close()


def run_own_loop() -> None:
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))


def call_portal_from_within() -> None:
    anyio.from_thread.run_sync(collect_garbage)


def rename_task() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.set_name("nobody")
    threading.current_thread().name = "nobody"


def collect_garbage() -> None:
    gc.collect(0)


def forget_the_loop() -> None:
    asyncio.set_event_loop(None)


@pytest.mark.parametrize("deed", [run_another_loop, close_own_loop, run_own_loop, call_portal_from_within])
@pytest.mark.filterwarnings("ignore:.*was never awaited")
def test_a_metric_that_misuses_the_loop(theatre: Theatre, home: str, deed: Callable[[], object]) -> None:
    """What the loop refuses is the metric's own failure."""

    async def scene(stage: Stage) -> None:
        for kind in KINDS:

            async def act(recorder: MetricsRecorder) -> None:
                recorder.register_metric(Doing(deed))
                for n in range(N):
                    recorder.register_event(Tick(n))
                assert (await recorder.flush()).success
                assert recorder.statistics().metric_errors == 1

            with stage.trial(kind.__name__):
                part = await stage.play(kind, act)
                assert part.spoilt is None
                assert part.recorder.statistics().processed == N
                await stage.neighbour_is_well()

    theatre.show(home, scene)


@pytest.mark.parametrize("deed", [rename_task, forget_the_loop, collect_garbage])
def test_a_metric_that_meddles_with_its_surroundings(theatre: Theatre, home: str, deed: Callable[[], object]) -> None:
    """Nothing in the engine depends on names, or on what the thread's loop is said to be."""
    if theatre.backend == "trio" and deed is not collect_garbage:
        pytest.skip("trio has no such thing")

    async def scene(stage: Stage) -> None:
        for kind in KINDS:

            async def act(recorder: MetricsRecorder) -> None:
                recorder.register_metric(Doing(deed))
                for n in range(N):
                    recorder.register_event(Tick(n))
                assert (await recorder.flush()).success

            with stage.trial(kind.__name__):
                part = await stage.play(kind, act)
                assert part.spoilt is None
                assert part.recorder.statistics().metric_errors == 0
                await stage.neighbour_is_well()

    theatre.show(home, scene)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_that_cancels_its_own_task(theatre: Theatre, home: str, kind: type[Afflicted]) -> None:
    """That ends its recorder as any cancellation does: all that was accepted is processed, and the neighbour lives."""

    def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def scene(stage: Stage) -> None:
        accepted = N

        async def act(recorder: Afflicted) -> None:
            nonlocal accepted
            recorder.register_metric(Doing(cancel))
            with held_up(recorder):  # else the first event might end the recorder before the last one is emitted
                for n in range(N):
                    recorder.register_event(Tick(n))
            await recorder.flush()
            # On another thread the recorder may, by now, have ended or not.
            accepted += told(lambda: recorder.register_event(Tick()), RecorderInvalidStateError) is None
            await auntil(lambda: recorder.get_status() is RecorderState.CANCELLED)

        part = await stage.play(kind, act)
        statistics = part.recorder.statistics()
        assert balanced(statistics)
        assert statistics.abandoned == 0
        assert statistics.processed == statistics.accepted == accepted
        assert part.recorder.called["_on_stopped"] == 1
        await stage.neighbour_is_well()

    theatre.show(home, scene)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {}), ("asyncio", {"use_uvloop": True})])
@pytest.mark.parametrize("deed", ["stop", "cancel all"])
@pytest.mark.filterwarnings(
    "ignore:.*was never awaited", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_metric_that_ends_the_loop_of_a_runtime(theatre: Theatre, deed: str) -> None:
    """Nothing can save the runtime then; every event is accounted for, every wait ends, and a shutdown says so."""

    def act() -> None:
        loop = asyncio.get_running_loop()
        if deed == "stop":
            loop.stop()
        else:
            for task in asyncio.all_tasks(loop):
                task.cancel()

    runtime = MetricsRuntime(namespace="t", **theatre.keywords)
    runtime.start()
    recorders = [runtime.create_recorder(name, factory=Unhooked) for name in ("culprit", "neighbour")]
    recorders[0].register_metric(Doing(act))
    recorders[1].register_metric(Count())
    for n in range(N):
        for recorder in recorders:
            told(lambda: recorder.register_event(Tick(n)), RecorderInvalidStateError)
    until(lambda: runtime.get_status() is not MetricsRuntimeState.RUNNING)
    for recorder in recorders:
        recorder.flush().wait(DEADLINE)
        until(lambda: recorder.get_status() in (RecorderState.CANCELLED, RecorderState.FAILURE))
        statistics = recorder.statistics()
        assert balanced(statistics)
        assert told(lambda: recorder.register_event(Tick()), RecorderInvalidStateError)
        assert recorder.get_metric_snapshots() is not None
        assert recorder.stop().wait(DEADLINE).error is not None
    if runtime.get_status() is not MetricsRuntimeState.FAILURE:
        told(runtime.shutdown, MetricsRuntimeShutdownError)
    assert runtime.get_status() is MetricsRuntimeState.FAILURE
