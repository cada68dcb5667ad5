"""Four threads emit more than there is room for, under the policy RAISE_ERROR."""

from reliability.common import Emitter, Seen, in_threads, join, new_recorder, new_runtime, perform, tell_errors
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "four threads emit more than there is room for, under `RAISE_ERROR`", THREADS, long=50, quick=2, batch=10
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime, size=10)
    recorder.register_metric(metric=Seen())
    emitters = [Emitter(recorder) for _ in range(4)]
    join(in_threads(*(lambda emitter=emitter: emitter.emit_all(2_000) for emitter in emitters)))
    runtime.shutdown()
    tell_errors(emitters)


if __name__ == "__main__":
    perform(once)
