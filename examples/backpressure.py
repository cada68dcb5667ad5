"""Four ways to meet more events than can be handled, side by side.

A burst of parcels meets a recorder whose hook, like a slow disk, needs a millisecond for each, and
whose inbox holds only a few.  The table shows what each ``OverflowPolicy`` lost, of what age, and
what it cost the emitter: DROP and DROP_OLDEST lose silently and cost nothing, RAISE_ERROR tells the
emitter of every loss, BLOCK loses nothing and makes the emitter as slow as the hook.

    python examples/backpressure.py --backend trio
"""

from __future__ import annotations

import argparse
import time
from dataclasses import astuple, dataclass

import anyio

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    OverflowPolicy,
    RecorderQueueOverflowError,
)
from mvx.common.metrics.instruments import Gauge

BURST = 300
ROOM = 20


@dataclass(frozen=True, slots=True)
class ParcelSorted(MetricEvent):
    """A parcel went down a chute."""

    number: int

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "depot.parcel_sorted"


class SlowRecorder(MetricsRecorder):
    """Takes its time with every change."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await anyio.sleep(0.001)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy did to a burst."""

    policy: str
    processed: int
    lost: int
    errors: int
    """Losses that the emitter was told of, by RecorderQueueOverflowError."""
    first: int
    last: int
    emitting_ms: float
    """What the whole burst cost the emitter."""
    worst_ms: float
    """What the slowest ``register_event`` cost it."""


def overload(runtime: MetricsRuntime, policy: OverflowPolicy) -> Outcome:
    """Send a burst to a recorder with ``policy``."""
    recorder = runtime.create_recorder(
        policy.value, factory=SlowRecorder, queue_max_size=ROOM, queue_overflow_policy=policy, block_timeout=10.0
    )
    # Parcels come in the order of their numbers: the first is the least, and the last is the last.
    recorder.register_metric(Gauge("depot.parcels", on=ParcelSorted, value="number"))
    errors, worst = 0, 0.0
    begun = before = time.perf_counter()
    for number in range(1, BURST + 1):
        try:
            recorder.register_event(ParcelSorted(number))
        except RecorderQueueOverflowError:
            errors += 1
        now = time.perf_counter()
        worst, before = max(worst, now - before), now
    recorder.flush().wait()  # until the backlog is done
    seen = recorder.get_metric_snapshots()["depot.parcels"]["dimensions"]
    ledger = recorder.statistics()
    return Outcome(
        policy=policy.value,
        processed=ledger.processed,
        lost=ledger.dropped + ledger.evicted + ledger.rejected,
        errors=errors,
        first=seen["min"],
        last=seen["last"],
        emitting_ms=(before - begun) * 1000,
        worst_ms=worst * 1000,
    )


def main(backend: str = "asyncio") -> list[Outcome]:
    """Try each policy, print the table, and return its rows."""
    with MetricsRuntime(namespace="depot", backend=backend) as runtime:
        outcomes = [overload(runtime, policy) for policy in OverflowPolicy]
    print(f"{BURST} parcels at once, room for {ROOM}, 1 ms for each\n")
    line = "{:<12}{:>10}{:>6}{:>8}{:>7}{:>6}{:>10}{:>10}"
    print(line.format("policy", "processed", "lost", "errors", "first", "last", "burst ms", "worst ms"))
    for outcome in outcomes:
        *counts, burst, worst = astuple(outcome)
        print(line.format(*counts, f"{burst:.2f}", f"{worst:.2f}"))
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare the overflow policies under overload.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
