"""The snapshot() of one of three metrics raises."""

from collections.abc import Mapping
from typing import Any

from reliability.common import Emitter, Seen, new_recorder, new_runtime, perform, short, tell
from reliability.situation import METRICS, Situation

SITUATION = Situation("`snapshot()` of one of three metrics raises", METRICS, long=20, quick=2, batch=10)


class Failing(Seen):
    """Cannot be shown."""

    def snapshot(self) -> Mapping[str, Any]:
        raise ValueError("a fault in a metric")


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Seen("first"))
    recorder.register_metric(metric=Failing("failing", tally=False))
    recorder.register_metric(metric=Seen("third", tally=False))
    emitter = Emitter(recorder)
    emitter.emit_all(10)
    try:
        snapshots = recorder.get_metric_snapshots()
    except Exception as error:
        tell(f"get_metric_snapshots() raises {short(error)}, no metric can be read")
    else:
        sound = sum(snapshots[name]["dimensions"]["total"] == 10 for name in ("first", "third"))
        tell(f"{sound} of the 2 other metrics can be read")
    emitter.emit_all(10)
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
