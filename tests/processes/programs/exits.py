"""A runtime that is never shut down: the process exits by itself, and nothing that was accepted is lost."""

import atexit
import os
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

from mvx.common.metrics import MetricsRuntime
from tests.processes.programs.common import VARIANT, Witness, interrupt_main_thread, new_runtime, run_in_loop
from tests.support import Tick

N = 1000


def emit(count: int = N) -> None:
    for n in range(count):
        recorder.register_event(Tick(n))


def emit_when_main_has_ended() -> None:
    threading.main_thread().join()
    emit()


def interrupt_whoever_waits() -> None:
    """Press Ctrl-C while the interpreter waits for this thread, and emit all the same."""
    threading.main_thread().join()
    interrupt_main_thread()
    # The interpreter has given up this thread when it calls the exit callbacks.  A signal that comes just before
    # a wait does not end it: somebody would press again.
    while not callbacks_called.wait(2):
        interrupt_main_thread()
    emit()
    emitted.set()


def wait_for_the_thread_after_all() -> None:
    callbacks_called.set()
    emitted.wait()


class Owner:
    """Something with a finalizer."""


async def leave() -> None:
    sys.exit(3)


if VARIANT == "atexit":
    # After the library's import, so it is called before the library's own callback.
    atexit.register(emit)

runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
emit()

if VARIANT == "thread":
    threading.Thread(target=emit_when_main_has_ended).start()
elif VARIANT == "threads":
    for _ in range(4):
        threading.Thread(target=emit_when_main_has_ended).start()
elif VARIANT == "pool":
    # Two hundred pieces of work for two threads: most of it is still to be done when the main thread ends.
    pool = ThreadPoolExecutor(2)
    for _ in range(200):
        pool.submit(emit, 5)
elif VARIANT == "interrupted-join":
    callbacks_called, emitted = threading.Event(), threading.Event()
    atexit.register(wait_for_the_thread_after_all)
    threading.Thread(target=interrupt_whoever_waits).start()
elif VARIANT == "register_atexit":
    # As concurrent.futures does: called before the threads are joined.
    threading._register_atexit(emit)  # type: ignore[attr-defined] # because it is private
elif VARIANT == "finalizer":
    owner = Owner()
    weakref.finalize(owner, emit)
elif VARIANT == "two":
    second = MetricsRuntime(namespace="second")
    second.start()
    second_recorder = second.create_recorder("second", factory=Witness)
    for number in range(N):
        second_recorder.register_event(Tick(number))
elif VARIANT == "sys.exit":
    sys.exit(3)
elif VARIANT == "sys.exit-in-loop":
    run_in_loop(leave)
elif VARIANT == "os._exit":
    os._exit(5)
elif VARIANT == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif VARIANT == "exception":
    raise RuntimeError("on purpose")
elif VARIANT == "handled-sigterm":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
    os.kill(os.getpid(), signal.SIGTERM)
