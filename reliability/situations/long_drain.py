"""What is pending at shutdown() takes longer than this library's default drain_timeout of 30 s."""

import time

from reliability.common import Emitter, Slow, figure, look, new_recorder, new_runtime, perform, short, tell
from reliability.situation import LIMITS, Situation

SITUATION = Situation(
    "`shutdown()` with events pending that take 40 s", LIMITS, long=2, quick=0, deadline=90.0, is_limit=True
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Slow(0.4))
    Emitter(recorder).emit_all(100)
    began = time.monotonic()
    try:
        runtime.shutdown()
    except Exception as error:
        tell(f"shutdown() raises {short(error)}")
    else:
        tell("shutdown() returns")
    figure("seconds in shutdown()", time.monotonic() - began)
    look()


if __name__ == "__main__":
    perform(once)
