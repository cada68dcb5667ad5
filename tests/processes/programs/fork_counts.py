"""Parent, child and grandchild share a runtime's recorder, each with a ledger and hooks of its own."""

import os
import sys

from tests.processes.programs.common import (
    DEADLINE,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
)
from tests.support import Tick


def emit(count: int) -> None:
    for n in range(count):
        recorder.register_event(Tick(n))


def total() -> int:
    counted: int = recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"]
    return counted


runtime = new_runtime()
# Without a recorder its loop has no timer either: only a wake-up that arrives can make it do anything.
idle = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
emit(100)
recorder.flush().wait(DEADLINE)

child = os.fork()
if child == 0:
    become("child")
    report_statistics("at fork", recorder, status=recorder.get_status(), runtime=runtime.get_status(), total=total())
    emit(40)
    report("snapshot", total=total())
    grandchild = os.fork()
    if grandchild == 0:
        become("grandchild")
        report_statistics("at fork", recorder, total=recorder.count.total)
        emit(7)
        sys.exit(0)
    emit(2)
    report("grandchild ended", code=exit_code_of(grandchild))
    report("recorders", ids=runtime.list_recorder_ids())
    second = runtime.create_recorder("second", factory=Witness)
    second.register_event(Tick())
    runtime.stop_and_remove_recorder("second")
    sys.exit(0)

emit(60)
report("child ended", code=exit_code_of(child))
# A child that closed the loop it inherited would have made the parent's deaf by now.
report("portal", answer=idle.portal.call(int))
emit(60)
report("snapshot", total=total())
report_statistics("at end", recorder)
