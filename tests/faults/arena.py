"""Where scenarios are run that are cancelled at every checkpoint, and how many of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.faults.checkpoints import BY_SCOPE, BY_TASK_CANCEL, Means, Sweep, means, no_task_left
from tests.faults.trial import TEMPERS, Place, place


@dataclass(frozen=True, slots=True)
class Arena:
    """The backend of a test, and the effort that it makes."""

    backend: str
    backend_options: dict[str, Any]
    long: bool

    def sweep(self, *more: Means, thorough: bool = True) -> Sweep:
        """Return a sweep by every means of cancelling a task here.

        :param thorough: whether to do so in the short profile, too, and not just by the two plain ones
        """
        every = means(self.backend, many=self.long)
        plain = every if thorough or self.long else [one for one in every if one in (BY_SCOPE, BY_TASK_CANCEL)]
        return Sweep(*plain, *more)

    def tempers(self, *short: str) -> tuple[str, ...]:
        """Return those in ``short``, or all in the long profile."""
        return TEMPERS if self.long else short

    @asynccontextmanager
    async def place(self, home: str) -> AsyncIterator[Place]:
        """Open a home for many trials; no task may be left behind on this loop."""
        async with self.quick(), no_task_left(), place(home, self.keywords) as spot:
            yield spot

    @asynccontextmanager
    async def quick(self) -> AsyncIterator[None]:
        """Turn asyncio's debug mode off, in which these tests take ten times as long and see no more."""
        if self.backend == "trio":
            yield
            return
        loop = asyncio.get_running_loop()
        before = loop.get_debug()
        loop.set_debug(False)
        try:
            yield
        finally:
            loop.set_debug(before)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop of asyncio's or of uvloop's."""
        if not self.backend_options.get("use_uvloop"):
            return asyncio.new_event_loop()
        import uvloop  # noqa: PLC0415 — its tests are skipped where it is not installed

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop

    @property
    def keywords(self) -> dict[str, Any]:
        """The backend as keywords for MetricsRuntime."""
        options = {name: value for name, value in self.backend_options.items() if name != "debug"}
        return {"backend": self.backend, "backend_options": options}
