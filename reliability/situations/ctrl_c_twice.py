"""Ctrl-C ends the main loop of a program, and comes again while its `finally` waits for shutdown()."""

import signal
import threading

from reliability.common import Emitter, Slow, in_threads, new_recorder, new_runtime, perform, tell
from reliability.situation import LIMITS, Situation

SITUATION = Situation(
    "Ctrl-C, and a second one 0.2 s later while `shutdown()` drains events for 2 s",
    LIMITS,
    long=10,
    quick=1,
    is_limit=True,
)


def press() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Slow(0.01))
    draining = threading.Event()

    def interrupt() -> None:
        press()
        draining.wait()
        threading.Event().wait(0.2)
        press()

    emitter, pause = Emitter(recorder), threading.Event()
    try:
        emitter.emit_all(200)
        in_threads(interrupt)
        pause.wait()
    except KeyboardInterrupt:
        draining.set()
        try:
            runtime.shutdown()
            tell("shutdown() returns")
        except KeyboardInterrupt:
            tell("the second Ctrl-C came out of shutdown()")


if __name__ == "__main__":
    perform(once)
