"""Three threads go on emitting while the recorder is stopped and started again ten times."""

import threading

from reliability.common import Emitter, Seen, in_threads, join, new_recorder, new_runtime, perform, tell
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "a recorder is stopped and started again ten times while three threads emit",
    THREADS,
    long=20,
    quick=2,
    deadline=60.0,
    batch=2,
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Seen())
    ended = threading.Event()

    def emit(emitter: Emitter) -> None:
        while not ended.is_set():
            if not emitter.emit():
                ended.wait(0.0001)

    threads = in_threads(*(lambda: emit(Emitter(recorder)) for _ in range(3)))
    for _ in range(10):
        ended.wait(0.002)
        for operation in (recorder.stop, recorder.start):
            result = operation().wait()
            if not result.success:
                tell(f"{operation.__name__}() failed: {result.error}")
    ended.set()
    join(threads)
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
