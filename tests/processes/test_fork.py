"""After ``os.fork()`` the child has a runtime of its own, and the parent goes on as if nothing had been."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mvx.common.metrics import OverflowPolicy
from tests.conftest import Effort, Tally
from tests.processes.launch import NATIVE, Outcome, run_on, run_program, traceback_of

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


@pytest.mark.parametrize("place", ["thread", "hook", "metric"])
def test_a_fork_outside_the_main_thread(backend_name: str, place: str) -> None:
    """A child forked by another thread, even by the runtime's own, uses the runtime and shuts it down."""
    outcome = run_program("fork_elsewhere", backend_name, place)
    assert all_zero(outcome.one("at fork", "child"))
    inherited = 10 if place == "thread" else 11
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


def test_forks_in_the_midst_of_everything(backend_name: str, effort: Effort, tally: Tally) -> None:
    """However busy the other threads are at the fork, each child works and the parent's count stays exact."""
    children = effort(4, 100)
    outcome = run_program("fork_busy", backend_name, children, deadline=20 + children)
    assert [r["code"] for r in outcome.all("child ended")] == [0] * children
    for number in range(children):
        role = f"child {number}"
        assert all_zero(outcome.one("at fork", role))
        assert outcome.one("counted", role)["events"] == 100
        assert exact(outcome.one("stopped", role), 100)
    end = outcome.one("at end")
    assert end["offered"] == end["calls"]
    assert end["offered"] == end["accepted"] + end["dropped"]
    assert end["accepted"] == end["processed"]
    assert end["pending"] == end["rejected"] == end["evicted"] == end["abandoned"] == 0
    tally("forks while threads emit, create and remove", children)


@pytest.mark.parametrize("place", ["inside", "block", "outside"])
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
    if place == "outside":
        # The child may run a loop of its own, and make recorders there.
        assert hooks(outcome, "child") == ["starting", "stopped"]
        assert exact(outcome.one("stopped", "child"), 30)
    else:
        assert hooks(outcome, "child") == []

    assert outcome.one("child ended")["code"] == 0
    assert outcome.one("end")["success"]
    assert exact(outcome.one("stopped"), 20)


# --- a child's end -------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "code"), [("killed", -9), ("sigterm", -15), ("exception", 1)])
def test_a_childs_sudden_end_is_its_own_affair(ending: str, code: int, in_turn: tuple[str, ...]) -> None:
    """The parent loses nothing; a child that dies of an exception has drained before, one that is killed has not."""
    stderr = traceback_of("RuntimeError: on purpose") if ending == "exception" else ""
    for outcome in run_on(in_turn, "fork_ends", ending, stderr=stderr):
        assert outcome.one("child ended")["code"] == code
        assert exact(outcome.one("stopped"), 20)
        if ending == "exception":
            assert exact(outcome.one("stopped", "child"), 10)
        else:
            assert outcome.all("stopped", "child") == []


@pytest.mark.parametrize("place", ["thread", "atexit"])
def test_a_child_that_begins_when_it_is_about_to_end(place: str, in_turn: tuple[str, ...]) -> None:
    """Where Python starts a thread no more, the first use is refused and counted; elsewhere it works; nothing hangs."""
    for outcome in run_on(in_turn, "fork_late", place):
        assert outcome.one("child ended")["code"] == 0
        used = outcome.one("used", "child")
        assert used["seconds"] < 5
        refusals = outcome.all("refused", "child")
        assert used["offered"] == 10
        if refusals:
            assert used["rejected"] == len(refusals) == 10
            assert {(r["error"], r["cause"]) for r in refusals} == {
                ("RecorderInvalidStateError", "RecorderLoopUnavailableError")
            }
            assert outcome.one("not created", "child")["error"] == "MetricsRuntimeLoopUnavailableError"
            assert outcome.all("stopped", "child") == []
        else:
            assert exact(used, 10)
            # Which of the two stops first is nobody's business.
            assert sorted(r["accepted"] for r in outcome.all("stopped", "child")) == [0, 10]
        assert exact(outcome.one("stopped"), 0)


