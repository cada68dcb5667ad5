"""The last drain: what happens to runtimes that nobody shut down when the interpreter exits.

At its exit CPython joins the non-daemon threads, then calls ``atexit`` callbacks, and only then
freezes the daemon threads.  A callback therefore sees every event of every producer that has
finished, while the runtimes' threads still work.  A forked child of ``multiprocessing`` leaves by
``os._exit()``, which calls none; it has finalizers of its own.  SIGTERM without a handler and
``os._exit()`` itself skip both.
"""

from __future__ import annotations

import atexit
import logging
import sys
import time
from typing import Any, Protocol

from ._log import emit
from ._waiting import OneShot
from .errors import MetricsRuntimeError

EXIT_TIMEOUT = 30.0
"""Seconds that the exit waits for all runtimes together."""


class Drainable(Protocol):
    """A runtime whose thread runs."""

    log_fields: dict[str, Any]

    def begin_shutdown(self) -> OneShot[BaseException | None] | None:
        """Set the shutdown going without waiting; return what to wait for, if there is anything."""
        ...


_running: set[Drainable] = set()
_known_to_multiprocessing: list[bool] = []


def drain_at_exit(runtime: Drainable) -> None:
    """Keep ``runtime`` alive, and drain it at the interpreter's exit, unless it is forgotten before."""
    _running.add(runtime)
    # Only a process that has loaded them can have been made by multiprocessing, or make others by it.
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return
    if process.parent_process() is not None:
        _drain_at_the_end_of_a_child(util)
    if not _known_to_multiprocessing:
        _known_to_multiprocessing.append(True)
        # A child forgets its finalizers when its target is about to run, after it has imported the program,
        # which may have made a runtime.
        util.register_after_fork(_drain, lambda _: _drain_at_the_end_of_a_child(util))


def _drain_at_the_end_of_a_child(util: Any) -> None:
    # Again is harmless: each drain takes what is still running.
    util.Finalize(None, _drain, exitpriority=100)


def forget(runtime: Drainable) -> None:
    """Forget ``runtime``: its thread has ended."""
    _running.discard(runtime)


# Registered when the library is imported: what the application registers later is called earlier,
# and may still emit.  No thread may be started in here.
@atexit.register
def _drain() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT
    while True:
        try:
            _drain_until(deadline)
        except SystemExit:
            # A signal handler asks for an exit, and that is under way: a service manager tells each process of a
            # group to end, and so does their master.  Ctrl-C goes on: somebody does not want to wait.
            continue
        else:
            return


def _drain_until(deadline: float) -> None:
    """Shut everything down that still runs; may be begun again."""
    ends = []
    for runtime in list(_running):
        try:
            ended = runtime.begin_shutdown()
        except MetricsRuntimeError:
            continue
        if ended is not None:
            ends.append((runtime, ended))
    for runtime, ended in ends:
        if not ended.wait(max(0.0, deadline - time.monotonic()), _nothing):
            emit(logging.ERROR, "the runtime was not drained in time at exit", fields=runtime.log_fields)


def _nothing() -> None:
    pass
