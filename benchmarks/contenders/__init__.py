"""Everything that takes events, behind one interface; a module a library, imported only in its own environment."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Contender:
    """Something that takes events."""

    emit: Callable[[Any], object]
    """What production calls, with one of ``items``."""
    items: Sequence[Any]
    """A thousand events made from the workload's outcomes, in the form that ``emit`` takes."""
    drain: Callable[[], object]
    """Return when every event emitted before has been dealt with."""
    total: Callable[[], int]
    """Return how many events a snapshot shows, with every event emitted before."""
    emitters: Sequence[Callable[[Any], object]] = ()
    """With several recorders: the emit call of each."""


class Opener(Protocol):
    """Opens a contender that has seen its first event, and closes it."""

    def __call__(self, name: str, *, metrics: int = 1, recorders: int = 1) -> AbstractContextManager[Contender]:
        """Open ``name`` with so many metrics registered, of which one is interested, and so many recorders."""
        ...


@dataclass(frozen=True)
class Entry:
    """Where a contender is found."""

    environment: str
    module: str


CONTENDERS: dict[str, Entry] = {
    "limit": Entry("mvx-metrics", "limit"),
    "asyncio": Entry("mvx-metrics", "recorders"),
    "uvloop": Entry("mvx-metrics", "recorders"),
    "trio": Entry("mvx-metrics", "recorders"),
    "mvx-common": Entry("mvx-common", "recorders"),
    "prometheus": Entry("prometheus", "prometheus"),
    "prometheus-labels": Entry("prometheus", "prometheus"),
    "opentelemetry": Entry("opentelemetry", "opentelemetry"),
    "datadog": Entry("datadog", "datadog"),
    "statsd": Entry("statsd", "statsd"),
    "queue.SimpleQueue": Entry("inboxes", "inboxes"),
    "culsans": Entry("inboxes", "inboxes"),
    "aiologic": Entry("inboxes", "inboxes"),
    "janus": Entry("inboxes", "inboxes"),
}
"""Every contender, in the order of the tables."""

OURS = ("asyncio", "uvloop", "trio")


def open_contender(name: str, *, metrics: int = 1, recorders: int = 1) -> AbstractContextManager[Contender]:
    """Open the contender called ``name``; in its environment."""
    module = importlib.import_module(f"benchmarks.contenders.{CONTENDERS[name].module}")
    opener: Opener = module.opened
    return opener(name, metrics=metrics, recorders=recorders)
