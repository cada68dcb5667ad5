"""observe() and generators of both kinds: what passes through them, and how they can end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import traceback
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

import anyio
import pytest

from mvx.common.metrics import Outcome, observe
from tests.emitting.stage import Clock, Component, Ended, Listener, stacks

is_anyio = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listener() -> Listener:
    return Listener()


class Thrown(Exception):
    """What a consumer throws into a generator."""


class Raised(Exception):
    """What a generator raises."""


# --- generators ----------------------------------------------------------------------------------


def echo() -> Generator[Any, Any, str]:
    """Yields what it is sent, and what is thrown into it; ends when it is sent or thrown an end."""
    answer: Any = "begin"
    while True:
        try:
            answer = yield answer
        except Thrown as exc:
            answer = exc
        if answer == "end":
            return "returned"
        if answer == "raise":
            raise Raised


def test_a_generator_function_stays_one(listener: Listener) -> None:
    """Also as a method, with a recorder and without, under its name."""

    class Reader(Component):
        @observe("_metrics", Ended)
        def rows(self, count: int) -> Iterator[int]:
            """Rows."""
            yield from range(count)

    for reader in (Reader(listener), Reader()):
        rows = reader.rows(3)
        assert inspect.isgeneratorfunction(reader.rows)
        assert inspect.isgenerator(rows)
        assert (rows.__name__, rows.__qualname__) == ("rows", Reader.rows.__qualname__)
        assert list(rows) == [0, 1, 2]
    assert inspect.signature(Reader.rows).return_annotation == "Iterator[int]"
    assert listener.told == [("ok", None)]


def test_a_generator_is_timed_from_its_first_step_to_its_end(listener: Listener, clock: Clock) -> None:
    """With what its consumer does meanwhile; not from the call."""

    @observe(listener, Ended, clock=clock)
    def rows() -> Iterator[int]:
        clock.passes(1.0)
        yield 1
        clock.passes(2.0)

    generator = rows()
    clock.passes(64.0)
    next(generator)
    clock.passes(16.0)
    assert listener.events == []
    assert next(generator, None) is None
    clock.passes(128.0)
    assert listener.only() == Outcome(status="ok", seconds=19.0, error=None)


def test_everything_passes_through_a_generator(listener: Listener) -> None:
    """What is sent, what is thrown, what is yielded, what is returned."""
    generator = observe(listener, Ended)(echo)()
    assert next(generator) == "begin"
    assert next(generator) is None
    for value in (7, None, "x"):
        assert generator.send(value) == value
    error = Thrown()
    assert generator.throw(error) is error
    with pytest.raises(StopIteration) as caught:
        generator.send("end")
    assert caught.value.value == "returned"
    assert listener.told == [("ok", None)]


def test_a_generator_that_raises(listener: Listener) -> None:
    """The exception passes, with one more frame."""
    generator = observe(listener, Ended)(echo)()
    next(generator)
    with pytest.raises(Raised) as caught:
        generator.send("raise")
    assert [entry.name for entry in caught.traceback][1:] == ["timed", "echo"]
    assert caught.value.__context__ is None
    assert listener.told == [("error", Raised)]


def test_what_is_thrown_and_not_caught_comes_out_as_it_went_in(listener: Listener) -> None:
    """The very object; its traceback has one frame more than without the wrapper."""
    error = ValueError()

    def throw_into(generator: Generator[Any, Any, Any]) -> list[str]:
        next(generator)
        try:
            raise error
        except ValueError:
            pass
        with pytest.raises(ValueError) as caught:
            generator.throw(error)
        assert caught.value is error
        assert error.__context__ is None
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        error.__traceback__ = None
        return names

    plain = throw_into(echo())
    names = throw_into(observe(listener, Ended)(echo)())
    assert names.count("timed") == 1
    assert [name for name in names if name != "timed"] == plain
    assert listener.told == [("error", ValueError)]


def test_what_a_generator_raises_later_has_no_foreign_context(listener: Listener) -> None:
    """An exception that was thrown into it, and dealt with, has nothing to do with what it raises then."""

    def body() -> Iterator[int]:
        try:
            yield 1
        except Thrown:
            pass
        raise Raised

    for function in (body, observe(listener, Ended)(body)):
        generator: Any = function()
        next(generator)
        with pytest.raises(Raised) as caught:
            generator.throw(Thrown())
        assert caught.value.__context__ is None


def test_stop_iteration_within_a_generator(listener: Listener) -> None:
    """Python makes a RuntimeError of it: raised by the body, or thrown into it."""

    @observe(listener, Ended)
    def rows() -> Iterator[int]:
        yield 1
        raise StopIteration(2)  # noqa: PLR1708 — that it does not end the generator is the point

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        list(rows())
    thrown: Any = rows()
    next(thrown)
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        thrown.throw(StopIteration(3))
    assert listener.told == [("error", RuntimeError)] * 2


def test_an_abandoned_generator_is_cancelled(listener: Listener, clock: Clock) -> None:
    """Closed, or dropped by a consumer that has had enough: no failure, and not the whole either."""

    @observe(listener, Ended, clock=clock)
    def rows() -> Iterator[int]:
        for n in range(100):
            clock.passes(1.0)
            yield n

    for n in rows():
        if n == 2:
            break
    gc.collect()
    generator: Any = rows()
    next(generator)
    generator.close()
    generator.close()
    assert listener.outcomes == [
        Outcome(status="cancelled", seconds=3.0, error=None),
        Outcome(status="cancelled", seconds=1.0, error=None),
    ]


def test_a_generator_that_never_began_tells_nothing(listener: Listener) -> None:
    """Dropped, closed or thrown into before its first step: there was no block."""
    rows: Any = observe(listener, Ended)(echo)
    rows()
    rows().close()
    with pytest.raises(Thrown):
        rows().throw(Thrown())
    with pytest.raises(TypeError, match="just-started generator"):
        rows().send(3)
    gc.collect()
    assert listener.events == []


def test_a_generator_that_sees_to_its_end_itself(listener: Listener) -> None:
    """Told to close, it returns: it has ended well; close() returns its value where Python's does."""

    def rows() -> Generator[int, None, str]:
        try:
            yield 1
        except GeneratorExit:
            return "closed"
        return "ended"

    timed = observe(listener, Ended)(rows)
    plain_generator, generator = rows(), timed()
    next(plain_generator)
    next(generator)
    closed: Any = generator.close
    plain_closed: Any = plain_generator.close
    assert closed() == plain_closed()
    assert listener.told == [("ok", None)]


