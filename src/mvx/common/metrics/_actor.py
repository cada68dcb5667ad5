"""One run of a recorder: its task, from ``_on_starting()`` to ``_on_stopped()``.

The body is the same wherever the task lives.  It may be cancelled at any suspension, by a scope or,
under asyncio, by ``Task.cancel()``, which no shield stops; whatever happens, the accounting in
:meth:`ActorRun.conclude` is synchronous and runs exactly once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from ._dispatch import FailurePolicy, MetricSlot
from ._event import MetricEvent
from ._hosting import Home
from ._interrupt import forget_traceback, holds, is_for_the_thread
from ._lifecycle import OperationOwner, RecorderOp, RecorderState, RecorderWaitHandle, settle
from ._metric import Metric
from ._run import DEFAULT_DRAIN_TIMEOUT, MAX_BATCH, Run
from .errors import (
    RecorderDispatcherCancelledError,
    RecorderDrainTimeoutError,
    RecorderError,
    RecorderLoopUnavailableError,
    RecorderOnStartingHookFailedError,
    RecorderOnStoppedHookFailedError,
    RecorderUnexpectedError,
)

MIN_STOPPED_HOOK_TIMEOUT = 10.0
"""Seconds that ``_on_stopped()`` may take even if ``drain_timeout`` is shorter."""


class MetricChangedHook(Protocol):
    """The signature of ``_on_metric_changed``."""

    def __call__(self, *, metric: Metric, event: MetricEvent) -> Awaitable[None]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """The custom recorder's side of a run."""

    on_starting: Callable[[], Awaitable[None]]
    on_stopped: Callable[[], Awaitable[None]]
    on_metric_changed: MetricChangedHook | None
    """None where it is not overridden: events then need no suspension at all."""
    custom: bool = True
    """Whether any of the three is overridden."""


