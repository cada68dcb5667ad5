"""A runtime that is never shut down: the process exits by itself, and nothing that was accepted is lost."""

import atexit
import os
import signal
import sys
import threading

from tests.processes.programs.common import VARIANT, Witness, new_runtime
from tests.support import Tick

N = 1000


def emit() -> None:
    for n in range(N):
        recorder.register_event(Tick(n))


def emit_when_main_has_ended() -> None:
    threading.main_thread().join()
    emit()


if VARIANT == "atexit":
    # After the library's import, so it is called before the library's own callback.
    atexit.register(emit)

runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
emit()

if VARIANT == "thread":
    threading.Thread(target=emit_when_main_has_ended).start()
elif VARIANT == "sys.exit":
    sys.exit(3)
elif VARIANT == "exception":
    raise RuntimeError("on purpose")
elif VARIANT == "handled-sigterm":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
    os.kill(os.getpid(), signal.SIGTERM)
