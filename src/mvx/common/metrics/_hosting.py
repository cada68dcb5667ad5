"""Where a recorder's actor lives: on a loop, in a task group, or in a runtime.

The actor and its user cannot tell the three apart, except by where hooks run and by who else can
end the actor.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Protocol

from anyio.abc import TaskGroup

from ._backends import LoopGoneError, running_loop
from ._hub import LoopHub, hub_of
from ._interpreter import REFUSAL, in_subinterpreter
from .errors import RecorderLoopUnavailableError

Main = Callable[[], Coroutine[Any, Any, None]]


class Home(Protocol):
    """A place where an actor can run."""

    shielded: bool
    """Whether only ``stop()`` may end the actor, because the place waits for it to end."""
    exposed: bool
    """Whether an exception that gets past the end of the actor's task ends other tasks there."""
    survives_fork: bool
    """Whether a forked child finds a place of its own here."""
    known: set[type]
    """The event classes that recorders here have checked."""
    gives_turns: bool
    """Whether a run without hooks needs no task here: the loop is the library's own, which tells of its end."""

    def hub(self) -> LoopHub:
        """Return the hub of the loop that the actor runs on.

        :raises LoopGoneError: if the loop has ended
        """
        ...

    def on_own_loop(self) -> bool:
        """Whether the calling thread runs that loop."""
        ...

    def launch(self, main: Main, *, name: str, ended: Callable[[], object]) -> None:
        """Run ``main()`` in a task, from any thread, without waiting; then call ``ended``, come what may.

        :raises LoopGoneError: if the loop has ended
        """
        ...


class LoopHome:
    """The loop that the recorder was made on: a background task under asyncio, a system task under trio.

    Whoever ends the loop cancels the actor with it.
    """

    shielded = False
    survives_fork = False
    gives_turns = False

    def __init__(self, hub: LoopHub) -> None:
        self._hub = hub
        self.known: set[type] = set()
        self.exposed = not hub.loop.spawns_apart

    def hub(self) -> LoopHub:
        return self._hub

    def on_own_loop(self) -> bool:
        return self._hub.loop.is_current()

    def launch(self, main: Main, *, name: str, ended: Callable[[], object]) -> None:
        loop = self._hub.loop

        def spawn() -> None:
            try:
                loop.spawn(main, name=name, ended=ended)
            except LoopGoneError:
                ended()

        # At once where that is safe: a task posted in the last moment of asyncio.run() would be
        # made after all tasks have been cancelled, and be destroyed without running.
        if loop.in_task():
            spawn()
        else:
            self._hub.call_soon(spawn)


class GroupHome:
    """A task group that is somebody's to close: the block of ``async with recorder``, or a runtime.

    asyncio does not even enter the body of a task that is cancelled before its first step, so whoever
    closes the group concludes what has not ended by then.
    """

    exposed = True
    survives_fork = False
    gives_turns = False

    def __init__(self, hub: LoopHub, task_group: TaskGroup, *, shielded: bool) -> None:
        self._hub = hub
        self._task_group = task_group
        self.known: set[type] = set()
        self._context = copy_context()
        self.shielded = shielded

    def hub(self) -> LoopHub:
        return self._hub

    def on_own_loop(self) -> bool:
        return self._hub.loop.is_current()

    def launch(self, main: Main, *, name: str, ended: Callable[[], object]) -> None:
        async def body() -> None:
            try:
                await main()
            finally:
                ended()

        protected = self._hub.loop.protected(body)
        made: list[Coroutine[Any, Any, None]] = []

        def new_body() -> Coroutine[Any, Any, None]:
            made.append(protected())
            return made[-1]

        def spawn() -> None:
            try:
                # In the context of whoever opened the group: that of a restart's caller would be kept alive.
                self._context.copy().run(lambda: self._task_group.start_soon(new_body, name=name))
            except RecursionError:
                raise
            except RuntimeError:  # the group is closed, which anyio may find out when it has made the coroutine
                for coroutine in made:
                    coroutine.close()
                ended()

        if self._hub.loop.in_task():
            spawn()
        else:
            self._hub.call_soon(spawn)


@dataclass(frozen=True, kw_only=True, slots=True)
class Birth:
    """What a recorder made inside a runtime's factory takes from the runtime."""

    home: Home
    options: dict[str, Any]
    """Constructor options by name, for those that the factory does not pass on."""


BIRTH: ContextVar[Birth | None] = ContextVar("mvx.common.metrics.birth", default=None)


def home_here() -> Home:
    """Return the place for a recorder made in the calling thread.

    :raises RecorderLoopUnavailableError: if no event loop runs here, or in a sub-interpreter
    """
    birth = BIRTH.get()
    if birth is not None:
        return birth.home
    if in_subinterpreter():
        raise RecorderLoopUnavailableError(REFUSAL)
    loop = running_loop()
    if loop is None:
        raise RecorderLoopUnavailableError(
            "a recorder belongs to the asyncio or trio event loop running in the calling thread, and none runs here; "
            "use MetricsRuntime.create_recorder() from synchronous code"
        )
    return LoopHome(hub_of(loop))
