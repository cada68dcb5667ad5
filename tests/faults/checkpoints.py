"""Cancel at every checkpoint: run a scenario again and again, and cancel it at its first suspension, its second, and so on.

A driver stands between the event loop and a coroutine, passes on whatever the coroutine suspends itself with, and
counts.  At a chosen suspension it strikes, by one of several means.  A sweep goes on until the chosen suspension is
no longer reached, so that no place where the scenario can be cancelled is left out.
"""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio
import pytest

from mvx.common.metrics._actor import ActorRun
from mvx.common.metrics._hub import hub_of
from mvx.common.metrics._waiting import current_loop
from tests.support import DEADLINE

T = TypeVar("T")

ACTOR = ActorRun, "_main"
"""What a recorder's own task does, from start to end."""


@dataclass(slots=True)
class Victim:
    """The task that has come to the chosen suspension, about to suspend itself."""

    scope: anyio.CancelScope | None
    trap: object
    """What it tells the event loop: under asyncio a future, or None to be resumed in the next turn."""

    @property
    def task(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        return task


class Blow(Protocol):
    """Deals with a victim; called inside its task."""

    def __call__(self, victim: Victim, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """A way of ending a wait."""

    name: str
    blow: Blow
    native: bool = False
    """Whether it is a ``Task.cancel()``, which no shield stops and nobody may swallow."""
    scoped: bool = False
    """Whether the victim needs a scope around it."""
    closes: bool = False
    """Whether the coroutine is closed at the suspension instead of being cancelled there."""
    again: int = 0
    """How many suspensions later it strikes once more; 0 for never."""
    later: int = 0
    """How many turns of the loop pass between the suspension and the blow."""

    def __str__(self) -> str:
        return self.name


def soon(call: Callable[[], object], turns: int = 0) -> None:
    """Call ``call`` when the current task has suspended itself, and ``turns`` turns of the loop have passed."""
    if current_loop().backend == "trio":
        call()  # which looks for a cancellation when the task suspends itself, and delivers it there and then
    elif turns:
        asyncio.get_running_loop().call_soon(soon, call, turns - 1)
    else:
        asyncio.get_running_loop().call_soon(call)


def _scope(victim: Victim) -> None:
    assert victim.scope is not None
    soon(victim.scope.cancel)


def _native(victim: Victim) -> None:
    soon(victim.task.cancel)


def _at_once(victim: Victim) -> None:
    victim.task.cancel()


def _twice(victim: Victim) -> None:
    soon(victim.task.cancel)
    soon(victim.task.cancel)


def _as_the_wait_ends(victim: Victim) -> None:
    """Cancel between the moment when what is waited for has come, and the moment when the task learns of it."""
    task = victim.task
    if isinstance(victim.trap, asyncio.Future):
        victim.trap.add_done_callback(lambda _: task.cancel())
    else:
        soon(task.cancel)


def _late(turns: int) -> Blow:
    def blow(victim: Victim) -> None:
        soon(victim.task.cancel, turns)

    return blow


def _nothing(victim: Victim) -> None:
    pass


BY_SCOPE = Means("by scope", _scope, scoped=True)
BY_TASK_CANCEL = Means("by Task.cancel()", _native, native=True)
BY_CLOSING = Means("by closing the coroutine", _nothing, closes=True)


def means(backend: str, *, many: bool = False) -> tuple[Means, ...]:
    """Return the ways of cancelling a task of a backend.

    :param many: whether also those that seldom tell anything new
    """
    if backend == "trio":
        return (BY_SCOPE,)
    return (
        BY_SCOPE,
        BY_TASK_CANCEL,
        Means("by Task.cancel() twice in a turn", _twice, native=True),
        Means("by Task.cancel() as the wait ends", _as_the_wait_ends, native=True),
        *(
            Means(f"by Task.cancel(), again {k} suspensions later", _native, native=True, again=k)
            for k in range(1, 13 if many else 3)
        ),
        *(
            (
                Means("by Task.cancel() in its own step", _at_once, native=True),
                *(Means(f"by Task.cancel() {k} turns later", _late(k), native=True, later=k) for k in range(1, 5)),
            )
            if many
            else ()
        ),
    )


class Closed(BaseException):
    """The coroutine was closed at the chosen suspension."""


@types.coroutine
def _driven(coroutine: Coroutine[Any, Any, T], suspending: Callable[[object], None]) -> Generator[Any, Any, T]:
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            trap = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            error = None  # or its traceback would refer to this frame, and this frame to it
        try:
            suspending(trap)
            value = yield trap
        except Closed:
            coroutine.close()
            raise
        except BaseException as exc:
            error = exc


class Strike:
    """One run of a scenario, struck at the ``at``-th suspension of what is driven."""

    def __init__(self, means: Means, at: int) -> None:
        self.means = means
        self.at = at
        self.passed = 0
        """How many suspensions there were so far, of all the tasks driven."""
        self.struck = 0
        """How often it has struck."""

    def __str__(self) -> str:
        return f"at suspension {self.at}, {self.means}"

    async def drive(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Await ``coroutine`` in the current task; None if the scope around it has caught the cancellation."""
        if self.means.scoped:
            with anyio.CancelScope() as scope:
                return await self._drive(coroutine, scope)
            return None
        return await self._drive(coroutine, None)

    async def _drive(self, coroutine: Coroutine[Any, Any, T], scope: anyio.CancelScope | None) -> T | None:
        def suspending(trap: object) -> None:
            self.passed += 1
            if self.passed == self.at or (self.struck and self.passed == self.at + self.means.again):
                self.struck += 1
                if self.means.closes:
                    raise Closed
                self.means.blow(Victim(scope, trap))

        try:
            return await _driven(coroutine, suspending)
        except Closed:
            return None

    async def in_task(self, coroutine: Coroutine[Any, Any, T]) -> bool:
        """Await ``coroutine``, driven, in a task of its own where that can be cancelled; return whether it got to its end.

        A native cancellation must come out at the end: a library that swallowed it would break the time-outs of its
        users.
        """
        ended = False

        async def body() -> None:
            nonlocal ended
            await coroutine
            ended = True

        if current_loop().backend == "trio":
            await self.drive(body())
            return ended
        task = asyncio.get_running_loop().create_task(self.drive(body()), name="driven")
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # does nothing, but for a test that has failed
        if task.cancelled():
            assert self.struck, "cancelled by nobody"
        else:
            task.result()
            assert not (self.means.native and self.struck and not self.means.later), "the cancellation was swallowed"
        return ended


class Sweep:
    """Strikes at the first suspension, the second, and so on, until there is none; counts the strikes by means."""

    def __init__(self, *means: Means) -> None:
        self.means = means
        self.tried: dict[str, int] = {}

    def __iter__(self) -> Iterator[Strike]:
        """Give one strike after the other, each to be carried out before the next."""
        for one in self.means:
            for at in itertools.count(1):
                strike = Strike(one, at)
                yield strike
                if not strike.struck:
                    break
                self.tried[one.name] = self.tried.get(one.name, 0) + 1
                assert at < 2_000, "the scenario does not end"

    def record(self, tally: Callable[..., None], what: str, *, at_least: int = 1) -> None:
        """Put the numbers on record; fail if a means was hardly ever used, since then the scenario never suspends.

        :param at_least: how many suspensions the scenario has whatever happens
        """
        for one in self.means:
            tried = self.tried.get(one.name, 0)
            assert tried >= at_least, f"only {tried} suspensions cancelled {one}"
            # The same row of the record for "again 3 suspensions later" and "again 4 suspensions later".
            tally(f"{what} {_general(one)}", tried)


def _general(one: Means) -> str:
    if one.again:
        return "by Task.cancel(), and again some suspensions later"
    return "by Task.cancel() some turns later" if one.later else one.name


@contextmanager
def telling(*circumstances: object) -> Iterator[None]:
    """Add to a failure under which circumstances it came about."""
    try:
        yield
    except BaseException as exc:
        exc.add_note("in: " + ", ".join(map(str, circumstances)))
        raise


@contextmanager
def in_time(*circumstances: object) -> Iterator[None]:
    """Likewise, and take a hang for a failure."""
    with telling(*circumstances), anyio.fail_after(DEADLINE):
        yield


def living_tasks() -> int:
    """Return how many tasks there are on the current loop."""
    if current_loop().backend == "trio":
        import trio  # noqa: PLC0415 — is running, so it is there

        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """Wait at the end until there are no more tasks on this loop than at the beginning."""
    hub = hub_of(current_loop())  # under trio it keeps a task of its own for as long as the loop runs
    before = living_tasks()
    yield
    del hub
    with anyio.fail_after(DEADLINE):
        while living_tasks() > before:
            await anyio.sleep(0)


def drive_tasks(
    loop: asyncio.AbstractEventLoop, strike: Callable[[], Strike | None], *, names: tuple[str, ...] = ("mvx", "trial")
) -> None:
    """Have a loop of asyncio drive every task from now on whose name begins like one of these, each by the strike of the moment."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        async def body() -> object:
            # Only now has the task got its name.
            task, current = asyncio.current_task(), strike()
            if current is None or task is None or not task.get_name().startswith(names):
                return await coroutine
            return await current.drive(coroutine)

        task = asyncio.Task(body(), loop=loop, **options)
        task.add_done_callback(lambda _: coroutine.close())  # it may never have been awaited
        return task

    loop.set_task_factory(factory)


def driving(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> Callable[[Strike], None]:
    """Drive every call of an async method; the strike to drive it by is told anew for each run of a scenario."""
    original: Callable[..., Coroutine[Any, Any, object]] = getattr(owner, method)
    current: list[Strike] = []

    def driven(self: object) -> Awaitable[object]:
        return current[-1].drive(original(self)) if current else original(self)

    monkeypatch.setattr(owner, method, driven)

    def use(strike: Strike) -> None:
        current[:] = [strike]

    return use
