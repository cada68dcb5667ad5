"""What one would build by hand: a queue for threads and tasks, and a task or thread that counts what comes out."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.workload import OUTCOMES


class Counts:
    """The measured state: how many saves there were, and how many went well."""

    def __init__(self) -> None:
        self.total = 0
        self.ok = 0

    def handle(self, ok: bool) -> None:  # noqa: FBT001 — the workload's form of an event
        """Count one."""
        self.total += 1
        if ok:
            self.ok += 1


@contextmanager
def opened(name: str, *, metrics: int = 1, recorders: int = 1) -> Iterator[Contender]:
    """Open a queue with a consumer in a thread of its own, an event loop in it unless the queue is SimpleQueue."""
    counts = Counts()
    ready: queue.SimpleQueue[Callable[[Any], object]] = queue.SimpleQueue()
    consumer = threading.Thread(target=_CONSUMERS[name], args=(counts, ready), daemon=True)
    consumer.start()
    put = ready.get()
    emitted = 0

    def drain() -> None:
        # A mark of its own tells how far the consumer is: a queue has no other way to say so.
        passed = threading.Event()
        put(passed)
        passed.wait()

    def total() -> int:
        drain()
        return counts.total

    put(OUTCOMES[0])
    drain()
    del emitted
    yield Contender(put, OUTCOMES, drain, total, [put] * recorders)
    put(None)
    consumer.join()


def _take(counts: Counts, item: Any) -> bool:
    """Deal with one item; return whether to go on."""
    if item is None:
        return False
    if isinstance(item, threading.Event):
        item.set()
    else:
        counts.handle(item)
    return True


def _simple_queue(counts: Counts, ready: queue.SimpleQueue[Any]) -> None:
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    ready.put(items.put)
    while _take(counts, items.get()):
        pass


def _culsans(counts: Counts, ready: queue.SimpleQueue[Any]) -> None:
    import culsans  # noqa: PLC0415 — only for its own measurement

    async def main() -> None:
        items: Any = culsans.Queue()
        ready.put(items.sync_q.put)
        while _take(counts, await items.async_q.get()):
            pass

    asyncio.run(main())


def _aiologic(counts: Counts, ready: queue.SimpleQueue[Any]) -> None:
    import aiologic  # noqa: PLC0415 — only for its own measurement

    async def main() -> None:
        items: Any = aiologic.SimpleQueue()
        ready.put(items.green_put)
        while _take(counts, await items.async_get()):
            pass

    asyncio.run(main())


def _janus(counts: Counts, ready: queue.SimpleQueue[Any]) -> None:
    import janus  # noqa: PLC0415 — only for its own measurement

    async def main() -> None:
        items: Any = janus.Queue()
        ready.put(items.sync_q.put)
        while _take(counts, await items.async_q.get()):
            pass
        time.sleep(0)  # noqa: ASYNC251 — nothing else runs here any more
        await items.aclose()

    asyncio.run(main())


_CONSUMERS: dict[str, Callable[[Counts, queue.SimpleQueue[Any]], None]] = {
    "queue.SimpleQueue": _simple_queue,
    "culsans": _culsans,
    "aiologic": _aiologic,
    "janus": _janus,
}
