"""observe() and coroutines: what they are, how long they take, and every way of being cancelled."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import signal
import types
import warnings
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from mvx.common.metrics import MetricsEmitter, MetricsRecorder, Outcome, observe
from tests.emitting.stage import Clock, Component, Ended, Listener, logged
from tests.support import DEADLINE, Seen, virgin

pytestmark = pytest.mark.anyio

Work = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def only_asyncio(anyio_backend: tuple[str, Any]) -> None:
    if anyio_backend[0] != "asyncio":
        pytest.skip("this is asyncio's own")


async def forever() -> None:
    await anyio.sleep_forever()


def forms_of(listener: Listener) -> dict[str, Callable[[Work], Coroutine[Any, Any, Any]]]:
    """The ways of timing what is awaited."""
    timed = observe(listener, Ended)

    async def block(work: Work) -> Any:
        with timed:
            return await work()

    async def asynchronous_block(work: Work) -> Any:
        async with timed:
            return await work()

    class Worker(Component):
        @observe("_metrics", Ended)
        async def run(self, work: Work) -> Any:
            return await work()

    @timed
    async def function(work: Work) -> Any:
        return await work()

    return {
        "block": block,
        "asynchronous block": asynchronous_block,
        "function": function,
        "method": Worker(listener).run,
    }


FORMS = ("block", "asynchronous block", "function", "method")
every_form = pytest.mark.parametrize("form", FORMS)


# --- what it is ----------------------------------------------------------------------------------


async def test_a_coroutine_function_stays_one(listener: Listener) -> None:
    """Also as a method, a class method, a partial, and an object with such a ``__call__``."""

    class Worker(Component):
        @observe("_metrics", Ended)
        async def work(self, one: int) -> int:
            """Work."""
            return one

        @classmethod
        @observe(listener, Ended)
        async def shared(cls, one: int) -> int:
            return one

    class Callable_:
        async def __call__(self, one: int) -> int:
            return one

    async def work(one: int) -> int:
        return one

    timed = observe(listener, Ended)
    for function in (
        Worker(listener).work,
        Worker.shared,
        timed(work),
        timed(functools.partial(work)),
        timed(Callable_()),
        timed(Worker().work),
    ):
        assert inspect.iscoroutinefunction(function)
        assert await function(3) == 3
    assert len(listener.events) == 6
    assert str(inspect.signature(Worker.work)) == "(self, one: 'int') -> 'int'"
    assert Worker.work.__doc__ == "Work."


async def test_a_coroutine_is_timed_until_it_has_ended(listener: Listener, clock: Clock) -> None:
    """What it waits for included; not from the call, nor to the call's return."""
    reached, gate = anyio.Event(), anyio.Event()

    @observe(listener, Ended, clock=clock)
    async def work() -> str:
        clock.passes(1.0)
        reached.set()
        await gate.wait()
        return "done"

    coroutine = work()
    clock.passes(16.0)
    results = []

    async def run() -> None:
        results.append(await coroutine)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await reached.wait()
        clock.passes(2.0)
        assert listener.events == []
        gate.set()
    assert results == ["done"]
    assert listener.only() == Outcome(status="ok", seconds=3.0, error=None)


@every_form
async def test_an_exception_passes(form: str, listener: Listener) -> None:
    """The very object, without another context."""
    error = OSError("x")

    async def fail() -> None:
        await anyio.sleep(0)
        raise error

    with pytest.raises(OSError) as caught:
        await forms_of(listener)[form](fail)
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert listener.told == [("error", OSError)]


async def test_a_traceback_is_longer_by_the_wrapper_only(listener: Listener) -> None:
    """One frame."""

    @observe(listener, Ended)
    async def work() -> None:
        raise OSError

    with pytest.raises(OSError) as caught:
        await work()
    assert [entry.name for entry in caught.traceback][1:] == ["timed", "work"]


