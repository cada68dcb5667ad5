"""Objects emit when the garbage collector finds them, which it may do in the midst of an emit."""

import gc

from reliability.common import Emitter, Seen, new_recorder, new_runtime, perform
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "objects emit from `__del__` when the garbage collector finds them, amid other emits",
    THREADS,
    long=10,
    quick=1,
    batch=2,
)


class Garbage:
    """Takes the garbage collector, because it refers to itself."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.itself = self

    def __del__(self) -> None:
        self.emitter.emit()


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Seen())
    outside, inside = Emitter(recorder), Emitter(recorder)
    gc.set_threshold(20)
    for _ in range(20_000):
        Garbage(inside)
        outside.emit()
    gc.set_threshold(700, 10, 10)
    gc.collect()
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
