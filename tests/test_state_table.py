"""The state table of a recorder, every cell, on every backend and in every home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mvx.common.metrics import (
    RecorderDispatcherCancelledError,
    RecorderInvalidStateError,
    RecorderOnStartingHookFailedError,
    RecorderOp,
    RecorderState,
    RecorderWaitHandle,
)
from mvx.common.metrics._lifecycle import STATE_TABLE, Reaction, states_that
from mvx.common.metrics._recorder import core_of
from tests.support import Count, Journal, Tick, virgin

pytestmark = pytest.mark.anyio

S = RecorderState

# Written out once more, from the contract and not from the code's own table.
#            start     stop      register_metric  register_event
EXPECTED = {
    S.VIRGIN: ("begin", "refuse", "ok", "starts"),
    S.STARTING: ("join", "refuse", "ok", "ok"),
    S.RUNNING: ("refuse", "begin", "ok", "ok"),
    S.STOPPING: ("refuse", "join", "refuse", "refuse"),
    S.STOPPED: ("begin", "refuse", "refuse", "refuse"),
    S.FAILURE: ("refuse", "refuse", "refuse", "refuse"),
    S.CANCELLED: ("refuse", "refuse", "refuse", "refuse"),
}


@asynccontextmanager
async def recorder_in(state: RecorderState, home: str) -> AsyncIterator[tuple[Journal, RecorderWaitHandle | None]]:
    """A recorder held in ``state``, and the handle of the operation under way if there is one."""
    async with virgin(home, Journal) as recorder:
        recorder.register_metric(Count())
        under_way: RecorderWaitHandle | None = None
        if state is S.STARTING:
            recorder.starting = gate = type(recorder.starting)()
            under_way = recorder.start()
        elif state is S.FAILURE:
            recorder.errors["starting"] = ValueError("no")
            assert not (await recorder.start()).success
        elif state is S.CANCELLED:
            recorder.starting = gate = type(recorder.starting)()
            handle = recorder.start()
            core = core_of(recorder)
            core.home.hub().call_soon(core.interrupt)  # in its loop, which may be another thread's
            assert isinstance((await handle).error, RecorderDispatcherCancelledError)
        elif state is not S.VIRGIN:
            assert (await recorder.start()).success
            if state is S.STOPPING:
                recorder.stopped = gate = type(recorder.stopped)()
                under_way = recorder.stop()
            elif state is S.STOPPED:
                assert (await recorder.stop()).success
        assert recorder.get_status() is state
        yield recorder, under_way
        if state in (S.STARTING, S.STOPPING):
            gate.open()
            assert under_way is not None
            await under_way


@pytest.fixture(params=list(S))
def state(request: pytest.FixtureRequest) -> RecorderState:
    param: RecorderState = request.param
    return param


async def assert_refused(handle: RecorderWaitHandle, op: RecorderOp, state: RecorderState, call: str) -> None:
    result = await handle
    assert (result.op_name, result.success) == (op, False)
    assert isinstance(result.error, RecorderInvalidStateError)
    assert result.error.details["recorder_state"] == state.value
    assert result.error.details["expected_states"] == tuple(s.value for s in states_that(call))


async def test_start(state: RecorderState, home: str) -> None:
    """start() begins, joins or is refused, and never raises."""
    async with recorder_in(state, home) as (recorder, under_way):
        handle = recorder.start()
        match EXPECTED[state][0]:
            case "begin":
                assert (await handle).success
                assert recorder.get_status() is S.RUNNING
            case "join":
                assert handle is under_way
                recorder.starting.open()
                result = await handle
                assert (result.op_name, result.success, result.error) == (RecorderOp.START, True, None)
            case "refuse":
                await assert_refused(handle, RecorderOp.START, state, "start")
                assert recorder.get_status() is state


async def test_stop(state: RecorderState, home: str) -> None:
    """stop() begins, joins or is refused, and never raises."""
    async with recorder_in(state, home) as (recorder, under_way):
        handle = recorder.stop()
        match EXPECTED[state][1]:
            case "begin":
                assert (await handle).success
                assert recorder.get_status() is S.STOPPED
            case "join":
                assert handle is under_way
                recorder.stopped.open()
                result = await handle
                assert (result.op_name, result.success, result.error) == (RecorderOp.STOP, True, None)
            case "refuse":
                await assert_refused(handle, RecorderOp.STOP, state, "stop")
                assert recorder.get_status() is state


async def test_register_metric(state: RecorderState, home: str) -> None:
    """register_metric() is allowed until the recorder is asked to stop."""
    async with recorder_in(state, home) as (recorder, _):
        if EXPECTED[state][2] == "ok":
            recorder.register_metric(Count("another"))
            assert [metric.metric_name for metric in recorder.iter_metrics()] == ["count", "another"]
        else:
            with pytest.raises(RecorderInvalidStateError, match=r"register_metric\(\).*" + state.value):
                recorder.register_metric(Count("another"))
            assert [metric.metric_name for metric in recorder.iter_metrics()] == ["count"]


async def test_register_event(state: RecorderState, home: str) -> None:
    """register_event() starts a virgin, is buffered while starting, and raises from the stop on."""
    async with recorder_in(state, home) as (recorder, under_way):
        if EXPECTED[state][3] == "refuse":
            with pytest.raises(RecorderInvalidStateError, match=r"register_event\(\).*" + state.value) as caught:
                recorder.register_event(Tick())
            if state is S.FAILURE:
                assert isinstance(caught.value.cause, RecorderOnStartingHookFailedError)
                assert isinstance(caught.value.cause.cause, ValueError)
            if state is S.CANCELLED:
                assert isinstance(caught.value.cause, RecorderDispatcherCancelledError)
            statistics = recorder.statistics()
            assert (statistics.offered, statistics.rejected, statistics.accepted) == (1, 1, 0)
            return
        if state is S.VIRGIN:
            # On another thread it would be RUNNING in no time.
            recorder.starting = type(recorder.starting)()
        recorder.register_event(Tick())
        if state is S.VIRGIN:
            assert recorder.get_status() is S.STARTING
            recorder.starting.open()
        if under_way is not None:
            assert recorder.statistics().pending == 1
            recorder.starting.open()
        snapshots = await recorder.aget_metric_snapshots()
        assert snapshots["count"]["dimensions"] == {"total": 1}
        assert recorder.get_status() is S.RUNNING
        assert (await recorder.stop()).success


async def test_aregister_event(state: RecorderState, home: str) -> None:
    """aregister_event() is allowed where register_event() is."""
    async with recorder_in(state, home) as (recorder, under_way):
        if EXPECTED[state][3] == "refuse":
            with pytest.raises(RecorderInvalidStateError):
                await recorder.aregister_event(Tick())
            return
        await recorder.aregister_event(Tick())
        if under_way is not None:
            recorder.starting.open()
        assert (await recorder.flush()).success
        assert recorder.statistics().processed == 1


async def test_reading(state: RecorderState, home: str) -> None:
    """Snapshots, iter_metrics, statistics and the state can be read in every state."""
    async with recorder_in(state, home) as (recorder, _):
        assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 0}
        assert [metric.metric_name for metric in recorder.iter_metrics()] == ["count"]
        assert recorder.statistics().offered == 0
        assert state.value in repr(recorder)


async def test_flush(state: RecorderState, home: str) -> None:
    """flush() succeeds in every state once nothing is pending."""
    async with recorder_in(state, home) as (recorder, under_way):
        handle = recorder.flush()
        if under_way is not None:
            recorder.starting.open()
            recorder.stopped.open()
        result = await handle
        assert (result.op_name, result.success, result.error) == (RecorderOp.FLUSH, True, None)


def test_the_table_in_the_code_is_the_contract() -> None:
    """One table in the code, equal to the one of the contract."""
    word = {Reaction.BEGIN: "begin", Reaction.JOIN: "join", Reaction.REFUSE: "refuse"}
    for state, (start, stop, metric, event) in EXPECTED.items():
        row = STATE_TABLE[state]
        assert (word[row.start], word[row.stop]) == (start, stop)
        assert (row.register_metric is Reaction.BEGIN) == (metric == "ok")
        assert (row.register_event is Reaction.BEGIN) == (event in ("ok", "starts"))
