"""Hooks that do to their own task, and to its time limits, what nobody expects."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
import sniffio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    RecorderDrainTimeoutError,
    RecorderError,
    RecorderInvalidStateError,
    RecorderOnStoppedHookFailedError,
    RecorderState,
)
from mvx.common.metrics import _actor as actor
from tests.conftest import Effort, Tally
from tests.faults.hostile import TROUBLES, Stage, Theatre, Trouble, causes, every_home, held_up, theatre_for, told
from tests.support import Count, Tick, auntil, balanced

TRIED = "hostile metrics, hooks and events"
HOOKS = ("_on_starting", "_on_metric_changed", "_on_stopped")


pytest_generate_tests = every_home
WITH_UVLOOP = True


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop hook gets no more time than the drain."""
    monkeypatch.setattr(actor, "MIN_STOPPED_HOOK_TIMEOUT", 0.0)


class Erratic(MetricsRecorder):
    """Each of its hooks does what it is told."""

    def __init__(self, entity_id: str, *, acts: dict[str, Callable[[], Awaitable[object]]], **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.acts = acts
        self.log: list[str] = []

    async def _on_starting(self) -> None:
        await self._hook("_on_starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await self._hook("_on_metric_changed")

    async def _on_stopped(self) -> None:
        await self._hook("_on_stopped")

    async def _hook(self, name: str) -> None:
        self.log.append(name)
        if name in self.acts:
            await self.acts[name]()


async def work(recorder: MetricsRecorder, events: int = 3) -> None:
    """Emit, and let every event be handled."""
    told(lambda: recorder.register_metric(Count()), RecorderInvalidStateError)
    for n in range(events):
        told(lambda: recorder.register_event(Tick(n)), RecorderInvalidStateError)
    await recorder.flush()


# --- scopes and task groups ----------------------------------------------------------------------


def test_a_hook_may_open_what_another_closes(theatre: Theatre, home: str) -> None:
    """Hooks run in one task, so a task group that the start hook opens can be used, and closed by the stop hook."""

    async def scene(stage: Stage) -> None:
        stack = contextlib.AsyncExitStack()
        ticks: list[str] = []
        group: anyio.abc.TaskGroup

        async def child() -> None:
            ticks.append("child")
            await anyio.sleep_forever()

        async def open_group() -> None:
            nonlocal group
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.enter_context(anyio.CancelScope())
            group.start_soon(child)

        async def use() -> None:
            group.start_soon(child)

        async def close() -> None:
            group.cancel_scope.cancel()
            await stack.aclose()

        acts = {"_on_starting": open_group, "_on_metric_changed": use, "_on_stopped": close}
        part = await stage.play(Erratic, work, acts=acts)
        assert part.spoilt is None
        assert part.recorder.log == ["_on_starting", *["_on_metric_changed"] * 3, "_on_stopped"]
        assert ticks[:1] == ["child"]
        assert balanced(part.recorder.statistics())
        await stage.neighbour_is_well()

    theatre.show(home, scene)


async def leave_scope_open() -> None:
    anyio.CancelScope().__enter__()


async def leave_cancelled_scope_open() -> None:
    scope = anyio.CancelScope()
    scope.__enter__()
    scope.cancel()


async def leave_shield_open() -> None:
    anyio.CancelScope(shield=True).__enter__()


async def leave_deadline_open() -> None:
    anyio.CancelScope(deadline=anyio.current_time() - 1).__enter__()


async def leave_group_open() -> None:
    await anyio.create_task_group().__aenter__()


async def leave_busy_group_open() -> None:
    group = await anyio.create_task_group().__aenter__()
    group.start_soon(anyio.sleep_forever)


async def leave_failing_group_open() -> None:
    async def fail() -> None:
        raise ValueError("in a child")

    group = await anyio.create_task_group().__aenter__()
    group.start_soon(fail)
    await anyio.lowlevel.checkpoint()


LEAKS = (
    leave_scope_open,
    leave_cancelled_scope_open,
    leave_shield_open,
    leave_deadline_open,
    leave_group_open,
    leave_busy_group_open,
    leave_failing_group_open,
)


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.filterwarnings(
    "ignore:.*was never awaited", "ignore:unclosed", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_hook_that_leaves_its_scopes_open(theatre: Theatre, hook: str, leak: Callable[[], Awaitable[None]]) -> None:
    """It may spoil its own recorder, which says so; nobody else in the runtime notices."""

    async def scene(stage: Stage) -> None:
        part = await stage.play(Erratic, work, acts={hook: leak}, drain_timeout=0.5)
        assert part.spoilt is None or any(isinstance(cause, RecorderError) for cause in causes(part.spoilt))
        if part.recorder is not None:
            assert part.recorder.get_status() in (RecorderState.STOPPED, RecorderState.FAILURE, RecorderState.CANCELLED)
            assert balanced(part.recorder.statistics())
        for _ in range(3):
            await stage.neighbour_is_well()
            await anyio.sleep(0)

    theatre.show("runtime", scene)


# --- the task itself -----------------------------------------------------------------------------


async def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("waits", [False, True])
def test_a_hook_that_cancels_its_own_task(theatre: Theatre, home: str, hook: str, waits: bool) -> None:
    """That ends its recorder as any cancellation does: what was accepted is processed, and the neighbour lives."""

    async def act() -> None:
        await cancel_own_task()
        if waits:
            await asyncio.sleep(0)

    async def work_at_once(recorder: Erratic) -> None:
        recorder.register_metric(Count())
        with held_up(recorder):  # else the first event might end the recorder before the last one is emitted
            for n in range(3):
                recorder.register_event(Tick(n))
        await recorder.flush()

    async def scene(stage: Stage) -> None:
        begins = hook != "_on_starting"
        part = await stage.play(Erratic, work_at_once if begins else work, acts={hook: act})
        starts = begins or not waits
        assert (part.refused is None) is starts
        if part.recorder is not None:
            await auntil(lambda: part.recorder.get_status() not in (RecorderState.RUNNING, RecorderState.STOPPING))
            statistics = part.recorder.statistics()
            assert balanced(statistics)
            assert statistics.abandoned == 0
            assert statistics.processed == statistics.accepted
            assert not begins or statistics.accepted == 3
            assert part.recorder.log.count("_on_stopped") == starts
        await stage.neighbour_is_well()

    theatre.show(home, scene)


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def test_a_hook_that_changes_its_context(theatre: Theatre, home: str) -> None:
    """What it sets is seen by its own recorder's next hooks, and by nobody else."""
    seen: list[int] = []

    async def act() -> None:
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    async def scene(stage: Stage) -> None:
        for _ in range(2):
            part = await stage.play(Erratic, work, acts=dict.fromkeys(HOOKS, act))
            assert part.spoilt is None
        assert seen == [0, 1, 2, 3, 4] * 2
        assert variable.get() == 0
        await stage.neighbour_is_well()

    theatre.show(home, scene)


@pytest.mark.parametrize("name", ["asyncio", "trio", "curio", None])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.filterwarnings("ignore:.*was never awaited")
def test_a_hook_that_lies_about_its_event_loop(theatre: Theatre, name: str | None, hook: str) -> None:
    """A recorder whose hook tells everybody the wrong backend has only itself to blame."""

    async def act() -> None:
        sniffio.current_async_library_cvar.set(name)

    async def scene(stage: Stage) -> None:
        part = await stage.play(Erratic, work, acts={hook: act}, drain_timeout=0.5)
        if part.recorder is not None:
            assert balanced(part.recorder.statistics())
        await stage.neighbour_is_well()

    theatre.show("runtime", scene)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_starts_tasks(theatre: Theatre, home: str, hook: str) -> None:
    """Tasks that hooks have left behind, failing and sleeping ones among them, neither hold up nor spoil anything."""
    kept: list[object] = []

    async def fail() -> None:
        raise ValueError("in a task of the hook's own")

    async def act() -> None:
        if sniffio.current_async_library() == "trio":
            import trio  # noqa: PLC0415 — only where it is asked for

            trio.lowlevel.spawn_system_task(trio.sleep_forever)
            return
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        kept.append(loop.create_task(asyncio.sleep(3600)))
        kept.append(loop.create_task(fail()))

    async def scene(stage: Stage) -> None:
        part = await stage.play(Erratic, work, acts={hook: act})
        assert part.spoilt is None
        assert part.recorder.get_status() is RecorderState.STOPPED
        assert part.recorder.statistics().processed == 3
        await stage.neighbour_is_well()
        kept.clear()

    theatre.show(home, scene)


# --- out of time ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_patience")
def test_a_stop_hook_that_raises_when_its_time_is_up(theatre: Theatre, home: str, tally: Tally) -> None:
    """Whatever it answers its cancellation with: the stop says that it failed, and the neighbour lives."""

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(TROUBLES):
            with stage.trial(trouble.name):

                async def act() -> None:
                    try:
                        await anyio.sleep_forever()
                    finally:
                        trouble.strike()

                part = await stage.play(Erratic, work, acts={"_on_stopped": act}, drain_timeout=0.001)
                failed(part.spoilt)
                assert part.recorder.get_status() is RecorderState.FAILURE
                assert part.recorder.statistics().hook_errors == 1
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@pytest.mark.usefixtures("no_patience")
def test_a_stop_hook_that_swallows_that_its_time_is_up(theatre: Theatre, home: str) -> None:
    """It has run out of time all the same."""

    async def act() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException:
            return

    async def scene(stage: Stage) -> None:
        part = await stage.play(Erratic, work, acts={"_on_stopped": act}, drain_timeout=0.001)
        failed(part.spoilt)
        assert part.recorder.get_status() is RecorderState.FAILURE
        assert part.recorder.statistics().hook_errors == 1
        await stage.neighbour_is_well()

    theatre.show(home, scene)


def failed(error: BaseException | None) -> None:
    """Check that ``error`` is about a stop hook."""
    assert any(isinstance(cause, RecorderOnStoppedHookFailedError) for cause in causes(error))


@pytest.mark.parametrize("behind", [0, 5])
@pytest.mark.parametrize("answer", ["passes on", "raises", "swallows"])
def test_a_change_hook_that_is_cut_by_the_end_of_the_drain(
    theatre: Theatre, home: str, behind: int, answer: str, tally: Tally
) -> None:
    """However it answers: the event is accounted for, what waits behind it is abandoned, and the stop says so."""

    async def scene(stage: Stage) -> None:
        troubles = theatre.some(TROUBLES)
        if answer != "raises":
            troubles = troubles[:1]
        elif not (behind or theatre.long):
            troubles = troubles[::4]
        for trouble in troubles:
            with stage.trial(trouble.name):
                await cut_short(stage, behind, answer, trouble)
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


async def cut_short(stage: Stage, behind: int, answer: str, trouble: Trouble) -> None:
    reached = False

    async def hook() -> None:
        nonlocal reached
        reached = True
        try:
            await anyio.sleep_forever()
        except BaseException:
            if answer == "raises":
                trouble.strike()
            if answer == "passes on":
                raise

    async def act(recorder: Erratic) -> None:
        recorder.register_metric(Count())
        for n in range(1 + behind):
            recorder.register_event(Tick(n))
        await auntil(lambda: reached)

    part = await stage.play(Erratic, act, acts={"_on_metric_changed": hook}, drain_timeout=0.001)
    timed_out = [cause for cause in causes(part.spoilt) if isinstance(cause, RecorderDrainTimeoutError)]
    assert timed_out
    statistics = part.recorder.statistics()
    assert balanced(statistics)
    assert statistics.processed >= 1
    assert timed_out[0].details["abandoned"] == statistics.abandoned == 1 + behind - statistics.processed
    assert part.recorder.log[-1] == "_on_stopped"
    assert part.recorder.log.count("_on_metric_changed") == statistics.processed == 1
