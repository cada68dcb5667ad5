"""Ctrl-C ends a program as it would without the library, and loses nothing."""

from __future__ import annotations

import signal

import pytest

from tests.conftest import Effort, Tally
from tests.processes.launch import CTRL_C, NATIVE, run_on, run_program


@pytest.mark.parametrize("ending", ["forgotten", "block"])
def test_ctrl_c_while_emitting(backend_name: str, ending: str) -> None:
    """KeyboardInterrupt propagates; what was accepted is processed and the stop hook run, at the exit or by the block."""
    outcome = run_program("interrupt", backend_name, ending, returncode=-signal.SIGINT, stderr=CTRL_C)
    assert [r["what"] for r in outcome.reports] == ["starting", "interrupted", "stopped"]
    emitted, stopped = outcome.one("interrupted")["emitted"], outcome.one("stopped")
    # The interrupt may come between an event's acceptance and its being counted by the program.
    assert stopped["offered"] - emitted in (0, 1)
    assert stopped["offered"] == stopped["accepted"] + stopped["dropped"]
    assert stopped["accepted"] == stopped["processed"] == stopped["total"]
    assert stopped["abandoned"] == stopped["rejected"] == stopped["evicted"] == 0


def test_a_second_ctrl_c_ends_a_slow_drain(backend_name: str) -> None:
    """Who does not want to wait for the drain at exit presses Ctrl-C again."""
    ignored = r"Exception ignored [^\n]* atexit callback[^\n]*\n"
    outcome = run_program(
        "interrupt",
        backend_name,
        "twice",
        returncode=-signal.SIGINT,
        stderr=f"{CTRL_C}{ignored}{CTRL_C}",
    )
    assert [r["what"] for r in outcome.reports] == ["starting", "interrupted", "draining"]
    # The time limit of a drain at exit is several times that.
    assert outcome.seconds < 10


def test_ctrl_c_ends_the_wait_for_a_shutdown(in_turn: tuple[str, ...]) -> None:
    """Whoever does not want to wait for the drain is not made to wait for it at the exit either."""
    for outcome in run_on(in_turn, "interrupt", "shutdown", returncode=-signal.SIGINT, stderr=CTRL_C):
        assert [r["what"] for r in outcome.reports] == ["starting", "draining", "interrupted"]
        assert outcome.one("interrupted")["state"] == "STOPPING"
        assert outcome.seconds < 10


def test_ctrl_c_ends_the_wait_for_a_creation(in_turn: tuple[str, ...]) -> None:
    """The creation is given up; the exit drains what there is."""
    for outcome in run_on(in_turn, "interrupt", "creation", returncode=-signal.SIGINT, stderr=CTRL_C):
        assert [r["what"] for r in outcome.reports] == ["starting", "creating", "interrupted", "stopped"]
        assert outcome.one("interrupted")["state"] == "RUNNING"
        stopped = outcome.one("stopped")
        assert stopped["offered"] == stopped["accepted"] == stopped["processed"] == stopped["total"] == 1


@pytest.mark.parametrize(("home", "place"), [("loop", "hook"), ("stop", "hook"), ("block", "loop")])
def test_a_second_ctrl_c_while_a_recorder_of_a_loop_drains(home: str, place: str) -> None:
    """asyncio ends the drain, trio holds the interrupt back until its end, which is bounded; every event is accounted for."""
    for outcome in run_on(NATIVE, "interrupt_twice", home, place, stderr=r"(?s).*"):
        end, stopped = outcome.one("end"), outcome.one("stopped")
        assert end["state"] in ("FAILURE", "CANCELLED", "STOPPED")
        assert end["offered"] == end["accepted"] == 10
        assert end["processed"] == end["total"]
        assert end["processed"] + end["abandoned"] == 10
        assert end["pending"] == end["rejected"] == 0
        # Cut once by the second Ctrl-C, and once more by the end of the loop or of the time.
        assert end["processed"] == end["hook_errors"] in (1, 2)
        assert stopped["abandoned"] == end["abandoned"]
        # Far less than the time limit of the drain is, but under trio.
        assert outcome.one("interrupted")["seconds"] < 15


@pytest.mark.parametrize("kind", ["ctrl-c", "ctrl-c twice"])
def test_ctrl_c_at_any_moment(kind: str, effort: Effort, tally: Tally) -> None:
    """In the midst of emits nothing is lost; again in the midst of the drain, it ends the process."""
    rounds = effort(2, 100)
    ignored = rf"(?:Exception ignored [^\n]* atexit callback[^\n]*\n{CTRL_C})*"
    stderr = ignored if kind == "ctrl-c twice" else ""
    for outcome in run_on(NATIVE, "signals_storm", kind, rounds, stderr=stderr, deadline=40 + rounds):
        assert outcome.reports == [{"role": "main", "what": "rounds", "ended": rounds}]
        tally("Ctrl-C during a drain" if kind == "ctrl-c twice" else "Ctrl-C while emitting", rounds)


@pytest.mark.parametrize("place", ["task", "hook", "block"])
def test_ctrl_c_in_an_event_loop(backend_name: str, place: str) -> None:
    """Whatever the loop is doing at that moment, the recorder drains, its stop hook runs once, and the loop ends."""
    outcome = run_program("interrupt_loop", backend_name, place, returncode=-signal.SIGINT, stderr=CTRL_C)
    assert [r["what"] for r in outcome.reports] == ["starting", "stopped", "interrupted", "snapshot"]
    end = outcome.one("interrupted")
    assert end["status"] == ("STOPPED" if place == "block" else "CANCELLED")
    assert end["offered"] == end["accepted"] == end["processed"] == 2001
    assert outcome.one("stopped")["processed"] == outcome.one("snapshot")["total"] == 2001


def test_ctrl_c_raised_inside_a_recorder(asyncio_name: str) -> None:
    """On a loop without a runner the interrupt hits the hook itself: the stop hook runs, every event is accounted for."""
    outcome = run_program("interrupt_loop", asyncio_name, "bare", returncode=-signal.SIGINT, stderr=CTRL_C)
    assert [r["what"] for r in outcome.reports] == ["starting", "stopped", "interrupted", "snapshot"]
    end = outcome.one("interrupted")
    assert end["status"] == "FAILURE"
    assert end["offered"] == end["accepted"] == 2001
    assert end["processed"] == outcome.one("snapshot")["total"] == 1001
    assert end["abandoned"] == 1000
    assert end["pending"] == 0
