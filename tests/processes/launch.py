"""Runs a program of this directory in a process of its own, with a deadline.

A hang is what these tests are about, so nothing here waits without a limit: at the deadline the
program is told to show where each of its threads stands, it is killed with all its children, and
the test fails with everything that was printed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
"""Seconds that a program may take; none comes near when all is well."""

BACKENDS = tuple(name for name in ("asyncio", "uvloop", "trio") if importlib.util.find_spec(name))
"""The names of the backends that are installed, which are a program's first argument."""
NATIVE = tuple(name for name in BACKENDS if name != "uvloop")
"""The same without uvloop, for what an event loop of asyncio's own kind has no part in."""

_FLAGS = (
    # Development mode: forgotten loops, sockets and tasks complain, and SIGABRT shows every thread.
    "-X",
    "dev",
    # Newer interpreters warn of every fork of a process with threads; here it is what is tested.
    "-W",
    "ignore:This process:DeprecationWarning",
)

_FRAMES = r"Traceback \(most recent call last\):\n(?:  .*\n|\n)+"
CTRL_C = (
    rf"(?:{_FRAMES}asyncio\.exceptions\.CancelledError.*\n\n"
    r"During handling of the above exception, another exception occurred:\n\n)?"
    rf"{_FRAMES}KeyboardInterrupt(?:: )?\n"
)
"""What an interpreter prints when Ctrl-C ends it, as a regular expression; asyncio's runner adds the first part."""


def traceback_of(error: str) -> str:
    """Return a regular expression for a traceback that ends with the line ``error``."""
    return rf"{_FRAMES}{re.escape(error)}\n"


@dataclass(frozen=True)
class Outcome:
    """What a program, and its children, printed, and how it ended."""

    program: str
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.program}\nreturn code {self.returncode} after {self.seconds:.1f} s\n"
            f"--- stdout\n{self.stdout}--- stderr\n{self.stderr}---"
        )

    @cached_property
    def reports(self) -> list[dict[str, Any]]:
        """Every report, in the order of arrival; see programs/common.py."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def all(self, what: str, role: str | None = None) -> list[dict[str, Any]]:
        """Return the reports of that kind, of that process or of every one."""
        return [r for r in self.reports if r["what"] == what and role in (None, r["role"])]

    def one(self, what: str, role: str = "main") -> dict[str, Any]:
        """Return the only report of that kind; there must be no second one."""
        found = self.all(what, role)
        if len(found) != 1:
            pytest.fail(f"{len(found)} reports {what!r} of {role!r} instead of one from {self}")
        return found[0]


def _environment(name: str, arguments: Sequence[object]) -> dict[str, str]:
    """The process's own, without the tracer where signals come thick and fast: it takes a lock that they deadlock on.

    Nor does it work in sub-interpreters.
    """
    environment = dict(os.environ)
    # However the program is started, it finds this directory.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    if name.startswith(("interrupt", "reentry", "signals", "subinterpreter")) or "handled" in arguments:
        environment.pop("COVERAGE_PROCESS_CONFIG", None)
        environment.pop("COVERAGE_PROCESS_START", None)
    return environment


class Running:
    """A program under way."""

    def __init__(self, name: str, *arguments: object, start: Sequence[str] | None = None) -> None:
        """Start ``programs/<name>.py`` with ``arguments``; ``start`` is how to tell the interpreter, instead of ``-m``."""
        if start is None:
            start = (*_FLAGS, "-m", f"tests.processes.programs.{name}")
        words = (*start, *map(str, arguments))
        self.program = " ".join(words)
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            (sys.executable, *words),
            cwd=ROOT,
            env=_environment(name, arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A group of its own: what it forks can be killed with it, and a Ctrl-C at the terminal
            # of the tests does not reach it.
            process_group=0,
        )

    def finish(self, *, returncode: int = 0, stderr: str = "", deadline: float = DEADLINE) -> Outcome:
        """Wait for the end of the program and of every process that it has forked, and return what they printed.

        The test fails if that takes longer than ``deadline`` seconds, if the program ends with
        another ``returncode``, or if what it printed to stderr does not match the whole of the
        regular expression ``stderr``.
        """
        try:
            # Ends when nobody holds the pipes any more, which is when the last child has ended.
            out, err = self._process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            out, err = self._kill()
            pytest.fail(f"not ended within {deadline:g} s: {self._outcome(out, err)}")
        outcome = self._outcome(out, err)
        if outcome.returncode != returncode:
            pytest.fail(f"return code {returncode} expected from {outcome}")
        if re.fullmatch(stderr, outcome.stderr) is None:
            pytest.fail(f"other words on stderr than {stderr!r} from {outcome}")
        return outcome

    @property
    def pid(self) -> int:
        """The program's own process id, not a child's."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the program itself has ended; a child of it may still run."""
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program alone, not to its children."""
        self._process.send_signal(number)

    def abandon(self) -> None:
        """Kill the program if it still runs; for a test that ended before it."""
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)
        self._process.communicate(timeout=5)

    def _outcome(self, out: str, err: str) -> Outcome:
        return Outcome(self.program, self._process.returncode, out, err, time.monotonic() - self._begun)

    def _kill(self) -> tuple[str, str]:
        self._signal(signal.SIGABRT)
        try:
            return self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
        return self._process.communicate(timeout=5)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # everybody has ended meanwhile


def run_program(
    name: str, *arguments: object, returncode: int = 0, stderr: str = "", deadline: float = DEADLINE
) -> Outcome:
    """Run ``programs/<name>.py`` with ``arguments`` and return what it printed; see :meth:`Running.finish`."""
    return Running(name, *arguments).finish(returncode=returncode, stderr=stderr, deadline=deadline)


def run_on(
    backends: Sequence[str],
    name: str,
    *arguments: object,
    returncode: int = 0,
    stderr: str = "",
    deadline: float = DEADLINE,
    start: Sequence[str] | None = None,
) -> list[Outcome]:
    """Run a program on several backends, side by side, and return the outcomes in the order of ``backends``."""
    with ExitStack() as stack:
        programs = []
        for backend in backends:
            program = Running(name, backend, *arguments, start=start)
            stack.callback(program.abandon)
            programs.append(program)
        return [program.finish(returncode=returncode, stderr=stderr, deadline=deadline) for program in programs]
