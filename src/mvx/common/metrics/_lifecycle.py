"""The life of a recorder: states, what each call does in each of them, results and wait handles."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Protocol

from ._waiting import OneShot
from .errors import RecorderError, RecorderWouldDeadlockError


class RecorderState(StrEnum):
    """Where a recorder is in its life; ``STOPPED`` can start again, ``FAILURE`` and ``CANCELLED`` are final."""

    VIRGIN = "VIRGIN"
    """Made and never started; the first event starts it."""
    STARTING = "STARTING"
    """``_on_starting()`` is under way; events are accepted and wait."""
    RUNNING = "RUNNING"
    """Events are processed as they come."""
    STOPPING = "STOPPING"
    """The entry is closed and what was accepted is being processed."""
    STOPPED = "STOPPED"
    """Everything accepted has been dealt with; the metrics are kept."""
    FAILURE = "FAILURE"
    """A hook failed, or a metric under ``FailurePolicy.FAIL``, or the event loop is gone."""
    CANCELLED = "CANCELLED"
    """The recorder's task was cancelled from outside."""


class Reaction(Enum):
    """What a call does in a state."""

    BEGIN = auto()
    """Do it: start, stop, register, accept."""
    JOIN = auto()
    """Share the operation under way."""
    REFUSE = auto()
    """Fail with RecorderInvalidStateError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reactions:
    """One row of the state table: the reaction to each call, and the states that may follow."""

    start: Reaction
    stop: Reaction
    register_metric: Reaction
    register_event: Reaction
    then: frozenset[RecorderState]


def _row(start: Reaction, stop: Reaction, metric: Reaction, event: Reaction, *then: RecorderState) -> Reactions:
    return Reactions(start=start, stop=stop, register_metric=metric, register_event=event, then=frozenset(then))


_S = RecorderState
_B, _J, _R = Reaction.BEGIN, Reaction.JOIN, Reaction.REFUSE

# Snapshots, iter_metrics, statistics and flush are allowed in every state and have no column.
STATE_TABLE: dict[RecorderState, Reactions] = {
    #                  start  stop  metric  event  may be followed by
    _S.VIRGIN: _row(_B, _R, _B, _B, _S.STARTING, _S.FAILURE),
    _S.STARTING: _row(_J, _R, _B, _B, _S.RUNNING, _S.FAILURE, _S.CANCELLED),
    _S.RUNNING: _row(_R, _B, _B, _B, _S.STOPPING, _S.FAILURE, _S.CANCELLED),
    _S.STOPPING: _row(_R, _J, _R, _R, _S.STOPPED, _S.FAILURE, _S.CANCELLED),
    _S.STOPPED: _row(_B, _R, _R, _R, _S.STARTING, _S.FAILURE),
    _S.FAILURE: _row(_R, _R, _R, _R),
    _S.CANCELLED: _row(_R, _R, _R, _R),
}


def states_that(call: str) -> tuple[RecorderState, ...]:
    """Return the states in which ``call``, a column of the table, is carried out."""
    return tuple(state for state, row in STATE_TABLE.items() if getattr(row, call) is Reaction.BEGIN)


class RecorderOp(StrEnum):
    """The operation that a result is about."""

    START = "START"
    STOP = "STOP"
    FLUSH = "FLUSH"


@dataclass(frozen=True, slots=True)
class RecorderOpResult:
    """How an operation ended."""

    op_name: RecorderOp
    """Which operation it was."""
    success: bool
    """Whether it did what it is for."""
    error: RecorderError | None
    """Why not; None on success.  Each waiter gets an instance of its own, free to be raised."""


class OperationOwner(Protocol):
    """What a wait handle asks of the recorder that it belongs to."""

    def on_own_loop(self) -> bool:
        """Whether the calling thread runs the recorder's event loop."""
        ...

    def in_own_task(self) -> bool:
        """Whether the recorder's own task, that is one of its hooks, is running here."""
        ...

    def check_loop(self) -> None:
        """Fail the recorder if its event loop has ended without a word."""
        ...


class RecorderWaitHandle:
    """An operation under way: await it on asyncio or trio, on any loop, or block a thread for it.

    Any number of tasks and threads may wait.  Giving up a wait, by cancelling it or by its
    time-out, does not give up the operation.
    """

    __slots__ = ("_op_name", "_outcome", "_owner")

    def __init__(self, op_name: RecorderOp, owner: OperationOwner) -> None:
        self._op_name = op_name
        self._owner = owner
        self._outcome: OneShot[RecorderError | None] = OneShot()

    def __repr__(self) -> str:
        state = repr(self._result()) if self._outcome.is_set else "under way"
        return f"<{type(self).__name__} {self._op_name.value} {state}>"

    def done(self) -> bool:
        """Return whether the operation has ended."""
        return self._outcome.is_set

    def wait(self, timeout: float | None = None) -> RecorderOpResult:
        """Block the calling thread until the operation has ended, and return its result.

        :param timeout: seconds to wait at most; None waits without a limit
        :raises TimeoutError: if the operation has not ended in time; it goes on
        :raises RecorderWouldDeadlockError: in the thread of the recorder's own loop, while the
            operation is under way: the loop could not go on to end it
        """
        if not self._outcome.is_set:
            if self._owner.on_own_loop():
                raise RecorderWouldDeadlockError(
                    f"wait() for {self._op_name.value} on the recorder's own event loop", "await the handle instead"
                )
            if not self._outcome.wait(timeout, self._owner.check_loop):
                msg = f"{self._op_name.value} has not ended within {timeout:g} s"
                raise TimeoutError(msg)
        return self._result()

    def __await__(self) -> Generator[Any, Any, RecorderOpResult]:
        """Suspend the calling task until the operation has ended, and return its result.

        A checkpoint.  Cancelling the await does not cancel the operation.

        :raises RecorderWouldDeadlockError: in a hook of the same recorder, while the operation is
            under way
        """
        return self._wait_async().__await__()

    async def _wait_async(self) -> RecorderOpResult:
        if not self._outcome.is_set and self._owner.in_own_task():
            raise RecorderWouldDeadlockError(
                f"awaiting {self._op_name.value} in a hook of the same recorder", "let the hook return instead"
            )
        await self._outcome.wait_async(None, self._owner.check_loop)
        return self._result()

    def _result(self) -> RecorderOpResult:
        outcome = self._outcome.peek()
        error = None if outcome is None else outcome.fresh()
        return RecorderOpResult(self._op_name, error is None, error)


def settle(handle: RecorderWaitHandle, error: RecorderError | None) -> None:
    """End the operation behind ``handle``; for the engine, so that it is no method a user could call."""
    handle._outcome.set(error)  # noqa: SLF001 — same module


def settled(op_name: RecorderOp, owner: OperationOwner, error: RecorderError | None = None) -> RecorderWaitHandle:
    """Return a handle of an operation that has ended already."""
    handle = RecorderWaitHandle(op_name, owner)
    settle(handle, error)
    return handle
