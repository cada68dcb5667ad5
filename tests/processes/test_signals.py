"""SIGTERM, by whatever handler: the process ends, and loses nothing but where nobody handles it."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.conftest import Effort, Tally
from tests.processes.launch import BACKENDS, NATIVE, Outcome, run_on

STEPS = {
    "shutdown": ("start", "create", "emit", "flush", "snapshots", "statistics", "stop", "remove", "shutdown"),
    "stop": ("emit", "flush", "snapshots", "statistics", "stop", "remove", "shutdown"),
    "flush": ("emit", "flush", "snapshots", "statistics", "stop", "remove", "shutdown"),
    "snapshots": ("emit", "flush", "snapshots", "statistics", "stop", "remove", "shutdown"),
}
"""What a handler waits for, and the calls that it interrupts."""
SPOKEN = {"snapshots": "snapshots"}
SHORT_STEPS = {("shutdown", "create"), ("shutdown", "emit"), ("stop", "emit")}


def drained(statistics: dict[str, Any]) -> bool:
    """Whether all that was accepted has been processed."""
    s = statistics
    return bool(
        s["accepted"] == s["processed"] == s["total"]
        and s["offered"] == s["accepted"] + s["dropped"] + s["rejected"]
        and s["pending"] == s["evicted"] == s["abandoned"] == 0
    )


def accounted_for(outcome: Outcome, role: str = "main") -> bool:
    """Whether every emit that has returned is in the account, and at most the one that the handler cut short besides."""
    stopped, emitted = outcome.one("stopped", role), outcome.one("emitted", role)["emitted"]
    return drained(stopped) and stopped["offered"] - stopped["rejected"] - emitted in (0, 1)


def test_without_a_handler_the_process_ends_at_once(in_turn: tuple[str, ...]) -> None:
    """The system's default: no callback runs, nothing hangs."""
    for outcome in run_on(in_turn, "signals", "default", returncode=-signal.SIGTERM):
        assert outcome.all("stopped") == []


def test_a_handler_that_exits() -> None:
    """SystemExit out of an emit: the exit drains, and keeps its code."""
    for outcome in run_on(BACKENDS, "signals", "exit", returncode=4):
        assert accounted_for(outcome)


def test_a_handler_that_shuts_the_runtime_down() -> None:
    """It may wait for the drain, whatever it has interrupted; the emit after it is refused."""
    for outcome in run_on(NATIVE, "signals", "shutdown"):
        assert outcome.one("shut down")["state"] == "CLOSED"
        assert outcome.one("shut down")["seconds"] < 10
        assert outcome.one("refused")["error"] == "RecorderInvalidStateError"
        assert accounted_for(outcome)


def test_a_handler_that_emits(in_turn: tuple[str, ...]) -> None:
    """Its events are in the account like any others."""
    for outcome in run_on(in_turn, "signals", "emit"):
        stopped = outcome.one("stopped")
        assert drained(stopped)
        assert stopped["offered"] == outcome.one("emitted")["emitted"]


def test_a_handler_that_exits_during_the_start(in_turn: tuple[str, ...]) -> None:
    """There is nothing to be drained; the process ends with its code."""
    for outcome in run_on(in_turn, "signals", "start", returncode=4):
        assert outcome.reports == []


def test_a_handler_that_shuts_down_during_the_start(in_turn: tuple[str, ...]) -> None:
    """It gets an error, because there is nothing to be shut down yet; the start goes on."""
    for outcome in run_on(in_turn, "signals", "start-shutdown"):
        refused = outcome.one("not shut down")
        assert (refused["error"], refused["state"]) == ("MetricsRuntimeInvalidStateError", "STARTING")
        assert outcome.one("end")["state"] == "CLOSED"
        assert drained(outcome.one("stopped"))
        assert outcome.one("stopped")["accepted"] == 100


def test_a_handler_that_exits_during_a_shutdown(in_turn: tuple[str, ...]) -> None:
    """The exit takes up the wait that the handler has ended: everything is processed."""
    for outcome in run_on(in_turn, "signals", "drain", returncode=4):
        assert [r["what"] for r in outcome.reports] == ["starting", "leaving", "stopped"]
        assert drained(outcome.one("stopped"))
        assert outcome.one("stopped")["accepted"] == 100


def test_sigterm_again_while_the_exit_drains() -> None:
    """The exit that it asks for is under way: the drain goes on to its end."""
    for outcome in run_on(NATIVE, "signals", "twice", returncode=4):
        assert [r["state"] for r in outcome.all("leaving")] == ["RUNNING", "STOPPING"]
        assert accounted_for(outcome)


def test_an_event_loops_own_handler() -> None:
    """asyncio's ``add_signal_handler`` and trio's ``open_signal_receiver``: emits, and an orderly end."""
    for outcome in run_on(NATIVE, "signals", "loop"):
        assert outcome.one("shut down")["state"] == "CLOSED"
        assert drained(outcome.one("stopped"))
        assert outcome.one("stopped")["offered"] == outcome.one("emitted")["emitted"] == 100


def test_a_forked_child_inherits_the_handler(in_turn: tuple[str, ...]) -> None:
    """The child's exit drains the child's events, the parent's are untouched."""
    for outcome in run_on(in_turn, "signals", "child"):
        assert outcome.one("child ended")["code"] == 4
        assert accounted_for(outcome, "child")
        assert accounted_for(outcome)
        assert outcome.one("stopped")["accepted"] == 100


@pytest.mark.parametrize("action", STEPS)
def test_a_handler_may_wait_at_every_step(action: str, effort: Effort, tally: Tally) -> None:
    """Wherever in a call of the same thread it strikes: no deadlock, and an emit that raises was not accepted."""
    steps = 0
    calls = [call for call in STEPS[action] if effort(0, 1) or (action, call) in SHORT_STEPS]
    for call in calls:
        for outcome in run_on(NATIVE, "signals_steps", call, action, deadline=60):
            steps += outcome.one("steps")["steps"]
    tally(f"signal handlers that wait for {SPOKEN.get(action, f'a {action}')} at a step of a call", steps)


@pytest.mark.parametrize("kind", ["exit", "shutdown"])
def test_sigterm_at_any_moment(kind: str, effort: Effort, tally: Tally) -> None:
    """With real signals, in the midst of emits: nothing that was accepted is lost."""
    rounds = effort(2, 100)
    for outcome in run_on(NATIVE, "signals_storm", kind, rounds, deadline=40 + rounds):
        assert outcome.reports == [{"role": "main", "what": "rounds", "ended": rounds}]
        tally("SIGTERM while emitting", rounds)