class ActorRun(Run):
    """A run in a task of its own, with hooks, or where only a task notices that its surroundings end."""

    def __init__(
        self, *, owner: OperationOwner, hooks: Hooks, shielded: bool, exposed: bool, **belongings: Any
    ) -> None:
        """Make a run that has not been launched; see :class:`Run` for the rest of the arguments."""
        super().__init__(owner=owner, **belongings)
        self._starting = RecorderWaitHandle(RecorderOp.START, owner)
        self._hooks = hooks
        self._shielded = shielded
        self._exposed = exposed
        self._life_scope: anyio.CancelScope | None = None
        self._work_scope: anyio.CancelScope | None = None
        self._ctrl_c: BaseException | None = None
        """Ctrl-C, to be raised when all is settled."""
        self._stopped_hook_limit: float | None = None
        self._stopped_hook_error: BaseException | None = None
        self._working = False
        self._interrupted = False
        self._hook_was_cut = False
        # The event under way and the metrics that have still to see it: a cancelled hook is
        # followed by the next metric, not by the next event.
        self._event: MetricEvent | None = None
        self._todo: Iterator[MetricSlot] = iter(())

    @property
    def starting(self) -> RecorderWaitHandle:
        return self._starting

    def _settle(self, error: RecorderError | None) -> None:
        settle(self._starting, error)
        super()._settle(error)

    def attend(self) -> None:
        self.inbox.attend(self.ring)

    def launch(self, home: Home) -> None:
        home.launch(self.main, name=self._name, ended=self.conclude)

    @property
    def _name(self) -> str:
        return f"mvx.common.metrics recorder {self._fields['entity_id']}"

    # --- the body --------------------------------------------------------------------------------

    async def main(self) -> None:
        """Run from start to end; lets nothing out but Ctrl-C."""
        try:
            del self._right_to_begin
        except AttributeError:
            return  # withdrawn
        try:
            if self._exposed and self._hooks.custom:
                await self._main_contained()
            else:
                await self._main()
        finally:
            self.conclude()

    async def _main_contained(self) -> None:
        """Run in a task of its own: a hook may leave a task group or a cancel scope open.

        What comes of that is raised behind the end of the task that the hook ran in, so that only
        another task can keep it from the neighbours.
        """

        async def body() -> None:
            await self._main()

        try:
            async with anyio.create_task_group() as own:
                own.start_soon(self._hub.loop.protected(body), name=self._name)
        except BaseException as exc:
            if isinstance(exc, GeneratorExit) or is_for_the_thread(exc):
                raise
            if isinstance(exc, anyio.get_cancelled_exc_class()):
                return  # the inner task was told and has ended; the home's group would take it for a failure of its own
            self._end(RecorderState.FAILURE, RecorderUnexpectedError(exc, "a hook left a scope or task group open"))
            self._tell(logging.ERROR, "the recorder's task ended badly: did a hook leave a scope open?", error=exc)

    async def _main(self) -> None:
        self.task = self._hub.loop.task_identity()
        self._hub.active += 1
        try:
            self._hub.attach(self)
            await self._live()
        except GeneratorExit:  # pragma: no cover — comes with the interpreter's end, when nothing is traced any more
            self._end(RecorderState.FAILURE, RecorderLoopUnavailableError("the recorder's event loop was discarded"))
            raise
        finally:
            self._hub.active -= 1
            self.task = None

    async def _live(self) -> None:
        # Two scopes, the second around the work only: what _on_starting() opens, _on_stopped() can close.
        try:
            with anyio.CancelScope(shield=self._shielded) as self._life_scope:
                if self._interrupted:
                    self._life_scope.cancel()
                await self._start_and_work()
                self._account_for_the_rest()
                self._answer_what_only_reads()
                if self._started:
                    await self._run_stopped_hook(self._life_scope)
        except BaseException as exc:
            if self._is_discarded(exc):
                raise
            self._remember(exc)
        self._judge_stopped_hook()
        if self._ctrl_c is not None:
            raise self._ctrl_c

    async def _start_and_work(self) -> None:
        """Start and serve; whatever ends that is remembered."""
        before = self._hub.loop.cancellations()
        try:
            if await self._start_up():
                with anyio.CancelScope(shield=self._shielded) as self._work_scope:
                    if self._interrupted:  # and the hook has swallowed it
                        self._work_scope.cancel()
                    if self._hook_ate_a_cancellation(before):
                        self._carry_on_shielded()
                    await self._serve()
        except RecorderUnexpectedError as exc:
            self._end(RecorderState.FAILURE, exc)
        except BaseException as exc:
            if self._is_discarded(exc):
                raise
            self._remember(exc)

    def _remember(self, error: BaseException) -> None:
        """Note what has ended the work, or came of it."""
        if is_for_the_thread(error):  # pragma: no cover — shown by processes that the tracer would deadlock
            self._ctrl_c = error
            self._end(RecorderState.FAILURE, RecorderUnexpectedError(error, "interrupted"))
        elif isinstance(error, anyio.get_cancelled_exc_class()):
            self._end_cancelled()
        else:
            self._end(RecorderState.FAILURE, RecorderUnexpectedError(error))
            self._tell(logging.ERROR, "the recorder failed", error=error)

    async def _start_up(self) -> bool:
        before = self._hub.loop.cancellations()
        try:
            await self._hooks.on_starting()
        except BaseException as exc:
            if self._is_discarded(exc) or is_for_the_thread(exc):
                raise
            if self._is_cancellation(exc, before):
                self._end_cancelled()
            else:
                self._ledger.hook_errors.increment()
                self._tell(logging.ERROR, "_on_starting() raised", error=exc)
                self._end(RecorderState.FAILURE, RecorderOnStartingHookFailedError(exc))
            return False
        self._started = True
        settle(self.starting, None)
        return True

    def _hook_ate_a_cancellation(self, before: int) -> bool:
        """Whether this task was cancelled in a hook that has not passed it on; asyncio would not do so again."""
        by_us = self._work_scope is not None and self._work_scope.cancel_called
        return not by_us and self._hub.loop.is_cancelled_since(before)

    async def _serve(self) -> None:
        """Work until the inbox is closed and empty, through cancellations from outside, or until the time is up."""
        while True:
            before = self._hub.loop.cancellations()
            try:
                await self._work()
            except BaseException as exc:
                if self._is_discarded(exc) or not self._is_cancellation(exc, before):
                    raise
                if self._work_scope is None or self._work_scope.cancel_called:
                    if isinstance(exc, anyio.get_cancelled_exc_class()):
                        raise
                    return  # a group with the cancellation in it is nothing that a scope would take
                self._carry_on_shielded()
            else:
                return

    async def _work(self) -> None:
        inbox = self.inbox
        self._working = True
        await self._finish_event()
        while True:
            if inbox.events or inbox.requests or self._owed:
                await self._pass()
            elif inbox.sealed:
                return
            elif inbox.closed:
                inbox.seal()
            else:
                self._hub.active -= 1
                self._working = False
                try:
                    inbox.doze(self._hub)
                    await inbox.wait()
                finally:
                    self._working = True
                    self._hub.active += 1

    async def _pass(self) -> None:
        """Handle the events that are there now, then answer the requests that were there before."""
        inbox = self.inbox
        # Requests first, events second: what was accepted before a request is among the events.
        self._fetch_requests()
        owed = len(self._owed)
        count = len(inbox.events)
        self._note_high_water(count)
        if self._hooks.on_metric_changed is None:
            await self._drain(count)
        else:
            await self._drain_with_hook(count)
        self._answer(owed)
        self._tell_losses()
        if self._hub.is_tired():
            await self._hub.rest()

    async def _drain(self, count: int) -> None:
        inbox, dispatch, take = self.inbox, self._dispatcher.dispatch, self.inbox.events.popleft
        # The clock is looked at between batches: small ones for slow metrics, large ones for fast ones.
        batch = 1
        while count > 0:
            inbox.begin_handling()
            try:
                handled = dispatch(take, min(batch, count))
            finally:
                inbox.end_handling()
            if inbox.line:
                inbox.line.grant()
            if handled == 0:
                return  # evicted meanwhile
            count -= handled
            if not self._hub.is_tired():
                batch = min(2 * batch, MAX_BATCH)
            elif count > 0:
                batch = 1
                await self._hub.rest()

    async def _drain_with_hook(self, count: int) -> None:
        for _ in range(count):
            if self._work_scope is not None and self._work_scope.cancel_called:
                await anyio.lowlevel.checkpoint()  # out of time, and the hook has not passed that on
            self.inbox.begin_handling()
            try:
                event = self.inbox.events.popleft()
            except IndexError:
                self.inbox.end_handling()
                return  # evicted meanwhile
            self._event = event
            self._ledger.taken += 1
            self._note_high_water(len(self.inbox.events) + 1)
            self._todo = iter(self._dispatcher.wanting(event))
            await self._finish_event()
            if self._hub.is_tired():
                await self._hub.rest()

    async def _finish_event(self) -> None:
        event, hook = self._event, self._hooks.on_metric_changed
        if event is None or hook is None:
            return
        for slot in self._todo:
            if self._dispatcher.handle(slot, event):
                await self._call_hook(hook, slot.metric, event)
        self._event_done()

    async def _call_hook(self, hook: MetricChangedHook, metric: Metric, event: MetricEvent) -> None:
        before = self._hub.loop.cancellations()
        try:
            try:
                await hook(metric=metric, event=event)
            finally:
                self._hook_was_cut = self._work_scope is not None and self._work_scope.cancel_called
        except BaseException as exc:
            if self._is_discarded(exc):
                raise
            self._ledger.hook_errors.increment()
            if is_for_the_thread(exc) or self._is_cancellation(exc, before):
                raise
            told = self._tell(logging.ERROR, "_on_metric_changed() raised", error=exc)
            if self._dispatcher.policy is FailurePolicy.FAIL:
                raise RecorderUnexpectedError(exc, "_on_metric_changed() raised") from exc
            if not told:
                forget_traceback(exc)
        if self._hook_ate_a_cancellation(before):
            raise anyio.get_cancelled_exc_class()

    def _event_done(self) -> None:
        self._event = None
        self._todo = iter(())
        self._ledger.processed += 1
        self.inbox.end_handling()
        if self.inbox.line:
            self.inbox.line.grant()

    def _in_a_pass(self) -> bool:
        return self._working

    # --- the end ---------------------------------------------------------------------------------

    def begin_stop(self) -> None:
        """Drain from now on, within the time limit; in the loop, after the inbox was closed; again is once."""
        if not self._stopping_begun:
            self._stopping_begun = True
            if self._drain_timeout is not None:
                self._limit(self._drain_timeout)
        self.inbox.wake()

    def interrupt(self) -> None:
        """Cancel the run as its surroundings would; in the loop."""
        self._interrupted = True
        scope = self._work_scope if self._started else self._life_scope
        if scope is not None:
            scope.cancel()

    def _limit(self, seconds: float) -> None:
        if self._work_scope is not None:
            self._work_scope.deadline = min(self._work_scope.deadline, self._hub.loop.now() + seconds)

    def _carry_on_shielded(self) -> None:
        """The task was cancelled from outside: process what was accepted all the same, but in bounded time."""
        # Both: between the two there may be a scope that _on_starting() has left open.
        for scope in (self._life_scope, self._work_scope):
            if scope is not None:
                scope.shield = True
        self._limit(DEFAULT_DRAIN_TIMEOUT if self._drain_timeout is None else self._drain_timeout)
        if not self._stop_requested:
            self._end_cancelled()
            self._stop_requested = True
        self.inbox.close()

    def _is_cancellation(self, exc: BaseException, before: int) -> bool:
        """Whether ``exc`` means that this task was cancelled, rather than that a hook passed one on."""
        return holds(exc, anyio.get_cancelled_exc_class()) and self._hub.loop.cancellations() > before

    def _account_for_the_rest(self) -> None:
        # A scope that has been left is not cancelled any more, so a drain that ended in time has not been.
        out_of_time = self._work_scope is not None and self._work_scope.cancel_called
        if out_of_time and self._interrupted and not self._stop_requested:
            self._end_cancelled()
        self._stop_requested = True  # before the entry is closed, whatever has ended the work
        cut = self._hook_was_cut or self._event is not None
        self._wind_up_event(deliver=out_of_time)
        lost = self._abandon()
        if self._verdict is RecorderState.CANCELLED:
            self.error = RecorderDispatcherCancelledError(lost)
        elif out_of_time and (lost or cut) and self.error is None:
            self.error = RecorderDrainTimeoutError(lost, self._drain_timeout)
            self._tell(logging.ERROR, self.error.message)

    def _is_discarded(self, exc: BaseException) -> bool:
        """Whether the coroutine is being closed, so that it can await no more; a hook may raise the same thing."""
        return isinstance(exc, GeneratorExit) and self._hub.loop.task_identity() is not self.task

    def _wind_up(self) -> None:
        if self._event is not None:
            self._event_done()

    def _wind_up_event(self, *, deliver: bool) -> None:
        """Account for the event whose hook was cut; show it to the metrics that have not seen it."""
        event = self._event
        if event is None:
            return
        if deliver:
            try:
                for slot in self._todo:
                    self._dispatcher.handle(slot, event)
            except RecorderUnexpectedError as exc:
                self._end(RecorderState.FAILURE, exc)
        self._event_done()

    async def _run_stopped_hook(self, life: anyio.CancelScope) -> None:
        limit = self._drain_timeout
        if limit is None and self._verdict is not RecorderState.STOPPED:
            limit = DEFAULT_DRAIN_TIMEOUT
        self._stopped_hook_limit = limit = None if limit is None else max(limit, MIN_STOPPED_HOOK_TIMEOUT)
        if life.cancel_called:
            # The start was interrupted and has succeeded all the same: no other way than a scope in between.
            with anyio.move_on_after(limit, shield=True) as scope:
                await self._call_stopped_hook(scope)
        else:
            life.shield = True
            if limit is not None:
                life.deadline = self._hub.loop.now() + limit
            await self._call_stopped_hook(life)

    async def _call_stopped_hook(self, scope: anyio.CancelScope) -> None:
        before = self._hub.loop.cancellations()
        try:
            await self._hooks.on_stopped()
        except BaseException as exc:
            if self._is_discarded(exc):
                raise
            self._stopped_hook_error = exc
            if scope.cancel_called and self._is_cancellation(exc, before):
                self._stopped_hook_error = self._out_of_time()
                if isinstance(exc, anyio.get_cancelled_exc_class()):
                    raise
            if is_for_the_thread(exc):  # pragma: no cover — see _remember
                self._ctrl_c = exc
        else:
            if scope.cancel_called:  # and the hook has swallowed it
                self._stopped_hook_error = self._out_of_time()

    def _out_of_time(self) -> TimeoutError:
        return TimeoutError(f"_on_stopped() did not return within {self._stopped_hook_limit:g} s")

    def _judge_stopped_hook(self) -> None:
        failure = self._stopped_hook_error
        if failure is None:
            return
        self._ledger.hook_errors.increment()
        self._tell(logging.ERROR, "_on_stopped() failed", error=failure)
        if self._verdict is RecorderState.STOPPED:
            self._verdict = RecorderState.FAILURE
            self.error = RecorderOnStoppedHookFailedError(failure)

    def _answer_what_only_reads(self) -> None:
        """Every event has been accounted for: nobody needs to wait for ``_on_stopped()``, which may wait for him.

        How the run has ended is told when it has.
        """
        self._hear_no_more()
        for _ in range(len(self._owed)):
            request = self._take_owed()
            if request is None:
                return
            if request.position is None or (self._verdict is RecorderState.STOPPED and not self.lost):
                request.answer(None)
            else:
                self._owed.append(request)
