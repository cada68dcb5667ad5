"""Runs a situation with one library, in processes of its own, none of which may take longer than its deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from reliability.catalogue import Row
from reliability.outcome import Outcome

ROOT = Path(__file__).parents[1]


class SituationError(Exception):
    """A situation could not be run at all."""


MAX_KILLED = 3
"""After that many processes which did not end, a situation is given up."""


@dataclass(frozen=True)
class Contender:
    """A library on a backend."""

    name: str
    python: str
    """The interpreter that has the library."""
    backend: str = "asyncio"


_running: set[subprocess.Popen[str]] = set()
_is_over = threading.Event()


def end_all() -> None:
    """Kill every process under way, and begin no other: nobody is left who would wait for them."""
    _is_over.set()
    for process in list(_running):
        if process.poll() is None:
            _kill_group(process)


def play(
    row: Row, contender: Contender, times: int, *, deadline: float | None = None, bounds: float | None = None
) -> Outcome:
    """Repeat a situation ``times`` and return what came of it.

    :param deadline: seconds for each process, instead of the situation's own
    :param bounds: seconds in place of this library's own time limits; for tests
    """
    seconds = row.situation.deadline if deadline is None else deadline
    outcome = Outcome(row.name, row.case, contender.name, seconds)
    left = times
    while left > 0 and outcome.killed < MAX_KILLED and not _is_over.is_set():
        batch = min(left, row.situation.batch)
        left -= batch
        with tempfile.TemporaryDirectory() as sheets:
            _run(row, contender, batch, Path(sheets), outcome, bounds)
    return outcome


def _run(row: Row, contender: Contender, times: int, sheets: Path, outcome: Outcome, bounds: float | None) -> None:
    command = [contender.python, "-m", f"reliability.situations.{row.name}", contender.backend, str(times)]
    command += ["--case", row.case, "--sheets", str(sheets)]
    if bounds is not None:
        command += ["--bounds", str(bounds)]
    # A tracer takes locks of its own, on which a signal handler may deadlock.
    without = ["COVERAGE_"]
    if contender.python != sys.executable:
        # It must find its own library, not the one that this process was pointed to.
        without.append("PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(tuple(without))}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own: what it forks can be killed with it.
        process_group=0,
    )
    _running.add(process)
    try:
        # Ends when nobody holds the pipes any more, which is when the last child has ended.
        out, err = process.communicate(timeout=outcome.deadline)
    except subprocess.TimeoutExpired:
        outcome.killed += 1
        _kill_group(process)
        out, err = process.communicate()
    else:
        if process.returncode != row.situation.exit_code:
            code = str(process.returncode)
            outcome.exit_codes[code] = outcome.exit_codes.get(code, 0) + 1
    finally:
        _running.discard(process)
    if _is_over.is_set():
        return
    before = outcome.repetitions
    outcome.add(sheets, out.splitlines(), err)
    if outcome.repetitions == before:
        raise SituationError(f"{row.name} did not begin with {contender.name}: {err}")


def _kill_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # everybody has ended
