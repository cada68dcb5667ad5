"""Signals arrive every 50 µs while the main thread emits, and their handler emits, too."""

import signal
from types import FrameType

from reliability.common import DROP, Emitter, Seen, new_recorder, new_runtime, perform
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "a signal handler emits, thousands of times, amid the emitting of its thread", PROCESSES, long=5, quick=1
)
SIGNALS = 2_000


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime, policy=DROP)
    recorder.register_metric(metric=Seen())
    outside, inside = Emitter(recorder), Emitter(recorder)
    came = 0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came += 1
        inside.emit()
        # One at a time: the next comes when this one has been handled.
        if came < SIGNALS:
            signal.setitimer(signal.ITIMER_REAL, 0.000_05)

    signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.000_05)
    while came < SIGNALS:
        outside.emit()
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
