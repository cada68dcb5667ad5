"""What does an event cost to make, to look at and to keep?  One with two fields, as every kind of class."""

from __future__ import annotations

import gc
import statistics
import timeit
import tracemalloc
from typing import Any

from benchmarks.workload import Figures, Settings, answer

ENVIRONMENT = "events"
CONTENDERS = (
    "dataclass-slots",
    "dataclass",
    "dataclass-mutable",
    "attrs-frozen",
    "attrs-define",
    "slotted-class",
    "named-tuple",
    "msgspec",
    "msgspec-untracked",
    "msgspec-registered",
)
KEPT = 100_000


def nanoseconds(statement: str, names: dict[str, Any], *, number: int, repeat: int) -> float:
    """Return what one execution costs, without the loop around it."""
    empty = min(timeit.repeat("pass", number=number, repeat=repeat))
    taken = min(timeit.repeat(statement, globals=names, number=number, repeat=repeat))
    return (taken - empty) / number * 1e9


def measure(told: Settings) -> Figures:
    """By keywords, as production makes events; the best of many short runs, as the work is always the same."""
    from benchmarks.event_kinds import KINDS  # noqa: PLC0415 — in its environment

    make_class = KINDS[told.contender]
    kind = make_class()
    names = {"kind": kind, "outcome": "ok", "seconds": 0.25}
    names["event"] = kind(outcome="ok", seconds=0.25)
    number, repeat = told.times(20_000, 1000), told.times(50, 3)
    figures = {
        "make_ns": nanoseconds("kind(outcome=outcome, seconds=seconds)", names, number=number, repeat=repeat),
        "read_ns": nanoseconds("event.outcome", names, number=number, repeat=repeat),
    }
    kept = told.times(KEPT, KEPT // 20)
    outcome, seconds = names["outcome"], names["seconds"]
    rounds = told.times(10, 3)
    nothing = nanoseconds("collect()", {"collect": gc.collect}, number=1, repeat=rounds)
    tracemalloc.start()
    events = [kind(outcome=outcome, seconds=seconds) for _ in range(kept)]
    figures["bytes"] = (tracemalloc.get_traced_memory()[0] - events.__sizeof__()) / kept
    tracemalloc.stop()
    gc.collect()
    # What one collection that looks at all of them costs each.
    all_of_them = nanoseconds("collect()", {"collect": gc.collect}, number=1, repeat=rounds)
    figures["collect_ns"] = max(0.0, all_of_them - nothing) / kept
    del events
    gc.collect()
    figures["define_us"] = statistics.median(timeit.repeat(make_class, number=1, repeat=told.times(50, 3))) * 1e6
    return figures


if __name__ == "__main__":
    answer(measure)
