"""The control side of a recorder: its state, its operations, and what any thread may call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import attrs

from ._actor import ActorRun, Hooks
from ._backends import LoopGoneError
from ._dispatch import Dispatcher, FailurePolicy
from ._event import MetricEvent
from ._fork import never_finalise, reset_in_child
from ._hosting import Home
from ._inbox import Inbox, InboxOptions
from ._lifecycle import (
    STATE_TABLE,
    Reaction,
    RecorderOp,
    RecorderState,
    RecorderWaitHandle,
    settle,
    settled,
    states_that,
)
from ._log import LimitedLog
from ._metric import Metric, ensure_metric
from ._statistics import Ledger, RecorderStatistics
from ._waiting import OneShot
from .errors import (
    RecorderError,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderTimeoutError,
    RecorderWouldDeadlockError,
)

Snapshots = Mapping[str, Mapping[str, Any]]

ACTIVE = frozenset({RecorderState.STARTING, RecorderState.RUNNING, RecorderState.STOPPING})
"""The states in which a run is under way."""


@attrs.frozen(kw_only=True, slots=True)
class RecorderOptions:
    """A recorder's settings, checked."""

    inbox: InboxOptions
    failure_policy: FailurePolicy
    quarantine_after: int
    drain_timeout: float | None


class _FlushRequest:
    """Ends a flush."""

    def __init__(self, handle: RecorderWaitHandle) -> None:
        self._handle = handle

    def answer(self, error: RecorderError | None) -> None:
        settle(self._handle, error)


class _SnapshotRequest:
    """Takes the snapshots where no metric is at work."""

    def __init__(self, take: Callable[[], Snapshots]) -> None:
        self._take = take
        self.reply: OneShot[Snapshots | BaseException] = OneShot()

    def answer(self, _error: RecorderError | None) -> None:
        try:
            answer: Snapshots | BaseException = self._take()
        except BaseException as exc:
            answer = exc
        self.reply.set(answer)


