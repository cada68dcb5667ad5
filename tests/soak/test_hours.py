"""Hours of a service's life, on a clock that jumps over every pause: what happens in them takes seconds.

No sleep in this file lasts: the loops of :mod:`tests.soak.virtual` move their clock on instead.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    OverflowPolicy,
    RecorderDrainTimeoutError,
    RecorderState,
)
from mvx.common.metrics._recorder import DEFAULT_LINGER
from tests.concurrency.racing import check_reading
from tests.conftest import Effort, Tally
from tests.soak.census import halves
from tests.soak.virtual import VIRTUAL
from tests.support import balanced

pytestmark = pytest.mark.usefixtures("unheard", "tidy_trio")


@dataclass(frozen=True, slots=True)
class Request(MetricEvent):
    """One request to the service."""

    at: float
    """When it came, in seconds of the loop's clock."""

    @property
    def event_type(self) -> str:
        return "service.request"


class Latency(Metric):
    """The longest time from an event to its metric."""

    event_types = (Request,)

    def __init__(self) -> None:
        self.worst = 0.0
        self.total = 0

    @property
    def metric_name(self) -> str:
        return type(self).__name__.lower()

    def handle_event(self, event: MetricEvent) -> bool:
        assert isinstance(event, Request)
        self.worst = max(self.worst, anyio.current_time() - event.at)
        self.total += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"worst": self.worst, "total": self.total}


class Unreliable(MetricsRecorder):
    """Its metrics change a database, which takes its time, now and then fails, and once in a while hangs."""

    def __init__(self, entity_id: str, chance: random.Random) -> None:
        super().__init__(
            entity_id,
            queue_max_size=50,
            queue_overflow_policy=OverflowPolicy.DROP_OLDEST,
            failure_policy=FailurePolicy.QUARANTINE,
            drain_timeout=5,
        )
        self._chance = chance

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        match self._chance.randrange(1000):
            case 0:
                await anyio.sleep(3600)
            case n if n < 50:
                raise ConnectionError
            case _:
                await anyio.sleep(0.05)


class Moody(Latency):
    """Fails for minutes on end."""

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        assert isinstance(event, Request)
        if event.at % 600 < 60:
            raise ArithmeticError(event.at)
        return True


class Service:
    """Three recorders, and what a day does to them."""

    def __init__(self) -> None:
        self._chance = random.Random(1)
        self.steady = MetricsRecorder("steady")
        self.latency = Latency()
        self.nightly = MetricsRecorder("restarted every hour")
        self.unreliable = Unreliable("unreliable", self._chance)
        self.minutes = self.restarts = self.timed_out = 0
        self._before = self.steady.statistics()

    async def open(self) -> None:
        self.steady.register_metric(self.latency)
        self.nightly.register_metric(Latency())
        assert (await self.steady.start()).success
        assert (await self.nightly.start()).success
        await self._new_unreliable()

    async def _new_unreliable(self) -> None:
        self.unreliable = Unreliable("unreliable", self._chance)
        self.unreliable.register_metric(Moody())
        assert (await self.unreliable.start()).success

    async def minute(self) -> None:
        """Live through one minute."""
        self.minutes += 1
        end = anyio.current_time() + 60
        while (left := end - anyio.current_time()) > 0:
            await anyio.sleep(min(left, self._chance.choice((0.0, 0.001, 0.01, 1.0, 2.5))))
            for recorder in (self.steady, self.nightly, self.unreliable):
                for _ in range(self._chance.choice((1, 1, 2))):
                    recorder.register_event(Request(anyio.current_time()))
        await self._scrape()
        if self.minutes % 7 == 0:
            await self._restart()
        if self.minutes % 5 == 0:
            await self._replace_unreliable()

    async def _scrape(self) -> None:
        snapshots = await self.steady.aget_metric_snapshots()
        assert snapshots["latency"]["total"] == self.steady.statistics().accepted
        self._before = check_reading(self._before, self.steady.statistics())
        with anyio.move_on_after(3):
            await self.unreliable.aget_metric_snapshots()

    async def _restart(self) -> None:
        self.nightly.register_metric(Latency())
        assert (await self.nightly.stop()).success
        assert balanced(self.nightly.statistics())
        assert (await self.nightly.start()).success
        self.restarts += 1

    async def _replace_unreliable(self) -> None:
        result = await self.unreliable.stop()
        self.timed_out += isinstance(result.error, RecorderDrainTimeoutError)
        assert self.unreliable.get_status() is RecorderState.STOPPED or result.error is not None
        assert balanced(self.unreliable.statistics())
        await self._new_unreliable()

    async def close(self) -> None:
        for recorder in (self.steady, self.nightly):
            assert (await recorder.stop()).success
        await self.unreliable.stop()


@pytest.mark.parametrize("backend_name", sorted(VIRTUAL))
def test_hours_of_a_service(backend_name: str, effort: Effort, tally: Tally) -> None:
    """Events are handled within the linger all day long, failures and restarts stay without after-effects, nothing grows."""
    service_hours: list[float] = []

    async def main() -> None:
        service = Service()
        await service.open()
        began = anyio.current_time()
        for minutes in halves(effort(10, 12 * 60)):
            for _ in range(minutes):
                await service.minute()
        # A quiet hour: nothing but heartbeats.
        await anyio.sleep(3600)
        service_hours.append((anyio.current_time() - began) / 3600)
        # The loop rests for fractions of a millisecond when it has really been busy.
        assert service.latency.worst <= DEFAULT_LINGER + 0.01
        await service.close()
        assert balanced(service.steady.statistics())
        assert service.latency.total == service.steady.statistics().offered

    anyio.run(main, backend=backend_name, backend_options=VIRTUAL[backend_name]())
    tally("virtual hours of a service", int(service_hours[0]))
