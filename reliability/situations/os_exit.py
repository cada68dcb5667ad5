"""The program ends by os._exit() with events pending."""

import os

from reliability.common import Emitter, Slow, new_recorder, new_runtime, perform
from reliability.situation import LIMITS, Situation

SITUATION = Situation("`os._exit()` with 1 000 events pending", LIMITS, long=10, quick=1, is_limit=True)


def once() -> None:
    recorder = new_recorder(new_runtime())
    recorder.register_metric(metric=Slow(0.005))
    Emitter(recorder).emit_all(1_000)
    os._exit(0)


if __name__ == "__main__":
    perform(once)
