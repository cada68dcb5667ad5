"""Forks at moments of all kinds: while threads emit, recorders come and go, and the runtime is at work."""

import os
import sys
import threading

from mvx.common.metrics import MetricsRecorder
from tests.processes.programs.common import (
    VARIANT,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
)
from tests.support import Count, Tick

CHILDREN = int(VARIANT)
EMITTERS = 2

done = threading.Event()
begun = threading.Barrier(EMITTERS + 2)
calls = [0] * EMITTERS


def emit_until_done(index: int) -> None:
    begun.wait()
    tick = Tick()
    while not done.is_set():
        recorder.register_event(tick)
        calls[index] += 1


def come_and_go_until_done() -> None:
    begun.wait()
    while not done.is_set():
        passing = runtime.create_recorder("passing", factory=MetricsRecorder)
        passing.register_metric(Count())
        passing.register_event(Tick())
        runtime.stop_and_remove_recorder("passing")


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
threads = [threading.Thread(target=emit_until_done, args=(index,)) for index in range(EMITTERS)]
threads.append(threading.Thread(target=come_and_go_until_done))
for thread in threads:
    thread.start()
begun.wait()
for number in range(CHILDREN):
    child = os.fork()
    if child == 0:
        become(f"child {number}")
        at_fork = recorder.count.total
        report_statistics("at fork", recorder)
        for n in range(100):
            recorder.register_event(Tick(n))
        total = recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"]
        report("counted", events=total - at_fork)
        sys.exit(0)
    report("child ended", code=exit_code_of(child))
done.set()
for thread in threads:
    thread.join()
runtime.shutdown()
report_statistics("at end", recorder, calls=sum(calls))
