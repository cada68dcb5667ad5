"""The program ends with events pending, and nobody calls shutdown()."""

from reliability.common import Emitter, Slow, new_recorder, new_runtime, perform
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "the program ends with 1 000 events pending and without `shutdown()`", PROCESSES, long=10, quick=1
)


def once() -> None:
    recorder = new_recorder(new_runtime())
    recorder.register_metric(metric=Slow(0.0005))
    Emitter(recorder).emit_all(1_000)


if __name__ == "__main__":
    perform(once)
