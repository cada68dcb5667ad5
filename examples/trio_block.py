"""A recorder as a block: ``async with`` starts it, leaving the block drains and stops it.

Shows structured concurrency with a recorder in it, under trio by default and the same code under
asyncio: tasks that emit, an awaited snapshot, and a block that is cancelled and loses nothing.

    python examples/trio_block.py
    python examples/trio_block.py --backend asyncio
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel

from mvx.common.metrics import MetricEvent, MetricsRecorder
from mvx.common.metrics.instruments import Counter


@dataclass(frozen=True, slots=True)
class LoafBaked(MetricEvent):
    """A loaf came out of an oven."""

    oven: str

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "bakery.loaf_baked"


def loaves_by_oven() -> Counter[LoafBaked]:
    """Return a metric that counts the loaves of each oven."""
    return Counter("bakery.loaves", on=LoafBaked, tags=("oven",))


def counts_of(snapshots: Mapping[str, Mapping[str, Any]]) -> Mapping[str, int]:
    """Return the counts, in the order of the ovens' names."""
    return dict(sorted((series["tags"]["oven"], series["total"]) for series in snapshots["bakery.loaves"]["series"]))


async def bake(recorder: MetricsRecorder, oven: str, loaves: int) -> None:
    """Bake, and report every loaf."""
    for _ in range(loaves):
        await anyio.lowlevel.checkpoint()  # where a real oven would take its time
        # Waits for room when the inbox is full; register_event() would raise or drop instead.
        await recorder.aregister_event(LoafBaked(oven))


async def a_morning() -> Mapping[str, int]:
    """Bake in three ovens at once, in one block."""
    async with MetricsRecorder("bakery", queue_max_size=8) as recorder:
        recorder.register_metric(loaves_by_oven())
        async with anyio.create_task_group() as ovens:
            for oven, loaves in (("left", 20), ("middle", 30), ("right", 10)):
                ovens.start_soon(bake, recorder, oven, loaves)
        snapshots = await recorder.aget_metric_snapshots()  # with every event emitted before
    return counts_of(snapshots)


async def a_power_cut() -> Mapping[str, int]:
    """Cancel the block while events wait: what was accepted is processed all the same."""
    with anyio.CancelScope() as power:
        async with MetricsRecorder("bakery") as recorder:
            recorder.register_metric(loaves_by_oven())
            for _ in range(5):
                recorder.register_event(LoafBaked("left"))
            power.cancel()
            await anyio.sleep_forever()
    return counts_of(recorder.get_metric_snapshots())


async def day() -> dict[str, Mapping[str, int]]:
    """Both, one after the other."""
    return {"a morning": await a_morning(), "a power cut": await a_power_cut()}


def main(backend: str = "trio") -> dict[str, Mapping[str, int]]:
    """Run the day, print the loaves, and return them."""
    if backend == "trio":
        import trio  # noqa: PLC0415 — on asyncio this program does without trio

        loaves = trio.run(day)
    else:
        loaves = anyio.run(day, backend=backend)
    for occasion, by_oven in loaves.items():
        print(f"{occasion}: " + ", ".join(f"{oven} oven {count} loaves" for oven, count in by_oven.items()))
    return loaves


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run a recorder as a block of structured concurrency.")
    parser.add_argument("--backend", choices=("trio", "asyncio"), default="trio")
    main(parser.parse_args().backend)
