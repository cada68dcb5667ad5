"""A callback of atexit emits; nobody calls shutdown()."""

import atexit

from reliability.common import Emitter, Seen, new_recorder, new_runtime, perform
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "an `atexit` callback emits 100 events at the end of a program without `shutdown()`", PROCESSES, long=10, quick=1
)


def once() -> None:
    recorder = new_recorder(new_runtime())
    recorder.register_metric(metric=Seen())
    atexit.register(Emitter(recorder).emit_all, 100)


if __name__ == "__main__":
    perform(once)
