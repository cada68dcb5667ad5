"""A child that first uses what it has inherited when its main thread has ended: some Pythons start no thread then."""

import atexit
import os
import sys
import threading
import time

from mvx.common.metrics import MetricsError
from tests.processes.programs.common import (
    VARIANT,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
    total_of,
)
from tests.support import Tick


def use() -> None:
    began = time.monotonic()
    for n in range(10):
        try:
            recorder.register_event(Tick(n))
        except MetricsError as exc:
            report("refused", error=type(exc).__name__, cause=type(exc.cause).__name__)
    report("snapshot", total=total_of(recorder))
    try:
        runtime.create_recorder("second", factory=Witness)
    except MetricsError as exc:
        report("not created", error=type(exc).__name__)
    report_statistics("used", recorder, seconds=time.monotonic() - began)


def use_when_main_has_ended() -> None:
    threading.main_thread().join()
    use()


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
child = os.fork()
if child == 0:
    become("child")
    if VARIANT == "atexit":
        atexit.register(use)
    else:
        threading.Thread(target=use_when_main_has_ended).start()
    sys.exit(0)
report("child ended", code=exit_code_of(child))