def test_a_generator_that_fails_to_close(listener: Listener) -> None:
    """Its error comes out of close()."""

    @observe(listener, Ended)
    def rows() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise Raised

    generator: Any = rows()
    next(generator)
    with pytest.raises(Raised):
        generator.close()
    assert listener.told == [("error", Raised)]


def test_a_generator_that_will_not_close(listener: Listener) -> None:
    """Python complains, as of any; it has not ended, so nothing is told before it does."""

    @observe(listener, Ended)
    def rows() -> Iterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1
        yield 2

    generator: Any = rows()
    next(generator)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        generator.close()
    assert listener.events == []
    assert next(generator, None) is None
    assert listener.told == [("ok", None)]


def test_a_thrown_generator_exit_may_be_answered(listener: Listener) -> None:
    """By another item, as undecorated; ``yield from`` would have closed the body."""

    def rows() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator: Any = observe(listener, Ended)(rows)()
    assert (next(generator), generator.throw(GeneratorExit())) == (1, 2)
    assert list(generator) == []
    assert listener.told == [("ok", None)]


def test_delegation_to_a_timed_generator(listener: Listener) -> None:
    """``yield from`` gets everything through it, the return value included."""

    def outer() -> Generator[Any, Any, str]:
        result = yield from observe(listener, Ended)(echo)()
        return f"got {result}"

    generator = outer()
    next(generator)
    assert generator.send(7) == 7
    with pytest.raises(StopIteration) as caught:
        generator.send("end")
    assert caught.value.value == "got returned"


def test_a_timed_generator_keeps_nothing_alive(listener: Listener) -> None:
    """Neither the last item, nor an exception that came through it; no cycle is left for the collector."""

    class Item:
        pass

    @observe(listener, Ended)
    def rows() -> Generator[Item, Any, None]:
        while True:
            with contextlib.suppress(Thrown):
                yield Item()

    gc.collect()
    gc.disable()
    try:
        generator: Any = rows()
        item = weakref.ref(next(generator))
        assert item() is None
        error = Thrown()
        gone = weakref.ref(error)
        generator.throw(error)
        del error
        next(generator)
        assert gone() is None
        last = Raised()
        gone_too = weakref.ref(last)
        try:
            generator.throw(last)
        except Raised:
            pass
        del last
        assert gone_too() is None
    finally:
        gc.enable()


