"""What a situation is."""

from __future__ import annotations

from dataclasses import dataclass

BOTH = ("asyncio", "trio")
ASYNCIO = ("asyncio",)

THREADS = "Threads, room and reading"
ENDS = "The end of a recorder, a runtime or a loop"
PROCESSES = "The end of a process, signals and forks"
METRICS = "Metrics and hooks that fail or hang"
LIMITS = "The limits"
GROUPS = (THREADS, ENDS, PROCESSES, METRICS, LIMITS)
"""The headings of the comparison."""


@dataclass(frozen=True)
class Situation:
    """One row of the comparison; the docstring of its file says more."""

    title: str
    group: str
    """The heading that it stands under."""
    long: int
    """Repetitions in the long profile."""
    quick: int
    """Repetitions in the quick profile; none where one takes too long."""
    batch: int = 1
    """Repetitions in one process."""
    deadline: float = 30.0
    """Seconds after which a process, and whatever it has forked, is killed."""
    backends: tuple[str, ...] = BOTH
    """What this library can be run on here."""
    cases: tuple[str, ...] = ("",)
    """Each is a row of its own."""
    exit_code: int = 0
    """How the process ends when all is well."""
    is_limit: bool = False
    """Whether events may be lost without having been counted, as the documentation says."""
