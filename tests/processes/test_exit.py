"""A process that never calls ``shutdown()`` ends by itself, and has processed what it accepted."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from tests.conftest import Effort, Tally
from tests.processes.launch import CTRL_C, NATIVE, ROOT, Outcome, run_on, run_program, traceback_of

N = 1000
SOON = 10.0
"""Seconds that are generous for what needs none, and less than what a wait for a hang would take."""


def check(outcome: Outcome, *, accepted: int = N) -> None:
    """Each hook ran once, the last one after everything was processed."""
    assert [r["what"] for r in outcome.reports] == ["starting", "stopped"]
    stopped = outcome.one("stopped")
    assert (stopped["offered"], stopped["accepted"]) == (accepted, accepted)
    assert (stopped["processed"], stopped["total"]) == (accepted, accepted)


def test_a_process_that_forgets_the_shutdown_loses_nothing(backend_name: str) -> None:
    """At the exit everything is processed, the stop hook runs, and the process ends."""
    check(run_program("exits", backend_name))


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(("-m", "tests.processes.programs.exits"), id="without development mode"),
        pytest.param(("-X", "dev", "-c", "import tests.processes.programs.exits"), id="-c"),
        pytest.param(("-X", "dev", str(ROOT / "tests/processes/programs/exits.py")), id="script"),
    ],
)
def test_however_the_program_is_started(start: Sequence[str], in_turn: tuple[str, ...]) -> None:
    """A module, a script or a line of code, with the interpreter's checks or without: the exit is the same."""
    for outcome in run_on(in_turn, "exits", start=start):
        check(outcome)


def test_a_thread_that_outlives_the_main_thread_is_heard(backend_name: str) -> None:
    """What a non-daemon thread emits after the main thread's end is processed as well."""
    check(run_program("exits", backend_name, "thread"), accepted=2 * N)


@pytest.mark.parametrize(
    ("variant", "accepted"),
    [("threads", 5 * N), ("pool", 2 * N), ("register_atexit", 2 * N), ("finalizer", 2 * N)],
)
def test_whoever_is_still_at_work_is_heard(variant: str, accepted: int, in_turn: tuple[str, ...]) -> None:
    """Threads, a pool's pending work, ``threading``'s own exit callbacks and ``weakref.finalize`` all come before the drain."""
    for outcome in run_on(in_turn, "exits", variant):
        check(outcome, accepted=accepted)


def test_a_users_exit_callback_is_heard(backend_name: str) -> None:
    """What a callback emits that was registered after the library's import is processed as well."""
    check(run_program("exits", backend_name, "atexit"), accepted=2 * N)


def test_an_exit_callback_that_comes_too_late_is_told(backend_name: str) -> None:
    """A callback that runs after the library's gets a clear error, and the last snapshots."""
    outcome = run_program("exits_late", backend_name)
    assert [r["what"] for r in outcome.reports] == ["starting", "stopped", "refused", "snapshots"]
    assert outcome.one("refused")["state"] == "STOPPED"
    assert outcome.one("snapshots")["total"] == 1


def test_every_call_answers_after_the_drain() -> None:
    """What comes too late is refused with an error and counted, whatever the policy; nothing blocks or hangs."""
    for outcome in run_on(NATIVE, "exits_late_calls"):
        answers: dict[str, set[str | None]] = {}
        for call in outcome.all("call"):
            assert call["seconds"] < SOON
            answers.setdefault(call["call"], set()).add(call["error"])
        # Some Pythons start no thread while they exit, and say so.
        for what in ("new runtime", "left runtime"):
            assert answers.pop(what) <= {None, "MetricsRuntimeStartupError"}
        assert answers == {
            "register_event": {"RecorderInvalidStateError"},
            "aregister_event": {"RecorderInvalidStateError"},
            "start": {"RecorderLoopUnavailableError"},
            "stop": {"RecorderInvalidStateError"},
            "flush": {None},
            "get_metric_snapshots": {None},
            "create_recorder": {"MetricsRuntimeInvalidStateError"},
            "get_recorder": {"MetricsRuntimeInvalidStateError"},
            "stop_recorder": {"MetricsRuntimeInvalidStateError"},
            "runtime.start": {"MetricsRuntimeInvalidStateError"},
            "shutdown": {None},
            "new loop": {None},
            "loop": {None},
        }
        ends = outcome.all("end")
        assert len(ends) == 4
        for end in ends:
            assert (end["offered"], end["accepted"], end["rejected"]) == (4, 3, 1)
            assert end["processed"] == end["total"] == 3
            assert end["dropped"] == end["evicted"] == end["abandoned"] == end["pending"] == 0
        assert outcome.one("runtime")["state"] == "CLOSED"


