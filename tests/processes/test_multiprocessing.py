"""The processes and pools of the standard library: each has a runtime that works, and drains it when it ends by itself."""

from __future__ import annotations

import multiprocessing
import signal

import pytest

from tests.processes.launch import Outcome, run_on, run_program
from tests.processes.test_fork import exact, hooks

METHODS = multiprocessing.get_all_start_methods()

TASKS = 1000
"""Events that the tasks of a pool emit, all together."""


def by_workers(outcome: Outcome, name: str) -> int:
    """The sum over all workers that drained."""
    return sum(r[name] for r in outcome.all("stopped", "worker"))


def parent_is_exact(outcome: Outcome) -> bool:
    """The parent emits fifty events before the pool and fifty after it."""
    return exact(outcome.one("end"), 100)


@pytest.mark.parametrize("forgotten", ["shut down", "forget"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(backend_name: str, method: str, forgotten: str) -> None:
    """A forked process uses the runtime that it inherits, any other its own; forgetting the shutdown costs nothing."""
    check_process(run_program("fork_multiprocessing", backend_name, method, forgotten))


@pytest.mark.parametrize("forgotten", ["shut down", "forget"])
def test_multiprocessing_by_a_server(forgotten: str, in_turn: tuple[str, ...]) -> None:
    """Likewise a process that the forkserver has forked."""
    for outcome in run_on(in_turn, "fork_multiprocessing", "forkserver", forgotten):
        check_process(outcome)


def check_process(outcome: Outcome) -> None:
    """Each process has drained what it emitted."""
    assert outcome.one("child ended")["code"] == 0
    assert exact(outcome.one("stopped"), 30)
    assert hooks(outcome, "child") == ["starting", "stopped"]
    assert exact(outcome.one("stopped", "child"), 40)


@pytest.mark.parametrize("method", METHODS)
def test_a_runtime_that_is_made_at_an_import(method: str, in_turn: tuple[str, ...]) -> None:
    """A child that makes its runtime while it imports the parent's main module drains it, too."""
    for outcome in run_on(in_turn, "fork_import", method):
        assert outcome.one("child ended")["code"] == 0
        assert exact(outcome.one("stopped"), 0)
        assert exact(outcome.one("stopped", "child"), 40)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["closed", "executor"])
def test_a_pools_workers_drain_at_its_end(kind: str, method: str, in_turn: tuple[str, ...]) -> None:
    """``Pool`` and ``ProcessPoolExecutor``, by every start method: what the tasks emitted is processed to the last."""
    for outcome in run_on(in_turn, "pools", kind, method, deadline=30):
        assert outcome.one("tasks")["emitted"] == TASKS
        assert by_workers(outcome, "offered") == by_workers(outcome, "processed") == TASKS
        assert by_workers(outcome, "rejected") == by_workers(outcome, "abandoned") == 0
        assert parent_is_exact(outcome)


def test_workers_that_are_replaced_drain_each(in_turn: tuple[str, ...]) -> None:
    """With ``maxtasksperchild`` a pool has many short-lived workers."""
    for outcome in run_on(in_turn, "pools", "recycled"):
        assert outcome.one("tasks")["emitted"] == TASKS
        assert len(outcome.all("stopped", "worker")) >= 7
        assert by_workers(outcome, "offered") == by_workers(outcome, "processed") == TASKS
        assert parent_is_exact(outcome)


def test_a_pool_that_is_terminated_loses_what_its_workers_had_pending(in_turn: tuple[str, ...]) -> None:
    """It ends like by SIGTERM, unless it was about to end anyway; nothing hangs, and the parent's events are its own."""
    for outcome in run_on(in_turn, "pools", "terminated"):
        assert outcome.one("tasks")["emitted"] == TASKS
        assert by_workers(outcome, "offered") == by_workers(outcome, "processed") <= TASKS
        assert parent_is_exact(outcome)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_is_terminated(method: str, in_turn: tuple[str, ...]) -> None:
    """It ends in the midst of its work; the parent loses nothing."""
    for outcome in run_on(in_turn, "pools", "process", method):
        assert outcome.one("process")["code"] == -signal.SIGTERM
        assert outcome.all("stopped", "worker") == []
        assert parent_is_exact(outcome)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_is_terminated_drains_if_sigterm_is_made_an_exit(method: str, in_turn: tuple[str, ...]) -> None:
    """The handler that saves a service saves a worker as well."""
    for outcome in run_on(in_turn, "pools", "handled", method):
        assert outcome.one("process")["code"] == 0
        stopped = outcome.one("stopped", "worker")
        assert stopped["offered"] == stopped["accepted"] + stopped["dropped"]
        assert stopped["accepted"] == stopped["processed"]
        assert stopped["pending"] == stopped["abandoned"] == 0
        assert parent_is_exact(outcome)


def test_a_pool_that_breaks(in_turn: tuple[str, ...]) -> None:
    """A worker that is killed breaks the executor, not the parent's runtime."""
    for outcome in run_on(in_turn, "pools", "broken"):
        assert outcome.one("broken")["error"] == "BrokenProcessPool"
        assert parent_is_exact(outcome)
