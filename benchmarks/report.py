"""From rounds of figures to tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.goals import Medians, Verdict, times_better, verdicts

Rounds = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]
"""Question → contender → the figures of each round."""

BASE = ("asyncio", "mvx-metrics", "dataclass-slots")
"""The contenders that the relative columns refer to, whichever takes part."""
UNITS = {
    "_ns": "ns",
    "_us": "µs",
    "_ms": "ms",
    "_kib": "KiB",
    "_mib": "MiB",
    "seconds": "s",
    "events_per_s": "events/s",
    "kib_each": "KiB a recorder",
    "slowdown_by_99_more": "times as long as with one metric",
}


def medians(rounds: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """Return the median of each figure over the rounds."""
    return {
        question: {
            contender: {figure: statistics.median(row[figure] for row in rows) for figure in rows[0]}
            for contender, rows in contenders.items()
            if rows
        }
        for question, contenders in rounds.items()
    }


def heading(figure: str) -> str:
    """Return a column's heading: what was measured, and its unit."""
    for ending, unit in UNITS.items():
        if figure.endswith(ending):
            name = figure.removesuffix(ending).replace("_", " ").strip()
            return f"{name}, {unit}" if name else unit
    return figure.replace("_", " ")


def table(rows: Mapping[str, Mapping[str, float]]) -> Iterable[Sequence[str]]:
    """Yield the lines of a question's table, the heading first."""
    figures = list(next(iter(rows.values())))
    base = next((name for name in BASE if name in rows), None)
    compared = figures[0]
    yield ("contender", *map(heading, figures), "relative")
    for contender, row in rows.items():
        relative = ""
        if base is not None and row[compared] > 0:
            relative = "" if contender == base else _relation(compared, rows[base][compared], row[compared])
        yield (contender, *(f"{row[figure]:,.{_digits(row[figure])}f}" for figure in figures), relative)


def goal_table(found: Iterable[Verdict]) -> Iterable[Sequence[str]]:
    """Yield the lines of the table of goals, the heading first."""
    yield ("question", "figure", "goal", "contender", "reached", "")
    for verdict in found:
        goal = verdict.goal
        if goal.rival is None:
            wanted = f"≤ {goal.factor:g}"
        elif goal.factor >= 1:
            wanted = f"≥ {goal.factor:g} times better than {goal.rival}"
        else:
            wanted = f"≤ {1 / goal.factor:g} times {goal.rival}"
        reached = verdict.reached if goal.rival is None or goal.factor >= 1 else 1 / verdict.reached
        state = "met" if verdict.met else "missed"
        yield (goal.question, heading(goal.figure), wanted, verdict.contender, f"{reached:.3g}", state)


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    first, *rest = (f"| {' | '.join(line)} |" for line in lines)
    columns = first.count("|") - 1
    return "\n".join((first, "|" + "---|" * columns, *rest))


def plain(lines: Iterable[Sequence[str]]) -> str:
    """Return a table for a terminal."""
    rows = [list(line) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 or column == len(widths) - 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def judged(of: Medians) -> list[Verdict]:
    """Return the verdicts on all goals."""
    return list(verdicts(of))


def _relation(figure: str, base: float, other: float) -> str:
    """Return what another contender's figure is to that of the base, in words that fit what is measured."""
    factor = times_better(figure, base, other)
    times = f"{max(factor, 1 / factor):.3g}"
    if times == "1":
        return "the same"
    better, worse = ("smaller", "larger") if figure.endswith(("_kib", "_mib")) else ("faster", "slower")
    return f"{times} times {worse if factor >= 1 else better}"


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