async def test_a_coroutine_that_nobody_awaits_tells_nothing(listener: Listener) -> None:
    """It has never begun; Python warns of it by its name."""

    @observe(listener, Ended)
    async def work() -> None: ...

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        coroutine = work()
        del coroutine
        gc.collect()
    assert ["work' was never awaited" in str(warning.message) for warning in caught] == [True]
    work().close()
    assert listener.events == []


async def test_a_coroutine_that_is_closed_is_cancelled(listener: Listener) -> None:
    """By whoever gives it up midway."""

    @types.coroutine
    def suspended() -> Generator[None, None, None]:
        yield

    @observe(listener, Ended)
    async def work() -> None:
        await suspended()

    coroutine: Coroutine[Any, Any, None] = work()
    coroutine.send(None)
    coroutine.close()
    assert listener.told == [("cancelled", None)]


async def test_a_plain_function_that_returns_a_coroutine_is_a_mistake(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind another decorator: its time would be wrong, so there is none, and the log says what to do."""

    async def work() -> int:
        return 3

    def hidden(*args: Any) -> Coroutine[Any, Any, int]:
        return work(*args)

    emitter = MetricsEmitter(listener)
    assert await observe(emitter, Ended)(hidden)() == 3
    assert (listener.events, emitter.swallowed) == ([], 1)
    assert logged(caplog, "put observe() right above 'async def'")


async def test_an_awaitable_generator_stays_one(listener: Listener, clock: Clock) -> None:
    """What ``types.coroutine`` makes can be awaited, and is timed until its end."""

    @observe(listener, Ended, clock=clock)
    @types.coroutine
    def work() -> Generator[Any, Any, int]:
        clock.passes(1.0)
        yield from anyio.sleep(0).__await__()
        clock.passes(2.0)
        return 3

    assert await work() == 3
    assert listener.only() == Outcome(status="ok", seconds=3.0, error=None)


# --- cancellation --------------------------------------------------------------------------------


@every_form
async def test_a_scope_that_is_cancelled(form: str, listener: Listener) -> None:
    """anyio's scopes, on every backend; the cancellation passes, and is no failure."""
    with anyio.move_on_after(0) as scope:
        await forms_of(listener)[form](forever)
    assert scope.cancelled_caught
    assert listener.told == [("cancelled", None)]


@every_form
async def test_a_task_group_that_is_cancelled(form: str, listener: Listener) -> None:
    """Each of its tasks is."""
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(forms_of(listener)[form], forever)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert listener.told == [("cancelled", None)] * 3


@every_form
async def test_a_sibling_that_fails_cancels(form: str, listener: Listener) -> None:
    """The one that fails has an error, the others do not."""

    async def fail() -> None:
        await anyio.wait_all_tasks_blocked()
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as group:
            group.start_soon(forms_of(listener)[form], forever)
            group.start_soon(forms_of(listener)[form], fail)
    assert sorted(listener.told, key=str) == [("cancelled", None), ("error", ValueError)]


@every_form
async def test_a_task_group_within_is_cancelled_from_without(form: str, listener: Listener) -> None:
    """However many tasks were cancelled in it, and whether that comes as a group or not."""

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(forever)
            group.start_soon(forever)
            await forever()

    with anyio.move_on_after(0):
        await forms_of(listener)[form](work)
    assert listener.told == [("cancelled", None)]


@every_form
async def test_a_failure_among_cancellations_is_an_error(form: str, listener: Listener) -> None:
    """A group that holds one."""

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            raise OSError

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail_when_cancelled)
            await forever()

    with pytest.raises(BaseExceptionGroup), anyio.move_on_after(0.01):
        await forms_of(listener)[form](work)
    ((status, error),) = listener.told
    assert status == "error"
    assert error is not None
    assert issubclass(error, BaseExceptionGroup)


@every_form
async def test_a_scope_within_ends_well(form: str, listener: Listener) -> None:
    """A cancellation that does not leave the block is its own business."""

    async def work() -> None:
        with anyio.move_on_after(0):
            await forever()

    await forms_of(listener)[form](work)
    assert listener.told == [("ok", None)]


