"""trio."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import trio

from ._bell import Bell, new_bell
from ._contract import EventLoop, LoopGoneError, Main

# By id(): a TrioLoop keeps its token alive, so the id is not used again meanwhile.
_known: WeakValueDictionary[int, TrioLoop] = WeakValueDictionary()


class TrioLoop(trio.abc.Instrument):
    """The contract of :class:`EventLoop` on trio, where a loop is one call of ``trio.run``.

    If it is alone, it is an instrument of its own: so it hears as soon as the system has woken it, half a dozen steps
    of trio's before any task does.
    """

    _bell: Bell

    __slots__ = (
        "__weakref__",
        "_alarms",
        "_bell",
        "_calls",
        "_cancellations",
        "_failure",
        "_going_on",
        "_is_instrument",
        "_listening",
        "_scope",
        "_silenced",
        "_thread",
        "_token",
    )

    backend = "trio"
    spawns_apart = False

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._thread = threading.get_ident()
        self._cancellations = 0
        self._calls: deque[list[Callable[[], object]]] = deque()
        """Each in a list of its own, out of which it is taken by whoever makes it, or says that nobody will."""
        self._failure: BaseException | None = None
        self._listening = False
        self._is_instrument = False
        """Whether calls and alarms are made by :meth:`after_io_wait`, and not by the task that listens."""
        self._silenced = False
        """Whether the bell has been silenced before the task that listens has got to it."""
        self._going_on = False
        """Whether there is something to do in the next turn, without anybody having rung."""
        self._alarms: dict[Callable[[], object], float] = {}
        self._scope = trio.CancelScope()

    def listen(self, *, alone: bool) -> None:
        """Wait for calls by a bell of our own.

        In a loop of ours alone the calls are made by an instrument, and the task that listens is only there for trio to
        wake up.  In anybody else's the task makes them: an instrument would cost something in each turn of that loop.

        Trio's ``run_sync_soon`` holds a lock while it wakes the loop, and the end of the run takes it, too: a
        signal handler that interrupts it and waits for this loop would wait for itself.
        """
        if self._listening:
            return
        self._bell = new_bell()
        self._listening = True
        try:
            trio.lowlevel.spawn_system_task(self._listen, name="mvx.common.metrics wake-ups")
        except RuntimeError:  # the run is about to end
            self._listening = False
            return
        if alone:
            self._is_instrument = True
            trio.lowlevel.add_instrument(self)

    async def _listen(self) -> None:
        try:
            while self._failure is None:
                # One scope until an alarm ends it: to enter another for each ring would cost half as much as the rest.
                with trio.CancelScope(deadline=self._next_alarm()) as self._scope:
                    while True:
                        await self._wait()
                if self._is_instrument:  # which sounds alarms before trio looks at the deadline, or nearly always
                    self._is_instrument = self._is_kept_as_instrument()
                if not self._is_instrument:
                    self._sound_alarms(trio.current_time())
                    self._make_calls()
            raise self._failure
        finally:
            self._listening = False
            self._sound_alarms(math.inf)
            self._make_calls()

    def _is_kept_as_instrument(self) -> bool:
        """Return whether trio calls us still: it drops an instrument that has raised, for want of memory, say."""
        try:
            trio.lowlevel.remove_instrument(self)
        except KeyError:
            return False
        trio.lowlevel.add_instrument(self)
        return True

    async def _wait(self) -> None:
        """Wait for the bell, or one turn of the loop, and make the calls unless the instrument does."""
        if self._going_on:
            await trio.lowlevel.checkpoint()
            if not self._is_instrument:
                self._make_calls()
            return
        await trio.lowlevel.wait_readable(self._bell.reader)
        if not self._is_instrument:
            self._make_calls()
        if not self._silenced:
            self._silence()
        self._silenced = False

    def _silence(self) -> None:
        """Take the rings away.

        Behind the calls, as this gives the interpreter to another thread, perhaps to one that waits for an answer.
        """
        self._bell.silence()
        if self._calls:  # appended behind the others, and before its ring was taken away
            self._going_on = True

    def after_io_wait(self, timeout: float) -> None:
        """Make the calls and sound the alarms, in no task; what that raises ends the run, as it would in a task."""
        try:
            was_going_on = self._going_on
            if self._calls:
                self._make_calls()
                if not was_going_on:
                    self._silence()
                    self._silenced = True
            if (now := trio.current_time()) >= self._scope.deadline:
                self._sound_alarms(now)
                self._scope.deadline = self._next_alarm()  # before trio looks at it
            if self._going_on and not was_going_on:
                self._bell.ring()  # the task that listens may be asleep
        except BaseException as exc:
            self._failure = exc
            self._scope.cancel()

    def _next_alarm(self) -> float:
        return min(self._alarms.values(), default=math.inf)

    def _sound_alarms(self, now: float) -> None:
        for callback in [callback for callback, when in self._alarms.items() if when <= now]:
            when = self._alarms.get(callback)
            if when is not None and when <= now:  # none of the others has taken it back, or put it off
                del self._alarms[callback]
                callback()

    def alarm(self, when: float, callback: Callable[[], object]) -> bool:
        if not self._listening:
            return False
        self._alarms[callback] = when
        self._scope.deadline = self._next_alarm()  # that of the task that listens, if it waits just now
        return True

    def no_alarm(self, callback: Callable[[], object]) -> None:
        self._alarms.pop(callback, None)

    def _make_calls(self) -> None:
        self._going_on = False
        # Those that are there: what they post comes behind whatever else the loop has to do.
        for _ in range(len(self._calls)):
            try:
                callback = self._calls.popleft().pop()
            except IndexError:  # its poster has taken it back
                continue
            callback()

    def go_on(self, callback: Callable[[], object]) -> None:
        if not self._listening:
            self._post_by_trio(callback)
            return
        self._calls.append([callback])
        self._going_on = True

    def post(self, callback: Callable[[], object]) -> None:
        if not self._listening:
            self._post_by_trio(callback)
            return
        # Appended before the ring: the loop looks at the calls once more when it has taken the rings.
        call = [callback]
        self._calls.append(call)
        self._bell.ring()
        if not self._is_listening():  # the run is about to end, and may not have seen the call
            try:
                self._post_by_trio(self._make_calls)
            except LoopGoneError:
                try:
                    call.pop()
                except IndexError:  # it has been made
                    return
                raise

    def _is_listening(self) -> bool:
        return self._listening  # a method, because the type checker does not know that the loop's thread writes it

    def _post_by_trio(self, callback: Callable[[], object]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except RecursionError:  # a RuntimeError, too, but about the caller
            raise
        except RuntimeError as exc:  # RunFinishedError is one
            raise LoopGoneError from exc

    def is_current(self) -> bool:
        # The thread first: outside of a run trio has nothing but an exception to say so.
        return threading.get_ident() == self._thread and _current_token() is self._token

    def in_task(self) -> bool:
        return trio.lowlevel.in_trio_task() and self.is_current()

    def is_running(self) -> bool:
        return True

    def task_identity(self) -> object | None:
        return trio.lowlevel.current_task() if self.in_task() else None

    def now(self) -> float:
        return trio.current_time()

    def spawn(self, main: Callable[[], Awaitable[object]], *, name: str, ended: Callable[[], object]) -> None:
        async def body() -> None:
            try:
                await main()
            except BaseException:  # noqa: S110 — trio turns it into TrioInternalError for everybody
                pass
            finally:
                ended()

        try:
            trio.lowlevel.spawn_system_task(body, name=name)
        except RecursionError:
            raise
        except RuntimeError as exc:
            raise LoopGoneError from exc

    def protected(self, main: Main) -> Main:
        return trio.lowlevel.enable_ki_protection(main)

    def cancellations(self) -> int:
        if trio.current_effective_deadline() == -math.inf:  # trio's way to say that the task is cancelled
            self._cancellations += 1
        return self._cancellations

    def is_cancelled_since(self, before: int) -> bool:
        return False


def _current_token() -> trio.lowlevel.TrioToken | None:
    try:
        return trio.lowlevel.current_trio_token()
    except RecursionError:
        raise
    except RuntimeError:
        return None


def in_task() -> bool:
    """Return whether the calling thread is inside a trio task."""
    return trio.lowlevel.in_trio_task()


def running_loop() -> EventLoop | None:
    """Return the trio run of this thread, or None."""
    token = _current_token()
    if token is None:
        return None
    loop = _known.get(id(token))
    if loop is None:
        loop = _known[id(token)] = TrioLoop(token)
    return loop
