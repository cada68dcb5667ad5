"""The statsd client, over UDP to a port where nobody listens, a packet an event, as it is set up by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from statsd import StatsClient

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a client; what the server would make of it nobody can see from here."""
    client = StatsClient(host="127.0.0.1", port=8125)
    items = ["saves.ok" if ok else "saves.failed" for ok in OUTCOMES]
    yield Contender(client.incr, items, _nothing, lambda: 0, [client.incr] * recorders)
    client.close()


def _nothing() -> None:
    pass
