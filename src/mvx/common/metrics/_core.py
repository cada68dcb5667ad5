"""The control side of a recorder: its state, its operations, and what any thread may call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import anyio

from ._actor import ActorRun, Hooks
from ._backends import LoopGoneError
from ._dispatch import Dispatcher, FailurePolicy
from ._event import MetricEvent
from ._fork import never_finalise, reset_in_child
from ._hosting import Home
from ._inbox import Inbox, InboxOptions
from ._interrupt import ensure_stack, is_for_the_thread
from ._lifecycle import (
    STATE_TABLE,
    Reaction,
    RecorderOp,
    RecorderOpResult,
    RecorderState,
    RecorderWaitHandle,
    settle,
    settled,
    states_that,
)
from ._log import LimitedLog
from ._metric import Metric, ensure_metric
from ._plain import PlainRun
from ._run import Run
from ._statistics import Ledger, RecorderStatistics
from ._waiting import OneShot
from .errors import (
    RecorderError,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderTimeoutError,
    RecorderUnexpectedError,
    RecorderWouldDeadlockError,
)

Snapshots = Mapping[str, Mapping[str, Any]]

MAX_LOOKS = 100
"""How often a refused emitter looks whether the state that accepts its event gets an inbox that does, too."""

ACTIVE = (RecorderState.STARTING, RecorderState.RUNNING, RecorderState.STOPPING)
"""The states in which a run is under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecorderOptions:
    """A recorder's settings, checked."""

    inbox: InboxOptions
    failure_policy: FailurePolicy
    quarantine_after: int
    drain_timeout: float | None


class _FlushRequest:
    """Ends a flush."""

    def __init__(self, handle: RecorderWaitHandle, position: int) -> None:
        self._handle = handle
        self.position = position

    def answer(self, error: RecorderError | None) -> None:
        settle(self._handle, error)


class _SnapshotRequest:
    """Takes the snapshots where no metric is at work."""

    position: int | None = None

    def __init__(self, take: Callable[[], Snapshots]) -> None:
        self._take = take
        self.reply: OneShot[Snapshots | RecorderError] = OneShot()

    def answer(self, _error: RecorderError | None) -> None:
        try:
            self.reply.set(self._take())
        except BaseException as exc:
            # Not as it is: it hit this thread, and whoever waits is in another one.
            self.reply.set(RecorderUnexpectedError(exc, "taking the snapshots"))
            if is_for_the_thread(exc):
                raise


class _Gate:
    """What every emit touches: the slots of a base class come first, here in the cache line that is needed anyway."""

    __slots__ = ("entry",)

    entry: Inbox


