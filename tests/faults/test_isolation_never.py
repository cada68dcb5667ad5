"""User code that never returns, in processes of their own: a shutdown is bounded, and the process exits without one, too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Effort, Tally
from tests.processes.launch import Outcome, Running

TRIED = "hostile metrics, hooks and events"

CANCELLABLE = ("change hook waits", "stop hook waits")
"""What the library can end by itself, but not well."""
HARMLESS = ("starting hook waits", "feedback")
"""What it can end, and nothing is lost."""
STARTING = ("factory sleeps", "starting hook is deaf", "starting hook sleeps")
"""What keeps the thread before there is a recorder."""
UNENDING = (
    "log filter sleeps",
    "metric sleeps",
    "snapshot sleeps",
    "finalizer sleeps",
    "change hook sleeps",
    "change hook waits shielded",
    "change hook is deaf",
    "stop hook sleeps",
    "stop hook waits shielded",
    "stop hook is deaf",
)
CULPRITS = (*CANCELLABLE, *HARMLESS, *STARTING, *UNENDING)
HOG = "metric loops"
VARIANTS = ("shutdown", "exit")
BACKENDS = ("asyncio", "uvloop", "trio")
LEFT_OUT = ("uvloop", "shutdown")
"""In the short profile: uvloop is asyncio to the engine."""
GENEROUS = 15.0
"""Seconds that bounds of less than one may take on a busy machine."""

Programs = dict[tuple[str, str], list[tuple[tuple[str, ...], Running]]]


def groups(backend: str, *, long: bool) -> list[tuple[str, ...]]:
    """Return which culprits share a process, each with a runtime of its own."""
    # One of them takes the interpreter away from all others.
    return (
        [(culprit,) for culprit in (*CULPRITS, HOG)]
        if long
        else [(*CULPRITS, HOG)[: None if backend == "asyncio" else -1]]
    )


@pytest.fixture(scope="module", autouse=True)
def programs(pytestconfig: pytest.Config) -> Iterator[Programs]:
    """In the short profile all are begun before the first test: they do little but wait."""
    started: Programs = {}
    if not pytestconfig.getoption("--long"):
        for backend in BACKENDS:
            for variant in VARIANTS:
                if importlib.util.find_spec(backend) is not None and (backend, variant) != LEFT_OUT:
                    started[backend, variant] = begin(backend, variant, long=False)
    yield started
    for each in started.values():
        abandon(each)


def begin(backend: str, variant: str, *, long: bool) -> list[tuple[tuple[str, ...], Running]]:
    start = ("-X", "dev", "-m", "tests.faults.programs.never")
    return [
        (culprits, Running("never", backend, variant, ",".join(culprits), start=start))
        for culprits in groups(backend, long=long)
    ]


def abandon(running: list[tuple[tuple[str, ...], Running]]) -> None:
    for _, program in running:
        program.abandon()


def outcomes(programs: Programs, backend: str, variant: str, effort: Effort) -> Iterator[tuple[str, ...]]:
    """Yield the culprits of each process, once everything has been checked that holds in every variant."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if not effort.long and (backend, variant) == LEFT_OUT:
        pytest.skip("for the long profile")
    for culprits, program in programs.get((backend, variant)) or begin(backend, variant, long=True):
        outcome = program.finish(stderr=r"(?:.*\n)*", deadline=2 * GENEROUS)
        assert "Fatal" not in outcome.stderr
        neighbours = {report["how"]: report for report in outcome.all("neighbour")}
        assert set(neighbours) == set(culprits)
        for report in neighbours.values():
            assert report["accounted"], report
            assert report["seconds_of_emitting"] < GENEROUS, report
        check_ends(variant, culprits, outcome)
        yield culprits


def check_ends(variant: str, culprits: tuple[str, ...], outcome: Outcome) -> None:
    """Check what each shutdown has come to."""
    ends = {report["how"]: report for report in outcome.all("shut down")}
    assert set(ends) == (set(culprits) if variant == "shutdown" else set())
    for how, end in ends.items():
        assert end["seconds"] < GENEROUS, end
        check_verdict(how, end)


def check_verdict(how: str, end: dict[str, Any]) -> None:
    error = end["error"]
    if how in HARMLESS:
        assert error is None, end
        assert end["status"] == "CLOSED", end
        return
    assert end["status"] == "FAILURE", end
    assert error["kind"] == "MetricsRuntimeShutdownError", end
    failed = error["details"]["failed_recorder_ids"]
    if how in CANCELLABLE:
        assert failed == ["culprit"], end
    else:
        assert "has not ended within" in error["message"], end
        assert "culprit" in failed, end


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shutdown_is_bounded(backend: str, programs: Programs, effort: Effort, tally: Tally) -> None:
    """Whatever does not return: it closes well or names the culprit, and the process ends; production never noticed."""
    tried = sum(map(len, outcomes(programs, backend, "shutdown", effort)))
    assert tried >= len(CULPRITS)
    tally(TRIED, tried)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exit_is_bounded(backend: str, programs: Programs, effort: Effort, tally: Tally) -> None:
    """Likewise for a process that forgets to shut down, and its exit code is as it should be."""
    tried = sum(map(len, outcomes(programs, backend, "exit", effort)))
    assert tried >= len(CULPRITS)
    tally(TRIED, tried)
