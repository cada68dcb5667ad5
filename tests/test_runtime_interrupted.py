"""A runtime whose calls are cut short, or whose loop is gone."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeLoopUnavailableError,
    MetricsRuntimeState,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderState,
)
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._exit import _running
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._waiting import OneShot
from tests.support import Count, Journal, Tick, until


def interrupted(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def gone(*args: object, **kwargs: object) -> None:
    raise LoopGoneError


def test_ctrl_c_while_a_creation_is_set_going_frees_the_id(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next creation of that id succeeds."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr("mvx.common.metrics._engine.Engine.submit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                runtime.create_recorder("x", factory=Journal)
        assert runtime.create_recorder("x").get_status() is RecorderState.RUNNING


def test_ctrl_c_while_a_creation_is_waited_for_undoes_it(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know of the recorder: it is not kept, and the id becomes free."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr(OneShot, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                runtime.create_recorder("x")
        # Behind the undoing in the loop's queue.
        assert runtime.create_recorder("y").get_status() is RecorderState.RUNNING
        until(lambda: "x" not in (*runtime.list_recorder_ids(), *supervisor_of(runtime)._creations))
        assert runtime.create_recorder("x").get_status() is RecorderState.RUNNING


def test_a_creation_on_a_loop_that_is_gone(backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and the id is free."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        with monkeypatch.context() as patched:
            patched.setattr("mvx.common.metrics._engine.Engine.submit", gone)
            with pytest.raises(MetricsRuntimeLoopUnavailableError):
                runtime.create_recorder("x", factory=Journal)
        runtime.create_recorder("x")


def test_ctrl_c_in_a_shutdown_is_not_followed_by_a_wait_at_the_exit(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts the wait does not want to wait again; the shutdown itself goes on."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    with monkeypatch.context() as patched:
        patched.setattr(OneShot, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runtime.shutdown()
    assert supervisor_of(runtime) not in _running
    runtime.shutdown()
    assert runtime.get_status() is MetricsRuntimeState.CLOSED


def test_a_recorder_of_a_closed_runtime_cannot_start_again(backend: dict[str, Any]) -> None:
    """It says that its loop has ended, keeps its snapshots, and takes no events."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        recorder.register_metric(Count())
        recorder.register_event(Tick())
    result = recorder.start().wait()
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert recorder.get_status() is RecorderState.FAILURE
    with pytest.raises(RecorderInvalidStateError):
        recorder.register_event(Tick())
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}


@pytest.mark.anyio
async def test_a_runtime_block_cancelled_at_its_entry_is_shut_down(anyio_backend: tuple[str, object]) -> None:
    """No thread is left behind by a block that was never entered."""
    runtime = MetricsRuntime(namespace="t", backend=anyio_backend[0])
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with runtime:
            pytest.fail("entered")
    assert runtime.get_status() is MetricsRuntimeState.CLOSED


@pytest.mark.anyio
async def test_asking_for_what_was_never_started() -> None:
    """A virgin recorder has nothing to interrupt, to conclude or to wait for."""
    recorder = MetricsRecorder("x")
    assert (await recorder.flush()).success
    assert "STARTING" not in repr(recorder)
    assert (await recorder.aget_metric_snapshots()) == {}
