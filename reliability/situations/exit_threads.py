"""The main thread ends, without shutdown(), while two other threads of the program still emit."""

import threading

from reliability.common import Emitter, Seen, in_threads, new_recorder, new_runtime, perform
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "the main thread ends, without `shutdown()`, while two threads still emit for 0.3 s", PROCESSES, long=10, quick=1
)


def once() -> None:
    recorder = new_recorder(new_runtime())
    recorder.register_metric(metric=Seen())

    def emit() -> None:
        emitter, pause = Emitter(recorder), threading.Event()
        for _ in range(300):
            emitter.emit()
            pause.wait(0.001)

    in_threads(emit, emit)


if __name__ == "__main__":
    perform(once)
