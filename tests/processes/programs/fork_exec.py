"""Other programs started while a thread emits: by fork and exec, which run none of a child's hooks, or with some of them."""

import subprocess
import sys
import threading

from tests.processes.programs.common import VARIANT, new_runtime, report, report_statistics
from tests.support import Count, Tick

PROGRAMS = 5


def emit_until_done() -> None:
    global calls  # noqa: PLW0603 — one thread counts
    while not done.is_set():
        recorder.register_event(Tick(calls))
        calls += 1


def emit_in_the_child() -> None:
    """Between fork and exec: this thread is alone, and nothing may block it."""
    recorder.register_event(Tick())


calls = 0
done = threading.Event()
runtime = new_runtime()
# No witness: between fork and exec, the standard output is what the other program's is read from.
recorder = runtime.create_recorder("r")
recorder.register_metric(Count())
emitter = threading.Thread(target=emit_until_done)
emitter.start()
command = (sys.executable, "-S", "-c", "print('hello')")
for _ in range(PROGRAMS):
    if VARIANT == "plain":
        result = subprocess.run(command, capture_output=True, check=False)
    else:
        result = subprocess.run(command, capture_output=True, check=False, preexec_fn=emit_in_the_child)
    report("program", code=result.returncode, said=result.stdout.decode().strip())
done.set()
emitter.join()
runtime.shutdown()
report_statistics("end", recorder, calls=calls)
