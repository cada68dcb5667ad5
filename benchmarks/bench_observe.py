"""What does it cost production to time a block and to say how it ended?

A function that does nothing, called as it is, in a timed block and by a timed name; less the price of the call itself.
``none`` is this library without a recorder, ``limit`` a clock, a ``try`` and an append, written by hand.
prometheus_client's ``.time()`` tells how long the block took, and nothing of how it ended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.workload import Figures, Settings, answer

CONTENDERS = ("asyncio", "trio", "none", "prometheus", "limit")
BURST = 1000

Decorator = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(frozen=True)
class Way:
    """How one library reports."""

    emit: Callable[[], object]
    """Report without timing."""
    block: Callable[[], AbstractContextManager[Any]]
    decorate: Decorator
    drain: Callable[[], object] = int


def work() -> None:
    """Do nothing."""


def in_block(block: Callable[[], AbstractContextManager[Any]]) -> Callable[[], None]:
    def run() -> None:
        with block():
            pass

    return run


def measure(told: Settings) -> Figures:
    """The shortest of many bursts, each drained before the next."""
    with WAYS.get(told.contender, of_ours)(told.contender) as way:
        kept = way.block()
        runs: dict[str, Callable[[], object]] = {
            "block_ns": in_block(way.block),
            "kept_block_ns": in_block(lambda: kept),
            "function_ns": way.decorate(work),
            "emit_ns": way.emit,
            "call": work,
        }
        shortest = dict.fromkeys(runs, float("inf"))
        for _ in range(told.times(300, 10)):
            for name, run in runs.items():
                began = time.perf_counter_ns()
                for _ in range(BURST):
                    run()
                shortest[name] = min(shortest[name], (time.perf_counter_ns() - began) / BURST)
                way.drain()
    call = shortest.pop("call")
    return {name: cost - call for name, cost in shortest.items()}


@contextmanager
def of_ours(contender: str) -> Iterator[Way]:
    from mvx.common.metrics import (  # noqa: PLC0415 — not in the other contender's environment
        MetricsEmitter,
        MetricsRuntime,
        Outcome,
        OutcomeEvent,
        observe,
    )
    from mvx.common.metrics.instruments import Histogram  # noqa: PLC0415 — likewise

    class Ended(OutcomeEvent):
        event_type = "benchmark.ended"

    ready = Ended(Outcome(status="ok", seconds=0.1, error=None))

    def way(emitter: MetricsEmitter, drain: Callable[[], object]) -> Way:
        return Way(
            emit=lambda: emitter.emit(ready),
            block=lambda: observe(emitter, Ended),
            decorate=observe(emitter, Ended),
            drain=drain,
        )

    if contender == "none":
        yield way(MetricsEmitter(None), int)
        return
    with MetricsRuntime(namespace="benchmark", backend=contender) as runtime:
        recorder = runtime.create_recorder("observe")
        emitter = MetricsEmitter(recorder, (Histogram("seconds", on=Ended, value="seconds"),))
        yield way(emitter, lambda: recorder.flush().wait())
        if recorder.statistics().dropped or emitter.swallowed:
            raise RuntimeError("events were lost: what was measured is how fast one can lose")


@contextmanager
def of_prometheus(_: str) -> Iterator[Way]:
    from prometheus_client import Histogram  # noqa: PLC0415 — only in this contender's environment

    histogram = Histogram("seconds", "Seconds")
    yield Way(emit=lambda: histogram.observe(0.1), block=histogram.time, decorate=histogram.time())


@contextmanager
def by_hand(_: str) -> Iterator[Way]:
    told: deque[tuple[str, float]] = deque()

    class Block:
        def __enter__(self) -> None:
            self.began = time.perf_counter()

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
            told.append(("ok" if kind is None else "error", time.perf_counter() - self.began))

    def decorate(function: Callable[[], None]) -> Callable[[], None]:
        def timed() -> None:
            began = time.perf_counter()
            try:
                function()
            except BaseException:
                told.append(("error", time.perf_counter() - began))
                raise
            told.append(("ok", time.perf_counter() - began))

        return timed

    yield Way(emit=lambda: told.append(("ok", 0.1)), block=Block, decorate=decorate, drain=told.clear)


WAYS: dict[str, Callable[[str], AbstractContextManager[Way]]] = {"prometheus": of_prometheus, "limit": by_hand}


if __name__ == "__main__":
    answer(measure)