def test_the_end_of_the_stack_ends_a_generator(listener: Listener) -> None:
    """As undecorated: it cannot be resumed where there is no room for it, and is no more afterwards."""

    def rows() -> Iterator[int]:
        while True:
            yield 1

    def is_alive_after(generator: Iterator[int], limit: int) -> bool:
        next(generator)

        def deep() -> None:
            next(generator)
            deep()

        before = sys.getrecursionlimit()
        sys.setrecursionlimit(limit)
        try:
            with pytest.raises(RecursionError):
                deep()
        finally:
            sys.setrecursionlimit(before)
        return next(generator, None) is not None

    timed = observe(listener, Ended)(rows)
    # At every place of the call the stack ends once.
    alive = [is_alive_after(timed(), limit) for limit in stacks(12)]
    assert {"cancelled" if outcome.status == "cancelled" else outcome.error for outcome in listener.outcomes} <= {
        RecursionError,
        "cancelled",
    }
    assert not all(alive)


def test_generators_at_once_do_not_mix(listener: Listener, clock: Clock) -> None:
    """Each has its own time."""

    @observe(listener, Ended, clock=clock)
    def rows(count: int) -> Iterator[int]:
        for n in range(count):
            clock.passes(1.0)
            yield n

    pairs = list(zip(rows(2), rows(3), strict=False))
    assert len(pairs) == 2
    gc.collect()
    assert sorted(listener.told, key=str) == [("cancelled", None), ("ok", None)]


def test_wrong_arguments_of_a_generator(listener: Listener) -> None:
    """They come to light at the first step; nothing had begun."""
    rows: Any = observe(listener, Ended)(echo)
    with pytest.raises(TypeError, match=r"echo\(\) takes 0 positional arguments but 1 was given"):
        next(rows(1))
    assert listener.events == []


# --- async generators ----------------------------------------------------------------------------


async def aecho() -> AsyncGenerator[Any, Any]:
    """The same, with a suspension at every step."""
    answer: Any = "begin"
    while True:
        try:
            answer = yield answer
        except Thrown as exc:
            answer = exc
        await anyio.sleep(0)
        if answer == "end":
            return
        if answer == "raise":
            raise Raised


def step(awaitable: Any) -> Any:
    """Drive an awaitable that does not suspend, without any event loop."""
    try:
        awaitable.__await__().send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it suspended")


@is_anyio
async def test_an_async_generator_function_stays_one(listener: Listener) -> None:
    """Also as a method, with a recorder and without, under its name."""

    class Reader(Component):
        @observe("_metrics", Ended)
        async def rows(self, count: int) -> AsyncIterator[int]:
            for n in range(count):
                await anyio.sleep(0)
                yield n

    for reader in (Reader(listener), Reader()):
        rows: Any = reader.rows(3)
        assert inspect.isasyncgenfunction(reader.rows)
        assert inspect.isasyncgen(rows)
        assert (rows.__name__, rows.__qualname__) == ("rows", Reader.rows.__qualname__)
        assert [n async for n in rows] == [0, 1, 2]
    assert listener.told == [("ok", None)]


@is_anyio
async def test_an_async_generator_is_timed_from_its_first_step_to_its_end(listener: Listener, clock: Clock) -> None:
    """With what it waits for, and what its consumer does meanwhile."""

    @observe(listener, Ended, clock=clock)
    async def rows() -> AsyncIterator[int]:
        clock.passes(1.0)
        yield 1
        clock.passes(2.0)

    generator: Any = rows()
    clock.passes(64.0)
    async for _ in generator:
        clock.passes(16.0)
        assert listener.events == []
    assert listener.only() == Outcome(status="ok", seconds=19.0, error=None)


@is_anyio
async def test_everything_passes_through_an_async_generator(listener: Listener) -> None:
    """What is sent, what is thrown, what is yielded, and its end."""
    generator = observe(listener, Ended)(aecho)()
    assert await anext(generator) == "begin"
    assert await anext(generator) is None
    for value in (7, None, "x"):
        assert await generator.asend(value) == value
    error = Thrown()
    assert await generator.athrow(error) is error
    with pytest.raises(StopAsyncIteration):
        await generator.asend("end")
    assert listener.told == [("ok", None)]


