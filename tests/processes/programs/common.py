"""What the programs share: the backend of the command line, reports on stdout, a recorder that reports."""

from __future__ import annotations

import atexit
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import mvx.common.metrics
from mvx.common.metrics import MetricsRecorder, MetricsRuntime, _exit, _supervisor
from mvx.common.metrics._engine import Engine
from tests.support import Count

DEADLINE = 15.0
"""Seconds after which a wait of a program gives up, for the sake of a traceback; less than the tests' own."""

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
NAME = sys.argv[1]
VARIANT = sys.argv[2] if len(sys.argv) > 2 else ""

_role = "main"


def become(role: str) -> None:
    """Say which of several processes this is, in every report from now on."""
    global _role  # noqa: PLW0603 — one process has one role
    _role = role


def report(what: str, **values: object) -> None:
    """Print one line of JSON, by one system call: it works at any moment of a process's end, and never mixes."""
    os.write(1, (json.dumps({"role": _role, "what": what, **values}) + "\n").encode())


def report_statistics(what: str, recorder: MetricsRecorder, **more: object) -> None:
    """Report every number of the ledger."""
    report(what, **dataclasses.asdict(recorder.statistics()), **more)


def new_runtime(**options: Any) -> MetricsRuntime:
    """Return a runtime on the backend of the command line, started."""
    runtime = MetricsRuntime(namespace="t", **BACKENDS[NAME], **options)
    runtime.start()
    return runtime


def run_in_loop(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main()`` as an application would: by asyncio's runner, on uvloop too, or by trio."""
    if NAME == "trio":
        import trio  # noqa: PLC0415 — only where it is asked for

        trio.run(main)
        return
    import asyncio  # noqa: PLC0415 — only where it is asked for

    async def body() -> None:
        await main()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(body())


def new_event_loop() -> Any:
    """Return an asyncio event loop of the kind of the command line."""
    if NAME == "uvloop":
        import uvloop  # noqa: PLC0415 — only where it is asked for

        return uvloop.new_event_loop()
    import asyncio  # noqa: PLC0415 — only where it is asked for

    return asyncio.new_event_loop()


def shorten_bounds(seconds: float) -> None:
    """Replace the library's generous bounds, which spare a loaded machine, for a test that runs into them."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("mvx.common.metrics."):
            for bound in ("GRACE", "MIN_STOPPED_HOOK_TIMEOUT", "EXIT_TIMEOUT"):
                if hasattr(module, bound):
                    setattr(module, bound, seconds)


def use_engine(kind: type[Engine]) -> None:
    """Have every runtime work with another engine."""
    _supervisor.Engine = kind  # type: ignore[attr-defined] # because it is not exported


def after_the_drain(callback: Callable[[], object]) -> None:
    """Call ``callback`` at the exit when the library has drained, as if registered before the library's import."""
    atexit.unregister(_exit._drain)
    atexit.register(callback)
    atexit.register(_exit._drain)


def total_of(recorder: MetricsRecorder) -> int:
    """Return what a Witness has counted, by a snapshot: when everything accepted so far has been processed."""
    total: int = recorder.get_metric_snapshots()["witnessed"]["dimensions"]["total"]
    return total


def interrupt_main_thread() -> None:
    """Press Ctrl-C; the interpreter may take note a moment later."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def exit_code_of(pid: int) -> int:
    """Wait for a child and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class AtStep:
    """Calls ``action`` once, at the n-th step of a block, where the interpreter would call a signal handler.

    That is at the call of a function of Python, and after one of C.  Only the library counts, and what in the
    event loops wakes them.
    """

    FILES = (
        str(Path(mvx.common.metrics.__file__).parent),
        *(str(Path("trio/_core") / name) for name in ("_entry_queue.py", "_wakeup_socketpair.py")),
        *(str(Path("asyncio") / name) for name in ("base_events.py", "selector_events.py")),
    )

    def __init__(self, n: int, action: Callable[[], object]) -> None:
        self.where: str | None = None
        """Where that was; None if the block had no n steps."""
        self._left = n
        self._action = action

    def __enter__(self) -> None:
        sys.setprofile(self._look)

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, function: object) -> None:
        if event in ("call", "c_return") and any(name in frame.f_code.co_filename for name in self.FILES):
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                name = getattr(function, "__name__", "")
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {event} {name}".rstrip()
                self._action()


class Witness(MetricsRecorder):
    """Reports its hooks of start and end; counts into a metric of its own."""

    def __init__(self, entity_id: str, **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.count = Count("witnessed")
        self.register_metric(self.count)

    async def _on_starting(self) -> None:
        report("starting")

    async def _on_stopped(self) -> None:
        report_statistics("stopped", self, total=self.count.total)


def _not_about_slowness(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Executing ")


# On a busy machine asyncio's debug mode finds callbacks slow that are not.
logging.getLogger("asyncio").addFilter(_not_about_slowness)

# What the library logs as an error is seen on stderr; that of overflows, which are meant, is a warning.
_to_stderr = logging.StreamHandler()
_to_stderr.setLevel(logging.ERROR)
logging.getLogger("mvx.common.metrics").addHandler(_to_stderr)
