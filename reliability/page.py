"""Renders the tables of docs/reliability.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from reliability.catalogue import rows
from reliability.legacy import NAME as LEGACY
from reliability.outcome import Outcome
from reliability.results import Results, Tried

PATH = Path(__file__).parents[1] / "docs" / "reliability.md"
ASYNCIO, TRIO = "mvx-metrics on asyncio", "mvx-metrics on trio"
CONTENDERS = (LEGACY, ASYNCIO, TRIO)


def renewed(text: str, results: Results) -> str:
    """Return the page with the tables of ``results`` between its markers.

    :raises ValueError: if the markers are not there
    """
    text = _replaced(text, "tests", tests_table(results.tests))
    return _replaced(text, "situations", "\n".join((summary(results), situations_tables(results))))


def _replaced(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(rf"{re.escape(begin)}\n.*?{re.escape(end)}", flags=re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"the page needs the markers {begin} and {end}, once and in this order")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def tests_table(tests: list[Tried]) -> str:
    """Return the table of what the tests have tried."""
    if not tests:
        return "No run of the long profile is on record."
    head = "| what was tried | how often | lost | by |\n|---|---:|---:|---|"
    # One line for all the ways of a cancellation.
    groups: dict[tuple[str, str], list[Tried]] = {}
    for tried in sorted(tests, key=lambda tried: (tried.directory, tried.what)):
        subject, cancelled, _way = tried.what.partition(" cancelled ")
        groups.setdefault((tried.directory, subject + cancelled.rstrip()), []).append(tried)
    lines = [head]
    for (directory, what), group in groups.items():
        ways = f", in {len(group)} ways" if len(group) > 1 else ""
        times = number(sum(tried.tried for tried in group))
        lines.append(f"| {what}{ways} | {times} | 0 | [`{directory}/`](../{directory}) |")
    return "\n".join(lines)


def situations_tables(results: Results) -> str:
    """Return the comparison, a table for each group of situations."""
    found = {(outcome.situation, outcome.case, outcome.contender): outcome for outcome in results.situations}
    parts: list[str] = []
    group = ""
    for row in rows():
        outcomes = [found.get((row.name, row.case, contender)) for contender in CONTENDERS]
        if not any(outcomes):
            continue
        if row.situation.group != group:
            group = row.situation.group
            parts.append(f"\n### {group}\n\n| situation | {' | '.join(CONTENDERS)} |\n|---|---|---|---|")
        parts.append(f"| {row.title} | {' | '.join(_cell(outcome) for outcome in outcomes)} |")
    return "\n".join(parts)


def summary(results: Results) -> str:
    """Return the comparison in a few lines."""
    pythons = ", ".join(f"{name} on Python {version}" for name, version in sorted(results.pythons.items()))
    limits = {row.name for row in rows() if row.situation.is_limit}
    lines = [f"As run last: {pythons}. Without [the limits](#the-limits):", ""]
    for contender in CONTENDERS:
        of_it = [o for o in results.situations if o.contender == contender and o.situation not in limits]
        lines.append(
            f"- {contender}, in {len(of_it)} situations: events were lost in "
            f"{sum(bool(outcome.lost) for outcome in of_it)}, a process did not end in time in "
            f"{sum(bool(outcome.killed) for outcome in of_it)}."
        )
    return "\n".join(lines)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "a matter of asyncio"
    return "<br>".join(remarks(outcome))


def remarks(outcome: Outcome) -> Iterator[str]:
    """Say in a few words what came of it."""
    yield f"lost **{number(outcome.lost)}** of {number(outcome.accepted)}"
    if outcome.counted:
        yield f"{number(outcome.counted)} counted as not processed"
    if outcome.told:
        yield f"{number(outcome.told)} refused with an error"
    if outcome.surplus:
        yield f"{number(outcome.surplus)} seen twice"
    if outcome.killed:
        yield (
            f"{_times(outcome.killed, outcome.processes)}the process did not end within {outcome.deadline:g} s "
            "and was killed"
        )
    for code, times in sorted(outcome.exit_codes.items()):
        yield f"{_times(times, outcome.processes)}exit code {code}"
    if outcome.tracebacks:
        yield f"tracebacks on stderr: {number(outcome.tracebacks)}"
    for name, times in sorted(outcome.faults.items()):
        yield f"{name}: {number(times)}"
    for text, times in sorted(outcome.notes.items()):
        yield f"{_times(times, outcome.repetitions)}{text}"
    for name, value in sorted(outcome.figures.items()):
        yield f"{value:.3g} {name}"
    yield f"({number(outcome.repetitions)} {'time' if outcome.repetitions == 1 else 'times'})"


def number(value: int) -> str:
    """Return a number as the pages write it."""
    return f"{value:,}".replace(",", " ")


def _times(some: int, all_of_them: int) -> str:
    return "" if some == all_of_them else f"{'once' if some == 1 else f'{number(some)} times'}: "