@is_anyio
async def test_an_async_generator_that_raises(listener: Listener) -> None:
    """The exception passes, with one more frame, and no other context."""
    generator = observe(listener, Ended)(aecho)()
    await anext(generator)
    with pytest.raises(Raised) as caught:
        await generator.asend("raise")
    assert [entry.name for entry in caught.traceback][1:] == ["timed", "aecho"]
    assert caught.value.__context__ is None
    assert listener.told == [("error", Raised)]


@is_anyio
async def test_what_is_thrown_into_an_async_generator_comes_out_as_it_went_in(listener: Listener) -> None:
    """The very object; one frame more."""
    error = ValueError()
    generator = observe(listener, Ended)(aecho)()
    await anext(generator)
    with pytest.raises(ValueError) as caught:
        await generator.athrow(error)
    assert caught.value is error
    assert error.__context__ is None
    assert [entry.name for entry in caught.traceback][1:] == ["timed", "aecho"]
    assert listener.told == [("error", ValueError)]


@is_anyio
async def test_what_an_async_generator_raises_later_has_no_foreign_context(listener: Listener) -> None:
    """As with generators."""

    @observe(listener, Ended)
    async def body() -> AsyncIterator[int]:
        try:
            yield 1
        except Thrown:
            pass
        raise Raised

    generator: Any = body()
    await anext(generator)
    with pytest.raises(Raised) as caught:
        await generator.athrow(Thrown())
    assert caught.value.__context__ is None


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
@is_anyio
async def test_the_end_of_an_iteration_within_an_async_generator(kind: type[Exception], listener: Listener) -> None:
    """Python makes a RuntimeError of it: raised by the body, or thrown into it."""

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        yield 1
        raise kind

    with pytest.raises(RuntimeError, match="async generator raised"):
        async for _ in rows():
            pass
    thrown: Any = rows()
    await anext(thrown)
    with pytest.raises(RuntimeError, match="async generator raised"):
        await thrown.athrow(kind())
    assert listener.told == [("error", RuntimeError)] * 2


@is_anyio
async def test_an_async_generator_that_is_closed_is_cancelled(listener: Listener) -> None:
    """By ``aclose()``, which waits until the body has cleaned up, awaiting as it likes."""
    log = []

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(0)
            log.append("cleaned up")

    generator: Any = rows()
    await anext(generator)
    await generator.aclose()
    await generator.aclose()
    assert log == ["cleaned up"]
    assert listener.told == [("cancelled", None)]


@is_anyio
async def test_an_async_generator_that_never_began_tells_nothing(listener: Listener) -> None:
    """Closed or thrown into before its first step."""
    rows: Any = observe(listener, Ended)(aecho)
    await rows().aclose()
    with pytest.raises(Thrown):
        await rows().athrow(Thrown())
    assert listener.events == []


@is_anyio
async def test_an_async_generator_that_sees_to_its_end_itself(listener: Listener) -> None:
    """Told to close, it returns: it has ended well."""

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1

    generator: Any = rows()
    await anext(generator)
    await generator.aclose()
    assert listener.told == [("ok", None)]


@is_anyio
async def test_an_async_generator_that_will_not_close(listener: Listener) -> None:
    """Python complains, as of any."""

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1
        yield 2

    generator: Any = rows()
    await anext(generator)
    with pytest.raises(RuntimeError, match="async generator ignored GeneratorExit"):
        await generator.aclose()
    assert listener.events == []


@is_anyio
async def test_a_scope_that_is_cancelled_within_an_async_generator(listener: Listener) -> None:
    """The cancellation hits the body where it waits, and passes."""
    log = []

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        yield 1
        try:
            await anyio.sleep_forever()
        finally:
            log.append("told")

    with anyio.move_on_after(0.01) as scope:
        async for _ in rows():
            pass
    assert scope.cancelled_caught
    assert log == ["told"]
    assert listener.told == [("cancelled", None)]


@is_anyio
async def test_a_native_cancellation_within_an_async_generator(
    listener: Listener, anyio_backend: tuple[str, Any]
) -> None:
    """Task.cancel()."""
    if anyio_backend[0] != "asyncio":
        pytest.skip("this is asyncio's own")

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        await asyncio.sleep(60)
        yield 1

    async def consume() -> None:
        async for _ in rows():
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert listener.told == [("cancelled", None)]


