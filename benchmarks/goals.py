"""What the engine is to reach, as ratios within one run, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.contenders import OURS

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Question → contender → figure → median."""


@dataclass(frozen=True)
class Goal:
    """One figure of this library, on each backend, beside the same figure of another contender, or alone."""

    question: str
    figure: str
    factor: float
    """How many times better it must be, at least; below 1 it may be worse.  Without a rival, the most it may be."""
    rival: str | None = None
    contenders: tuple[str, ...] = OURS


GOALS = (
    Goal("emit", "emit_ns", 40, "mvx-common"),
    Goal("emit", "emit_ns", 1 / 4, "limit"),
    Goal("saturated", "emit_ns", 25, "mvx-common"),
    Goal("saturated", "emit_ns", 1, "prometheus"),
    Goal("paced", "p50_ns", 25, "mvx-common"),
    Goal("paced", "p99_ns", 50, "mvx-common"),
    Goal("paced", "p99.9_ns", 5, "mvx-common"),
    Goal("end_to_end", "events_per_s", 15, "mvx-common"),
    Goal("hundred_metrics", "events_per_s", 40, "mvx-common"),
    Goal("hundred_metrics", "slowdown_by_99_more", 1.3),
    Goal("four_threads", "events_per_s", 10, "mvx-common"),
    Goal("round_robin", "emit_ns", 20, "mvx-common"),
    Goal("snapshot", "p50_ns", 1.5, "mvx-common"),
    Goal("many_recorders", "seconds", 2, "mvx-common"),
    Goal("many_recorders", "kib_each", 1, "mvx-common"),
    Goal("tick", "p99.9_ms", 10),
    Goal("instruments", "counter_times_by_hand", 1.5, contenders=("mvx-metrics",)),
    Goal("instruments", "tagged_counter_ns", 2, "prometheus", ("mvx-metrics",)),
    Goal("instruments", "histogram_ns", 1, "prometheus", ("mvx-metrics",)),
    Goal("instruments", "summary_ns", 1, "prometheus", ("mvx-metrics",)),
    Goal("import", "import_ms", 1, "prometheus", ("mvx-metrics",)),
    Goal("import", "import_ms", 1, "mvx-common", ("mvx-metrics",)),
)
"""The web server has none but "within noise", which a reader must judge from the rounds."""


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured for one contender."""

    goal: Goal
    contender: str
    reached: float

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        if self.goal.rival is None:
            return self.reached <= self.goal.factor
        return self.reached >= self.goal.factor


def more_is_better(figure: str) -> bool:
    """Tell rates from times and sizes."""
    return figure.endswith("_per_s")


def verdicts(medians: Medians) -> Iterator[Verdict]:
    """Judge every goal of whose contenders there are figures."""
    for goal in GOALS:
        rows = medians.get(goal.question, {})
        for contender in goal.contenders:
            ours = rows.get(contender, {}).get(goal.figure)
            if ours is None:
                continue
            if goal.rival is None:
                yield Verdict(goal, contender, ours)
            elif (theirs := rows.get(goal.rival, {}).get(goal.figure)) is not None and theirs > 0:
                yield Verdict(goal, contender, times_better(goal.figure, ours, theirs))


def times_better(figure: str, ours: float, theirs: float) -> float:
    """Return how many times better the first is than the second."""
    better, worse = (ours, theirs) if more_is_better(figure) else (theirs, ours)
    # A figure below the clock's own cost may come out at nothing.
    return better / max(worse, 1e-9)
