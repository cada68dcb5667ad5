"""Wait handles and their results, without a recorder behind them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    RecorderError,
    RecorderOp,
    RecorderOpResult,
    RecorderState,
    RecorderTimeoutError,
    RecorderWaitHandle,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._lifecycle import STATE_TABLE, Reaction, Reactions, _row, settle, settled, states_that
from tests.support import DEADLINE, run_threads

S = RecorderState
OPS = pytest.mark.parametrize("op", list(RecorderOp))


class Owner:
    """Stands in for the recorder; at its third check it finds its loop gone, and ends the operation."""

    def __init__(self) -> None:
        self.own_loop = False
        self.own_task = False
        self.checks = 0
        self.handle: RecorderWaitHandle | None = None

    def on_own_loop(self) -> bool:
        return self.own_loop

    def in_own_task(self) -> bool:
        return self.own_task

    def check_loop(self) -> None:
        self.checks += 1
        if self.checks == 3 and self.handle is not None:
            settle(self.handle, None)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@OPS
def test_a_handle_shows_itself(owner: Owner, op: RecorderOp) -> None:
    """Which operation it is, and what became of it."""
    handle = RecorderWaitHandle(op, owner)
    assert handle.done() is False
    assert repr(handle) == f"<RecorderWaitHandle {op.value} under way>"
    settle(handle, None)
    assert handle.done() is True
    assert repr(handle) == f"<RecorderWaitHandle {op.value} {RecorderOpResult(op, True, None)!r}>"


@OPS
@pytest.mark.anyio
async def test_both_ways_to_wait_give_the_same_result(owner: Owner, op: RecorderOp) -> None:
    """Success without an error, and failure with one; the first end counts."""
    well = settled(op, owner)
    settle(well, RecorderTimeoutError("late", 1.0))
    for result in (well.wait(), await well):
        assert (result.op_name, result.success, result.error) == (op, True, None)
    error = RecorderTimeoutError("x", 1.0)
    ill = settled(op, owner, error)
    settle(ill, None)
    for result in (ill.wait(), await ill):
        assert (result.op_name, result.success) == (op, False)
        assert isinstance(result.error, RecorderTimeoutError)
        assert result.error is not error
        assert result.error.message == error.message


@OPS
def test_a_wait_that_takes_too_long(owner: Owner, op: RecorderOp) -> None:
    """TimeoutError, with the operation and the limit; the operation goes on."""
    handle = RecorderWaitHandle(op, owner)
    with pytest.raises(TimeoutError) as caught:
        handle.wait(0.001)
    assert str(caught.value) == f"{op.value} has not ended within 0.001 s"
    assert not handle.done()
    settle(handle, None)
    assert handle.wait(0.0).success


@OPS
def test_a_wait_on_the_own_loop(owner: Owner, op: RecorderOp) -> None:
    """Refused while the operation is under way, with advice; allowed once there is nothing to wait for."""
    owner.own_loop = True
    handle = RecorderWaitHandle(op, owner)
    with pytest.raises(RecorderWouldDeadlockError) as caught:
        handle.wait(0.0)
    assert str(caught.value) == (
        f"wait() for {op.value} on the recorder's own event loop would wait for itself; await the handle instead"
    )
    settle(handle, None)
    assert handle.wait().success


@OPS
@pytest.mark.anyio
async def test_an_await_in_an_own_hook(owner: Owner, op: RecorderOp) -> None:
    """Refused while the operation is under way, with advice; allowed once there is nothing to wait for."""
    owner.own_task = True
    handle = RecorderWaitHandle(op, owner)
    with pytest.raises(RecorderWouldDeadlockError) as caught:
        await handle
    assert str(caught.value) == (
        f"awaiting {op.value} in a hook of the same recorder would wait for itself; let the hook return instead"
    )
    settle(handle, None)
    assert (await handle).success


@pytest.mark.anyio
async def test_an_await_on_the_own_loop_is_what_one_does_there(owner: Owner) -> None:
    """Only a hook of the same recorder cannot."""
    owner.own_loop = True
    handle = RecorderWaitHandle(RecorderOp.STOP, owner)
    async with anyio.create_task_group() as group:

        async def end() -> None:
            settle(handle, None)

        group.start_soon(end)
        with anyio.fail_after(DEADLINE):
            assert (await handle).success


@pytest.fixture
def fast_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvx.common.metrics._waiting.HEARTBEAT", 0.001)


@pytest.mark.usefixtures("fast_heartbeat")
def test_a_thread_that_waits_looks_after_the_loop(owner: Owner) -> None:
    """At each heartbeat; once the loop is found to be gone, the operation ends."""
    handle = owner.handle = RecorderWaitHandle(RecorderOp.FLUSH, owner)
    run_threads(lambda: handle.wait(DEADLINE))
    assert owner.checks == 3


@pytest.mark.anyio
@pytest.mark.usefixtures("fast_heartbeat")
async def test_a_task_that_waits_looks_after_the_loop(owner: Owner) -> None:
    """Likewise, and without a limit."""
    handle = owner.handle = RecorderWaitHandle(RecorderOp.FLUSH, owner)
    with anyio.fail_after(DEADLINE):
        assert (await handle).success
    assert owner.checks == 3


@pytest.mark.parametrize(
    ("call", "states"),
    [
        ("start", (S.VIRGIN, S.STOPPED)),
        ("stop", (S.RUNNING,)),
        ("register_metric", (S.VIRGIN, S.STARTING, S.RUNNING)),
        ("register_event", (S.VIRGIN, S.STARTING, S.RUNNING)),
    ],
)
def test_where_a_call_is_carried_out(call: str, states: tuple[RecorderState, ...]) -> None:
    """What an error about the state names; joining is not carrying out."""
    assert states_that(call) == states


def test_a_row_of_the_table() -> None:
    """Each reaction in its own column, and the states that may follow, in whatever order."""
    begin, join, refuse = Reaction.BEGIN, Reaction.JOIN, Reaction.REFUSE
    assert _row(begin, join, refuse, begin, S.RUNNING, S.FAILURE) == Reactions(
        start=begin, stop=join, register_metric=refuse, register_event=begin, then=frozenset({S.FAILURE, S.RUNNING})
    )
    assert _row(join, begin, begin, refuse) == Reactions(
        start=join, stop=begin, register_metric=begin, register_event=refuse, then=frozenset()
    )


def test_final_states_are_final() -> None:
    """FAILURE and CANCELLED: nothing follows, and no call does anything; every other state has an end."""
    final = {state for state, row in STATE_TABLE.items() if not row.then}
    assert final == {S.FAILURE, S.CANCELLED}
    for state in final:
        row = STATE_TABLE[state]
        assert {row.start, row.stop, row.register_metric, row.register_event} == {Reaction.REFUSE}
    assert set(STATE_TABLE) == set(S)
    assert all(S.FAILURE in STATE_TABLE[state].then for state in set(S) - final)


def test_a_result_is_a_record(owner: Owner) -> None:
    """Equal when all of it is, and frozen."""
    result: Any = settled(RecorderOp.START, owner).wait()
    assert result == RecorderOpResult(RecorderOp.START, True, None)
    with pytest.raises(AttributeError):
        result.success = False


def test_errors_of_one_operation_are_each_waiters_own(owner: Owner) -> None:
    """Raised in one place, an error has no traceback in another."""
    handle = settled(RecorderOp.STOP, owner, RecorderTimeoutError("x", 1.0))
    first, second = handle.wait().error, handle.wait().error
    assert isinstance(first, RecorderError)
    with pytest.raises(RecorderTimeoutError):
        raise first
    assert second is not None
    assert second.__traceback__ is None
