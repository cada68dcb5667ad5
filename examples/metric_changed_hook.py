"""An alarm that goes off when a measured value crosses a threshold, and once for each crossing.

Shows ``_on_metric_changed``: the metric measures and knows nothing of alarms; the recorder looks at
its snapshot after each change and calls whoever is to be told.  Between the two thresholds nothing
happens, so a value that trembles around one of them does not ring again and again.

    python examples/metric_changed_hook.py --backend trio
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, MetricsRuntime
from mvx.common.metrics.instruments import Gauge

Tell = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ThermometerRead(MetricEvent):
    """A thermometer in the cold store was read."""

    celsius: float

    @property
    def event_type(self) -> str:
        """What logs and hooks call it."""
        return "cold_store.thermometer_read"


class AlarmRecorder(MetricsRecorder):
    """Tells somebody when it gets too warm, and when it is cold again."""

    def __init__(self, entity_id: str, *, too_warm: float, cold_again: float, tell: Tell, **options: Any) -> None:
        super().__init__(entity_id, **options)
        self._too_warm = too_warm
        self._cold_again = cold_again
        self._tell = tell
        self._ringing = False  # touched by the hook alone, which runs once at a time

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        if not isinstance(metric, Gauge):
            return
        celsius = metric.snapshot()["dimensions"]["last"]
        if not self._ringing and celsius >= self._too_warm:
            self._ringing = True
            await self._tell(f"{self.entity_id}: {celsius:.1f} degrees, too warm")
        elif self._ringing and celsius <= self._cold_again:
            self._ringing = False
            await self._tell(f"{self.entity_id}: {celsius:.1f} degrees, cold again")


READINGS = (-19.5, -18.2, -14.9, -14.2, -15.5, -14.8, -18.1, -20.0, -14.0)


def main(backend: str = "asyncio") -> list[str]:
    """Read a thermometer, print the alarms, and return them."""
    told: list[str] = []

    async def tell(message: str) -> None:
        # A real one would send a message; the readings that follow wait for it in the inbox.
        told.append(message)

    # A factory gets the entity's name and, if it takes them, the options; the rest can be bound.
    factory = partial(AlarmRecorder, too_warm=-15.0, cold_again=-18.0, tell=tell)
    with MetricsRuntime(namespace="warehouse", backend=backend) as runtime:
        recorder = runtime.create_recorder("cold store 2", factory=factory)
        temperature = Gauge("cold_store.temperature", on=ThermometerRead, value="celsius", unit="degrees Celsius")
        recorder.register_metric(temperature)
        for celsius in READINGS:
            recorder.register_event(ThermometerRead(celsius))
        # Returns when the last reading's hook has; leaving the block would wait for it, too.
        flushed = recorder.flush().wait()
        if flushed.error is not None:
            raise flushed.error
    print(f"{len(READINGS)} readings, {len(told)} messages")
    for message in told:
        print(f"  {message}")
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ring an alarm when a metric crosses a threshold.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    main(parser.parse_args().backend)
