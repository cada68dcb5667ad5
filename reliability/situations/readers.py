"""Metrics are registered in one thread while others read snapshots and iterate over the metrics."""

import threading

from reliability.common import Emitter, Seen, fault, in_threads, join, new_recorder, new_runtime, perform
from reliability.situation import THREADS, Situation

SITUATION = Situation(
    "500 metrics are registered while two threads read snapshots and list metrics", THREADS, long=10, quick=1, batch=2
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Seen())
    ended = threading.Event()
    failed: list[Exception] = []

    def read(what: str) -> None:
        while not ended.is_set():
            try:
                if what == "snapshots":
                    recorder.get_metric_snapshots()
                else:
                    list(recorder.iter_metrics())
            except Exception as error:
                failed.append(error)

    threads = in_threads(lambda: read("snapshots"), lambda: read("metrics"))
    emitter = Emitter(recorder)
    for n in range(500):
        recorder.register_metric(metric=Seen(f"metric {n}", tally=False))
        emitter.emit(n)
    ended.set()
    join(threads)
    runtime.shutdown()
    fault("readings that raised", len(failed))


if __name__ == "__main__":
    perform(once)
