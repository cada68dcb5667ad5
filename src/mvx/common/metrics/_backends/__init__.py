"""The seam to the event loops: what anyio does not offer, behind one contract, a module a backend.

anyio has no public, non-blocking, thread-safe way to wake a loop from outside, none to start
a task that belongs to the loop rather than to a task group, and none to tell whether a
cancellation came from outside; the kernel needs these three.
"""

from __future__ import annotations

import sys

from ._contract import EventLoop, LoopGoneError

__all__ = ["EventLoop", "LoopGoneError", "running_loop"]


def running_loop() -> EventLoop | None:
    """Return the event loop that runs in the calling thread, always the same object for the same loop.

    A backend that nobody has imported cannot be running, so it is not imported here either.
    In trio's guest mode, where two loops share a thread, trio is meant inside its tasks only.
    """
    trio_loaded = sys.modules.get("trio") is not None
    if trio_loaded:
        from . import _trio  # noqa: PLC0415 — only where trio is in use

        if _trio.in_task():
            return _trio.running_loop()
    if sys.modules.get("asyncio") is not None:
        from . import _asyncio  # noqa: PLC0415 — only where asyncio is in use

        if (loop := _asyncio.running_loop()) is not None:
            return loop
    return _trio.running_loop() if trio_loaded else None
