"""Ctrl-C ends a program as it would without the library, and loses nothing."""

from __future__ import annotations

import signal

import pytest

from tests.processes.launch import CTRL_C, run_program


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
