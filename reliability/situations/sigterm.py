"""A SIGTERM arrives while the main thread emits; its handler shuts the runtime down, and waits for it."""

import os
import signal

from reliability.common import Emitter, Seen, in_threads, new_recorder, new_runtime, perform, tell_errors, until
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "a handler of `SIGTERM` calls `shutdown()` amid the emitting of the main thread", PROCESSES, long=20, quick=2
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    seen = Seen()
    recorder.register_metric(metric=seen)
    signal.signal(signal.SIGTERM, lambda *_: runtime.shutdown())
    emitter = Emitter(recorder)

    def terminate() -> None:
        until(lambda: seen.total > 1_000)
        os.kill(os.getpid(), signal.SIGTERM)

    in_threads(terminate)
    emitter.emit_until_refused()
    tell_errors([emitter])


if __name__ == "__main__":
    perform(once)