def test_what_had_ended_before_the_fork(in_turn: tuple[str, ...]) -> None:
    """A stopped recorder is stopped in the child, too, and starts again there; what had failed or closed stays so."""
    failed = r"_on_stopped\(\) failed\n" + traceback_of("RuntimeError: on purpose")
    for outcome in run_on(in_turn, "fork_stopped", stderr=failed):
        for name, state in (("stopped", "STOPPED"), ("failed", "FAILURE"), ("left", "STOPPED")):
            at_fork = outcome.one(f"{name} at fork", "child")
            assert all_zero(at_fork)
            assert (at_fork["state"], at_fork["total"]) == (state, 10)
            assert outcome.one(f"{name} refuses", "child")["error"] == "RecorderInvalidStateError"
        assert outcome.one("restart", "child")["success"]
        assert outcome.one("total", "child")["total"] == 15
        assert not outcome.one("failed restart", "child")["success"]
        assert not outcome.one("left restart", "child")["success"]
        assert outcome.one("closed", "child")["error"] == "MetricsRuntimeInvalidStateError"
        (stopped,) = outcome.all("stopped", "child")
        # The event that was refused is the child's own; a restart goes on counting.
        assert (stopped["offered"], stopped["rejected"]) == (6, 1)
        assert stopped["accepted"] == stopped["processed"] == 5
        assert outcome.one("child ended")["code"] == 0
        assert outcome.one("restart")["success"]
        assert exact(outcome.all("stopped")[-1], 11)


# --- who handles what ----------------------------------------------------------------------------


def test_each_event_is_handled_by_one_process(effort: Effort, tally: Tally) -> None:
    """Forks of forks while a thread emits: each process handles the events that it has emitted, in order, each once."""
    generations = effort(4, 25)
    for outcome in run_on(NATIVE, "fork_ids", generations, deadline=40 + generations):
        for generation in range(generations):
            role = f"generation {generation}" if generation else "main"
            assert outcome.one("numbers", role) == {
                "role": role,
                "what": "numbers",
                "exact": True,
                "handled": 1000,
            }
            assert exact(outcome.one("end", role), 1000)
            if generation + 1 < generations:
                assert outcome.one("child ended", role)["code"] == 0
    tally("generations of forks", generations * len(NATIVE))


@pytest.mark.parametrize("way", ["plain", "preexec"])
def test_starting_other_programs(way: str, in_turn: tuple[str, ...]) -> None:
    """``subprocess`` disturbs neither the stream of events nor the program, with code between fork and exec or without."""
    for outcome in run_on(in_turn, "fork_exec", way):
        assert [(r["code"], r["said"]) for r in outcome.all("program")] == [(0, "hello")] * 5
        end = outcome.one("end")
        assert end["offered"] == end["calls"] == end["accepted"] + end["dropped"]
        assert end["accepted"] == end["processed"]
        assert end["pending"] == end["rejected"] == end["evicted"] == end["abandoned"] == 0


# --- a fork in the midst of a call ---------------------------------------------------------------


@pytest.mark.parametrize("emitter", ["asleep", "lingering"])
def test_a_handler_that_forks_in_an_emit_and_stays(emitter: str, tally: Tally, in_turn: tuple[str, ...]) -> None:
    """At whatever step the signal strikes, the child uses the runtime inside the handler, and ends it."""
    for outcome in run_on(in_turn, "fork_in_emit", "stay", emitter, deadline=60):
        assert outcome.all("wrong") == []
        children = outcome.all("end", "child")
        for child in children:
            assert exact(child, 20)
            assert child["total"] == 20
            assert child["flushed"]
        end = outcome.one("end")
        assert len(children) == end["steps"] > 10
        assert exact(end, end["emitted"])
        assert end["total"] == end["emitted"]
        tally("forks at a step of an emit", end["steps"])


@pytest.mark.parametrize("emitter", ["asleep", "lingering"])
def test_a_handler_that_forks_in_an_emit_and_returns(emitter: str, tally: Tally) -> None:
    """The emit ends well in both processes; accepted before the fork, the event is the parent's alone, else each one's own."""
    for outcome in run_on(NATIVE, "fork_in_emit", "return", emitter, deadline=60):
        assert outcome.all("wrong") == []
        children = outcome.all("end", "child")
        appended = False
        for child in children:
            appended = appended or ("_inbox" in child["where"] and child["where"].endswith("append"))
            assert child["error"] is None
            assert exact(child, 20 if appended else 21), child["where"]
            assert child["flushed"]
        assert appended
        end = outcome.one("end")
        assert len(children) == end["steps"] > 10
        assert exact(end, end["emitted"])
        assert end["total"] == end["emitted"]
        tally("forks at a step of an emit", end["steps"])


def test_forks_by_signals_at_any_moment(effort: Effort, tally: Tally) -> None:
    """The same with real signals, in emits and in waits for a flush."""
    forks = effort(5, 200)
    for outcome in run_on(NATIVE, "fork_storm", forks, deadline=40 + forks):
        assert outcome.all("wrong") == []
        end = outcome.one("end")
        assert end["forks"] == forks
        assert exact(end, end["calls"])
        tally("forks by signal handlers", forks)


