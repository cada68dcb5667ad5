"""One point of a sweep, measured; see ``benchmarks.tuning``."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.contenders.recorders import OPTIONS
from benchmarks.tuning import Point
from benchmarks.workload import percentile, timer_cost
from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    OverflowPolicy,
    RecorderQueueOverflowError,
)

clock = time.perf_counter_ns


class Emitted(MetricEvent):
    """Knows when it was emitted."""

    __slots__ = ("at",)
    event_type = "tuning.emitted"

    def __init__(self) -> None:
        self.at = clock()


class Delays(Metric):
    """Notes how old each event is that it sees."""

    metric_name = "tuning.delays"
    event_types = (Emitted,)

    def __init__(self, work: float) -> None:
        self.seen: list[int] = []
        self._work = int(work * 1e9)

    def handle_event(self, event: MetricEvent) -> bool:
        if not isinstance(event, Emitted):
            return False
        now = clock()
        self.seen.append(now - event.at)
        while clock() < now + self._work:
            pass
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self.metric_name, "dimensions": {"seen": len(self.seen)}}


def emit_all(recorder: MetricsRecorder, point: Point) -> tuple[list[int], int]:
    """Return what each emit took, in nanoseconds, and how many were refused."""
    emit, own = recorder.register_event, int(timer_cost())
    costs, refused = [], 0
    due = clock()
    for _ in range(point.bursts):
        due += int(point.pause * 1e9)
        while clock() < due:
            pass
        for _ in range(point.burst):
            event = Emitted()
            began = clock()
            try:
                emit(event)
            except RecorderQueueOverflowError:
                refused += 1
            costs.append(clock() - began - own)
    return costs, refused


def measure(point: Point) -> dict[str, float]:
    """Emit as the point says and watch every event."""
    delays = Delays(point.work)
    with MetricsRuntime(namespace="tuning", **OPTIONS[point.backend]) as runtime:
        recorder = runtime.create_recorder(
            "tuning",
            linger=point.linger,
            queue_max_size=point.capacity,
            queue_overflow_policy=OverflowPolicy(point.policy),
        )
        recorder.register_metric(delays)
        costs, refused = emit_all(recorder, point)
        if not recorder.flush().wait().success:
            raise RuntimeError("the recorder did not come to the end")
        counts = recorder.statistics()
    costs.sort()
    seen = sorted(delays.seen)
    return {
        "emit_mean_ns": statistics.fmean(costs),
        "emit_p50_ns": percentile(costs, 0.5),
        "emit_p99_ns": percentile(costs, 0.99),
        "delay_p50_ms": percentile(seen, 0.5) / 1e6,
        "delay_p99_ms": percentile(seen, 0.99) / 1e6,
        "lost_percent": 100 * (counts.dropped + counts.evicted + refused) / len(costs),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Point(**json.loads(sys.argv[1])))))
