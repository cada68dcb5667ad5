"""prometheus_client: a counter, and one with a label whose value is looked up for each event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a registry with a counter; it counts at once, so there is nothing to drain."""
    registry = CollectorRegistry()
    if name == "prometheus":
        counter = Counter("saves", "saves", registry=registry)
        yield Contender(counter.inc, [1] * len(OUTCOMES), _nothing, lambda: _total(registry), [counter.inc] * recorders)
        return
    labelled = Counter("saves", "saves", ["ok"], registry=registry)

    def emit(ok: str) -> None:
        labelled.labels(ok).inc()

    yield Contender(emit, [str(ok) for ok in OUTCOMES], _nothing, lambda: _total(registry), [emit] * recorders)


def _total(registry: CollectorRegistry) -> int:
    return int(
        sum(sample.value for family in registry.collect() for sample in family.samples if sample.name == "saves_total")
    )


def _nothing() -> None:
    pass