class RecorderCore:
    """One recorder over all its runs.

    ``put`` is the current inbox's, kept at hand because it is what every emit calls; it returns
    False if the inbox is closed.

    The lock guards the state; it is held for assignments only, and is reentrant because a signal
    handler or a finalizer may call in anywhere.
    """

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
        self.state = RecorderState.VIRGIN
        self.error: RecorderError | None = None
        """What ended the recorder, or spoilt its last stop."""
        self.ledger = Ledger()
        self.dispatcher = Dispatcher(
            policy=options.failure_policy,
            quarantine_after=options.quarantine_after,
            ledger=self.ledger,
            log=self._log,
            fields=self._fields,
        )
        self._known: set[type] = set()
        self._renew_inbox()
        self._claimed = False
        self._run: ActorRun | None = None
        self._starting: RecorderWaitHandle | None = None
        self._stopping: RecorderWaitHandle | None = None
        reset_in_child(self)

    def claim(self) -> bool:
        """Claim the recorder for a registry; return whether nobody had, and it has not been started."""
        with self._lock:
            claimed, self._claimed = self._claimed, True
            return not claimed and self.state is RecorderState.VIRGIN

    # --- operations ------------------------------------------------------------------------------

    def start(self) -> RecorderWaitHandle:
        with self._lock:
            reaction = STATE_TABLE[self.state].start
            if reaction is Reaction.JOIN and self._starting is not None:
                return self._starting
            if reaction is not Reaction.BEGIN:
                return settled(RecorderOp.START, self, self._invalid_state("start"))
            handle = self._starting = RecorderWaitHandle(RecorderOp.START, self)
            try:
                run = self._begin_run()
            except LoopGoneError:
                self._lose_loop()
                return handle
        try:
            self.home.launch(run.main, name=f"mvx.common.metrics recorder {self.entity_id}", ended=run.conclude)
        except LoopGoneError:
            run.lose_loop()
        return handle

    def _begin_run(self) -> ActorRun:
        hub = self.home.hub()
        if self.state is RecorderState.STOPPED:
            self._renew_inbox()
        inbox = self.inbox
        run = self._run = ActorRun(
            hooks=self._hooks(),
            inbox=inbox,
            dispatcher=self.dispatcher,
            ledger=self.ledger,
            hub=hub,
            shielded=self.home.shielded,
            drain_timeout=self.options.drain_timeout,
            log=self._log,
            fields=self._fields,
            listener=self,
        )

        def ring() -> bool:
            try:
                hub.call_soon(run.look_in)
            except LoopGoneError:
                return False
            return True

        self._go(RecorderState.STARTING)
        inbox.attend(ring)
        return run

    def stop(self) -> RecorderWaitHandle:
        with self._lock:
            reaction = STATE_TABLE[self.state].stop
            if reaction is Reaction.JOIN and self._stopping is not None:
                return self._stopping
            run = self._run
            if reaction is not Reaction.BEGIN or run is None:
                return settled(RecorderOp.STOP, self, self._invalid_state("stop"))
            handle = self._stopping = RecorderWaitHandle(RecorderOp.STOP, self)
            self._go(RecorderState.STOPPING)
            self.inbox.close()
        try:
            self.home.hub().call_soon(run.begin_stop)
        except LoopGoneError:
            run.lose_loop()
        return handle

    def interrupt(self) -> None:
        """Cancel the run under way from outside; in its loop."""
        if self._run is not None:
            self._run.interrupt()

    def flush(self) -> RecorderWaitHandle:
        handle = RecorderWaitHandle(RecorderOp.FLUSH, self)
        if not (self.state in ACTIVE and self.inbox.ask(_FlushRequest(handle))):
            settle(handle, None)
        return handle

    # --- events and metrics ----------------------------------------------------------------------

    def register_metric(self, metric: Metric) -> None:
        name, checked = ensure_metric(metric)
        with self._lock:
            if STATE_TABLE[self.state].register_metric is Reaction.REFUSE:
                raise self._invalid_state("register_metric")
            self.dispatcher.register(name, checked)

    def put_again(self, event: MetricEvent) -> None:
        """The inbox was closed to ``event``: offer it to the inbox of a new run if there is one, or raise."""
        while True:
            inbox = self.inbox
            if inbox.put(event):
                return
            if inbox is self.inbox:
                self._refuse()

    async def put_when_room(self, event: MetricEvent) -> None:
        while True:
            inbox = self.inbox
            if await inbox.put_when_room(event):
                return
            if inbox is self.inbox:
                self._refuse()

    def _refuse(self) -> NoReturn:
        self.ledger.rejected.increment()
        raise self._invalid_state("register_event")

    def _invalid_state(self, call: str) -> RecorderInvalidStateError:
        return RecorderInvalidStateError(
            self.state, states_that(call), call=call, cause=self.error and self.error.fresh()
        )

    # --- reading ---------------------------------------------------------------------------------

    def snapshots(self) -> Snapshots:
        if self.home.on_own_loop():
            return self.dispatcher.snapshots()
        request = self._ask_for_snapshots()
        if request is None:
            return self.dispatcher.snapshots()
        limit = self.options.drain_timeout
        if not request.reply.wait(limit, self.check_loop):
            raise RecorderTimeoutError("get_metric_snapshots", limit or 0.0)
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
        if not await request.reply.wait_async(limit, self.check_loop):
            raise RecorderTimeoutError("aget_metric_snapshots", limit or 0.0)
        return _unwrap(request)

    def _ask_for_snapshots(self) -> _SnapshotRequest | None:
        """Ask the actor, or return None where no actor is at work that could change anything meanwhile."""
        if self.state not in ACTIVE:
            return None
        try:
            if not self.home.hub().loop.is_running():
                return None
        except LoopGoneError:
            return None
        request = _SnapshotRequest(self.dispatcher.snapshots)
        return request if self.inbox.ask(request) else None

    def statistics(self) -> RecorderStatistics:
        with self._lock:
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
        if self.state not in ACTIVE and self.state is not RecorderState.VIRGIN:
            return
        try:
            if not self.home.hub().is_gone():
                return
        except LoopGoneError:
            pass
        with self._lock:
            self._lose_loop()

    def run_started(self) -> None:
        with self._lock:
            self._go(RecorderState.RUNNING)
            handle = self._starting
        if handle is not None:
            settle(handle, None)

    def run_interrupted(self) -> bool:
        with self._lock:
            if self.state is RecorderState.STOPPING:
                return self._stopping is not None
            self._go(RecorderState.STOPPING)
            self.inbox.close()
            return False

    def run_ended(self, run: ActorRun, state: RecorderState, error: RecorderError | None) -> Callable[[], None]:
        handles: list[RecorderWaitHandle] = []
        with self._lock:
            if run is self._run:
                self._run = None
                handles = self._end_run(state, error)

        def tell() -> None:
            for handle in handles:
                settle(handle, error)

        return tell

    def _end_run(self, state: RecorderState, error: RecorderError | None) -> list[RecorderWaitHandle]:
        """Enter ``state`` and return the handles of the operations that end with it."""
        if state is RecorderState.STOPPED and self.state is not RecorderState.STOPPING:
            state = RecorderState.FAILURE
        self.error = error
        self._go(state)
        ended = [handle for handle in (self._starting, self._stopping) if handle is not None]
        self._starting = self._stopping = None
        return ended

    def _go(self, state: RecorderState) -> None:
        if state not in STATE_TABLE[self.state].then:
            logging.getLogger(__name__).error("illegal transition %s -> %s", self.state, state)
        self.state = state

    def _lose_loop(self) -> None:
        """The loop has ended; nobody can work for this recorder any more."""
        run = self._run
        if run is not None:
            run.lose_loop()
            return
        if self.state in (RecorderState.VIRGIN, RecorderState.STOPPED):
            self.error = RecorderLoopUnavailableError("the recorder's event loop has ended")
            self._go(RecorderState.FAILURE)
            self.ledger.abandoned += self.inbox.abandon()
        starting, self._starting = self._starting, None
        if starting is not None:
            settle(starting, self.error)

    def _renew_inbox(self) -> None:
        self.inbox = Inbox(
            self.options.inbox, ledger=self.ledger, consumer=self, bell=self._start_on_first_event, known=self._known
        )
        self.put = self.inbox.put

    def _start_on_first_event(self) -> bool:
        try:
            if self.home.hub().is_gone():
                return False
        except LoopGoneError:
            return False
        self.start()
        return True

    # --- fork ------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Begin anew: what is pending, counted or under way belongs to the parent."""
        never_finalise((self._run, self.inbox, self._starting, self._stopping))
        was = self.state
        self._lock = threading.RLock()
        self._run = self._starting = self._stopping = None
        self.dispatcher.after_fork()
        self.ledger.reset()
        if was not in ACTIVE and was is not RecorderState.VIRGIN:
            self.inbox.after_fork()
            return
        self._renew_inbox()
        if self.home.survives_fork:
            self.state = RecorderState.VIRGIN
        else:
            self.state = RecorderState.FAILURE
            self.error = RecorderLoopUnavailableError(
                "the recorder's event loop stayed in the parent process at a fork"
            )
            self.inbox.abandon()


def _unwrap(request: _SnapshotRequest) -> Snapshots:
    answer = request.reply.peek()
    if isinstance(answer, BaseException):
        raise answer
    return answer
