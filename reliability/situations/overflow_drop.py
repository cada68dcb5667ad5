"""A thousand events for an inbox of a hundred, which the recorder is kept from emptying, under the policy DROP."""

from reliability.common import DROP, Emitter, Held, new_recorder, new_runtime, perform
from reliability.situation import THREADS, Situation

SITUATION = Situation("1 000 events for a queue of 100 that nobody empties, under `DROP`", THREADS, long=10, quick=2)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime, size=100, policy=DROP)
    held = Held()
    recorder.register_metric(metric=held)
    emitter = Emitter(recorder)
    emitter.emit()
    held.reached.wait()
    emitter.emit_all(999)
    held.go.set()
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
