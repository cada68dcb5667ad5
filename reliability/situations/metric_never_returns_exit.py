"""A metric never returns, and the program ends without shutdown()."""

from reliability.common import Emitter, Held, new_recorder, new_runtime, perform
from reliability.situation import LIMITS, Situation

SITUATION = Situation(
    "a metric never returns; then the program ends without `shutdown()`",
    LIMITS,
    long=2,
    quick=0,
    deadline=60.0,
    is_limit=True,
)


def once() -> None:
    recorder = new_recorder(new_runtime())
    held = Held()
    recorder.register_metric(metric=held)
    Emitter(recorder).emit_all(100)
    held.reached.wait()


if __name__ == "__main__":
    perform(once)
