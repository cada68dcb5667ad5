"""A metric never returns, with 99 events behind it and 100 in another recorder of the runtime."""

import time

from reliability.common import Emitter, Held, Seen, figure, look, new_recorder, new_runtime, perform, short, tell
from reliability.situation import METRICS, Situation

SITUATION = Situation("a metric never returns; then `shutdown()` is called", METRICS, long=2, quick=0, deadline=90.0)


def once() -> None:
    runtime = new_runtime()
    recorder, neighbour = new_recorder(runtime), new_recorder(runtime, "neighbour")
    held = Held()
    recorder.register_metric(metric=held)
    neighbour.register_metric(metric=Seen())
    Emitter(recorder).emit_all(100)
    held.reached.wait()
    Emitter(neighbour).emit_all(100)
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
