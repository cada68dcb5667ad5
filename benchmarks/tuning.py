"""How do bound, policy, linger and backend move the cost of an emit, the delay of an event, and what is lost?

``python -m benchmarks.tuning`` sweeps one setting after the other, everything else at its default, each point in a
process of its own, and prints them; ``--output`` draws a chart a setting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, EnvironmentFailedError
from benchmarks.processes import measured, tell, write
from benchmarks.publishing import RESULTS


@dataclass(frozen=True, kw_only=True)
class Point:
    """Settings, and the load that they are tried with."""

    backend: str = "asyncio"
    capacity: int = 10_000
    policy: str = "DROP"
    linger: float = 0.1
    burst: int = 1
    """Events that are emitted one right after the other."""
    pause: float = 0.000_1
    """Seconds from the beginning of one burst to that of the next."""
    bursts: int = 20_000
    work: float = 0.0
    """Seconds that the metric takes for an event, on top of what it does anyway."""


STEADY = Point()
"""A request handler: one event every 100 µs."""
BURSTS = Point(burst=5_000, pause=0.05, bursts=60)
"""A batch job: 5 000 events at once, twenty times a second, about half of what the drain can do."""
OVERLOAD = Point(capacity=1_000, burst=100, pause=0.002, bursts=1_000, work=0.000_04)
"""Twice as many events as a slow metric can handle."""

SWEEPS: dict[str, tuple[str, Sequence[Point]]] = {
    "linger": (
        "linger, seconds",
        [replace(STEADY, linger=linger) for linger in (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)],
    ),
    "capacity": (
        "queue_max_size, events",
        [replace(BURSTS, capacity=capacity) for capacity in (30, 100, 300, 1_000, 3_000, 10_000, 30_000)],
    ),
    "policy": (
        "queue_overflow_policy",
        [replace(OVERLOAD, policy=policy) for policy in ("DROP", "DROP_OLDEST", "RAISE_ERROR", "BLOCK")],
    ),
    "backend": ("backend", [replace(STEADY, backend=backend) for backend in ("asyncio", "uvloop", "trio")]),
}
"""Setting → the axis' label, and the points."""


Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Setting → for each point its value and figures."""


def value_of(setting: str, point: Point) -> Any:
    """Return what a point has for a setting."""
    return getattr(point, setting)


def sweep(setting: str, rounds: int, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the medians of each point of a sweep, over rounds in which the points take turns."""
    points = [replace(p, bursts=max(10, p.bursts // 50)) if quick else p for p in SWEEPS[setting][1]]
    found: list[list[dict[str, float]]] = [[] for _ in points]
    for number in range(rounds):
        for point, rows in zip(points, found, strict=True):
            tell(f"{setting}: round {number + 1} of {rounds}: {value_of(setting, point)}")
            rows.append(measured("mvx-metrics", "tuning_load", json.dumps(asdict(point))))
    for point, rows in zip(points, found, strict=True):
        yield {
            "value": value_of(setting, point),
            **{figure: statistics.median(row[figure] for row in rows) for figure in rows[0]},
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and draw if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round; says nothing about speed")
    parser.add_argument("--rounds", type=int, default=3, help="how often each point is measured (default 3)")
    parser.add_argument(
        "--output", type=Path, metavar="DIRECTORY", help="where to write JSON and charts (default: nowhere)"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"write them to {RESULTS.relative_to(ROOT)}, where docs/tuning.md shows them",
    )
    told = parser.parse_args(arguments)
    if told.rounds < 1:
        parser.error(f"argument --rounds: must be at least 1, got {told.rounds}")
    rounds = 1 if told.quick else told.rounds
    try:
        results = {setting: list(sweep(setting, rounds, quick=told.quick)) for setting in SWEEPS}
        show(results)
        if told.output is not None:
            write(results, "tuning.json", "tuning_charts", told.output)
        if told.publish:
            write(results, "tuning.json", "tuning_charts", RESULTS)
    except (EnvironmentFailedError, RuntimeError) as exc:
        print(f"python -m benchmarks.tuning: {exc}", file=sys.stderr)
        return 1
    return 0


def show(results: Results) -> None:
    """Print the points of each sweep."""
    for setting, rows in results.items():
        print(f"\n{setting}")
        for row in rows:
            figures = (f"{name} {value:.4g}" for name, value in row.items() if name != "value")
            print(f"{row['value']!s:>12}", *figures, sep="  ")


if __name__ == "__main__":
    sys.exit(main())
