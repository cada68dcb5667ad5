"""After ``os.fork()`` the child has a runtime of its own, and the parent goes on as if nothing had been."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mvx.common.metrics import OverflowPolicy
from tests.processes.launch import Outcome, run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

COUNTS = (
    "offered",
    "accepted",
    "processed",
    "pending",
    "dropped",
    "rejected",
    "evicted",
    "abandoned",
    "metric_errors",
    "hook_errors",
    "unmatched",
    "high_water",
)


def all_zero(report: dict[str, Any]) -> bool:
    return not any(report[name] for name in COUNTS)


def exact(report: dict[str, Any], count: int) -> bool:
    """So many were offered and processed, and nothing else happened."""
    return {name: report[name] for name in COUNTS[:8]} == {
        **dict.fromkeys(COUNTS[:8], 0),
        "offered": count,
        "accepted": count,
        "processed": count,
    }


def hooks(outcome: Outcome, role: str) -> list[str]:
    return [r["what"] for r in outcome.reports if r["role"] == role and r["what"] in ("starting", "started", "stopped")]


def test_each_process_counts_its_own(backend_name: str) -> None:
    """Ledgers begin at zero in the child and its child; metrics and recorders are inherited; the hooks run in each."""
    outcome = run_program("fork_counts", backend_name)

    at_fork = outcome.one("at fork", "child")
    assert all_zero(at_fork)
    assert (at_fork["status"], at_fork["runtime"]) == ("VIRGIN", "RUNNING")
    assert at_fork["total"] == 100
    assert outcome.one("snapshot", "child")["total"] == 140
    assert outcome.one("recorders", "child")["ids"] == ["r"]
    second, first = outcome.all("stopped", "child")
    assert exact(second, 1)
    assert exact(first, 42)
    assert hooks(outcome, "child") == ["starting", "starting", "stopped", "stopped"]

    assert all_zero(outcome.one("at fork", "grandchild"))
    assert outcome.one("at fork", "grandchild")["total"] == 140
    assert exact(outcome.one("stopped", "grandchild"), 7)
    assert hooks(outcome, "grandchild") == ["starting", "stopped"]
    assert outcome.one("grandchild ended", "child")["code"] == 0

    assert outcome.one("child ended")["code"] == 0
    assert outcome.one("portal")["answer"] == 0
    assert outcome.one("snapshot")["total"] == 220
    assert exact(outcome.one("at end"), 220)
    assert exact(outcome.one("stopped"), 220)
    assert hooks(outcome, "main") == ["starting", "stopped"]


@pytest.mark.parametrize("policy", OverflowPolicy)
def test_pending_events_belong_to_the_parent(backend_name: str, policy: OverflowPolicy) -> None:
    """A full inbox at the fork is empty in the child, and is worked off in the parent, with whoever waits for room."""
    outcome = run_program("fork_pending", backend_name, policy)
    assert all_zero(outcome.one("at fork", "child"))
    assert exact(outcome.one("stopped", "child"), 8)
    assert outcome.one("child ended")["code"] == 0

    assert outcome.one("at fork")["pending"] == 8
    stopped = outcome.one("stopped")
    one_too_many = {"dropped": 0, "rejected": 0, "evicted": 0}
    one_too_many |= {
        OverflowPolicy.DROP: {"dropped": 1},
        OverflowPolicy.RAISE_ERROR: {"rejected": 1},
        OverflowPolicy.DROP_OLDEST: {"evicted": 1},
        OverflowPolicy.BLOCK: {},
    }[policy]
    assert {name: stopped[name] for name in one_too_many} == one_too_many
    assert stopped["offered"] == 12
    assert stopped["processed"] == stopped["total"] == (12 if policy is OverflowPolicy.BLOCK else 11)
    assert stopped["abandoned"] == stopped["pending"] == 0


@pytest.mark.parametrize("place", ["thread", "hook"])
def test_a_fork_outside_the_main_thread(backend_name: str, place: str) -> None:
    """A child forked by another thread, even by the runtime's own, uses the runtime and shuts it down."""
    outcome = run_program("fork_elsewhere", backend_name, place)
    assert all_zero(outcome.one("at fork", "child"))
    inherited = 11 if place == "hook" else 10
    assert outcome.one("snapshot", "child")["total"] == inherited + 40
    assert exact(outcome.one("stopped", "child"), 40)
    assert outcome.one("child ended")["code"] == 0
    assert exact(outcome.one("stopped"), inherited + 10)