def test_sys_exit_keeps_its_code(backend_name: str) -> None:
    """``sys.exit(3)`` with a runtime at work exits with 3, everything processed."""
    check(run_program("exits", backend_name, "sys.exit", returncode=3))


def test_sys_exit_in_an_event_loop_keeps_its_code(in_turn: tuple[str, ...]) -> None:
    """Likewise out of the application's own event loop."""
    for outcome in run_on(in_turn, "exits", "sys.exit-in-loop", returncode=3):
        check(outcome)


def test_an_uncaught_exception_keeps_its_exit_code(backend_name: str) -> None:
    """It is printed alone, the exit code is 1, and everything is processed."""
    traceback = traceback_of("RuntimeError: on purpose")
    check(run_program("exits", backend_name, "exception", returncode=1, stderr=traceback))


@pytest.mark.parametrize(("variant", "code"), [("os._exit", 5), ("killed", -signal.SIGKILL)])
def test_an_end_without_exit_callbacks_is_immediate(variant: str, code: int, in_turn: tuple[str, ...]) -> None:
    """``os._exit`` and SIGKILL end the process with its code; nothing waits for the runtime."""
    for outcome in run_on(in_turn, "exits", variant, returncode=code):
        assert outcome.all("stopped") == []


def test_sigterm_made_an_exit_drains(backend_name: str) -> None:
    """A handler that turns SIGTERM into SystemExit is all that a service needs to lose nothing."""
    check(run_program("exits", backend_name, "handled-sigterm", returncode=4))


def test_ctrl_c_while_the_interpreter_waits_for_threads(in_turn: tuple[str, ...]) -> None:
    """It gives up the threads, as it says; the runtime drains all the same, with what they still emit meanwhile."""
    ignored = r"(?:Exception ignored [^\n]*\n)?"
    for outcome in run_on(in_turn, "exits", "interrupted-join", stderr=f"{ignored}{CTRL_C}"):
        check(outcome, accepted=2 * N)


def test_two_runtimes_drain_at_one_exit(in_turn: tuple[str, ...]) -> None:
    """Whatever their backends are."""
    for outcome in run_on(in_turn, "exits", "two"):
        for stopped in outcome.all("stopped"):
            assert stopped["accepted"] == stopped["processed"] == stopped["total"] == N
        assert len(outcome.all("stopped")) == 2


# --- an exit while threads are at work -----------------------------------------------------------


def test_daemon_threads_that_emit_to_the_last(effort: Effort, tally: Tally) -> None:
    """Until the drain their events are handled or counted; after it they are told, until the interpreter stops them."""
    rounds = effort(1, 30)
    for _ in range(rounds):
        for outcome in run_on(NATIVE, "exits_at_work", "emitting"):
            callers = outcome.all("caller")
            assert {(c["told"], c["error"]) for c in callers} == {(True, "RecorderInvalidStateError")}
            stopped, end = outcome.one("stopped"), outcome.one("end")
            for statistics in (stopped, end):
                assert statistics["offered"] == sum(statistics[name] for name in ("accepted", "dropped", "rejected"))
                assert statistics["accepted"] == statistics["processed"] == statistics["total"]
                assert statistics["pending"] == statistics["abandoned"] == statistics["evicted"] == 0
            assert end["accepted"] == stopped["accepted"]
            assert end["accepted"] + end["dropped"] == sum(c["returned"] for c in callers)
    tally("exits while daemon threads emit", rounds * len(NATIVE))


def test_threads_that_use_a_runtime_in_every_way(effort: Effort, tally: Tally) -> None:
    """Creations, stops, flushes, snapshots and removals under way at the exit all end, with an error at the latest."""
    rounds = effort(1, 30)
    for _ in range(rounds):
        for outcome in run_on(NATIVE, "exits_at_work", "in-use"):
            assert all(c["told"] for c in outcome.all("caller"))
            end = outcome.one("end")
            assert end["offered"] == end["accepted"] + end["rejected"]
            assert end["accepted"] == end["processed"] == end["total"]
            assert end["pending"] == end["abandoned"] == 0
    tally("exits while threads use a runtime in every way", rounds * len(NATIVE))


