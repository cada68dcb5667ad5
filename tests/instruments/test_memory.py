"""What instruments keep after very many events."""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Effort, Tally
from tests.instruments.events import KINDS, MANY, MEASURING, Attempt, Clock, dimensions


def stream(many: int) -> Iterator[Attempt]:
    """Attempts of ever new durations and tag values."""
    rng = random.Random(7)
    for number in range(many):
        yield Attempt(seconds=rng.lognormvariate(0, 4), backend=f"b{number}", ok=number % 3 == 0)


def kept_by(make: Callable[[], Any], events: Iterator[Attempt], clock: Clock) -> tuple[Any, int]:
    """A fed instrument, and how many bytes it keeps."""
    gc.collect()
    tracemalloc.start()
    try:
        metric = make()
        for event in events:
            clock.now += 0.01
            metric.handle_event(event)
        del event
        gc.collect()
        return metric, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tags", [(), ("backend",)], ids=["untagged", "tagged"])
def test_the_memory_of_an_instrument_is_bounded(kind: str, tags: tuple[str, ...], effort: Effort, tally: Tally) -> None:
    """After very many events, all of a tag value of their own, it keeps kilobytes, in total and for each series."""
    clock = Clock()
    many = effort(10_000, 1_000_000)
    options: dict[str, Any] = {"tags": tags, "max_series": 20, "clock": clock} | ({"expire_after": 60} if tags else {})
    metric, kept = kept_by(lambda: KINDS[kind](**options), stream(many), clock)
    if kind in MEASURING and kind != "updown":
        assert dimensions(metric)["count"] == many
    elif kind != "updown":
        assert dimensions(metric)[MANY[kind]] == many
    # A Summary of 2 048 buckets of each sign would keep some 400 000 bytes; this one has 1 500 buckets.
    one = 250_000 if kind == "summary" else 30_000
    assert kept < one * (3 if tags else 1) + (20 * 3_000 if tags else 0)
    tally("events into instruments of bounded memory", many)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_events(kind: str, effort: Effort, tally: Tally) -> None:
    """Ten million events later it keeps what it kept."""
    clock = Clock()
    metric = KINDS[kind](clock=clock)
    events = [Attempt(seconds=value) for value in itertools.chain(range(1, 1000), (0.001 * n for n in range(1, 1000)))]
    many = effort(20_000, 10_000_000)

    def put(rounds: int) -> None:
        handle = metric.handle_event
        for _ in range(rounds):
            clock.now += 0.1
            for event in events:
                handle(event)

    gc.collect()
    tracemalloc.start()
    try:
        # Until every slot of the windows is in use, and no count is so small that the interpreter shares its int.
        put(effort(2, 1000))
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        put(max(many // len(events), 3))
        gc.collect()
        # Sums that have become larger ints.
        assert tracemalloc.get_traced_memory()[0] - before < 2_000
    finally:
        tracemalloc.stop()
    tally("events into an instrument that kept its size", many)
