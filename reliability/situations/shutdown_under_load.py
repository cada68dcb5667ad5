"""Four threads emit until they are turned away, while the whole runtime is shut down."""

from reliability.common import Emitter, Seen, in_threads, join, new_recorder, new_runtime, perform, tell_errors, until
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "a runtime is shut down while four threads emit", THREADS, long=100, quick=4, deadline=60.0, batch=5
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    seen = Seen()
    recorder.register_metric(metric=seen)
    emitters = [Emitter(recorder) for _ in range(4)]
    threads = in_threads(*(emitter.emit_until_refused for emitter in emitters))
    until(lambda: seen.total > 100)
    runtime.shutdown()
    join(threads)
    tell_errors(emitters)


if __name__ == "__main__":
    perform(once)