@pytest.mark.parametrize("ending", ["unused", "shutdown", "os._exit"])
def test_a_child_may_end_as_it_likes(backend_name: str, ending: str) -> None:
    """A child that never used the runtime ends at once, one may shut it down unused, and one may leave by ``os._exit``."""
    outcome = run_program("fork_ends", backend_name, ending)
    ended = outcome.one("child ended")
    assert ended["code"] == 5
    # The time limit of a drain at exit is several times that.
    assert ended["seconds"] < 5
    assert "stopped" not in hooks(outcome, "child")
    if ending == "shutdown":
        assert outcome.one("shut down", "child")["status"] == "CLOSED"
    assert exact(outcome.one("stopped"), 20)


@pytest.mark.parametrize("ending", ["shutdown", "exit"])
def test_a_child_that_ends_while_its_recorder_starts(backend_name: str, ending: str) -> None:
    """The recorder starts anew with the child's first event; ended before it has, the child loses nothing all the same."""
    outcome = run_program("fork_starting", backend_name, ending)
    assert outcome.one("child ended")["code"] == 0
    assert hooks(outcome, "child") == ["starting", "started", "stopped"]
    assert exact(outcome.one("stopped", "child"), 40)
    if ending == "shutdown":
        assert outcome.one("shut down", "child")["status"] == "CLOSED"
    assert exact(outcome.one("stopped"), 10)


def test_forks_in_the_midst_of_everything(backend_name: str) -> None:
    """However busy the other threads are at the fork, each child works and the parent's count stays exact."""
    outcome = run_program("fork_busy", backend_name)
    assert [r["code"] for r in outcome.all("child ended")] == [0] * 4
    for number in range(4):
        role = f"child {number}"
        assert all_zero(outcome.one("at fork", role))
        assert outcome.one("counted", role)["events"] == 100
        assert exact(outcome.one("stopped", role), 100)
    end = outcome.one("at end")
    assert end["offered"] == end["calls"]
    assert end["offered"] == end["accepted"] + end["dropped"]
    assert end["accepted"] == end["processed"]
    assert end["pending"] == end["rejected"] == end["evicted"] == end["abandoned"] == 0


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_recorder_of_a_loop_stays_in_the_parent(backend_name: str, place: str) -> None:
    """In a child forked inside or outside its loop, a recorder made by hand says that its loop is gone; nothing hangs."""
    outcome = run_program("fork_loop", backend_name, place)
    refused = outcome.one("refused", "child")
    assert (refused["error"], refused["cause"]) == ("RecorderInvalidStateError", "RecorderLoopUnavailableError")
    assert "fork" in refused["message"]
    for operation in outcome.all("operation", "child"):
        assert (operation["error"], operation["cause"]) == ("RecorderInvalidStateError", "RecorderLoopUnavailableError")
    assert outcome.one("flush", "child")["success"]
    assert outcome.one("snapshot", "child")["total"] == 10
    statistics = outcome.one("statistics", "child")
    assert statistics["status"] == "FAILURE"
    assert (statistics["offered"], statistics["rejected"]) == (1, 1)
    assert hooks(outcome, "child") == []

    assert outcome.one("child ended")["code"] == 0
    assert outcome.one("end")["success"]
    assert exact(outcome.one("stopped"), 20)


@pytest.mark.parametrize("forgotten", ["shut down", "forget"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(backend_name: str, method: str, forgotten: str) -> None:
    """A forked process uses the runtime that it inherits, a spawned one its own; forgetting the shutdown costs nothing."""
    outcome = run_program("fork_multiprocessing", backend_name, method, forgotten)
    assert outcome.one("child ended")["code"] == 0
    assert exact(outcome.one("stopped"), 30)
    assert hooks(outcome, "child") == ["starting", "stopped"]
    assert exact(outcome.one("stopped", "child"), 40)
