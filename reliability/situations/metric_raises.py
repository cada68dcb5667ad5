"""A metric raises at every event; beside it is a sound one, and beside its recorder another recorder."""

import asyncio

from mvx.common.metrics import MetricEvent
from reliability.common import Emitter, Seen, current_case, new_recorder, new_runtime, perform, short, tell, until
from reliability.situation import METRICS, Situation

ERRORS: dict[str, type[BaseException]] = {
    "ValueError": ValueError,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
}
SITUATION = Situation(
    "a metric raises `{case}` at every event; 100 events to its recorder, 100 to a neighbour",
    METRICS,
    long=10,
    quick=1,
    cases=tuple(ERRORS),
)


class Failing(Seen):
    """Raises at every event."""

    def handle_event(self, event: MetricEvent) -> bool:
        self.total += 1
        raise ERRORS[current_case()]("a fault in a metric")


def once() -> None:
    runtime = new_runtime()
    recorder, neighbour = new_recorder(runtime, "failing"), new_recorder(runtime, "neighbour")
    failing = Failing("failing", tally=False)
    recorder.register_metric(metric=failing)
    recorder.register_metric(metric=Seen())
    neighbour.register_metric(metric=Seen())
    emitter, other = Emitter(recorder), Emitter(neighbour)
    emitter.emit()
    until(lambda: failing.total)
    # Time for the failure to take effect, whatever it is.
    until(lambda: recorder.get_status().value != "RUNNING", limit=0.3)
    tell(f"the recorder is {recorder.get_status().value} then, its neighbour {neighbour.get_status().value}")
    emitter.emit_all(99)
    other.emit_all(100)
    if emitter.error:
        tell(f"later emitters get {short(emitter.error)}")
    if other.error:
        tell(f"emitters to the neighbour get {short(other.error)}")
    try:
        runtime.shutdown()
    except Exception as error:
        tell(f"shutdown() raises {short(error)}")


if __name__ == "__main__":
    perform(once)
