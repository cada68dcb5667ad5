"""What is explored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.concurrency.interleaving.thread import Body


@dataclass(kw_only=True)
class Scenario:
    """What the threads of one schedule do, made anew for each."""

    threads: Mapping[str, Body]
    services: Mapping[str, Body] = field(default_factory=dict)
    """Threads that may be left waiting when all others have ended, such as an event loop's."""
    check: Callable[[], object] = lambda: None
    """Raises AssertionError if the outcome is wrong; called when all is at rest."""
    always: Callable[[], object] = lambda: None
    """Likewise, whenever a thread may be preempted."""
    horizon: float = 0.0
    """How long the services go on when the others have ended, in seconds; where time passes."""
    interruptible: frozenset[str] = frozenset()
    """The threads of which one may be hit by Ctrl-C, once."""
