"""What there is in the process, counted before and after a load: nothing may have become more."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from mvx.common.metrics import _exit, _fork, _hub
from mvx.common.metrics._backends import _asyncio as asyncio_seam
from mvx.common.metrics._backends import _trio as trio_seam

HALVES = 5
"""How many equal loads are put on at the most until one of them leaves nothing behind; a leak shows in each."""
FILES = Path("/proc/self/fd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """The numbers of one moment."""

    objects: Counter[str]
    """Objects known to the garbage collector, by the full name of their type."""
    blocks: int
    """Blocks of memory in use, which also shows what the collector does not track, such as numbers in a list."""
    others: Counter[str]
    """Threads, open files, tasks of the running loop, and the entries of every table that outlives a recorder."""


def take_census() -> Census:
    """Count everything, after the garbage has been taken out."""
    while gc.collect():
        pass
    return Census(
        objects=Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects())),
        blocks=sys.getallocatedblocks(),
        others=Counter(
            {
                "threads": threading.active_count(),
                "open files": open_files(),
                "tasks": tasks(),
                "what a fork resets": len(_fork._resettable),
                "what a fork has left behind": len(_fork._left_behind),
                "runtimes to drain at exit": len(_exit._running),
                "hubs": len(_hub._hubs),
                "asyncio loops": len(asyncio_seam._known),
                "trio runs": len(trio_seam._known),
            }
        ),
    )


def open_files() -> int:
    """Return how many files, sockets and the like are open, or 0 where the system does not tell."""
    return len(list(FILES.iterdir())) if FILES.exists() else 0


def tasks() -> int:
    """Return how many tasks the loop has that runs here, or 0 where none runs."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        pass
    try:
        return trio.lowlevel.current_statistics().tasks_living
    except RuntimeError:
        return 0


def growth(before: Census, after: Census, rounds: int) -> Counter[str]:
    """Return what has become more by a load.

    A few objects more or less may just be on their way.  In short loads every other round would have to
    leave one behind, in long ones every fiftieth.
    """
    few = max(min(rounds // 2, 20), rounds // 50)
    objects = after.objects - before.objects
    del objects["traceback.FrameSummary"]  # asyncio's debug mode: dozens with each alarm that happens to be set
    grown = Counter({name: count for name, count in objects.items() if count > few})
    grown.update(after.others - before.others)
    if after.blocks - before.blocks > max(200, rounds // 2):
        grown["blocks of memory"] = after.blocks - before.blocks
    return grown


def halves(rounds: int) -> Iterator[int]:
    """Yield how many rounds of a load to put on next, until an equal load has left nothing behind.

    ::

        for count in halves(1000):
            for _ in range(count):
                ...

    The first time warms up what is made once.  Something else in the process may grow during one
    half, for instance a heap of trio's that is tidied up now and then; a leak grows in each.
    """
    # What was there before is none of the load's business, and not to look at it makes counting quick.
    gc.collect()
    gc.freeze()
    try:
        yield max(2, rounds // 4)
        take_census()
        history: list[Counter[str]] = []
        census = take_census()
        census = take_census()  # like every later one, with one there before it
        for half in range(HALVES):
            yield rounds
            now = take_census()
            history.append(growth(census, now, rounds))
            census = now
            if half > 0 and not history[-1]:
                return
    finally:
        gc.unfreeze()
    raise AssertionError(f"each {rounds} rounds leave something behind: {history}")