class RecorderCore(_Gate):
    """One recorder over all its runs.

    ``entry`` is the current inbox, kept at hand because its ``put`` is what every emit calls.

    Its state is that of its last run.  The lock keeps two starts apart and nothing else: whoever holds
    it may have been interrupted by a signal handler that waits for the actor, so the actor must never
    need it; and it is reentrant, because that handler may start something, too.
    """

    __slots__ = (
        "__weakref__",
        "_fields",
        "_first_inbox",
        "_hooks",
        "_lock",
        "_log",
        "_lost",
        "_next_run",
        "_right_to_claim",
        "_run",
        "dispatcher",
        "entity_id",
        "home",
        "ledger",
        "namespace",
        "options",
    )

    def __init__(
        self,
        *,
        entity_id: str,
        namespace: str | None,
        options: RecorderOptions,
        home: Home,
        hooks: Callable[[], Hooks],
    ) -> None:
        self.entity_id = entity_id
        self.namespace = namespace
        self.options = options
        self.home = home
        self._hooks = hooks
        self._fields = {"entity_id": entity_id, "namespace": namespace}
        self._log = LimitedLog()
        self._lock = threading.RLock()
        self.ledger = Ledger()
        self.dispatcher = Dispatcher(
            policy=options.failure_policy,
            quarantine_after=options.quarantine_after,
            ledger=self.ledger,
            log=self._log,
            fields=self._fields,
            lock=self._lock,
        )
        self._first_inbox = self._new_inbox()
        self.entry = self._first_inbox
        self._right_to_claim = [None]
        self._run: Run | None = None
        """The last run, also when it has ended."""
        self._next_run: dict[None, Run] = {}
        """Where the run that follows is chosen, once."""
        self._lost: RecorderError | None = None
        """Set if the loop went away while there was no run."""
        reset_in_child(self)

    @property
    def state(self) -> RecorderState:
        """The state of this moment."""
        if self._lost is not None:
            return RecorderState.FAILURE
        return RecorderState.VIRGIN if self._run is None else self._run.state

    @property
    def error(self) -> RecorderError | None:
        """What ended the recorder, or spoilt its last stop."""
        if self._lost is not None:
            return self._lost
        return None if self._run is None else self._run.error

    @property
    def inbox(self) -> Inbox:
        """The inbox of the last run, or of the run to come."""
        return self._first_inbox if self._run is None else self._run.inbox

    def claim(self) -> bool:
        """Claim the recorder for a registry; return whether nobody had, and it has not been started."""
        try:
            self._right_to_claim.pop()
        except IndexError:
            return False
        return self.state is RecorderState.VIRGIN

    # --- operations ------------------------------------------------------------------------------

    def start(self) -> RecorderWaitHandle:
        ensure_stack()
        run = made = None
        next_run: dict[None, Run] = {}
        try:
            with self._lock:
                run, state, next_run = self._run, self.state, self._next_run
                reaction = STATE_TABLE[state].start
                if reaction is Reaction.JOIN and run is not None:
                    return run.starting
                if reaction is not Reaction.BEGIN:
                    return settled(RecorderOp.START, self, self.invalid_state(state, "start"))
                try:
                    made = self._new_run()
                except LoopGoneError:
                    self._lose_loop_at_rest()
                    return settled(RecorderOp.START, self, self._lost)
                # A signal handler may have interrupted this very call, and started the recorder: one step of C decides.
                chosen = next_run.setdefault(None, made)
                if chosen is not made:
                    return chosen.starting
                # First of all: whoever gets an event into the run's inbox shall find the run to ask about it.
                self._run = made
                self._next_run = {}
            made.attend()
            self.entry = made.inbox
            made.launch(self.home)
        except BaseException as exc:
            if made is None or next_run.get(None) is not made:
                raise
            if isinstance(exc, LoopGoneError):
                made.lose_loop()
            else:  # Ctrl-C, say, or no stack left
                if made.withdraw(exc):
                    self._start_has_not_been(made, run)
                raise
        return made.starting

    def _start_has_not_been(self, made: Run, before: Run | None) -> None:
        """Go back to where a start that could not be launched began."""
        if before is None:
            # The events that have come in wait for the next one, which rings.
            made.inbox.unattend(self._start_on_first_event)
        else:
            lost = made.inbox.abandon()
            self.ledger.abandoned += lost
            self.entry = before.inbox
        self._run = before
        self._next_run = {}

    def _new_run(self) -> Run:
        belongings: dict[str, Any] = {
            "owner": self,
            "inbox": self._first_inbox if self._run is None else self._new_inbox(),
            "dispatcher": self.dispatcher,
            "ledger": self.ledger,
            "hub": self.home.hub(),
            "drain_timeout": self.options.drain_timeout,
            "log": self._log,
            "fields": self._fields,
        }
        hooks = self._hooks()
        if self.home.gives_turns and not hooks.custom:
            return PlainRun(**belongings)
        return ActorRun(hooks=hooks, shielded=self.home.shielded, exposed=self.home.exposed, **belongings)

    def starting(self) -> RecorderWaitHandle:
        """Return the handle of the last start, without starting anything or taking the lock."""
        return settled(RecorderOp.START, self) if self._run is None else self._run.starting

    def stop(self) -> RecorderWaitHandle:
        run, state = self._run, self.state
        if run is None or STATE_TABLE[state].stop is Reaction.REFUSE:
            return settled(RecorderOp.STOP, self, self.invalid_state(state, "stop"))
        run.request_stop()
        return run.stopping

    async def end(self) -> RecorderOpResult:
        """Stop; but let a start under way end before, within the time that a drain would get."""
        if self.state is RecorderState.STARTING:
            with anyio.move_on_after(self.options.drain_timeout):
                await self.starting()
            if self.state is RecorderState.STARTING:
                self.interrupt()
                return await self.starting()
        return await self.stop()

    @property
    def has_reported_its_end(self) -> bool:
        """Whether somebody asked the last run to stop, and it has told him how it ended."""
        run = self._run
        return run is not None and run.was_asked_to_stop and run.stopping.done()

    def interrupt(self) -> None:
        """Cancel the run under way from outside; in its loop."""
        if self._run is not None:
            self._run.interrupt()

    def conclude(self) -> None:
        """Settle the account of a run whose task cannot be there any more."""
        if self._run is not None:
            self._run.conclude()

    def flush(self) -> RecorderWaitHandle:
        handle = RecorderWaitHandle(RecorderOp.FLUSH, self)
        run = self._run
        if run is None:
            settle(handle, None)
        elif run.state not in ACTIVE or not run.inbox.ask(_FlushRequest(handle, run.inbox.position())):
            settle(handle, run.loss)
        return handle

    # --- events and metrics ----------------------------------------------------------------------

    def register_metric(self, metric: Metric) -> None:
        name, checked = ensure_metric(metric)
        state = self.state
        if STATE_TABLE[state].register_metric is Reaction.REFUSE:
            raise self.invalid_state(state, "register_metric")
        self.dispatcher.register(name, checked)

    def put_again(self, event: MetricEvent) -> None:
        """The inbox was closed to ``event``: offer it to the inbox of a new run if there is one, or raise."""
        while True:
            inbox = self.inbox
            if inbox.put(event):
                return
            if inbox is self.inbox:
                self._refuse(inbox)

    async def put_when_room(self, event: MetricEvent) -> None:
        while True:
            inbox = self.inbox
            if await inbox.put_when_room(event):
                return
            if inbox is self.inbox:
                self._refuse(inbox)

    def _refuse(self, inbox: Inbox) -> None:
        """Raise, unless a new run has taken the place of the one that ``inbox`` belongs to."""
        state = self.state
        for _ in range(MAX_LOOKS):
            if STATE_TABLE[state].register_event is Reaction.REFUSE or self.inbox is not inbox:
                break
            time.sleep(0)  # a start, or an end, is under way in another thread
            state = self.state
        if self.inbox is not inbox:
            return
        self.ledger.rejected.increment()
        raise self.invalid_state(state, "register_event")

    def invalid_state(
        self, state: RecorderState, operation: str, *, call: str | None = None
    ) -> RecorderInvalidStateError:
        """Return the error of an operation that is refused in ``state``.

        :param call: what the user has called, if that is not the operation itself
        """
        cause = None if self.error is None else self.error.fresh()
        return RecorderInvalidStateError(state, states_that(operation), call=call or operation, cause=cause)

    # --- reading ---------------------------------------------------------------------------------

    def snapshots(self) -> Snapshots:
        if self.home.on_own_loop():
            return self.dispatcher.snapshots()
        request = self._ask_for_snapshots()
        if request is None:
            return self.dispatcher.snapshots()
        limit = self.options.drain_timeout
        try:
            if not request.reply.wait(limit, self.check_loop):
                raise RecorderTimeoutError("get_metric_snapshots", limit or 0.0)
        finally:
            self._forget(request)
        return _unwrap(request)

    async def asnapshots(self) -> Snapshots:
        if self.in_own_task():
            raise RecorderWouldDeadlockError(
                "aget_metric_snapshots() in a hook of the same recorder", "call get_metric_snapshots() there"
            )
        request = self._ask_for_snapshots()
        if request is None:
            return self.dispatcher.snapshots()
        limit = self.options.drain_timeout
        try:
            if not await request.reply.wait_async(limit, self.check_loop):
                raise RecorderTimeoutError("aget_metric_snapshots", limit or 0.0)
        finally:
            self._forget(request)
        return _unwrap(request)

    def _ask_for_snapshots(self) -> _SnapshotRequest | None:
        """Ask the actor, or return None where no actor is at work that could change anything meanwhile."""
        run = self._run
        if run is None or run.state not in ACTIVE or not run.can_be_heard():
            return None
        request = _SnapshotRequest(self.dispatcher.snapshots)
        return request if run.inbox.ask(request) else None

    def _forget(self, request: _SnapshotRequest) -> None:
        """Nobody waits for ``request`` any more: a hook that hangs must not let such requests pile up."""
        if not request.reply.is_set and self._run is not None:
            self._run.forget(request)

    def statistics(self) -> RecorderStatistics:
        return self.ledger.read(waiting=self.inbox.waiting, capacity=self.options.inbox.capacity)

    # --- what the handles, the inbox and the run ask ---------------------------------------------

    def on_own_loop(self) -> bool:
        return self.home.on_own_loop()

    def in_own_task(self) -> bool:
        run = self._run
        if run is None or run.task is None or not self.home.on_own_loop():
            return False
        return self.home.hub().loop.task_identity() is run.task

    def check_loop(self) -> None:
        run = self._run
        if run is not None and run.state not in ACTIVE:
            return
        if not self._loop_is_gone():
            if run is not None:
                run.call(run.heal)
        elif run is not None:
            run.lose_loop()
            self.ledger.look_again()
        else:
            self._lose_loop_at_rest()

    def refuse_unheard(self) -> NoReturn:
        self.check_loop()
        raise self.invalid_state(self.state, "register_event")

    def _loop_is_gone(self) -> bool:
        try:
            return self.home.hub().is_gone()
        except LoopGoneError:
            return True

    def _lose_loop_at_rest(self) -> None:
        """The loop has ended; nobody can work for this recorder any more."""
        self._lost = RecorderLoopUnavailableError("the recorder's event loop has ended")
        # In two lines: the sum must not be begun before the call, in which another thread may come through here.
        lost = self.inbox.abandon()
        self.ledger.abandoned += lost
        self.ledger.look_again()

    def _new_inbox(self) -> Inbox:
        return Inbox(
            self.options.inbox,
            ledger=self.ledger,
            consumer=self,
            bell=self._start_on_first_event,
            known=self.home.known,
        )

    def _start_on_first_event(self) -> bool:
        if self._loop_is_gone():
            return False
        with self._lock:
            # An emitter that was held up since must not start what has meanwhile been stopped.
            if self.state is RecorderState.VIRGIN:
                self.start()
        return True

    # --- fork ------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Begin anew: what is pending, counted or under way belongs to the parent."""
        run, was = self._run, self.state
        left_behind = self.inbox
        never_finalise((run, left_behind))
        self._lock = threading.RLock()
        self.dispatcher.after_fork(self._lock)
        self.ledger.reset()
        if was not in ACTIVE and was is not RecorderState.VIRGIN:
            return
        self._run = None
        self._next_run = {}
        self._first_inbox = self._new_inbox()
        self.entry = self._first_inbox
        left_behind.leave_behind()
        stayed = RecorderLoopUnavailableError("the recorder's event loop stayed in the parent process at a fork")
        if run is not None:
            run.leave_behind(stayed)
        if not self.home.survives_fork:
            self._lost = stayed
            self._first_inbox.abandon()


def _unwrap(request: _SnapshotRequest) -> Snapshots:
    answer = request.reply.peek()
    if isinstance(answer, RecorderError):
        raise answer
    return answer
