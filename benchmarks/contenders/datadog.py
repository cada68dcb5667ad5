"""Datadog's client, DogStatsD over UDP to a port where nobody listens, as it is set up by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from datadog.dogstatsd import DogStatsd

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a client; what the agent would make of it nobody can see from here."""
    client = DogStatsd(host="127.0.0.1", port=8125)
    items = [["ok:true"] if ok else ["ok:false"] for ok in OUTCOMES]
    sent = 0

    def emit(tags: list[str]) -> None:
        client.increment("saves", tags=tags)

    yield Contender(emit, items, client.flush, lambda: sent, [emit] * recorders)
    client.stop()
