"""Ways of a child to end: without having used the runtime, or without a word in the midst of using it."""

import os
import signal
import sys
import time

from tests.processes.programs.common import DEADLINE, VARIANT, Witness, become, exit_code_of, new_runtime, report
from tests.support import Tick

runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
for number in range(10):
    recorder.register_event(Tick(number))
recorder.flush().wait(DEADLINE)

child = os.fork()
if child == 0:
    become("child")
    if VARIANT == "unused":
        sys.exit(5)
    if VARIANT == "shutdown":
        runtime.shutdown()
        report("shut down", status=runtime.get_status())
        sys.exit(5)
    for number in range(10):
        recorder.register_event(Tick(number))
    if VARIANT == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if VARIANT == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    if VARIANT == "exception":
        raise RuntimeError("on purpose")
    os._exit(5)

forked_at = time.monotonic()
code = exit_code_of(child)
report("child ended", code=code, seconds=time.monotonic() - forked_at)
for number in range(10):
    recorder.register_event(Tick(number))
