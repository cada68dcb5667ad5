"""Run every question with every contender, in turn, over several rounds."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.workload import CONTENDERS

HERE = Path(__file__).parent
DEADLINE = 300.0


def run(question: str, contender: str) -> dict[str, float]:
    """Return the figures of one contender, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{question}", contender],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure and print a table a question."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is measured (default 5)")
    rounds = parser.parse_args().rounds
    print(f"Python {platform.python_version()}, garbage collector on, switch interval {sys.getswitchinterval()} s")
    for path in sorted(HERE.glob("bench_*.py")):
        figures: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(rounds):
            for name in CONTENDERS:
                figures[name].append(run(path.stem, name))
        print(f"\n{path.stem}: medians of {rounds} rounds, and the ratio to the limit")
        for name, rows in figures.items():
            cells = []
            for key in rows[0]:
                value = statistics.median(row[key] for row in rows)
                limit = statistics.median(row[key] for row in figures["limit"])
                cells.append(f"{key} {value:12,.0f} ({value / limit:6.2f})" if limit else f"{key} {value:12,.0f}")
            print(f"  {name:8} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
