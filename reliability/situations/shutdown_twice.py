"""Two threads call shutdown() at once, with events pending."""

from reliability.common import Emitter, Slow, in_threads, join, new_recorder, new_runtime, perform, short, tell
from reliability.situation import ENDS, Situation

SITUATION = Situation(
    "two threads call `shutdown()` at once, with 200 events pending", ENDS, long=50, quick=2, batch=10
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    slow = Slow(0.0005)
    recorder.register_metric(metric=slow)
    emitter = Emitter(recorder)
    emitter.emit_all(200)

    seen: set[str] = set()

    def shut_down() -> None:
        try:
            runtime.shutdown()
        except Exception as error:
            seen.add(f"raises {short(error)}")
        else:
            seen.add("returns when all are processed" if slow.total == 200 else "returns before all are processed")

    join(in_threads(shut_down, shut_down))
    for what in sorted(seen):
        tell(f"shutdown() {what}")


if __name__ == "__main__":
    perform(once)