@is_anyio
async def test_a_consumer_that_is_cancelled_leaves_the_generator_to_be_closed(listener: Listener) -> None:
    """The cancellation hits the consumer; the generator it was at work on is closed by whoever sees to that."""

    @observe(listener, Ended)
    async def rows() -> AsyncGenerator[int, None]:
        while True:
            yield 1

    with anyio.move_on_after(0.01):
        async with contextlib.aclosing(rows()) as items:
            async for _ in items:
                await anyio.sleep_forever()
    assert listener.told == [("cancelled", None)]


@is_anyio
async def test_a_timed_async_generator_keeps_nothing_alive(listener: Listener) -> None:
    """Neither the last item, nor an exception that came through it."""

    class Item:
        pass

    @observe(listener, Ended)
    async def rows() -> AsyncGenerator[Item, Any]:
        while True:
            with contextlib.suppress(Thrown):
                yield Item()

    generator = rows()
    item = weakref.ref(await anext(generator))
    assert item() is None
    error = Thrown()
    gone = weakref.ref(error)
    await generator.athrow(error)
    del error
    await anext(generator)
    assert gone() is None
    await generator.aclose()


def test_an_async_generator_that_fails_leaves_no_cycle(listener: Listener) -> None:
    """What it raises, or lets pass, goes without the collector's help."""
    gc.collect()
    gc.disable()
    try:
        generator = observe(listener, Ended)(aecho)()
        step(anext(generator))
        error = Raised()
        gone = weakref.ref(error)
        try:
            # Not by step(): its frame would hold what it drives, and that the exception.
            generator.athrow(error).__await__().send(None)
        except Raised:
            pass
        del error
        assert gone() is None
    finally:
        gc.enable()


def test_an_event_loop_sees_one_generator_and_not_two(listener: Listener) -> None:
    """The wrapper; it sees to the body, which nobody else must close at the same time."""
    seen: list[Any] = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(seen.append, lambda generator: None)
    try:
        generator = observe(listener, Ended)(aecho)()
        step(anext(generator))
        assert seen == [generator]
        assert sys.get_asyncgen_hooks().firstiter is not None
        with pytest.raises(StopIteration):
            generator.aclose().__await__().send(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert listener.told == [("cancelled", None)]


@pytest.mark.parametrize("awaiting", [False, True], ids=["at once", "awaiting"])
def test_an_async_generator_that_is_left_open_is_closed_with_its_loop(
    awaiting: bool, listener: Listener, anyio_backend: tuple[str, Any]
) -> None:
    """By asyncio and trio, without a complaint of theirs, also if the body awaits in its clean-up."""
    log, complaints = [], []

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            if awaiting:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0)
            log.append("cleaned up")

    kept: list[Any] = []

    async def main() -> None:
        if anyio_backend[0] == "asyncio":
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        for _ in range(5):
            generator: Any = rows()
            kept.append(generator)
            await anext(generator)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        anyio.run(main, backend=anyio_backend[0], backend_options=anyio_backend[1])
    assert complaints == []
    assert [str(warning.message) for warning in caught if "shield" not in str(warning.message)] == []
    if awaiting and anyio_backend[0] == "trio":
        # trio lets nobody await while it closes what was left open: it cancels that.
        assert len(listener.told) == 5
        return
    assert log == ["cleaned up"] * 5
    assert listener.told == [("cancelled", None)] * 5


@is_anyio
async def test_an_async_generator_as_a_context_manager(listener: Listener, clock: Clock) -> None:
    """Below ``@asynccontextmanager``, with the outcome of its block."""

    @contextlib.asynccontextmanager
    @observe(listener, Ended, clock=clock)
    async def opened() -> AsyncIterator[int]:
        yield 3

    async with opened() as number:
        clock.passes(float(number))
    error = ValueError()
    with pytest.raises(ValueError) as caught:
        async with opened():
            raise error
    assert caught.value is error
    with anyio.move_on_after(0):
        async with opened():
            await anyio.sleep_forever()
    assert listener.outcomes == [
        Outcome(status="ok", seconds=3.0, error=None),
        Outcome(status="error", seconds=0.0, error=ValueError),
        Outcome(status="cancelled", seconds=0.0, error=None),
    ]


@is_anyio
async def test_an_async_generator_that_two_tasks_want_at_once(listener: Listener) -> None:
    """Python refuses, as undecorated."""

    @observe(listener, Ended)
    async def rows() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 1

    generator: Any = rows()

    async def first() -> None:
        await anext(generator)

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="already running"):
            await anext(generator)
        group.cancel_scope.cancel()
    assert listener.told == [("cancelled", None)]
