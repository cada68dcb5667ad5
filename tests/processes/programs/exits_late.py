"""An exit callback that was registered before the library's import emits when the library has drained."""

import atexit
import sys


def emit_too_late() -> None:
    try:
        recorder.register_event(Tick())
    except RecorderInvalidStateError as exc:
        report("refused", state=exc.details["recorder_state"])
    report("snapshots", total=recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"])


if "mvx.common.metrics" in sys.modules:
    raise AssertionError("the callback must come before the library's import")
atexit.register(emit_too_late)

from mvx.common.metrics import RecorderInvalidStateError  # noqa: E402 — because the callback must be registered first
from tests.processes.programs.common import Witness, new_runtime, report  # noqa: E402 — because of the same
from tests.support import Tick  # noqa: E402 — because of the same

runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
recorder.register_event(Tick())
