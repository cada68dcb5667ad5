"""A process that never calls ``shutdown()`` ends by itself, and has processed what it accepted."""

from __future__ import annotations

from tests.processes.launch import Outcome, run_program, traceback_of

N = 1000


def check(outcome: Outcome, *, accepted: int = N) -> None:
    """Each hook ran once, the last one after everything was processed."""
    assert [r["what"] for r in outcome.reports] == ["starting", "stopped"]
    stopped = outcome.one("stopped")
    assert (stopped["offered"], stopped["accepted"]) == (accepted, accepted)
    assert (stopped["processed"], stopped["total"]) == (accepted, accepted)


def test_a_process_that_forgets_the_shutdown_loses_nothing(backend_name: str) -> None:
    """At the exit everything is processed, the stop hook runs, and the process ends."""
    check(run_program("exits", backend_name))


def test_a_thread_that_outlives_the_main_thread_is_heard(backend_name: str) -> None:
    """What a non-daemon thread emits after the main thread's end is processed as well."""
    check(run_program("exits", backend_name, "thread"), accepted=2 * N)


def test_a_users_exit_callback_is_heard(backend_name: str) -> None:
    """What a callback emits that was registered after the library's import is processed as well."""
    check(run_program("exits", backend_name, "atexit"), accepted=2 * N)


def test_an_exit_callback_that_comes_too_late_is_told(backend_name: str) -> None:
    """A callback that runs after the library's gets a clear error, and the last snapshots."""
    outcome = run_program("exits_late", backend_name)
    assert [r["what"] for r in outcome.reports] == ["starting", "stopped", "refused", "snapshots"]
    assert outcome.one("refused")["state"] == "STOPPED"
    assert outcome.one("snapshots")["total"] == 1


def test_sys_exit_keeps_its_code(backend_name: str) -> None:
    """``sys.exit(3)`` with a runtime at work exits with 3, everything processed."""
    check(run_program("exits", backend_name, "sys.exit", returncode=3))


def test_an_uncaught_exception_keeps_its_exit_code(backend_name: str) -> None:
    """It is printed alone, the exit code is 1, and everything is processed."""
    traceback = traceback_of("RuntimeError: on purpose")
    check(run_program("exits", backend_name, "exception", returncode=1, stderr=traceback))


def test_sigterm_made_an_exit_drains(backend_name: str) -> None:
    """A handler that turns SIGTERM into SystemExit is all that a service needs to lose nothing."""
    check(run_program("exits", backend_name, "handled-sigterm", returncode=4))