@every_form
async def test_a_timeout_is_an_error_outside_and_a_cancellation_inside(form: str, listener: Listener) -> None:
    """``fail_after`` turns the one into the other."""

    async def inside() -> None:
        await forms_of(listener)[form](forever)

    async def outside() -> None:
        with anyio.fail_after(0):
            await inside()

    with pytest.raises(TimeoutError):
        await forms_of(listener)[form](outside)
    assert listener.told == [("cancelled", None), ("error", TimeoutError)]


@every_form
async def test_a_cancellation_that_is_delivered_again_and_again(form: str, listener: Listener) -> None:
    """Each block on the way out is cancelled; one that swallows it, and goes on, meets it again."""
    run = forms_of(listener)[form]
    cancelled = anyio.get_cancelled_exc_class()

    async def stubborn() -> None:
        try:
            await forever()
        except cancelled:
            await anyio.sleep(0)  # under level cancellation, this raises at once

    with anyio.move_on_after(0) as scope:
        await run(functools.partial(run, stubborn))
    assert scope.cancelled_caught
    assert listener.told == [("cancelled", None)] * 2


@every_form
async def test_the_event_gets_out_of_a_cancelled_block(form: str) -> None:
    """To a real recorder, without a checkpoint that would be cancelled itself."""
    async with virgin("loop", MetricsRecorder, "x") as recorder:
        seen = Seen()
        recorder.register_metric(seen)
        listener: Any = recorder
        with anyio.move_on_after(0):
            await forms_of(listener)[form](forever)
        await recorder.flush()
        assert [event.outcome.status for event in seen.events if isinstance(event, Ended)] == ["cancelled"]


@every_form
async def test_a_native_cancellation(form: str, listener: Listener, only_asyncio: None) -> None:
    """Task.cancel(): the task is cancelled, message and all."""
    task = asyncio.ensure_future(forms_of(listener)[form](forever))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert task.cancelled()
    assert listener.told == [("cancelled", None)]


@every_form
async def test_a_native_timeout(form: str, listener: Listener, only_asyncio: None) -> None:
    """asyncio.timeout() and wait_for()."""
    run = forms_of(listener)[form]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await run(forever)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(forever), 0.001)
    assert listener.told == [("cancelled", None)] * 2


@every_form
async def test_a_native_task_group(form: str, listener: Listener, only_asyncio: None) -> None:
    """asyncio.TaskGroup cancels the siblings of one that fails; the group itself is an error around them."""
    run = forms_of(listener)[form]

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run(forever))
            group.create_task(run(fail))

    with pytest.raises(ExceptionGroup):
        await run(work)
    assert sorted(listener.told, key=str) == [("cancelled", None), ("error", ExceptionGroup), ("error", ValueError)]


@every_form
async def test_a_cancelled_task_that_goes_on(form: str, listener: Listener, only_asyncio: None) -> None:
    """``uncancel()``: the block has ended well."""

    async def work() -> int:
        try:
            await forever()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        return 3

    task = asyncio.ensure_future(forms_of(listener)[form](work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    assert await task == 3
    assert listener.told == [("ok", None)]


@every_form
async def test_trios_own_cancellation(form: str, listener: Listener, anyio_backend: tuple[str, Any]) -> None:
    """A nursery of trio itself, which wraps even one cancellation in a group where it is strict."""
    if anyio_backend[0] != "trio":
        pytest.skip("this is trio's own")
    trio = pytest.importorskip("trio")

    async def work() -> None:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    with trio.move_on_after(0):
        await forms_of(listener)[form](work)
    assert listener.told == [("cancelled", None)]


def test_ctrl_c_is_a_cancellation_under_either_backend(anyio_backend: tuple[str, Any], listener: Listener) -> None:
    """It cancels the main task under asyncio, and hits it under trio."""

    async def work() -> None:
        with observe(listener, Ended):
            signal.raise_signal(signal.SIGINT)
            with anyio.fail_after(DEADLINE):
                await forever()

    with pytest.raises(KeyboardInterrupt):
        anyio.run(work, backend=anyio_backend[0])
    assert listener.told == [("cancelled", None)]
