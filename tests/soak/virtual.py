"""Loops whose clocks jump: when everybody sleeps, to the moment at which the first one wakes.

For recorders made by hand, with no other thread about: an hour takes as long as what happens in it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

import trio.testing


class JumpingSelector(selectors.DefaultSelector):
    """Looks instead of waiting, and remembers for how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0
        """Seconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            self.jumped += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio on such a selector."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped


VIRTUAL: Mapping[str, Any] = {
    "asyncio": lambda: {"loop_factory": JumpingLoop},
    "trio": lambda: {"clock": trio.testing.MockClock(autojump_threshold=0)},
}
"""What makes the options for ``anyio.run`` on a jumping clock, by backend."""
