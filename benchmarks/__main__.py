"""Run every question with every contender, in turn, over several rounds."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import CONTENDERS
from benchmarks.environments import ROOT, EnvironmentFailedError, python_of
from benchmarks.processes import measured, tell, write
from benchmarks.publishing import PAGE, RESULTS, renew

ORDER = (
    "emit",
    "saturated",
    "paced",
    "end_to_end",
    "hundred_metrics",
    "four_threads",
    "round_robin",
    "snapshot",
    "instruments",
    "instrument_memory",
    "many_recorders",
    "memory",
    "tick",
    "isolation",
    "web",
    "import",
    "events",
    "observe",
)
"""The questions, in the order in which they are asked; a file of its own for each."""


def question_module(question: str) -> Any:
    """Return the module that asks a question."""
    return importlib.import_module(f"benchmarks.bench_{question}")


def environment_of(question: str, contender: str) -> str:
    """Return where a contender runs.

    A question may have one place for all; else, one that is not on the list is named as its environment, or is nobody.
    """
    shared: str | None = getattr(question_module(question), "ENVIRONMENT", None)
    if shared is not None:
        return shared
    if contender in CONTENDERS:
        return CONTENDERS[contender].environment
    return "mvx-metrics" if contender == "none" else contender


def prepare(questions: Sequence[str]) -> None:
    """Make the environments that the questions need, side by side.

    :raises EnvironmentFailedError: if one could not be made
    """
    needed = {
        environment_of(question, contender)
        for question in questions
        for contender in question_module(question).CONTENDERS
    }
    with ThreadPoolExecutor() as pool:
        list(pool.map(partial(python_of, tell=tell), sorted(needed)))


def measure(questions: Sequence[str], rounds: int, *, quick: bool) -> dict[str, Any]:
    """Run everything and return the rounds: in turn, but for a quick one, which is not about time, side by side."""
    found: dict[str, Any] = {}
    flags = ("--quick",) if quick else ()
    with ThreadPoolExecutor(max_workers=os.cpu_count() if quick else 1) as pool:
        for question in questions:
            contenders = question_module(question).CONTENDERS
            rows: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
            for number in range(rounds):
                ask = partial(_ask, question, f"round {number + 1} of {rounds}", flags)
                for contender, figures in zip(contenders, pool.map(ask, contenders), strict=True):
                    rows[contender].append(figures)
            found[question] = rows
            print(f"\n{title(question)}\n{report.plain(report.table(report.medians({question: rows})[question]))}")
    return found


def _ask(question: str, progress: str, flags: Sequence[str], contender: str) -> dict[str, float]:
    tell(f"{question}: {progress}: {contender}")
    return measured(environment_of(question, contender), f"bench_{question}", contender, *flags)


def title(question: str) -> str:
    """Return the question in words."""
    return str(question_module(question).__doc__).splitlines()[0]


def machine() -> dict[str, Any]:
    """Return what the figures depend on, without naming the machine."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "switch_interval_s": sys.getswitchinterval(),
        "garbage_collector": gc.isenabled(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round, under a minute; says nothing about speed"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is measured (default 5)")
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER, metavar="QUESTION", help=", ".join(ORDER))
    parser.add_argument(
        "--output", type=Path, metavar="DIRECTORY", help="where to write JSON and charts (default: nowhere)"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"write them to {RESULTS.relative_to(ROOT)} and renew {PAGE.relative_to(ROOT)}",
    )
    told = parser.parse_args(arguments)
    if told.rounds < 1:
        parser.error(f"argument --rounds: must be at least 1, got {told.rounds}")
    print("  ".join(f"{name} {value}" for name, value in machine().items()))
    try:
        prepare(told.only)
        found = measure(told.only, 1 if told.quick else told.rounds, quick=told.quick)
        medians = report.medians(found)
        if not told.quick:
            print(f"\nGoals\n{report.plain(report.goal_table(report.judged(medians)))}")
        results = {"machine": machine(), "rounds": told.rounds, "questions": found}
        if told.output is not None:
            write(results, "results.json", "charts", told.output)
        if told.publish:
            write(results, "results.json", "charts", RESULTS)
            renew(PAGE, results)
    except (EnvironmentFailedError, RuntimeError) as exc:
        print(f"python -m benchmarks: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
