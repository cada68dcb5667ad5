"""A metric of one recorder raises; later the runtime is shut down, with events pending in the other recorders."""

from mvx.common.metrics import MetricEvent
from reliability.common import Emitter, Seen, Slow, new_recorder, new_runtime, perform, short, tell, until
from reliability.situation import ENDS, Situation

SITUATION = Situation(
    "`shutdown()` of three recorders with 100 events pending each, after a metric of one of them has raised",
    ENDS,
    long=50,
    quick=2,
    batch=10,
)


class Failing(Seen):
    """Raises at its first event."""

    def handle_event(self, event: MetricEvent) -> bool:
        if super().handle_event(event) and self.total == 1:
            raise ValueError("a fault in a metric")
        return True


def once() -> None:
    runtime = new_runtime()
    names = ("failing", "second", "third")
    recorders = {name: new_recorder(runtime, name) for name in names}
    failing = Failing()
    recorders["failing"].register_metric(metric=failing)
    emitters = {name: Emitter(recorder) for name, recorder in recorders.items()}
    emitters["failing"].emit()
    until(lambda: failing.total)
    for name in ("second", "third"):
        recorders[name].register_metric(metric=Slow(0.0005))
    for emitter in emitters.values():
        emitter.emit_all(100)
    try:
        runtime.shutdown()
    except Exception as error:
        tell(f"shutdown() raises {short(error)}")
    else:
        tell("shutdown() returns")
    states = {name: recorder.get_status().value for name, recorder in recorders.items()}
    tell(f"the recorders end in {', '.join(states.values())}")


if __name__ == "__main__":
    perform(once)
