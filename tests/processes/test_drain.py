"""A drain takes the time that it needs, up to its limit; past that everything ends all the same, and says so."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.processes.launch import Outcome, Running, run_program

CUT = r"the drain outran drain_timeout of 0\.3 s; 9 events abandoned, the hook under way cancelled\n"
NOT_DRAINED = r"the runtime was not drained in time at exit\n"

STUCK_IN_A_HOOK = {"processed": 1, "abandoned": 9, "pending": 0, "hook_errors": 1}
"""The event whose hook was cut has been seen by every metric, so it counts as processed."""


@pytest.fixture(scope="module", autouse=True)
def slow_drains() -> Iterator[dict[str, Running]]:
    """The same program on every backend, begun before the first test: it does little but wait meanwhile."""
    names = [name for name in ("asyncio", "uvloop", "trio") if importlib.util.find_spec(name)]
    programs = {name: Running("slow_drain", name) for name in names}
    yield programs
    for program in programs.values():
        program.abandon()


def subset(report: dict[str, Any], expected: dict[str, Any]) -> bool:
    return {name: report[name] for name in expected} == expected


def names_the_abandoned(payload: dict[str, Any]) -> bool:
    expected = {"kind": "RecorderDrainTimeoutError", "details": {"abandoned": 9, "drain_timeout_seconds": 0.3}}
    return subset(payload, expected)


def hooks_ran_once(outcome: Outcome, *, recorders: int) -> bool:
    return len(outcome.all("starting")) == len(outcome.all("stopped")) == recorders


def test_a_stop_by_hand_ends_at_its_drain_timeout(backend_name: str) -> None:
    """A hook that never returns is cancelled in the end; the result says how many events were abandoned."""
    outcome = run_program("stuck", backend_name, "by-hand", "hook", stderr=CUT)
    assert names_the_abandoned(outcome.one("failed")["error"])
    assert subset(outcome.one("end"), STUCK_IN_A_HOOK)
    assert hooks_ran_once(outcome, recorders=1)


def test_a_stop_in_a_runtime_ends_at_its_drain_timeout(backend_name: str) -> None:
    """Likewise for one recorder of a runtime; the others go on."""
    outcome = run_program("stuck", backend_name, "stop", "hook", stderr=CUT)
    failed = outcome.one("failed")
    assert failed["error"]["kind"] == "MetricsRuntimeRecorderStopError"
    assert failed["error"]["details"] == {"recorder_id": "stuck"}
    assert names_the_abandoned(failed["cause"])
    assert failed["seconds"] < 5
    assert outcome.one("other")["total"] == 1
    assert subset(outcome.one("end"), STUCK_IN_A_HOOK)
    assert outcome.one("runtime")["status"] == "RUNNING"
    assert hooks_ran_once(outcome, recorders=2)


def test_a_shutdown_ends_at_the_drain_timeout(backend_name: str) -> None:
    """The error names the recorder and what it abandoned; the others were drained well."""
    outcome = run_program("stuck", backend_name, "shutdown", "hook", stderr=CUT)
    failed = outcome.one("failed")
    assert failed["error"]["details"]["failed_recorder_ids"] == ["stuck"]
    assert set(failed["error"]["details"]["recorder_errors"]) == {"stuck"}
    assert names_the_abandoned(failed["error"]["details"]["recorder_errors"]["stuck"])
    assert names_the_abandoned(failed["cause"])
    assert failed["seconds"] < 5
    assert subset(outcome.one("end"), STUCK_IN_A_HOOK)
    assert outcome.one("runtime")["status"] == "FAILURE"
    assert hooks_ran_once(outcome, recorders=2)


def test_an_exit_ends_at_the_drain_timeout(backend_name: str) -> None:
    """Without a shutdown the same happens at the exit; the log says what was abandoned."""
    outcome = run_program("stuck", backend_name, "exit", "hook", stderr=CUT)
    assert hooks_ran_once(outcome, recorders=2)
    assert sorted(r["abandoned"] for r in outcome.all("stopped")) == [0, 9]


@cache
def given_up(backend_name: str, culprit: str) -> Outcome:
    """Two tests look at the same run."""
    return run_program("stuck", backend_name, "shutdown", culprit)


@pytest.mark.parametrize("culprit", ["metric", "deaf-hook"])
def test_a_shutdown_gives_up_on_what_cannot_be_cancelled(backend_name: str, culprit: str) -> None:
    """A metric that blocks the thread, or a hook that swallows its cancellation, holds up the shutdown in bounds only."""
    outcome = given_up(backend_name, culprit)
    failed = outcome.one("failed")
    assert failed["error"]["kind"] == "MetricsRuntimeShutdownError"
    assert "has not ended within" in failed["error"]["message"]
    assert failed["seconds"] < 5
    assert outcome.one("runtime")["status"] == "FAILURE"


@pytest.mark.parametrize("culprit", ["metric", "deaf-hook"])
def test_a_shutdown_that_gives_up_names_the_culprit(backend_name: str, culprit: str) -> None:
    """The recorder that has not stopped is among the failed ones."""
    details = given_up(backend_name, culprit).one("failed")["error"]["details"]
    assert "stuck" in details["failed_recorder_ids"]
    assert set(details["recorder_errors"]) == set(details["failed_recorder_ids"])


@pytest.mark.parametrize("culprit", ["metric", "deaf-hook"])
def test_an_exit_gives_up_on_what_cannot_be_cancelled(backend_name: str, culprit: str) -> None:
    """Nor can they keep the process from exiting."""
    run_program("stuck", backend_name, "exit", culprit, stderr=NOT_DRAINED)


def test_a_shutdown_waits_for_seconds_of_work(slow_drains: dict[str, Running], backend_name: str) -> None:
    """Seven seconds of queued hooks are worked off to the last, and the shutdown reports success."""
    outcome = slow_drains[backend_name].finish()
    end = outcome.one("shut down")
    assert end["seconds"] >= 6.5
    assert end["status"] == "CLOSED"
    assert end["accepted"] == end["processed"] == 70
    assert end["abandoned"] == end["hook_errors"] == 0
    assert outcome.one("snapshot")["total"] == outcome.one("stopped")["total"] == 70
