"""A SIGTERM that nobody handles ends the program with events pending."""

import os
import signal

from reliability.common import Emitter, Slow, new_recorder, new_runtime, perform
from reliability.situation import LIMITS, Situation

SITUATION = Situation(
    "`SIGTERM`, which nobody handles, with 1 000 events pending", LIMITS, long=10, quick=1, is_limit=True, exit_code=-15
)


def once() -> None:
    recorder = new_recorder(new_runtime())
    recorder.register_metric(metric=Slow(0.005))
    Emitter(recorder).emit_all(1_000)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    perform(once)
