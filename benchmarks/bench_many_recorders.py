"""How long does it take to create, register, use and shut down 10 000 recorders, and in how much memory?"""

from __future__ import annotations

import time

from benchmarks.contenders import OURS
from benchmarks.workload import Figures, Settings, answer, rss_mib

CONTENDERS = (*OURS, "mvx-common")
RECORDERS = 10_000


def measure(told: Settings) -> Figures:
    """The whole life of a runtime with many recorders; memory from the second one on.

    The first brings its event loop with it, which some have imported before and others have not.
    """
    from benchmarks.contenders.recorders import Saved, Saves, runtime_of, shown  # noqa: PLC0415 — in the contender's environment

    count = told.times(RECORDERS, RECORDERS // 20)
    began = time.perf_counter()
    runtime = runtime_of(told.contender)
    runtime.start()
    first = runtime.create_recorder("first")
    first.register_metric(Saves())
    first.register_event(Saved(ok=True))
    shown(first)
    rss = rss_mib()
    recorders = []
    for n in range(count):
        recorder = runtime.create_recorder(f"recorder-{n}")
        recorder.register_metric(Saves())
        recorders.append(recorder)
    for recorder in recorders:
        recorder.register_event(Saved(ok=True))
    seen = sum(shown(recorder) for recorder in recorders)
    rss = rss_mib() - rss
    runtime.shutdown()
    took = time.perf_counter() - began
    if seen != count:
        raise RuntimeError(f"{seen} events were seen of {count}")
    return {"seconds": took, "kib_each": rss * 1024 / count}


if __name__ == "__main__":
    answer(measure)