def test_a_daemon_thread_that_waits_for_room_is_told(in_turn: tuple[str, ...]) -> None:
    """At the exit it gets an error instead of waiting on, and what was accepted before it is processed."""
    for outcome in run_on(in_turn, "exits_at_work", "blocked-daemon"):
        assert outcome.one("refused")["error"] == "RecorderInvalidStateError"
        assert outcome.one("answered")["answered"]
        end = outcome.one("end")
        assert (end["offered"], end["accepted"], end["rejected"]) == (5, 4, 1)
        assert end["processed"] == end["total"] == 4


def test_a_thread_that_waits_for_room_gets_it(in_turn: tuple[str, ...]) -> None:
    """The interpreter waits for the thread, and the runtime goes on working meanwhile."""
    for outcome in run_on(in_turn, "exits_at_work", "blocked-thread"):
        assert outcome.one("accepted")["state"] == "RUNNING"
        stopped = outcome.one("stopped")
        assert stopped["offered"] == stopped["accepted"] == stopped["processed"] == stopped["total"] == 5


def test_a_creation_under_way_is_given_up(in_turn: tuple[str, ...]) -> None:
    """The creator gets an error, the recorder neither starts nor stops, and the process ends."""
    for outcome in run_on(in_turn, "exits_at_work", "creating"):
        assert [r["what"] for r in outcome.reports] == ["starting", "refused", "answered"]
        assert outcome.one("refused")["error"] == "MetricsRuntimeRecorderStartupError"
        assert outcome.one("answered")["answered"]


def test_a_creation_after_the_main_threads_end(in_turn: tuple[str, ...]) -> None:
    """A thread that outlives the main thread may create recorders, too."""
    for outcome in run_on(in_turn, "exits_at_work", "creating-late"):
        check(outcome, accepted=10)


def test_a_start_under_way_is_let_finish(in_turn: tuple[str, ...]) -> None:
    """Events that a recorder accepted while it was starting again are processed at the exit."""
    for outcome in run_on(in_turn, "exits_at_work", "restarting"):
        assert [r["what"] for r in outcome.reports] == ["stopped", "starting", "started", "stopped"]
        stopped = outcome.all("stopped")[1]
        assert stopped["accepted"] == stopped["processed"] == stopped["total"] == 10


def test_a_shutdown_under_way_is_waited_for(in_turn: tuple[str, ...]) -> None:
    """The exit joins the shutdown that another thread has begun, and that thread gets its answer."""
    for outcome in run_on(in_turn, "exits_at_work", "shutting-down"):
        assert outcome.one("shut down")["status"] == "CLOSED"
        assert outcome.one("answered")["answered"]
        stopped = outcome.one("stopped")
        assert stopped["accepted"] == stopped["processed"] == stopped["total"] == 10


def test_a_runtime_that_is_just_starting_does_not_hold_up_the_exit(in_turn: tuple[str, ...]) -> None:
    """There is nothing in it that could be lost."""
    for outcome in run_on(in_turn, "exits_at_work", "starting"):
        assert outcome.seconds < SOON
        assert outcome.reports == []


@pytest.mark.parametrize("variant", ["before", "then"])
def test_hooks_that_want_a_thread_at_the_exit(variant: str) -> None:
    """Where Python gives them none any more they fail like any hook: logged, counted, and nothing else is held up."""
    failed = r"(?s)(?:_on_metric_changed\(\) raised\n.*RuntimeError: [^\n]*\n)?"
    for outcome in run_on(NATIVE, "exits_threadless", variant, stderr=failed):
        stopped = outcome.one("stopped")
        assert stopped["accepted"] == stopped["processed"] == stopped["total"] == 10
        assert stopped["hook_errors"] in ({0} if variant == "before" else {0, 10})


def test_finalizers_that_emit_while_the_interpreter_takes_itself_apart() -> None:
    """They are told that it is too late, even by then; a recorder whose loop was merely left accepts without a word."""
    for outcome in run_on(NATIVE, "exits_teardown"):
        said = {r["what"]: r["said"] for r in outcome.reports if "said" in r}
        assert said.pop("early") == "accepted"
        assert said.pop("left loop", "accepted") == "accepted"
        assert set(said.values()) == {"RecorderInvalidStateError"}
        assert {"builtins", "library", "sys"} <= set(said)
        (stopped,) = [r for r in outcome.all("stopped") if r["accepted"] == 11]
        assert stopped["processed"] == stopped["total"] == 11
