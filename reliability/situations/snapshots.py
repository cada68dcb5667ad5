"""A thread emits and at once reads the snapshots, which should contain its event; another thread emits, too."""

import threading

from mvx.common.metrics import MetricEvent
from reliability.common import Emitter, Seen, Tick, fault, in_threads, join, new_recorder, new_runtime, perform
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "a thread emits and then reads the snapshots, 500 times, while another one emits",
    THREADS,
    long=40,
    quick=2,
    batch=5,
)


class Latest(Seen):
    """Shows the latest number of one emitter."""

    latest = -1

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, Tick) and event.emitter == "reader":
            self.latest = event.n
        return super().handle_event(event)

    def snapshot(self) -> dict[str, object]:
        return {"name": self.metric_name, "dimensions": {"latest": self.latest}}


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Latest())
    ended = threading.Event()
    reader, other = Emitter(recorder, "reader"), Emitter(recorder, "other")

    def emit() -> None:
        while not ended.wait(0.0001):
            other.emit_all(20)

    threads = in_threads(emit)
    stale = 0
    for n in range(500):
        reader.emit(n)
        stale += recorder.get_metric_snapshots()["seen"]["dimensions"]["latest"] < n
    ended.set()
    join(threads)
    runtime.shutdown()
    fault("snapshots without the reader's last event", stale)


if __name__ == "__main__":
    perform(once)
