"""A metric blocks the runtime's thread for a second, which emitters should not feel."""

import threading
import time

from reliability.common import Emitter, Held, Seen, figure, in_threads, join, new_recorder, new_runtime, perform, until
from reliability.situation import METRICS, Situation

SITUATION = Situation(
    "a metric blocks for a second, while two threads emit to its recorder and to a neighbour", METRICS, long=5, quick=1
)


def once() -> None:
    runtime = new_runtime()
    recorder, neighbour = new_recorder(runtime), new_recorder(runtime, "neighbour")
    held, seen = Held(), Seen()
    recorder.register_metric(metric=held)
    neighbour.register_metric(metric=seen)
    Emitter(recorder).emit()
    held.reached.wait()
    longest = [0.0, 0.0]

    def emit(index: int, emitter: Emitter) -> None:
        for _ in range(100):
            began = time.perf_counter()
            emitter.emit()
            longest[index] = max(longest[index], time.perf_counter() - began)

    began = time.monotonic()
    join(in_threads(lambda: emit(0, Emitter(recorder)), lambda: emit(1, Emitter(neighbour))))
    threading.Event().wait(1.0)
    held.go.set()
    until(lambda: seen.total)
    figure("milliseconds of the longest emit", max(longest) * 1000)
    figure("seconds until the neighbour sees its event", time.monotonic() - began)
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