def told(outcome: Outcome) -> dict[str, Any]:
    """What the child of the program fork_waits was told, soon."""
    waited = outcome.one("waited", "child")
    assert waited["seconds"] < 4
    assert outcome.one("child ended")["code"] == 0
    return waited


@pytest.mark.parametrize("operation", ["start", "stop", "flush"])
def test_a_handle_of_the_parents_tells_the_child(operation: str, in_turn: tuple[str, ...]) -> None:
    """The child that waits for an operation under way at the fork is told that it stayed in the parent, where it goes on."""
    for outcome in run_on(in_turn, "fork_waits", operation):
        assert told(outcome)["error"] == "RecorderLoopUnavailableError"
        assert outcome.one("parent")["success"]
        assert outcome.one("end")["runtime"] == "CLOSED"


@pytest.mark.parametrize(
    ("call", "errors"),
    [
        ("snapshots", {None, "RecorderLoopUnavailableError"}),
        ("creation", {"MetricsRuntimeRecorderStartupError"}),
        ("shutdown", {None}),
    ],
)
def test_a_handler_that_forks_in_a_wait_and_returns(
    call: str, errors: set[str | None], in_turn: tuple[str, ...]
) -> None:
    """In the child, the wait that was interrupted ends at once; in the parent, it ends as ever."""
    for outcome in run_on(in_turn, "fork_waits", call):
        assert told(outcome)["error"] in errors
        assert outcome.one("waited")["error"] is None
        assert outcome.one("end")["runtime"] == "CLOSED"


@pytest.mark.parametrize("moment", ["making", "coming-up"])
def test_a_fork_while_another_thread_starts_the_runtime(moment: str, in_turn: tuple[str, ...]) -> None:
    """In the child it has not been started, and may be; in the parent the start goes on."""
    for outcome in run_on(in_turn, "fork_midst", moment):
        assert outcome.one("runtime", "child")["status"] == "VIRGIN"
        assert outcome.one("snapshot", "child")["total"] == 40
        assert exact(outcome.one("stopped", "child"), 40)
        assert outcome.one("shut down", "child")["status"] == "CLOSED"
        assert outcome.one("child ended")["code"] == 0
        assert exact(outcome.one("end"), 10)
        assert outcome.one("end")["runtime"] == "CLOSED"


@pytest.mark.parametrize("moment", ["creating", "removing"])
def test_a_fork_while_another_thread_creates_or_removes(moment: str, in_turn: tuple[str, ...]) -> None:
    """In the child the id is free; in the parent the call ends as if nothing had been."""
    for outcome in run_on(in_turn, "fork_midst", moment):
        runtime = outcome.one("runtime", "child")
        assert (runtime["status"], runtime["ids"]) == ("RUNNING", [])
        assert outcome.one("snapshot", "child")["total"] == 40
        assert exact(outcome.one("stopped", "child"), 40)
        assert outcome.one("child ended")["code"] == 0
        assert exact(outcome.one("end"), 10)
        assert hooks(outcome, "main") == ["starting", "stopped"]


def test_a_fork_while_another_thread_shuts_down(in_turn: tuple[str, ...]) -> None:
    """In the child the runtime is closed: events are refused and counted; in the parent it drains to the end."""
    for outcome in run_on(in_turn, "fork_midst", "stopping"):
        assert outcome.one("runtime", "child")["status"] == "CLOSED"
        refused = outcome.one("refused", "child")
        assert (refused["error"], refused["cause"]) == ("RecorderInvalidStateError", "RecorderLoopUnavailableError")
        assert outcome.one("total", "child")["total"] == 10
        end = outcome.one("end", "child")
        assert (end["offered"], end["rejected"], end["accepted"]) == (1, 1, 0)
        assert end["seconds"] < 4
        assert outcome.one("child ended")["code"] == 0
        assert exact(outcome.one("end"), 10)
        assert outcome.one("end")["runtime"] == "CLOSED"


def test_a_fork_while_another_thread_holds_every_lock(in_turn: tuple[str, ...]) -> None:
    """Nobody in the child will ever release them, and nothing there needs them."""
    for outcome in run_on(in_turn, "fork_midst", "locked"):
        assert outcome.one("snapshot", "child")["total"] == 50
        assert exact(outcome.one("end", "child"), 42)
        assert outcome.one("child ended")["code"] == 0
        assert exact(outcome.one("end"), 20)
