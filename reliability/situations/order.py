"""Four threads emit, and the events of each should be handled in the order in which it emitted them."""

from mvx.common.metrics import MetricEvent
from reliability.common import Emitter, Seen, Tick, fault, in_threads, join, new_recorder, new_runtime, perform
from reliability.situation import THREADS, Situation

SITUATION = Situation("four threads emit, and a metric watches the order", THREADS, long=50, quick=2, batch=10)


class Watching(Seen):
    """Knows which number each emitter has to send next."""

    def __init__(self) -> None:
        super().__init__()
        self.next: dict[str, int] = {}
        self.out_of_order = 0

    def handle_event(self, event: MetricEvent) -> bool:
        if isinstance(event, Tick):
            self.out_of_order += event.n != self.next.get(event.emitter, 0)
            self.next[event.emitter] = event.n + 1
        return super().handle_event(event)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    watching = Watching()
    recorder.register_metric(metric=watching)
    emitters = [Emitter(recorder, name) for name in "abcd"]
    join(in_threads(*(lambda emitter=emitter: emitter.emit_all(5_000) for emitter in emitters)))
    runtime.shutdown()
    fault("events out of order", watching.out_of_order)


if __name__ == "__main__":
    perform(once)
