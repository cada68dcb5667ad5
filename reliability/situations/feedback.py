"""A metric answers each event by emitting two more to its own recorder, without end; then shutdown() is called."""

import time

from mvx.common.metrics import MetricEvent
from reliability.common import DROP, Emitter, Seen, figure, new_recorder, new_runtime, perform, short, tell, until
from reliability.situation import METRICS, Situation

SITUATION = Situation(
    "a metric emits two events for each that it sees, under `DROP`; then `shutdown()` is called",
    METRICS,
    long=10,
    quick=1,
)


class Echo(Seen):
    """Emits from within."""

    emitter: Emitter

    def handle_event(self, event: MetricEvent) -> bool:
        self.emitter.emit()
        self.emitter.emit()
        return super().handle_event(event)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime, size=1_000, policy=DROP)
    echo = Echo()
    echo.emitter = Emitter(recorder)
    recorder.register_metric(metric=echo)
    Emitter(recorder).emit()
    until(lambda: echo.total > 5_000)
    began = time.monotonic()
    try:
        runtime.shutdown()
    except Exception as error:
        tell(f"shutdown() raises {short(error)}")
    figure("seconds in shutdown()", time.monotonic() - began)


if __name__ == "__main__":
    perform(once)
