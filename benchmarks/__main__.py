"""Run every question with every contender, in turn, over several rounds."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import CONTENDERS
from benchmarks.environments import ROOT, EnvironmentFailedError, python_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
DEADLINE = 300.0
"""Seconds that one measurement may take; none comes near when all is well."""
ORDER = (
    "emit",
    "saturated",
    "paced",
    "end_to_end",
    "hundred_metrics",
    "four_threads",
    "round_robin",
    "snapshot",
    "many_recorders",
    "memory",
    "tick",
    "isolation",
    "web",
    "import",
)
"""The questions, in the order of the page; a file of its own for each."""


def question_module(question: str) -> Any:
    """Return the module that asks a question."""
    return importlib.import_module(f"benchmarks.bench_{question}")


def environment_of(contender: str) -> str:
    """Return where a contender runs; one that is not on the list is named as its environment, or is nobody."""
    if contender in CONTENDERS:
        return CONTENDERS[contender].environment
    return "mvx-metrics" if contender == "none" else contender


def run(question: str, contender: str, *, quick: bool) -> dict[str, float]:
    """Return the figures of one contender, measured in a process of its own.

    :raises RuntimeError: if the process fails, with what it said
    """
    command = [str(python_of(environment_of(contender), tell=tell)), "-m", f"benchmarks.bench_{question}", contender]
    done = subprocess.run(
        [*command, "--quick"] if quick else command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    if done.returncode:
        msg = f"{question} with {contender} ended with {done.returncode}: {done.stderr.strip()}"
        raise RuntimeError(msg)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def tell(text: str) -> None:
    """Show progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def measure(questions: Sequence[str], rounds: int, *, quick: bool) -> dict[str, Any]:
    """Run everything and return the rounds."""
    found: dict[str, Any] = {}
    for question in questions:
        contenders = question_module(question).CONTENDERS
        rows: dict[str, list[dict[str, float]]] = {contender: [] for contender in contenders}
        for number in range(rounds):
            for contender in contenders:
                tell(f"{question}: round {number + 1} of {rounds}: {contender}")
                rows[contender].append(run(question, contender, quick=quick))
        found[question] = rows
        print(f"\n{title(question)}\n{report.plain(report.table(report.medians({question: rows})[question]))}")
    return found


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


def publish(results: dict[str, Any], to: Path) -> None:
    """Write the JSON and the charts, and renew the tables of the page if these are the published results."""
    to.mkdir(parents=True, exist_ok=True)
    path = to / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    subprocess.run([python_of("charts", tell=tell), "-m", "benchmarks.charts", path, to], cwd=ROOT, check=True)
    if to == RESULTS:
        renew(PAGE, results)


def renew(page: Path, results: dict[str, Any]) -> None:
    """Replace the tables of a page, which stand between two marks each."""
    text = page.read_text()
    medians = report.medians(results["questions"])
    tables = {question: report.markdown(report.table(rows)) for question, rows in medians.items()}
    tables["goals"] = report.markdown(report.goal_table(report.judged(medians)))
    tables["machine"] = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in results["machine"].items())
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n{lines}\n\n{end}{rest.partition(end)[2]}"
    page.write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round, under a minute; says nothing about speed"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is measured (default 5)")
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER, metavar="QUESTION", help=", ".join(ORDER))
    parser.add_argument("--output", type=Path, help="where to write JSON and charts (default: nowhere)")
    parser.add_argument("--publish", action="store_true", help="write them where docs/benchmarks.md shows them")
    told = parser.parse_args(arguments)
    if told.rounds < 1:
        parser.error(f"argument --rounds: must be at least 1, got {told.rounds}")
    output = RESULTS if told.publish else told.output
    print("  ".join(f"{name} {value}" for name, value in machine().items()))
    try:
        found = measure(told.only, 1 if told.quick else told.rounds, quick=told.quick)
        medians = report.medians(found)
        if not told.quick:
            print(f"\nGoals\n{report.plain(report.goal_table(report.judged(medians)))}")
        if output is not None:
            publish({"machine": machine(), "rounds": told.rounds, "questions": found}, output)
    except (EnvironmentFailedError, RuntimeError) as exc:
        print(f"python -m benchmarks: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
