"""A recorder made by hand outlives its loop without hanging anybody, and keeps its snapshots."""

from __future__ import annotations

import pytest

from tests.processes.launch import BACKENDS, run_on, run_program

LOST = ("RecorderInvalidStateError", "RecorderLoopUnavailableError")
CANCELLED = ("RecorderInvalidStateError", "RecorderDispatcherCancelledError")


def test_a_loop_closed_under_a_running_recorder(asyncio_name: str) -> None:
    """The next event is refused with a clear error; every other call answers."""
    outcome = run_program("lost_loop", asyncio_name, "closed")
    assert outcome.one("status")["status"] == "RUNNING"
    for what in ("first", "second"):
        assert (outcome.one(what)["error"], outcome.one(what)["cause"]) == LOST
    assert outcome.one("flush")["error"] is None
    for operation in outcome.all("operation"):
        assert (operation["error"], operation["cause"]) == LOST
    assert outcome.one("snapshot")["total"] == outcome.one("last snapshot")["total"] == 10
    end = outcome.one("end")
    assert end["status"] == "FAILURE"
    assert (end["offered"], end["accepted"], end["rejected"]) == (12, 10, 2)
    assert (end["processed"], end["pending"], end["abandoned"]) == (10, 0, 0)


def test_a_loop_closed_while_a_recorder_lingers(asyncio_name: str) -> None:
    """An event that nobody was to be woken for is accepted, and counted as abandoned once the loss is noticed."""
    outcome = run_program("lost_loop", asyncio_name, "closed", 5)
    assert outcome.one("first")["error"] is None
    assert outcome.one("snapshot")["total"] == 10
    assert outcome.one("flush")["error"] == "RecorderLoopUnavailableError"
    assert (outcome.one("second")["error"], outcome.one("second")["cause"]) == LOST
    for operation in outcome.all("operation"):
        assert (operation["error"], operation["cause"]) == LOST
    end = outcome.one("end")
    assert end["status"] == "FAILURE"
    assert (end["offered"], end["accepted"], end["rejected"]) == (12, 11, 1)
    assert (end["processed"], end["pending"], end["abandoned"]) == (10, 0, 1)


@pytest.mark.parametrize("linger", [0, 5])
def test_a_loop_that_was_run_to_its_end(backend_name: str, linger: int) -> None:
    """The end of ``asyncio.run()`` or ``trio.run()`` cancels a recorder that was not stopped: it drains, then refuses."""
    outcome = run_program("lost_loop", backend_name, "ended", linger)
    assert [r["what"] for r in outcome.reports[:3]] == ["starting", "stopped", "status"]
    assert outcome.one("status")["status"] == "CANCELLED"
    for what in ("first", "second"):
        assert (outcome.one(what)["error"], outcome.one(what)["cause"]) == CANCELLED
    assert outcome.one("flush")["error"] is None
    for operation in outcome.all("operation"):
        assert (operation["error"], operation["cause"]) == CANCELLED
    assert outcome.one("snapshot")["total"] == outcome.one("last snapshot")["total"] == 10
    end = outcome.one("end")
    assert (end["offered"], end["accepted"], end["rejected"]) == (12, 10, 2)
    assert (end["processed"], end["pending"], end["abandoned"]) == (10, 0, 0)


@pytest.mark.parametrize("linger", [0, 5])
def test_a_loop_between_two_runs(asyncio_name: str, linger: int) -> None:
    """Events wait for the loop to run again; a snapshot does not."""
    outcome = run_program("lost_loop", asyncio_name, "paused", linger)
    assert outcome.one("snapshot")["total"] == 10
    assert outcome.one("stop")["success"]
    assert outcome.one("last snapshot")["total"] == 20
    stopped = outcome.one("stopped")
    assert stopped["accepted"] == stopped["processed"] == 20


def test_a_loop_that_died(asyncio_name: str) -> None:
    """Killed by a callback, the loop might be run again: events wait in bounds, nobody waits for ever; closed, it is lost."""
    outcome = run_program("lost_loop", asyncio_name, "died")
    assert outcome.one("died")["error"] == "SystemExit"
    assert outcome.one("too many")["error"] == "RecorderQueueOverflowError"
    assert outcome.all("snapshot")[0]["total"] == 10
    still = outcome.one("still")
    assert still["status"] == "RUNNING"
    assert (still["accepted"], still["processed"], still["pending"], still["rejected"]) == (14, 10, 4, 1)
    assert [t["ended"] for t in outcome.all("thread")] == [True, True]
    for what in ("first", "second"):
        assert (outcome.one(what)["error"], outcome.one(what)["cause"]) == LOST
    for operation in outcome.all("operation"):
        assert (operation["error"], operation["cause"]) == LOST
    end = outcome.one("end")
    assert end["status"] == "FAILURE"
    assert (end["offered"], end["accepted"], end["rejected"]) == (17, 14, 3)
    assert (end["processed"], end["pending"], end["abandoned"]) == (10, 0, 4)


def test_a_trio_run_that_died() -> None:
    """A crash of trio itself cancels the recorder, which drains and says so."""
    for outcome in run_on([name for name in BACKENDS if name == "trio"], "lost_loop", "died"):
        assert outcome.one("died")["error"] == "TrioInternalError"
        assert outcome.one("thread")["ended"]
        for what in ("first", "second"):
            assert (outcome.one(what)["error"], outcome.one(what)["cause"]) in (LOST, CANCELLED)
        end = outcome.one("end")
        assert (end["offered"], end["accepted"], end["rejected"]) == (12, 10, 2)
        assert (end["processed"], end["pending"], end["abandoned"]) == (10, 0, 0)


def test_a_loop_that_is_replaced() -> None:
    """However many loops come one after another, a recorder knows its own: on the next, the old one refuses, a new one works."""
    for outcome in run_on(BACKENDS, "lost_loop", "replaced"):
        assert [r["total"] for r in outcome.all("new")] == [20] * 20
        assert len(outcome.all("old")) == 19
        assert {(r["error"], r["cause"]) for r in outcome.all("old")} <= {LOST, CANCELLED}


@pytest.mark.parametrize("way", ["closed-unused", "left"])
def test_an_exit_with_a_recorder_whose_loop_does_not_run(asyncio_name: str, way: str) -> None:
    """The interpreter exits in silence, although the recorder's loop was closed under it, or left where it was."""
    outcome = run_program("lost_loop", asyncio_name, way)
    assert [r["what"] for r in outcome.reports] == ["starting"]


def test_an_exit_with_a_recorder_in_a_daemon_thread(backend_name: str) -> None:
    """A loop in a daemon thread is no business of the exit: the process ends."""
    outcome = run_program("lost_loop", backend_name, "in-a-thread")
    assert outcome.one("snapshot")["total"] == 20
