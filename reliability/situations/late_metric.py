"""A metric is registered while events stream in, and should see what is emitted from then on."""

import threading

from mvx.common.metrics import MetricEvent
from reliability.common import Emitter, Seen, Tick, fault, in_threads, join, new_recorder, new_runtime, perform
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "200 metrics are registered, each before an event, while another thread emits", THREADS, long=40, quick=2, batch=5
)


class Newcomer(Seen):
    """Waits for one event."""

    def __init__(self, n: int) -> None:
        super().__init__(f"newcomer {n}", tally=False)
        self.n = n
        self.has_seen_it = False

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, Tick) and event.emitter == "main" and event.n == self.n:
            self.has_seen_it = True
        return True


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Seen())
    ended = threading.Event()
    main, other = Emitter(recorder, "main"), Emitter(recorder, "other")

    def emit() -> None:
        while not ended.wait(0.0005):
            other.emit_all(5)

    threads = in_threads(emit)
    newcomers = [Newcomer(n) for n in range(200)]
    for newcomer in newcomers:
        recorder.register_metric(metric=newcomer)
        main.emit(newcomer.n)
    ended.set()
    join(threads)
    runtime.shutdown()
    fault("events missed by a metric registered before", sum(not newcomer.has_seen_it for newcomer in newcomers))


if __name__ == "__main__":
    perform(once)
